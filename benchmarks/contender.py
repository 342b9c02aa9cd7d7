"""What the benchmark asks of a queue, and the jobs that every queue runs.

The standard library alone, since each queue lives in an environment of its own: a contender is a script that calls
`main` and is started once for each part.

    prepare                        make the queue's tables, from nothing, in an empty database
    describe                       the queue's version, its settings, and the query that says whether work is left
    fill KIND COUNT BATCH          add jobs by the fastest way that the queue has, BATCH in each call
    submit KIND COUNT SECONDS      add jobs one by one, each in a transaction of its own, with random gaps
    together KIND COUNT            add jobs one by one in a single transaction
    work KIND SETTING CONCURRENCY  work until SIGTERM, as one process; SETTING is "default" or "best"

What it prints last is JSON. Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

KINDS = ("noop", "thread", "sleep", "stamp", "child", "keyed", "wide")
"""Async and empty; sync and empty; async for 10 ms; async, and tells when it began; sync and empty, in a process; async
and empty, three at a time of each of 50 keys; async for 10 ms, 10,000 at a time."""

SLEEP_SECONDS = 0.01

_begun = False
_dozed = 0.0


class Submitter(Protocol):
    """A connection that adds jobs; what a job of kind "stamp" is told is its number."""

    async def one(self, kind: str, number: int) -> None:
        """Add one job and commit."""

    async def many(self, kind: str, count: int) -> None:
        """Add `count` jobs in one call and commit."""

    async def together(self, kind: str, count: int) -> None:
        """Add `count` jobs, one by one, and commit once. NotImplementedError where the queue has no such thing."""


def begun() -> None:
    """What an empty job does: the first of a process says when it began."""
    global _begun
    if not _begun:
        _begun = True
        _say("BENCH_BEGUN", f"{time.monotonic()}\n")


async def doze() -> None:
    """What an async job of kind "sleep" does; how long all of them took is told at the end."""
    global _dozed
    begun()
    since = time.monotonic()
    await asyncio.sleep(SLEEP_SECONDS)
    if not _dozed:
        atexit.register(lambda: _say("BENCH_DOZED", f"{_dozed}\n"))
    _dozed += time.monotonic() - since


def stamp(number: int) -> None:
    """What a job of kind "stamp" does: it says when it began."""
    _say("BENCH_STAMPS", f"{number} {time.monotonic()}\n")


def _say(variable: str, text: str) -> None:
    descriptor = os.open(os.environ[variable], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def main(
    *,
    prepare: Callable[[str], None],
    describe: Callable[[], dict[str, str]],
    submitter: Callable[[str], AbstractAsyncContextManager[Submitter]],
    work: Callable[[str, str, str, int], Awaitable[None] | None],
) -> None:
    """Play one part. Each function is given libpq's connection string, BENCH_DSN, first."""
    dsn = os.environ.get("BENCH_DSN", "")
    match sys.argv[1:]:
        case ["prepare"]:
            prepare(dsn)
        case ["describe"]:
            print(json.dumps(describe()))
        case ["fill", kind, count, batch]:
            print(json.dumps(asyncio.run(_fill(submitter(dsn), kind, int(count), int(batch)))))
        case ["submit", kind, count, seconds]:
            print(json.dumps(asyncio.run(_submit(submitter(dsn), kind, int(count), float(seconds)))))
        case ["together", kind, count]:
            print(json.dumps(asyncio.run(_together(submitter(dsn), kind, int(count)))))
        case ["work", kind, setting, concurrency]:
            working = work(dsn, kind, setting, int(concurrency))
            if working is not None:
                asyncio.run(_awaited(working))
        case _:
            sys.exit(__doc__)


async def _awaited(working: Awaitable[None]) -> None:
    await working


async def _fill(opening: AbstractAsyncContextManager[Submitter], kind: str, count: int, batch: int) -> dict[str, float]:
    async with opening as submitter:
        await submitter.many(kind, min(batch, count))  # the statements are prepared, the code is warm
        began = time.monotonic()
        for start in range(batch, count, batch):
            await submitter.many(kind, min(batch, count - start))
        return {"seconds": time.monotonic() - began, "jobs": max(0, count - batch)}


async def _submit(
    opening: AbstractAsyncContextManager[Submitter], kind: str, count: int, seconds: float
) -> dict[str, object]:
    """`committed` are the moments at which each call returned."""
    committed = []
    async with opening as submitter:
        began = time.monotonic()
        for number in range(count):
            if seconds:
                await asyncio.sleep(random.uniform(0, 2 * seconds))
            await submitter.one(kind, number)
            committed.append(time.monotonic())
    return {"seconds": time.monotonic() - began, "jobs": count, "committed": committed if seconds else []}


async def _together(opening: AbstractAsyncContextManager[Submitter], kind: str, count: int) -> dict[str, float]:
    async with opening as submitter:
        await submitter.together(kind, 10)
        began = time.monotonic()
        await submitter.together(kind, count)
        return {"seconds": time.monotonic() - began, "jobs": count}
