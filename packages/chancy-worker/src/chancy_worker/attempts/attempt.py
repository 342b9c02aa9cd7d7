"""Perform one claimed job: arguments, middleware, the function, and the verdict. Never raises but when cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec

from chancy.current import CurrentJob, running_attempt
from chancy.errors import InvalidArguments
from chancy.schema import attempt_schema
from chancy.task import BaseTask
from chancy_worker import forks

from .middleware import Middleware, go_through
from .refusals import unfit
from .returned import as_said, returned
from .surround import Surround, Within
from .verdict import Claimed, Completion, Since, judged


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

    def run(self, attempt: Attempt, /) -> Coroutine[Any, Any, Completion]:
        """Call the task's function and return the verdict. Raises nothing but `CancelledError`."""

    async def close(self) -> None:
        """Take no more, and leave nothing behind that could be ended."""


def perform(
    attempt: Attempt, executor: Executor, middleware: Sequence[Middleware], schema: str
) -> Coroutine[Any, Any, Completion]:
    """Run the job's function where it belongs, inside the middleware, and say how it went. To be called and awaited in
    a context of the attempt's own.
    """
    running_attempt.set(attempt.current)
    attempt_schema.set(schema)
    return _perform_within(middleware, attempt, executor) if middleware else executor.run(attempt)


async def _perform_within(middleware: Sequence[Middleware], attempt: Attempt, executor: Executor) -> Completion:
    try:
        run = functools.partial(executor.run, attempt)
        return await go_through(middleware, run, attempt.job, attempt.current, attempt.since)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # of a middleware
        return judged(attempt.job, error, attempt.since, attempt.task.retry_delay)


Explain = Callable[[BaseException], BaseException]
"""What an exception of the function really means, where it has run."""


def as_it_is(error: BaseException) -> BaseException:
    """Nothing else."""
    return error


def call(
    job: Claimed,
    task: BaseTask[..., Any],
    since: Since,
    explain: Explain = as_it_is,
    surround: Surround | None = None,
) -> Completion:
    """Call a plain function here and now. Does not return in a process that the function has forked."""
    here = forks.depth
    try:
        try:
            args, kwargs = task.signature.decode_arguments(job.arguments)
        except InvalidArguments as error:
            return unfit(job, task, error, since)
        if surround is None:
            result = task.function(*args, **kwargs)
        else:
            with Within(surround):
                result = as_said(job, task.function(*args, **kwargs), since, here)
        if forks.depth != here:
            forks.end()
        return returned(job, task, result, since)
    except BaseException as error:  # SystemExit too: whatever ends the function, the worker goes on
        if forks.depth != here:
            forks.end(error)
        return _judged(job, task, since, explain, error)


async def call_async(
    job: Claimed,
    task: BaseTask[..., Any],
    since: Since,
    explain: Explain = as_it_is,
    surround: Surround | None = None,
) -> Completion:
    """Await an async function here and now. Does not return in a process that the function has forked."""
    here = forks.depth
    try:
        try:
            args, kwargs = task.signature.decode_arguments(job.arguments)
        except InvalidArguments as error:
            return unfit(job, task, error, since)
        if surround is None:
            result = await task.function(*args, **kwargs)
        else:
            with Within(surround):
                result = as_said(job, await task.function(*args, **kwargs), since, here)
        if forks.depth != here:
            forks.end()
        return returned(job, task, result, since)
    except BaseException as error:
        if forks.depth != here:
            forks.end(error)
        if issubclass(type(error), asyncio.CancelledError):  # what an error says of its class is its own code
            raise
        return _judged(job, task, since, explain, error)


def _judged(job: Claimed, task: BaseTask[..., Any], since: Since, explain: Explain, error: BaseException) -> Completion:
    with contextlib.suppress(BaseException):  # what an error says of itself is code of the job
        error = explain(error)
    return judged(job, error, since, task.retry_delay)
