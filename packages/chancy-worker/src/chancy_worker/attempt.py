"""Perform one claimed job: arguments, middleware, the function, and the verdict. Never raises but when cancelled."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chancy.current import CurrentJob, running_attempt
from chancy.errors import InvalidResult
from chancy.schema import attempt_schema
from chancy.states import State
from chancy.task import BaseTask

from .executors import Executor
from .verdict import Claimed, Completion, failure, judged, succeeded

Proceed = Callable[[], Awaitable[Completion]]
Middleware = Callable[[CurrentJob, Proceed], Awaitable[Completion]]
"""A plain async function around an attempt: it awaits `proceed()` once and returns its completion, or another."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all attempts of a worker share."""

    schema: str
    worker: str
    middleware: Sequence[Middleware] = ()


async def perform(
    job: Claimed, current: CurrentJob, task: BaseTask[..., Any], executor: Executor, setting: Setting
) -> Completion:
    """Run the job's function where it belongs and say how it went."""
    started, clock = time.time(), time.perf_counter()
    running_attempt.set(current)
    attempt_schema.set(setting.schema)
    proceed: Proceed = functools.partial(_call, job, task, executor, setting, started, clock)
    for middleware in reversed(setting.middleware):
        proceed = functools.partial(middleware, current, proceed)
    try:
        return await proceed()
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # of a middleware
        return judged(job, error, started, time.perf_counter() - clock, setting.worker, task.retry)


async def _call(
    job: Claimed, task: BaseTask[..., Any], executor: Executor, setting: Setting, started: float, clock: float
) -> Completion:
    try:
        args, kwargs = task.signature.decode_arguments(job.arguments)
        result = await executor.run(task, args, kwargs)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return judged(job, error, started, time.perf_counter() - clock, setting.worker, task.retry)
    try:
        return succeeded(job, task.signature.encode_result(result))
    except InvalidResult as error:
        # Final: the effects are there, and another attempt would return the same kind of value.
        return failure(job, State.FAILED, error, started, time.perf_counter() - clock, setting.worker)
