"""One line a job in the log, of how its attempt ended.

Where nobody listens but our own handler the line needs no record, and goes out with those of the other jobs of its
round. Everybody else gets records, one a job and at once; the words are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TypeAlias

import msgspec

from chancy.errors import JobFailed
from chancy.model import AttemptError
from chancy.states import State
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.words import frames_of

from .format import JsonFormatter
from .handler import Lines, only_listener
from .setting import unfailing

job_log = unfailing("chancy.job")

LATE_SECONDS = 0.1
"""A line waits so long at most, where no round goes out: while the database is away."""
MOST_NOTE = 500

Form: TypeAlias = Callable[[Claimed, Completion, int, float], str]
"""Of a line with its end: the job, its verdict, the level, the seconds that it took."""
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]


class JobLines:
    """Of one worker. On its loop."""

    def __init__(self) -> None:
        self._listener: Lines | None = None
        self._form: Form = plain_form()
        self._is_open = False
        """Whether it is known who listens: until the next flush."""
        self._takes_infos = False
        """Then also: whether anybody listens to lines of what has gone well."""
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, job: Claimed, verdict: Completion, seconds: float) -> None:
        """An attempt is over. What it raised is let go of."""
        level = logging.INFO if verdict.state is State.SUCCEEDED else level_of(verdict)
        if level < logging.ERROR and not self._is_open:
            self._open()
        if not (self._takes_infos if level == logging.INFO else job_log.isEnabledFor(level)):
            pass
        elif level >= logging.ERROR:
            _tell_all(job, verdict, level, seconds, _exc_info(job, verdict))
        elif (listener := self._listener) is None:
            _tell_all(job, verdict, level, seconds)
        else:
            try:
                listener.add(self._form(job, verdict, level, seconds))
            except Exception:  # the words of a middleware, which cannot be encoded
                _tell_all(job, verdict, level, seconds)
        if verdict.raised is not None:
            msgspec.structs.force_setattr(verdict, "raised", None)

    def flush(self) -> None:
        """Write what was told until now, and see anew who listens."""
        self._is_open = False
        if self._listener is not None:
            listener, self._listener = self._listener, None
            listener.flush()

    def _open(self) -> None:
        self._is_open = True
        self._takes_infos = job_log.isEnabledFor(logging.INFO)
        with contextlib.suppress(Exception):  # what somebody has put into logging
            self._listener = only_listener(job_log)
        if self._listener is not None:
            is_json = isinstance(self._listener.formatter, JsonFormatter)
            self._form = json_form() if is_json else plain_form()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LATE_SECONDS, self._late)

    def _late(self) -> None:
        self._timer = None
        self.flush()


def level_of(verdict: Completion) -> int:
    """ERROR where the job has failed for good, WARNING where the attempt has, or somebody has stopped it."""
    if verdict.state in (State.SUCCEEDED, State.BLOCKED) or verdict.refund:
        return logging.INFO
    return logging.ERROR if verdict.state is State.FAILED else logging.WARNING


def _tell_all(job: Claimed, verdict: Completion, level: int, seconds: float, exc_info: ExcInfo | None = None) -> None:
    state, note = verdict.outcome, _note_of(verdict)
    job_log.log(
        level,
        "job %d %s %s attempt %d/%d %.3fs%s",
        job.id, job.task, state, job.attempt, job.max_attempts, seconds, f" {note}" if note else "",
        exc_info=exc_info,
        extra={"chancy": {
            "job": job.id, "task": job.task, "attempt": job.attempt, "queue": job.queue, "state": state,
            "max_attempts": job.max_attempts, "seconds": round(seconds, 6), "note": note,
        }},
    )  # fmt: skip


def plain_form() -> Form:
    """As `PlainFormatter` writes such a record."""
    clock, second, stamp = time.time, 0, ""
    good = f"{logging.getLevelName(logging.INFO):<7} chancy.job: job"

    def form(job: Claimed, verdict: Completion, level: int, seconds: float) -> str:
        nonlocal second, stamp
        at = clock()
        if (now := int(at)) != second:
            second, stamp = now, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        if verdict.state is State.SUCCEEDED and not verdict.note:  # nearly all of them, and as below
            return (
                f"{stamp},{int((at - now) * 1000):03d} {good} {job.id} {job.task} succeeded attempt "
                f"{job.attempt}/{job.max_attempts} {seconds:.3f}s\n"
            )
        return (
            f"{stamp},{int((at - now) * 1000):03d} {logging.getLevelName(level):<7} chancy.job: "
            f"{_message(job, verdict, seconds)}\n"
        )

    return form


class _JobLine(msgspec.Struct):
    at: datetime
    level: str
    logger: str
    message: str
    job: int
    task: str
    attempt: int
    queue: str
    state: str
    max_attempts: int
    seconds: float
    note: str


def json_form() -> Form:
    """As `JsonFormatter` writes such a record."""
    encode = msgspec.json.Encoder().encode

    def form(job: Claimed, verdict: Completion, level: int, seconds: float) -> str:
        line = _JobLine(
            datetime.fromtimestamp(time.time(), UTC), logging.getLevelName(level).lower(), "chancy.job",
            _message(job, verdict, seconds), job.id, job.task, job.attempt, job.queue, verdict.outcome,
            job.max_attempts, round(seconds, 6), _note_of(verdict),
        )  # fmt: skip
        return encode(line).decode() + "\n"

    return form


def _message(job: Claimed, verdict: Completion, seconds: float) -> str:
    note = _note_of(verdict)
    return (
        f"job {job.id} {job.task} {verdict.outcome} attempt {job.attempt}/{job.max_attempts} {seconds:.3f}s"
        f"{' ' if note else ''}{note}"
    )


def _note_of(verdict: Completion) -> str:
    return " ".join(verdict.note.replace("\0", "\\0").split())[:MOST_NOTE] if verdict.note else ""


def _exc_info(job: Claimed, verdict: Completion) -> ExcInfo | None:
    """The exception for which the job has failed; of one in a child process what is known here."""
    if (raised := verdict.raised) is not None:
        return type(raised), raised, frames_of(raised)
    with contextlib.suppress(Exception):  # of a middleware
        *_, last = msgspec.json.decode(verdict.errors or b"[]", type=list[AttemptError])
        error = JobFailed(
            job.id, job.task, str(verdict.state), job.attempt, last.kind, last.message, last.traceback
        )  # fmt: skip
        return type(error), error, None
    return None
