"""Perform one claimed job: arguments, middleware, the function, and the verdict. Never raises but when cancelled."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from chancy.current import CurrentJob, running_attempt
from chancy.errors import InvalidResult
from chancy.schema import attempt_schema
from chancy.states import State
from chancy.task import BaseTask

from . import forks
from .verdict import Claimed, Completion, Since, failure, judged, succeeded

_STOPPED = (asyncio.CancelledError, GeneratorExit)
"""What is thrown into a coroutine from outside."""

Proceed = Callable[[], Awaitable[Completion]]
Middleware = Callable[[CurrentJob, Proceed], Awaitable[Completion]]
"""A plain async function around an attempt: it awaits `proceed()` once and returns its completion, or another."""


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One try of a job, about to run."""

    job: Claimed
    task: BaseTask[..., Any]
    current: CurrentJob
    since: Since
    limits: dict[str, float]
    """Seconds of `time`, bytes of `memory`."""
    began: Callable[[], None]
    """To be called when the function really begins: time limits count from there."""


class Executor(Protocol):
    """A place where functions run. Cancelling `run` ends the attempt there, as far as that place can."""

    @property
    def size(self) -> int | None:
        """How many attempts it takes at a time at the moment; None leaves that to the queues."""

    @property
    def problem(self) -> str | None:
        """Why none can begin there at the moment, for whoever asks how the worker is; None if all is well."""

    async def run(self, attempt: Attempt, /) -> Completion:
        """Call the task's function and return the verdict."""

    async def close(self) -> None:
        """Take no more, and leave nothing behind that could be ended."""


async def perform(attempt: Attempt, executor: Executor, middleware: Sequence[Middleware], schema: str) -> Completion:
    """Run the job's function where it belongs, inside the middleware, and say how it went."""
    running_attempt.set(attempt.current)
    attempt_schema.set(schema)
    try:
        if not middleware:
            return await executor.run(attempt)
        proceed: Proceed = functools.partial(executor.run, attempt)
        for around in reversed(middleware):
            proceed = functools.partial(around, attempt.current, proceed)
        return await proceed()
    except _STOPPED:
        raise
    except BaseException as error:  # of a middleware
        return judged(attempt.job, error, attempt.since, attempt.task.retry_delay)


Explain = Callable[[BaseException], BaseException]
"""What an exception of the function really means, where it has run."""


def as_it_is(error: BaseException) -> BaseException:
    """Nothing else."""
    return error


def call(job: Claimed, task: BaseTask[..., Any], since: Since, explain: Explain = as_it_is) -> Completion:
    """Call a plain function here and now. Does not return in a process that the function has forked."""
    here = os.getpid()
    try:
        args, kwargs = task.signature.decode_arguments(job.arguments)
        result = task.function(*args, **kwargs)
        forks.end_unless(here)
        return _returned(job, task, result, since)
    except BaseException as error:  # SystemExit too: whatever ends the function, the worker goes on
        forks.end_unless(here, error)
        return judged(job, explain(error), since, task.retry_delay)


async def call_async(job: Claimed, task: BaseTask[..., Any], since: Since, explain: Explain = as_it_is) -> Completion:
    """Await an async function here and now. Does not return in a process that the function has forked."""
    here = os.getpid()
    try:
        args, kwargs = task.signature.decode_arguments(job.arguments)
        result = await task.function(*args, **kwargs)
        forks.end_unless(here)
        return _returned(job, task, result, since)
    except BaseException as error:
        forks.end_unless(here, error)
        if isinstance(error, _STOPPED):
            raise
        return judged(job, explain(error), since, task.retry_delay)


def _returned(job: Claimed, task: BaseTask[..., Any], result: Any, since: Since) -> Completion:
    try:
        return succeeded(job, task.signature.encode_result(result))
    except InvalidResult as error:
        # Final: the effects are there, and another attempt would return the same kind of value.
        return failure(job, State.FAILED, error, since)
