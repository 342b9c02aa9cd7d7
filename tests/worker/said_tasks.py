"""Tasks that use a library which logs by a logger of its own, in every place where a task can run."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from datetime import UTC, datetime
from typing import Any

from worker_tasks import AT_ONCE

from chancy import Discard, task

library = logging.getLogger("vendor.http")


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


EXTRA: dict[str, Any] = {"url": "https://example.com", "tries": 3, "when": datetime(2026, 1, 2, tzinfo=UTC)}
WORSE: dict[str, Any] = {"job": "theirs", "level": "theirs", "broken": Unshowable(), "half": "a\ud800b", "fine": [1]}
WORSE["itself"] = [WORSE]


def use_the_library(number: int) -> None:
    library.info("request %d", number, extra=EXTRA)


@task(queue="said")
async def say_on_loop(number: int) -> None:
    use_the_library(number)
    await asyncio.sleep(0)
    await asyncio.create_task(asyncio.to_thread(use_the_library, number))


@task(queue="said")
def say_in_thread(number: int) -> None:
    use_the_library(number)
    use_the_library(number)


@task(queue="said", executor="process")
def say_in_process(number: int) -> None:
    use_the_library(number)
    use_the_library(number)


@task(queue="said", executor="process")
async def say_async_in_process(number: int) -> None:
    use_the_library(number)
    await asyncio.to_thread(use_the_library, number)


PLACES = [say_on_loop, say_in_thread, say_in_process, say_async_in_process]


@task(queue="said")
async def say_worse_on_loop() -> None:
    library.info("worse", extra=WORSE)


@task(queue="said", executor="process")
def say_worse_in_process() -> None:
    library.info("worse", extra=WORSE)


@task(queue="said")
async def say_once(number: int) -> None:
    library.info("says %d", number)


@task(queue="said")
async def kill_my_worker_soon() -> None:
    """From beside its loop, whatever that is at then."""
    threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGKILL]).start()


class Own(ValueError):
    pass


def fails(number: int) -> None:
    raise Own(f"not {number}")


@task(queue="said", max_attempts=2, retry=AT_ONCE)
async def fail_on_loop(number: int) -> None:
    fails(number)


@task(queue="said", max_attempts=2, retry=AT_ONCE)
def fail_in_thread(number: int) -> None:
    fails(number)


@task(queue="said", max_attempts=2, retry=AT_ONCE, executor="process")
def fail_in_process(number: int) -> None:
    fails(number)


FAILING = [fail_on_loop, fail_in_thread, fail_in_process]


@task(queue="said")
async def give_up(number: int) -> None:
    raise Discard(f"never {number}")
