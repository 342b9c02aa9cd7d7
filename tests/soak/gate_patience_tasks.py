"""Tasks that find out by themselves when one too many of them runs: by locks of the operating system on files, which
end with their process.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from chancy import Limit, task

MOST = 3


@contextmanager
def one_of(folder: str, key: str) -> Iterator[None]:
    """One of MOST places of a key, or a line in the file `too_many`."""
    for place in range(MOST):
        file = os.open(Path(folder, f"{key}-{place}"), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        try:
            yield
        finally:
            os.close(file)
        return
    say(folder, "too_many", key)
    yield


def say(folder: str, name: str, what: str) -> None:
    file = os.open(Path(folder, name), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(file, f"{what} {time.time()}\n".encode())
    os.close(file)


async def work(folder: str, key: str, seconds: float) -> None:
    with one_of(folder, key):
        await asyncio.sleep(seconds)


@task(limits=[Limit.concurrency(MOST, key=lambda key: key)], max_attempts=20)
async def limited(folder: str, key: str, seconds: float) -> None:
    await work(folder, key, seconds)


@task(max_attempts=20)
async def unlimited(folder: str, key: str, seconds: float) -> None:
    """The same work, each under a key of its own."""
    await work(folder, key + os.urandom(4).hex(), seconds)


@task(limits=[Limit.rate(50, per=timedelta(seconds=1))])
async def rated(folder: str) -> None:
    say(folder, "began", "x")


@task(group=lambda tenant: tenant)
async def of_a_tenant(folder: str, tenant: str) -> None:
    say(folder, "began", tenant)


@task(limits=[Limit.concurrency(1)])
async def blocked(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task
async def free(folder: str) -> None:
    say(folder, "began", "free")
