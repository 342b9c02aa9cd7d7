"""Surrounds, each odd in its own way, where child processes can import them; and tasks that say what is around them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from chancy import Backoff, CurrentJob, Discard, Limit, Snooze, current_job, task

inside: ContextVar[str] = ContextVar("inside", default="nothing")
trail: list[str] = []
"""What has happened in this process."""
left_in: Path | None = None
"""Where surrounds of any process write a line when they are left."""


def note(what: str) -> None:
    trail.append(what)


@contextlib.contextmanager
def around(job: CurrentJob) -> Iterator[None]:
    note("enter")
    inside.set(f"{job.task.rpartition('.')[2]} {job.attempt} {os.getpid()} {threading.get_ident()}")
    try:
        yield
    except BaseException as error:
        note(f"exit {type(error).__name__}")
        raise
    else:
        note("exit")


@contextlib.contextmanager
def in_a_file(job: CurrentJob) -> Iterator[None]:
    """Says in the file of its job's `meta` when it is left, and how."""
    with Path(job.meta["file"]).open("a") as file:
        file.write("enter\n")
    try:
        yield
    except BaseException as error:
        left = type(error).__name__
        raise
    else:
        left = "well"
    finally:
        with Path(job.meta["file"]).open("a") as file:
            file.write(f"exit {left}\n")


@contextlib.contextmanager
def raises_first(job: CurrentJob) -> Iterator[None]:
    raise ArithmeticError("on enter")
    yield


@contextlib.contextmanager
def raises_last(job: CurrentJob) -> Iterator[None]:
    try:
        yield
    finally:
        raise ArithmeticError("on exit")


@contextlib.contextmanager
def swallows(job: CurrentJob) -> Iterator[None]:
    with contextlib.suppress(BaseException):
        yield


@contextlib.contextmanager
def translates(job: CurrentJob) -> Iterator[None]:
    try:
        yield
    except LookupError as error:
        raise Discard("translated") from error


@contextlib.contextmanager
def never_yields(job: CurrentJob) -> Iterator[None]:
    if job is None:
        yield


@contextlib.contextmanager
def yields_twice(job: CurrentJob) -> Iterator[None]:
    yield
    yield


def gives_nothing(job: CurrentJob) -> None: ...


def takes_nothing() -> Any: ...


async def is_async(job: CurrentJob) -> None: ...


@contextlib.asynccontextmanager
async def is_async_manager(job: CurrentJob):
    yield


class HalfManager:
    def __enter__(self) -> None: ...


def half(job: CurrentJob) -> Any:
    return HalfManager()


def leaves_the_program(job: CurrentJob) -> Any:
    raise SystemExit(3)


@contextlib.contextmanager
def leaves_the_program_last(job: CurrentJob) -> Iterator[None]:
    yield
    raise KeyboardInterrupt


class AroundClass:
    """A context manager of a class, whose instances know nothing of `__exit__`."""

    def __init__(self, job: CurrentJob) -> None:
        self.job = job

    def __enter__(self) -> None:
        note("enter")

    def __exit__(self, *_: object) -> None:
        note("exit")


class Holder:
    @staticmethod
    def around(job: CurrentJob) -> Any:
        return AroundClass(job)


@contextlib.contextmanager
def forks_first(job: CurrentJob) -> Iterator[None]:
    if not os.fork():
        Path(job.meta["file"]).with_suffix(".fork").touch()
    with in_a_file(job):
        yield


@contextlib.contextmanager
def forks_last(job: CurrentJob) -> Iterator[None]:
    with in_a_file(job):
        yield
    os.fork()


@contextlib.contextmanager
def hangs(job: CurrentJob) -> Iterator[None]:
    with in_a_file(job):
        time.sleep(600)
        yield


@task(name="surround_tasks.tell")
def tell() -> str:
    return inside.get()


@task(name="surround_tasks.tell_async")
async def tell_async() -> str:
    await asyncio.sleep(0)
    return inside.get()


@task(name="surround_tasks.tell_in_a_child", executor="process")
def tell_in_a_child() -> str:
    return inside.get()


@task(name="surround_tasks.tell_async_in_a_child", executor="process")
async def tell_async_in_a_child() -> str:
    await asyncio.sleep(0)
    return inside.get()


TELLING = [tell, tell_async, tell_in_a_child, tell_async_in_a_child]


@task(name="surround_tasks.fail", max_attempts=1)
def fail(kind: str = "LookupError") -> None:
    note("function")
    if kind == "Snooze":
        raise Snooze(3600)
    raise {"LookupError": LookupError, "Discard": Discard, "SystemExit": SystemExit}[kind]("of the function")


@task(name="surround_tasks.fail_async", max_attempts=1)
async def fail_async(kind: str = "LookupError") -> None:
    fail(kind)


@task(name="surround_tasks.fail_in_a_child", max_attempts=1, executor="process")
def fail_in_a_child(kind: str = "LookupError") -> None:
    fail(kind)


FAILING = [fail, fail_async, fail_in_a_child]


@task(name="surround_tasks.fail_twice", max_attempts=2, retry=Backoff(base=0.01))
def fail_twice() -> None:
    job = current_job()
    raise ArithmeticError(f"{job.trace} after {job.error.trace if job.error else 'nothing'}")


@task(name="surround_tasks.fail_twice_async", max_attempts=2, retry=Backoff(base=0.01))
async def fail_twice_async() -> None:
    fail_twice()


@task(name="surround_tasks.fail_twice_in_a_child", max_attempts=2, retry=Backoff(base=0.01), executor="process")
def fail_twice_in_a_child() -> None:
    fail_twice()


@task(name="surround_tasks.late_twice", max_attempts=2, retry=Backoff(base=0.01), limits=[Limit.time(0.1)])
async def late_twice() -> None:
    await asyncio.sleep(600)


FAILING_TWICE = [fail_twice, fail_twice_async, fail_twice_in_a_child]


@task(name="surround_tasks.wait", max_attempts=1)
async def wait() -> None:
    note("function")
    await asyncio.sleep(600)


@task(name="surround_tasks.wait_a_moment", max_attempts=1, limits=[Limit.time(0.2)])
async def wait_a_moment() -> None:
    await asyncio.sleep(600)


@task(name="surround_tasks.fork", max_attempts=1)
def fork() -> int:
    """A process that it forks comes back out of it."""
    pid = os.fork()
    return pid and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@task(name="surround_tasks.fork_in_a_child", max_attempts=1, executor="process")
def fork_in_a_child() -> int:
    return fork()


@task(name="surround_tasks.hold", max_attempts=1, limits=[Limit.time(3)])
def hold() -> None:
    """Its time begins when it is sent to its child, which may be slow to begin."""
    note(current_job().task)


@task(name="surround_tasks.takes_a_number", max_attempts=1)
def takes_a_number(number: int) -> None: ...
