"""What happened in an attempt, as a value. Pure: no event loop and no database.

What a handler says is untrusted: texts are made encodable, capped, and live in JSON.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from chancy.codec import encode_json
from chancy.errors import AttemptStopped, InvalidResult
from chancy.model import LONGEST_DELAY, AttemptError
from chancy.outcomes import Discard, Retry, Snooze
from chancy.retry import Backoff
from chancy.states import State

MAX_MESSAGE_BYTES = 4 * 1024
MAX_TRACEBACK_BYTES = 64 * 1024
KEPT_ERRORS = 10

_HERE = str(Path(__file__).parent)


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
    share: str | None = None
    """The limit of which this worker's share it runs in, if so; then it has no slot."""

    @property
    def suspect(self) -> bool:
        """Whether a worker died while it ran this job."""
        return self.crashes > 0


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

    @property
    def size(self) -> int:
        """Bytes that it adds to a round."""
        return 64 + len(self.result or b"") + len(self.errors or b"")


class Since(msgspec.Struct, frozen=True, gc=False):
    """Which worker began an attempt, and when: as Unix time, and by the clock that never jumps."""

    worker: str
    at: float
    clock: float

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
    """The handler raised, or was stopped."""
    match error:
        case Snooze():
            return Completion(
                job.id,
                job.fence,
                State.READY,
                delay=_within_reason(error.delay),
                refund=True,
                note=f"snoozed for {error.delay}",
            )
        case Discard():
            return failure(job, State.DISCARDED, error, since)
        case _ if job.attempt >= job.max_attempts:
            return failure(job, State.FAILED, error, since)
        case Retry(after=timedelta()):
            delay: timedelta | None = error.after
        case _:
            try:
                own = None if job.retry is None else msgspec.json.decode(job.retry, type=Backoff)
                delay = decide(job.attempt, error, own)
            except Exception as broken:
                broken.__context__ = error
                return failure(job, State.FAILED, broken, since)
    if delay is None:
        return failure(job, State.FAILED, error, since)
    return failure(job, State.READY, error, since, _within_reason(delay))


def failure(
    job: Claimed, state: State, error: BaseException, since: Since, delay: timedelta = timedelta(0)
) -> Completion:
    """The attempt ended with an error, which is kept on the job."""
    kept = AttemptError(
        attempt=job.attempt,
        kind=safe(type(error).__qualname__, 256),
        message=safe(_message(error), MAX_MESSAGE_BYTES),
        traceback=""
        if isinstance(error, (Discard, Retry, InvalidResult))
        else safe(_traceback(error), MAX_TRACEBACK_BYTES),
        worker=since.worker,
        started_at=datetime.fromtimestamp(since.at, UTC),
        duration=round(since.elapsed, 6),
    )
    return Completion(
        job.id, job.fence, state, errors=_with(job.errors, kept), delay=delay, note=f"{kept.kind}: {kept.message}"
    )


def without_data(completion: Completion) -> Completion:
    """What is left to say of a verdict that the database does not take: the job failed, and why it looks so bare."""
    error = AttemptError(attempt=0, kind="InvalidResult", message="the verdict of this attempt could not be stored")
    return Completion(
        completion.id,
        completion.fence,
        State.FAILED,
        errors=encode_json([error]),
        note=f"{error.kind}: {error.message}",
    )


def safe(text: str, limit: int) -> str:
    """The text without lone surrogates, at most `limit` bytes of UTF-8; of a longer one both ends are kept."""
    if text.isascii() and len(text) <= limit:
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    half = limit // 2 - 16
    return f"{data[:half].decode('utf-8', 'ignore')}\n[… cut …]\n{data[-half:].decode('utf-8', 'ignore')}"


def _within_reason(delay: timedelta) -> timedelta:
    """A handler's delay, as the database can take it."""
    return min(max(delay, timedelta(0)), LONGEST_DELAY)


def _with(errors: bytes | None, error: AttemptError) -> bytes:
    if errors is None:
        return encode_json([error])
    old: Sequence[msgspec.Raw] = msgspec.json.decode(errors, type=list[msgspec.Raw])
    return encode_json([*old[1 - KEPT_ERRORS :], error])


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"its message could not be read: {type(broken).__qualname__}"


def _traceback(error: BaseException) -> str:
    """From the handler's own frames on: ours say nothing to its author."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HERE):
        frames = frames.tb_next
    if frames is None and isinstance(error, AttemptStopped):
        return ""
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception as broken:
        return f"the traceback could not be formatted: {type(broken).__qualname__}"
