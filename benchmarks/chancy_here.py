"""Chancy itself as a contender: the packages of this checkout."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg

import chancy
from chancy import Chancy, Limit, Queue, task
from chancy_worker import Worker
from chancy_worker.__about__ import __version__
from chancy_worker.cli import runner
from chancy_worker.logs.setting import set_up
from contender import Submitter, begun, doze, main, stamp


@task(name="noop")
async def noop(number: int) -> None:
    """Nothing."""
    begun()


@task(name="thread")
def thread(number: int) -> None:
    """Nothing, in a thread."""
    begun()


@task(name="child", executor="process")
def child(number: int) -> None:
    """Nothing, in a child process."""
    begun()


@task(name="sleep")
async def sleep(number: int) -> None:
    """10 ms."""
    await doze()


@task(name="stamp")
async def stamped(number: int) -> None:
    """Say when it began."""
    stamp(number)


@task(name="keyed", limits=[Limit.concurrency(3, key=lambda number: number % 50)])
async def keyed(number: int) -> None:
    """Nothing, three at a time of each key."""
    begun()


@task(name="wide", limits=[Limit.concurrency(10_000)])
async def wide(number: int) -> None:
    """10 ms, under a limit that nobody comes near."""
    await doze()


TASKS = {
    "noop": noop, "thread": thread, "child": child, "sleep": sleep, "stamp": stamped, "keyed": keyed, "wide": wide
}  # fmt: skip


def prepare(dsn: str) -> None:
    """`python -m chancy migrate`."""
    with psycopg.connect(dsn) as conn:
        chancy.migrate(conn)


def describe() -> dict[str, str]:
    """What is measured."""
    return {
        "name": "Chancy",
        "version": __version__,
        "left": "SELECT EXISTS (SELECT FROM chancy.job)",
        "default": "chancy-worker as it is: 100 jobs at a time, on asyncio's loop, its log, a line a job, in a file.",
        "best": "as many at a time as the benchmark says, on uvloop where that is installed (chancy-worker[fast]).",
        "pip": "chancy-worker",
    }


class AsyncSubmitter:
    """On an AsyncConnection of the user's."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.conn = conn

    async def one(self, kind: str, number: int) -> None:
        """One round trip: the connection is in autocommit."""
        await TASKS[kind].submit(self.conn, number)

    async def many(self, kind: str, count: int) -> None:
        """Arguments are checked and encoded here, too."""
        await chancy.submit_many(self.conn, [TASKS[kind].bind(number) for number in range(count)])

    async def together(self, kind: str, count: int) -> None:
        """In a transaction of the user's."""
        async with self.conn.transaction():
            for number in range(count):
                await TASKS[kind].submit(self.conn, number)


class SyncSubmitter:
    """On a Connection of the user's; async in form only."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    async def one(self, kind: str, number: int) -> None:
        """One round trip: the connection is in autocommit."""
        TASKS[kind].submit(self.conn, number)

    async def many(self, kind: str, count: int) -> None:
        """Arguments are checked and encoded here, too."""
        chancy.submit_many(self.conn, [TASKS[kind].bind(number) for number in range(count)])

    async def together(self, kind: str, count: int) -> None:
        """In a transaction of the user's."""
        with self.conn.transaction():
            for number in range(count):
                TASKS[kind].submit(self.conn, number)


@asynccontextmanager
async def connected(
    dsn: str,
    sync: Callable[[psycopg.Connection[Any]], Submitter],
    not_sync: Callable[[psycopg.AsyncConnection[Any]], Submitter],
) -> AsyncIterator[Submitter]:
    """One or the other on a connection in autocommit: BENCH_STYLE says which."""
    if os.environ.get("BENCH_STYLE") == "sync":
        with psycopg.connect(dsn, autocommit=True) as conn:
            yield sync(conn)
    else:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            yield not_sync(conn)


def work(dsn: str, kind: str, setting: str, concurrency: int) -> None:
    """What `chancy-worker` runs, its line a job included; "default" is on asyncio's loop even with uvloop installed."""
    set_up("plain", "info")
    app = Chancy(dsn) if setting == "default" else Chancy(dsn, queues=[Queue(concurrency=concurrency)])
    with runner("asyncio" if setting == "default" else "auto") as loop:
        loop.run(Worker(app).start())


if __name__ == "__main__":
    main(
        prepare=prepare,
        describe=describe,
        submitter=lambda dsn: connected(dsn, SyncSubmitter, AsyncSubmitter),
        work=work,
    )
