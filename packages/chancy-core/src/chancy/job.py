"""Submitting one job and many, and `Job`, the handle of a submitted one."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar, overload

import msgspec

from . import statements
from .errors import DuplicateJob, InvalidOption, JobCancelled, JobFailed, NotCommitted, ResultExpired, UnknownJob
from .keys.statements import Submission, submit_unique
from .keys.unique import SubmitOutcome
from .model import AskStanding, JobRow, LetGo, NewJob, Pause, R_co, Statement, Steps
from .options.plain import Duration, duration, identity, several, shown
from .run import perform
from .schema import schema_in_use
from .states import State
from .verbs import cancel, get
from .wires.connections import AsyncConn, SyncConn
from .wires.wire import Standing

R = TypeVar("R")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.010, 0.250
_ONE_SNAPSHOT = ("repeatable read", "serializable")


class Job(msgspec.Struct, Generic[R_co], frozen=True, eq=False):
    """A submitted job. It holds no connection: give one to each method, sync or async."""

    id: int
    task: str
    queue: str
    schema: str
    transaction: str | None = None
    """The transaction that submitted it, as Postgres' `xid8`."""
    decode_result: Callable[[bytes], R_co] = bytes  # type: ignore[assignment]
    outcome: SubmitOutcome | None = SubmitOutcome.INSERTED
    """What the submit did that gave this handle; None of a handle that comes from elsewhere."""

    def __repr__(self) -> str:
        return f"Job(id={self.id}, task={self.task!r}, queue={self.queue!r}, schema={self.schema!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (self.id, self.schema) == (other.id, other.schema)

    def __hash__(self) -> int:
        return hash((self.id, self.schema))

    @overload
    def result(self, conn: SyncConn, /, *, timeout: Duration | None = None) -> R_co: ...
    @overload
    def result(self, conn: AsyncConn, /, *, timeout: Duration | None = None) -> Coroutine[Any, Any, R_co]: ...
    def result(
        self, conn: SyncConn | AsyncConn, /, *, timeout: Duration | None = None
    ) -> R_co | Coroutine[Any, Any, R_co]:
        """Wait until the job is finished and return what its function returned.

        Polls on `conn` with pauses from 10 to 250 ms; each look is one round trip. Without a `timeout`, a `timedelta`
        or seconds, it waits for ever. Cancelling the wait leaves the job alone.

        While it waits nothing of the history is locked. On a connection that is idle and not in autocommit, the
        transaction that a look has begun is ended before the pause; inside a transaction of yours the table of live
        jobs stays locked against migrations.

        Raises `JobFailed` (with the remote traceback), `JobCancelled`, `UnknownJob` (also of a finished job whose queue
        keeps none), `ResultExpired`, `TimeoutError`, and `NotCommitted` where this transaction could never see the job
        finish: it has submitted the job itself, or it is REPEATABLE READ and looks at one snapshot for ever.
        """
        seconds = None if timeout is None else duration("timeout", timeout).total_seconds()
        identity("id", self.id)
        return perform(conn, _wait(self, seconds), self.schema)

    @overload
    def refresh(self, conn: SyncConn, /) -> JobRow: ...
    @overload
    def refresh(self, conn: AsyncConn, /) -> Coroutine[Any, Any, JobRow]: ...
    def refresh(self, conn: SyncConn | AsyncConn, /) -> JobRow | Coroutine[Any, Any, JobRow]:
        """The job as it is now. One round trip. Raises `UnknownJob`."""
        return get(conn, self.id, schema=self.schema)

    @overload
    def cancel(self, conn: SyncConn, /) -> bool: ...
    @overload
    def cancel(self, conn: AsyncConn, /) -> Coroutine[Any, Any, bool]: ...
    def cancel(self, conn: SyncConn | AsyncConn, /) -> bool | Coroutine[Any, Any, bool]:
        """See `chancy.cancel`."""
        return cancel(conn, self.id, schema=self.schema)


