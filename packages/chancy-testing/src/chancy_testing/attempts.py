"""One attempt in the test's own process, by the worker's own code for attempts and verdicts.

A plain function is called where the caller stands, and from a coroutine in a thread, as a worker would. A coroutine
runs on the caller's loop, or where there is none, or the caller blocks it, on one of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import msgspec

from chancy.app import Surround
from chancy.current import CurrentJob
from chancy.errors import InvalidResult, TimeLimitExceeded
from chancy.flows.flow import cycle
from chancy.model import Progress
from chancy.options.limits import Limit, LimitType, tightest
from chancy.states import State
from chancy.steps.stepwise import Journal
from chancy.task import AsyncTask, BaseTask
from chancy_worker.attempts.attempt import Attempt, call, call_async, perform
from chancy_worker.attempts.logs import Keeper, Kept, listening
from chancy_worker.attempts.refusals import given_up
from chancy_worker.attempts.verdict import Claimed, Completion, cancelled, failure, judged, since_now

T = TypeVar("T")

WORKER = "chancy-testing"
"""The name of the worker, on errors and leases."""

twice = False
"""Whether each attempt runs its function twice, as when a verdict was lost: set by `pytest --chancy-run-twice`."""


class Performed(NamedTuple):
    """The verdict of one attempt, what its function raised last, and what it has logged, if that is to be kept."""

    verdict: Completion
    error: BaseException | None
    logged: Sequence[Kept] = ()


class Call(NamedTuple):
    """A claimed job, about to be performed."""

    job: Claimed
    task: BaseTask[..., Any]
    schema: str
    tell: Callable[[CurrentJob, Progress], None]
    """What it says of its progress."""
    watch: Callable[[CurrentJob], None]
    """Sees the attempt before its function does."""
    surround: Surround | None = None
    """What is around its function."""


class _Here:
    """The worker's executor for the place where the test itself is."""

    size: int | None = None
    problem: str | None = None

    def __init__(self, surround: Surround | None) -> None:
        self.error: BaseException | None = None
        self._surround = surround

    async def run(self, attempt: Attempt) -> Completion:
        """Call or await the function."""
        self.error = None
        arguments = attempt.job, attempt.task, attempt.since, self._heard, self._surround
        if isinstance(attempt.task, AsyncTask):
            return await _within(attempt, call_async(*arguments), self._heard)
        verdict = call(*arguments)
        limit, elapsed = attempt.limits.get(LimitType.TIME), attempt.since.elapsed
        if limit is None or elapsed <= limit:
            return verdict
        return _too_long(attempt, limit, elapsed, self._heard)  # a child process would have been killed

    def _heard(self, error: BaseException) -> BaseException:
        self.error = error
        return error

    async def close(self) -> None:
        """Nothing of its own is left."""


async def _within(
    attempt: Attempt, work: Coroutine[Any, Any, Completion], heard: Callable[[BaseException], BaseException]
) -> Completion:
    """The verdict of a coroutine that is stopped at its time limit, as on a worker's loop."""
    running, limit = asyncio.ensure_future(work), attempt.limits.get(LimitType.TIME)
    try:
        await asyncio.wait([running], timeout=limit)
    except asyncio.CancelledError:
        running.cancel()
        await asyncio.wait([running])
        raise
    if running.done() and not running.cancelled():
        return running.result()
    if running.cancelled():
        error = heard(asyncio.CancelledError("the function cancelled itself"))
        return judged(attempt.job, error, attempt.since, attempt.task.retry_delay)
    assert limit is not None
    running.cancel()
    await asyncio.wait([running])
    if not running.cancelled():  # it would not stop, and has returned
        return running.result()
    return _too_long(attempt, limit, attempt.since.elapsed, heard)


def _too_long(
    attempt: Attempt, limit: float, elapsed: float, heard: Callable[[BaseException], BaseException]
) -> Completion:
    return judged(attempt.job, heard(TimeLimitExceeded(limit, elapsed)), attempt.since, attempt.task.retry_delay)


def limits_of(given: bytes | None, task: BaseTask[..., Any]) -> tuple[Limit, ...]:
    """Those that the job's row gives, or else those of its task."""
    return task.options.limits or () if given is None else msgspec.json.decode(given, type=tuple[Limit, ...])


def perform_here(asked: Call) -> Performed:
    """Perform it and come back with the verdict."""
    work = _perform(asked)
    if not isinstance(asked.task, AsyncTask):
        return contextvars.copy_context().run(_to_the_end, work)
    return on_a_loop_of_its_own(work)


async def perform_here_async(asked: Call) -> Performed:
    """The same, awaited. Cancelling it cancels the function."""
    work = _perform(asked)
    if isinstance(asked.task, AsyncTask):
        return await asyncio.create_task(work)
    return await asyncio.to_thread(_to_the_end, work)


async def _perform(asked: Call) -> Performed:
    """Does not wait for anything where the function is a plain one."""
    here, job, task, since = _Here(asked.surround), asked.job, asked.task, since_now(WORKER)
    current = CurrentJob(
        job.id, job.task, job.queue, job.attempt, job.max_attempts,
        False, False, job.fence, asked.schema, task.signature.encode_result, asked.tell, None, job.lease,
        WORKER, job, since,
    )  # fmt: skip
    asked.watch(current)
    keeper = Keeper() if task.keep_logs else None
    book = current.book = None if keeper is None else keeper.open(job)
    attempt = Attempt(job, task, current, since, tightest(limits_of(job.limits, task)), lambda: None)
    with listening(keeper):
        if twice:
            await perform(attempt, here, (), asked.schema)
            current.journal = Journal()  # what it has done step by step is done, as after a lost verdict
            current.since = since_now(WORKER)
            attempt = msgspec.structs.replace(attempt, since=current.since)
        verdict = await perform(attempt, here, (), asked.schema)
    if verdict.refusal:
        verdict = given_up(verdict, "a test has no other worker to leave it to")
    if here.error is not None and not isinstance(here.error, (Exception, asyncio.CancelledError, SystemExit)):
        raise here.error  # Ctrl-C, and pytest's own: pytest.fail() in a handler ends the test
    if keeper is None or book is None:
        return Performed(verdict, here.error)
    book.close()
    return Performed(verdict, here.error, [kept for batch in iter(keeper.take, []) for kept in batch])


def not_become(job: Claimed, fate: str, other: int | None) -> Completion:
    """The verdict of a job that cannot wait for what it has returned; see `Becoming`."""
    if fate == "cycle":
        return failure(job, State.FAILED, InvalidResult(job.task, cycle(job.id, other)), since_now(WORKER))
    return cancelled(job)


def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never waits: it needs no loop, and the function under it may run one of its own."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise RuntimeError("the coroutine of a plain function has waited")


def on_a_loop_of_its_own(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine for a caller that is not one: in a thread where a loop is running here already.

    The thread's current event loop stays what it is, which `asyncio.run` would have set to none.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(work)
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, thread_name_prefix="chancy-testing") as pool:
        return pool.submit(lambda: context.run(lambda: on_a_loop_of_its_own(work))).result()


def unread(job: Claimed) -> Claimed:
    """The same with its JSON as bytes, also where the stack has read it: drivers and SQLAlchemy do, each in its way."""
    texts = {name: _text_of(getattr(job, name)) for name in ("arguments", "retry", "limits", "errors", "meta")}
    return msgspec.structs.replace(job, **texts)


def _text_of(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
