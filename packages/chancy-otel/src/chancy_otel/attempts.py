"""An attempt as a CONSUMER span, with its verdict; and its context where the function runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from chancy.current import CurrentJob
from chancy.errors import TIME_IS_OVER, TimeLimitExceeded
from chancy.options.outcomes import Discard, Snooze
from chancy.statements import parse_errors

from .carried import context_in, context_of, span_in, traceparent_of
from .telemetry import (
    ATTEMPT,
    ERROR,
    JOB,
    MAX_ATTEMPTS,
    OPERATION,
    OPERATION_TYPE,
    OUTCOME,
    QUEUE,
    SYSTEM,
    TASK,
    WORKER,
    Telemetry,
    in_use,
)

if TYPE_CHECKING:
    from chancy_worker import Completion

_PROCESS: Final = {SYSTEM: "chancy", OPERATION: "process", OPERATION_TYPE: "process"}


@dataclass(slots=True)
class End:
    """How an attempt has ended, as the log has it: succeeded, failed, retried, released, discarded, cancelled."""

    outcome: str = ""
    kind: str = ""
    """Of the error, if it was one."""
    message: str = ""
    traceback: str = ""


async def middleware(job: CurrentJob, proceed: Callable[[], Awaitable[Completion]]) -> Completion:
    """For `Chancy(middleware=[…])`: each attempt is a span and is counted, wherever its function runs and
    whichever way a child process ends. Be it the first, so that the others are inside of it.
    """
    telemetry, began, end = in_use(), time.perf_counter(), End()
    try:
        with _span(telemetry, job, end):
            done = await proceed()
            _take_verdict(end, done)
            return done
    finally:
        about = {**_PROCESS, QUEUE: job.queue, TASK: job.task, **({ERROR: end.kind} if end.kind else {})}
        telemetry.consumed.add(1, about)
        telemetry.process_seconds.record(time.perf_counter() - began, about)


@contextlib.contextmanager
def surround(job: CurrentJob) -> Iterator[None]:
    """For `Chancy(surround=…)`: takes the context into child processes. Where no middleware has made a span of the
    attempt, as in memory and in a drain, it makes one itself.
    """
    if not job.trace:
        with _span(in_use(), job, End(outcome="succeeded")):
            yield
    elif traceparent_of(trace.get_current_span().get_span_context()) == job.trace:
        yield
    else:
        with _attached(context_of(job.trace, context_in(job.meta))):
            yield


@contextlib.contextmanager
def _span(telemetry: Telemetry, job: CurrentJob, end: End) -> Iterator[None]:
    """A span for as long as the block lasts, which is the current one there; `end` is what it says when it is over.

    Its parent is where the job comes from, and never what is around the worker.
    """
    origin = context_in(job.meta)
    created = span_in(origin)
    if created.is_valid and (datetime.now(UTC) - job.submitted_at).total_seconds() > telemetry.same_trace:
        origin = trace.set_span_in_context(trace.INVALID_SPAN, origin)
    links = [Link(created)] if created.is_valid else []
    if (before := job.error) is not None and (last := span_in(context_of(before.trace, context.Context()))).is_valid:
        links.append(Link(last, {ATTEMPT: before.attempt}))
    span = telemetry.tracer.start_span(
        f"process {job.queue}",
        origin,
        SpanKind.CONSUMER,
        {
            **_PROCESS,
            QUEUE: job.queue,
            JOB: str(job.id),
            WORKER: job.worker,
            TASK: job.task,
            ATTEMPT: job.attempt,
            MAX_ATTEMPTS: job.max_attempts,
        },
        links,
    )
    job.trace = traceparent_of(span.get_span_context())
    try:
        with _attached(trace.set_span_in_context(span, origin)):
            yield
    except BaseException as error:
        _take_error(end, job, error)
        raise
    finally:
        _say(span, end)


@contextlib.contextmanager
def _attached(those: context.Context) -> Iterator[None]:
    token = context.attach(those)
    try:
        yield
    finally:
        context.detach(token)


def _take_verdict(end: End, done: Completion) -> None:
    """An exception is no more than its texts by now: it may have been raised in another process."""
    end.outcome = done.outcome
    if done.errors is not None and not done.refund:
        error = parse_errors(done.errors)[-1]
        end.kind, end.message, end.traceback = error.kind, error.message, error.traceback


def _take_error(end: End, job: CurrentJob, error: BaseException) -> None:
    """What came out of the function, or why it is stopped; what a worker makes of that is not known here."""
    if isinstance(error, asyncio.CancelledError) and job.stopped and job.stopped != TIME_IS_OVER:
        end.outcome = "cancelled" if job.cancelled else "released"
        return
    if isinstance(error, Snooze):
        end.outcome = "released"
        return
    if isinstance(error, asyncio.CancelledError) and job.stopped:
        end.kind, end.message = TimeLimitExceeded.__qualname__, job.stopped
    else:
        end.kind, end.message = type(error).__qualname__, str(error)
        end.traceback = "".join(traceback.format_exception(error))
    is_last = isinstance(error, Discard) or job.attempt >= job.max_attempts
    end.outcome = ("discarded" if isinstance(error, Discard) else "failed") if is_last else "retried"


def _say(span: Span, end: End) -> None:
    if span.is_recording():
        span.set_attribute(OUTCOME, end.outcome)
        if end.kind:
            span.set_attribute(ERROR, end.kind)
            said = {"exception.type": end.kind, "exception.message": end.message, "exception.stacktrace": end.traceback}
            span.add_event("exception", {key: text for key, text in said.items() if text})
            span.set_status(StatusCode.ERROR, end.message)
    span.end()
