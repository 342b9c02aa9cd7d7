"""What happened in an attempt, as a value. Pure: no event loop and no database."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from chancy.model import LONGEST_DELAY
from chancy.options.outcomes import Discard, Retry, Snooze, Suspended
from chancy.options.retry import Backoff, delay_of
from chancy.states import State
from chancy_worker.mistakes import appended, error_of, unstored
from chancy_worker.words import MAX_MESSAGE_BYTES, safe, words_of

EARLIEST = datetime.min.replace(tzinfo=UTC)

OVERHEAD_BYTES = 64
"""Of a verdict in a round, beside its result and its errors."""

Owner: TypeAlias = tuple[int, int, int]
"""Whose a row is: the job's id, the fence of the claim, and the lease under which it was made."""


class Claimed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One claimed job: what a worker needs to perform it and to prove that it is still its own."""

    id: int
    task: str
    queue: str
    attempt: int
    max_attempts: int
    fence: int
    crashes: int
    arguments: bytes
    retry: bytes | None
    limits: bytes | None
    errors: bytes | None
    parked: str | None = None
    """What it was parked under, if it has slots of gates, which its end may open for others."""
    batch: int | None = None
    priority: int = 0
    run_at: datetime = EARLIEST
    refused_for: float | None = None
    """Seconds since the first of the refusals that it has met until now."""
    submitted_at: datetime = EARLIEST
    meta: bytes | None = None
    """What travels beside the arguments, as JSON."""
    lease: int = 0
    """Under which it was claimed. With id and fence it says whose a row is, also after a failover that has lost the
    last transactions, when Postgres gives out ids and fences again."""
    share: str | None = None
    """The limit of which this worker's share it runs in, if so; then it has no slot."""
    slot_at: str | None = None
    """Where its only slot is in the table, as Postgres says it, if that is known."""

    @property
    def owner(self) -> Owner:
        """What every write about this claim carries."""
        return self.id, self.fence, self.lease

    @property
    def is_withheld(self) -> bool:
        """Whether it is large, and was claimed by a round that leaves the arguments of such jobs behind."""
        return not self.arguments

    @property
    def size(self) -> int:
        """Bytes of what it brings."""
        return len(self.arguments) + len(self.errors or b"")


class Completion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The verdict of one attempt.

    `state` READY means live again after `delay`; None keeps the job's place in its queue. `refund` says that the
    attempt does not count. `errors` None leaves the job's errors as they are.
    """

    id: int
    fence: int
    state: State
    result: bytes | None = None
    errors: bytes | None = None
    delay: timedelta | None = None
    refund: bool = False
    note: str = ""
    """What happened in one phrase, for the log."""
    refusal: bool = False
    """The worker could not take it; another one perhaps can."""
    raised: BaseException | None = None
    """What the function raised, where the job has failed for good in this process: for the log, and until it is told.
    With it lives all that its frames hold."""
    snooze: Literal["asked", "kept"] | None = None
    """The handler is to be called again later: it has asked for that; or its row has kept when that is, and may have
    been told otherwise since, so that `delay` is for this worker alone."""
    flow: bytes | None = None
    """As JSON, the `Flow` whose target's result the job's own is to be; then `state` is BLOCKED."""

    @property
    def outcome(self) -> str:
        """What the attempt has come to, in a word: "retried" or "released" where the job is live again."""
        if self.state is State.READY:
            return "released" if self.refund else "retried"
        return str(self.state)

    @property
    def size(self) -> int:
        """Bytes that it adds to a round."""
        return OVERHEAD_BYTES + len(self.result or b"") + len(self.errors or b"")


class Since(msgspec.Struct, gc=False):
    """Which worker began an attempt, and when: as Unix time, and by the clock that never jumps."""

    worker: str
    at: float
    clock: float
    trace: str = ""
    """Where it is in a trace, once somebody has said that."""

    @property
    def elapsed(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self.clock


def since_now(worker: str) -> Since:
    """An attempt begins."""
    return Since(worker, time.time(), time.perf_counter())


Decide = Callable[[int, BaseException, Backoff | None], timedelta | None]
"""`BaseTask.retry_delay`."""


def succeeded(job: Claimed, result: bytes) -> Completion:
    """The handler returned."""
    return Completion(job.id, job.fence, State.SUCCEEDED, result)


def released(job: Claimed, note: str, delay: timedelta | None = None) -> Completion:
    """The job goes back unharmed; without a delay, to its place in the queue."""
    return Completion(job.id, job.fence, State.READY, delay=delay, refund=True, note=note)


def cancelled(job: Claimed) -> Completion:
    """It was asked to stop, and has stopped."""
    return Completion(job.id, job.fence, State.CANCELLED, note="cancelled while it ran")


def judged(job: Claimed, error: BaseException, since: Since, decide: Decide) -> Completion:
    """The handler raised, or was stopped. Never raises, whatever the error and the task's `retry=` are like."""
    try:
        return _judged(job, error, since, decide)
    except BaseException as broken:
        with contextlib.suppress(BaseException):
            broken.__context__ = error
        return failure(job, State.FAILED, broken, since)


def _judged(job: Claimed, error: BaseException, since: Since, decide: Decide) -> Completion:
    kind = type(error)  # and not isinstance: what an error says of its class is its own code
    if issubclass(kind, Snooze):
        delay = _within_reason(error.delay)  # type: ignore[attr-defined]
        kept = issubclass(kind, Suspended)
        return Completion(
            job.id, job.fence, State.READY, delay=delay, refund=True,
            note=safe(words_of(error), MAX_MESSAGE_BYTES) if kept else f"snoozed for {delay}",
            snooze="kept" if kept else "asked",
        )  # fmt: skip
    if issubclass(kind, Discard):
        return failure(job, State.DISCARDED, error, since)
    if job.attempt >= job.max_attempts:
        return failure(job, State.FAILED, error, since)
    after: object = error.after if issubclass(kind, Retry) else None  # type: ignore[attr-defined]
    if after is None:
        after = decide(job.attempt, error, _own_backoff(job))
    if after is None:
        return failure(job, State.FAILED, error, since)
    return failure(job, State.READY, error, since, _within_reason(after))


def _own_backoff(job: Claimed) -> Backoff | None:
    """What the job's row gives; one that cannot be read leaves it to the task."""
    try:
        return None if job.retry is None else msgspec.json.decode(job.retry, type=Backoff)
    except (msgspec.DecodeError, ValueError):
        return None


def failure(
    job: Claimed, state: State, error: BaseException, since: Since, delay: timedelta = timedelta(0)
) -> Completion:
    """The attempt ended with an error, which is kept on the job. Never raises."""
    kept = error_of(error, job.task, job.attempt, since.worker, since.at, since.elapsed, since.trace)
    return Completion(
        job.id, job.fence, state, errors=appended(job.errors, kept), delay=delay, note=f"{kept.kind}: {kept.message}",
        raised=error if state is State.FAILED else None,
    )  # fmt: skip


def without_data(completion: Completion, reason: str) -> Completion:
    """What is left to say of a verdict that the database does not take: the job failed, and why it looks so bare."""
    error = unstored(reason)
    note, errors = f"{error.kind}: {error.message}", appended(None, error)
    return Completion(completion.id, completion.fence, State.FAILED, errors=errors, note=note)


def _within_reason(delay: object) -> timedelta:
    """A handler's delay, as the database can take it."""
    return min(max(delay_of(delay), timedelta(0)), LONGEST_DELAY)
