"""Submitting one job and many, and `Job`, the handle of a submitted one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar, overload

import msgspec

from . import statements
from .arguments.submits import functions as submits
from .arguments.submits import surrounded
from .errors import DuplicateJob, InvalidOption
from .flows.later import Later
from .flows.statements import submit_graph
from .keys.statements import SUBMIT_UNIQUE_ONE, Submission, of_submissions, submit_unique
from .keys.unique import SubmitOutcome
from .model import JobRow, Options, R_co, Statement, Steps, UniqueKey
from .options.plain import Duration, duration, identity, several, shown
from .results.waiting import wait_for
from .run import perform
from .schema import schema_in_use
from .verb import verb
from .verbs import cancel, get
from .wires.connections import AsyncConn, SyncConn
from .wires.paramstyles import ParamStyle, spelled

R = TypeVar("R")


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
    submitted_at: datetime | None = None
    """When the job was submitted, by the database's clock, in UTC; None of one of which there is no row any more."""

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
        return perform(conn, wait_for(self, seconds), self.schema)

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


@verb
def submit_many(jobs: Sequence[NewJob[R]], /, *, schema: str | None = None) -> Steps[list[Job[R]]]:
    """Add many jobs (of `task.bind(…)`) in the caller's transaction, all or none, in one round trip.

    The handles come back in the order given. Never commits.

    Those of unique tasks are as if submitted one after the other: of two with one key the second finds the first. If
    one of them raises `DuplicateJob`, none has been submitted. The keys are taken in their order, whatever the order
    given, so that two calls never deadlock; for what else a unique job waits, see `task.submit`.
    """
    return submit_all(bound(jobs), schema_in_use(schema))


class NewJob(msgspec.Struct, Generic[R_co], frozen=True):
    """A task with its checked and encoded arguments, as `task.bind(…)` gives it: one row that is not there yet."""

    task: str
    arguments: bytes
    options: Options
    decode_result: Callable[[bytes], R_co]
    gates: bytes | None = None
    """`Passes` as JSON, if it has to pass any."""
    unique: UniqueKey | None = None
    meta: bytes | None = None
    """What travels beside the arguments, as JSON."""
    needs: tuple[Later, ...] = ()
    """What it waits for. Then its arguments have holes, between two marks the number of a need."""

    def sql(
        self, paramstyle: ParamStyle = "pyformat", *, schema: str | None = None
    ) -> tuple[str, dict[str, str | None] | tuple[str | None, ...]]:
        """The statement that adds this job, and its parameters, each a text or None: for whoever sends it by himself,
        with whatever driver, of whatever language.

        Its one row has `id`, `xact`, `submitted_at`, and of a unique job `outcome`. A unique job that is refused
        raises Postgres' `unique_violation`. `paramstyle` is what PEP 249 calls it, "pyformat" `%(x)s`, "named" `:x`,
        "format" `%s`, "qmark" `?`, "numeric" `:1`; or "numeric_dollar" `$1`, as asyncpg and most other languages have
        it. Raises `InvalidOption` for another one, and for a job that needs others.
        """
        if self.needs:
            raise InvalidOption("sql", f"a job of {self.task} that needs others is no single row: submit it")
        text = statements.INSERT_JOB_IN_COLUMNS if self.unique is None else SUBMIT_UNIQUE_ONE
        params = statements.params_of(self) if self.unique is None else of_submissions([self])
        return spelled(text, params, schema_in_use(schema), paramstyle)


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
    if any(job.needs for job in jobs):
        return (yield from submit_flow(jobs, schema))[0]
    return (yield from surrounded(jobs, functools.partial(_submit_all, schema)))


def _submit_all(schema: str, jobs: Sequence[NewJob[R]]) -> Steps[list[Job[R]]]:
    if any(job.unique is not None for job in jobs):
        return (yield from _submit_unique(jobs, schema))
    ids, transaction, at = yield statements.insert_jobs(jobs)
    return [_handle(job, schema, id_, transaction, at) for id_, job in zip(ids, jobs, strict=True)]


def submit_flow(ends: Sequence[NewJob[R]], schema: str) -> Steps[tuple[list[Job[R]], list[int]]]:
    """These and all that they need which is not there yet, each once; also the ids of all that it has added."""
    return submit_graph(ends, schema, _handle)


def _submit_unique(jobs: Sequence[NewJob[R]], schema: str) -> Steps[list[Job[R]]]:
    made: list[Submission] = yield submit_unique(jobs)
    for seen, job in zip(made, jobs, strict=True):
        if seen.outcome == "refused" and job.unique is not None:
            own = any(other.outcome == "inserted" and other.id == seen.id for other in made)
            raise DuplicateJob(job.task, job.unique.text, None if own else seen.id)
    return [
        Job(
            seen.id,
            job.task,
            seen.queue,
            schema,
            seen.transaction,
            job.decode_result,
            SubmitOutcome(seen.outcome),
            seen.submitted_at,
        )
        for seen, job in zip(made, jobs, strict=True)
    ]


def _handle(new: NewJob[R], schema: str, job_id: int, transaction: str, at: datetime) -> Job[R]:
    return Job(job_id, new.task, new.options.queue, schema, transaction, new.decode_result, SubmitOutcome.INSERTED, at)


def submit_one(new: NewJob[R], schema: str) -> Statement[Job[R]] | Steps[Job[R]]:
    """What `task.submit` sends: one statement."""
    if new.needs:
        return _only(submit_all([new], schema))
    if new.unique is not None or submits:
        return _only(surrounded([new], functools.partial(_submit_alone, schema)))
    return statements.insert_job(new, functools.partial(_handle, new, schema))


def _submit_alone(schema: str, jobs: Sequence[NewJob[R]]) -> Steps[list[Job[R]]]:
    (new,) = jobs
    if new.unique is not None:
        return (yield from _submit_unique(jobs, schema))
    return [(yield statements.insert_job(new, functools.partial(_handle, new, schema)))]


def _only(steps: Steps[list[Job[R]]]) -> Steps[Job[R]]:
    (job,) = yield from steps
    return job