def _wait(job: Job[R], timeout: float | None) -> Steps[R]:
    standing: Standing = yield AskStanding()
    in_block, alone = standing is not Standing.AUTOCOMMIT, standing is Standing.FRESH
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        seen: statements.Outlook | None = None
        if in_block and not alone:
            seen = yield statements.select_live_outcome(job.id)
        if seen is None or seen.state is None:
            seen = yield statements.select_outcome(job.id)
        match seen.state:
            case State.SUCCEEDED:
                if seen.result is None:
                    raise ResultExpired(job.id, job.task)
                return job.decode_result(seen.result)
            case State.FAILED | State.DISCARDED:
                last = seen.errors[-1] if seen.errors else None
                kind, message, traceback = (last.kind, last.message, last.traceback) if last else ("", "", "")
                raise JobFailed(job.id, job.task, seen.state, seen.attempt, kind, message, traceback)
            case State.CANCELLED:
                raise JobCancelled(job.id, job.task)
            case None if not (in_block and seen.isolation in _ONE_SNAPSHOT):
                raise UnknownJob(job.id, job.schema)
        if in_block and job.transaction is not None and job.transaction == seen.transaction:
            raise NotCommitted(job.id, "this transaction submitted it, so no worker can see it yet: commit first")
        if in_block and seen.isolation in _ONE_SNAPSHOT:
            raise NotCommitted(
                job.id,
                f"a {seen.isolation} transaction never sees what others commit: wait in autocommit or read committed",
            )
        if deadline is not None and time.monotonic() + pause > deadline:
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError(f"job {job.id} ({job.task}) was still {seen.state} after {timeout:g} s")
            pause = left
        if alone:
            yield LetGo()
        yield Pause(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


@overload
def submit_many(conn: SyncConn, jobs: Sequence[NewJob[R]], /, *, schema: str | None = None) -> list[Job[R]]: ...
@overload
def submit_many(
    conn: AsyncConn, jobs: Sequence[NewJob[R]], /, *, schema: str | None = None
) -> Coroutine[Any, Any, list[Job[R]]]: ...
def submit_many(
    conn: SyncConn | AsyncConn, jobs: Sequence[NewJob[R]], /, *, schema: str | None = None
) -> list[Job[R]] | Coroutine[Any, Any, list[Job[R]]]:
    """Add many jobs (of `task.bind(…)`) in the caller's transaction, all or none, in one round trip.

    The handles come back in the order given. Never commits.

    Those of unique tasks are as if submitted one after the other: of two with one key the second finds the first. If
    one of them raises `DuplicateJob`, none has been submitted. The keys are taken in their order, whatever the order
    given, so that two calls never deadlock; for what else a unique job waits, see `task.submit`.
    """
    where = schema_in_use(schema)
    return perform(conn, submit_all(bound(jobs), where), where)


def bound(jobs: object) -> tuple[NewJob[Any], ...]:
    """Jobs to be submitted, of a list or a generator. Raises `InvalidOption` for what is no job."""
    given = several("jobs", jobs, "jobs, of task.bind(…)")
    if not set(map(type, given)) <= {NewJob}:
        wrong = next(position for position, job in enumerate(given) if type(job) is not NewJob)
        raise InvalidOption("jobs", f"expected what task.bind(…) gives, got {shown(given[wrong])} at [{wrong}]")
    return given


def submit_all(jobs: Sequence[NewJob[R]], schema: str) -> Steps[list[Job[R]]]:
    """What `submit_many` sends."""
    if not jobs:
        return []
    if any(job.unique is not None for job in jobs):
        return (yield from _submit_unique(jobs, schema))
    ids, transaction = yield statements.insert_jobs(jobs)
    return [_handle(job, id_, transaction, schema) for id_, job in zip(ids, jobs, strict=True)]


def _submit_unique(jobs: Sequence[NewJob[R]], schema: str) -> Steps[list[Job[R]]]:
    made: list[Submission] = yield submit_unique(jobs)
    for seen, job in zip(made, jobs, strict=True):
        if seen.outcome == "refused" and job.unique is not None:
            own = any(other.outcome == "inserted" and other.id == seen.id for other in made)
            raise DuplicateJob(job.task, job.unique.text, None if own else seen.id)
    return [
        Job(seen.id, job.task, seen.queue, schema, seen.transaction, job.decode_result, SubmitOutcome(seen.outcome))
        for seen, job in zip(made, jobs, strict=True)
    ]


def submit_one(new: NewJob[R], schema: str) -> Statement[Job[R]] | Steps[Job[R]]:
    """What `task.submit` sends: one statement."""
    if new.unique is not None:
        return _only(_submit_unique([new], schema))
    return statements.insert_job(new, lambda job_id, transaction: _handle(new, job_id, transaction, schema))


def _only(steps: Steps[list[Job[R]]]) -> Steps[Job[R]]:
    (job,) = yield from steps
    return job


def _handle(new: NewJob[R], job_id: int, transaction: str, schema: str) -> Job[R]:
    return Job(job_id, new.task, new.options.queue, schema, transaction, new.decode_result)
