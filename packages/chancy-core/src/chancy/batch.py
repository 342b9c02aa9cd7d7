"""Batches: jobs that are submitted together, and what is to run when the last of them has finished.

That a batch is over is read from the rows of its jobs: when none of them is live, whoever looks first submits the
callbacks, in the transaction that marks the batch as finished.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, overload

import msgspec
from typing_extensions import ParamSpec

from .client import Job, bound, submit_all
from .codec import encode_json
from .errors import ChancyError, InvalidArguments, InvalidOption, UnknownBatch
from .literals import in_seconds, of_numbers
from .model import BatchCounts, BatchProgress, NewJob, Rows, Statement, Steps
from .plain import identity, shown
from .run import AsyncConn, SyncConn, around, perform
from .schema import schema_in_use
from .unique import SubmitOutcome

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", SyncConn, AsyncConn)

_NO_COUNTS, _OTHER_COUNTS = BatchCounts(0), BatchCounts(1, 1, 1, 1, 1, 1)


class TakesCounts(Protocol):
    """A task that needs nothing but the counts."""

    def bind(self, counts: BatchCounts, /) -> NewJob[Any]:
        """See `task.bind`."""


class TakesCountsAndMore(Protocol[P]):
    """A task whose first argument is the counts."""

    def bind(self, counts: BatchCounts, /, *args: P.args, **kwargs: P.kwargs) -> NewJob[Any]:
        """See `task.bind`."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A task for the end of a batch, with all its arguments but the first one."""

    job: NewJob[Any]
    """As it would be if it were told counts of 0."""


def callback(task: TakesCountsAndMore[P], /, *args: P.args, **kwargs: P.kwargs) -> Callback:
    """A task for the end of a batch: its first argument will be the `BatchCounts`, these are the others.

    Raises `InvalidArguments`, which names the argument; and for a task that is unique, limited or grouped by a key that
    is made of the counts, which nobody knows yet.
    """
    if not hasattr(task, "bind"):
        raise InvalidOption(
            "callback", f"a callback of a batch is a task, or what callback(task, …) gives, got {shown(task)}"
        )
    job, other = task.bind(_NO_COUNTS, *args, **kwargs), task.bind(_OTHER_COUNTS, *args, **kwargs)
    for option, differs in {"unique": job.unique != other.unique, "limits": job.gates != other.gates}.items():
        if differs:
            raise InvalidArguments(
                job.task,
                option,
                "its key is made of the counts, which are not known before the batch is over: "
                "make it of other arguments, for example with unique=Unique(key=lambda import_id: import_id)",
            )
    return Callback(job)


class Batch(Generic[C]):
    """What a block of `batch` gives: submit its jobs through this. Afterwards it holds no connection."""

    def __init__(self, conn: C, batch_id: int, schema: str) -> None:
        self.id = batch_id
        """Known from the begin of the block: it can be an argument of its jobs, or go into a row of yours."""
        self.schema = schema
        self._conn: C | None = conn
        self._jobs: list[int] = []

    def __repr__(self) -> str:
        return f"Batch(id={self.id}, schema={self.schema!r})"

    @overload
    def submit(self: Batch[SyncConn], job: NewJob[R], /) -> Job[R]: ...
    @overload
    def submit(self: Batch[AsyncConn], job: NewJob[R], /) -> Coroutine[Any, Any, Job[R]]: ...
    def submit(self, job: NewJob[R], /) -> Job[R] | Coroutine[Any, Any, Job[R]]:
        """Add one job (of `task.bind(…)`) in the block's transaction. One round trip; see `task.submit`.

        A unique job that was there already belongs to whoever submitted it, and the batch does not wait for it.
        """
        return perform(self._open, self._submit_one(*bound([job])), self.schema)

    @overload
    def submit_many(self: Batch[SyncConn], jobs: Sequence[NewJob[R]], /) -> list[Job[R]]: ...
    @overload
    def submit_many(self: Batch[AsyncConn], jobs: Sequence[NewJob[R]], /) -> Coroutine[Any, Any, list[Job[R]]]: ...
    def submit_many(self, jobs: Sequence[NewJob[R]], /) -> list[Job[R]] | Coroutine[Any, Any, list[Job[R]]]:
        """Add many jobs, all or none, in one round trip; the handles come back in the order given."""
        return perform(self._open, self._submit(bound(jobs)), self.schema)

    @overload
    def progress(self, conn: SyncConn, /) -> BatchProgress: ...
    @overload
    def progress(self, conn: AsyncConn, /) -> Coroutine[Any, Any, BatchProgress]: ...
    def progress(self, conn: SyncConn | AsyncConn, /) -> BatchProgress | Coroutine[Any, Any, BatchProgress]:
        """See `chancy.batch_progress`."""
        return batch_progress(conn, self.id, schema=self.schema)

    @property
    def _open(self) -> C:
        if self._conn is None:
            raise ChancyError(f"batch {self.id} is complete: submit its jobs inside the block")
        return self._conn

    def _submit_one(self, job: NewJob[R]) -> Steps[Job[R]]:
        (made,) = yield from self._submit([job])
        return made

    def _submit(self, jobs: Sequence[NewJob[R]]) -> Steps[list[Job[R]]]:
        made = yield from submit_all(jobs, self.schema)
        self._jobs += [job.id for job in made if job.outcome is SubmitOutcome.INSERTED]
        return made

    def closing(self, on_success: Callback | None, on_finished: Callback | None) -> Steps[None]:
        """What the end of the block sends."""
        self._conn = None
        total = yield insert_batch(self.id, self._jobs, on_success, on_finished)
        if not total:
            yield finish_batches([self.id])


@overload
def batch(
    conn: SyncConn,
    /,
    *,
    on_success: TakesCounts | Callback | None = None,
    on_finished: TakesCounts | Callback | None = None,
    schema: str | None = None,
) -> AbstractContextManager[Batch[SyncConn]]: ...
@overload
def batch(
    conn: AsyncConn,
    /,
    *,
    on_success: TakesCounts | Callback | None = None,
    on_finished: TakesCounts | Callback | None = None,
    schema: str | None = None,
) -> AbstractAsyncContextManager[Batch[AsyncConn]]: ...
def batch(
    conn: SyncConn | AsyncConn,
    /,
    *,
    on_success: TakesCounts | Callback | None = None,
    on_finished: TakesCounts | Callback | None = None,
    schema: str | None = None,
) -> AbstractContextManager[Batch[SyncConn]] | AbstractAsyncContextManager[Batch[AsyncConn]]:
    """Submit jobs that belong together; when the last one has finished, the callbacks are submitted, each once.

    `on_success` if every job has succeeded, `on_finished` however they have ended, both at the end of the last one.
    Each is a task whose first argument is a `BatchCounts`, or `callback(task, …)` with the others; it runs with the
    options of its task, and its unique key, if it has one, holds: a callback finds a job that is there. A batch without
    jobs is over at once. A job that is requeued after the end changes nothing.

    The jobs and their batch appear together: on a connection in autocommit the block is a transaction; on any other it
    is a part of yours, and appears when you commit. If the block raises there is no batch; in your own transaction the
    jobs that it has submitted are there nevertheless, without it, if you commit what is left.

    One round trip at the begin, and one at the end that writes each of its jobs once more. Raises `InvalidArguments`
    for a callback that does not take what it is given, before anything is sent.
    """
    success, finished = _callback(on_success), _callback(on_finished)
    where = schema_in_use(schema)

    def begin() -> Steps[Batch[Any]]:
        return Batch[Any](conn, (yield draw_batch()), where)

    return around(conn, begin(), lambda made: made.closing(success, finished), where)


def _callback(given: TakesCounts | Callback | None) -> Callback | None:
    if given is None or isinstance(given, Callback):
        return given
    return callback(given)


@overload
def batch_progress(conn: SyncConn, batch_id: int, /, *, schema: str | None = None) -> BatchProgress: ...
@overload
def batch_progress(
    conn: AsyncConn, batch_id: int, /, *, schema: str | None = None
) -> Coroutine[Any, Any, BatchProgress]: ...
def batch_progress(
    conn: SyncConn | AsyncConn, batch_id: int, /, *, schema: str | None = None
) -> BatchProgress | Coroutine[Any, Any, BatchProgress]:
    """How many jobs of the batch are where. One round trip, which counts them: about a second for a million.

    Raises `UnknownBatch`.
    """
    where = schema_in_use(schema)
    return perform(conn, _progress(identity("batch_id", batch_id), where), where)


def _progress(batch_id: int, schema: str) -> Steps[BatchProgress]:
    seen: BatchProgress | None = yield select_progress(batch_id)
    if seen is None:
        raise UnknownBatch(batch_id, schema)
    return seen


DRAW_BATCH = "SELECT nextval('{schema}.batch_id_seq')"


def draw_batch() -> Statement[int]:
    """The id of a batch that is to be. Locks nothing."""
    return Statement(DRAW_BATCH, {}, lambda rows: int(rows[0][0]))


INSERT_BATCH = """
    WITH members AS (
        UPDATE {schema}.job SET batch = %(id)s::bigint WHERE id = ANY (%(jobs)s::bigint[]) RETURNING id
    ),
    made AS (
        INSERT INTO {schema}.batch (id, on_success, on_finished, total, created_at, witness)
        SELECT %(id)s::bigint, %(on_success)s::json, %(on_finished)s::json, count(*), {schema}.clock(),
            coalesce(min(id), 0)
        FROM members
    )
    SELECT count(*) FROM members
"""


def insert_batch(
    batch_id: int, jobs: Collection[int], on_success: Callback | None, on_finished: Callback | None
) -> Statement[int]:
    """Make these jobs, which this transaction has submitted, a batch; how many they are. The rows are its own."""
    params = {
        "id": batch_id,
        "jobs": of_numbers(jobs),
        "on_success": None if on_success is None else _stored(on_success.job),
        "on_finished": None if on_finished is None else _stored(on_finished.job),
    }
    callbacks = [each.job for each in (on_success, on_finished) if each is not None]
    return Statement(INSERT_BATCH, params, lambda rows: int(rows[0][0]), callbacks)


class _Stored(msgspec.Struct, frozen=True):
    """A callback, as the migrations' `call_back` reads it: what a row needs, and of the arguments two halves."""

    task: str
    queue: str
    priority: int
    max_attempts: int
    run_at: datetime | None
    delay: str | None
    retry: object
    limits: object
    gates: msgspec.Raw | None
    key: str | None
    until: str | None
    within: str | None
    on_conflict: str | None
    argument: str
    """The name of the one that takes the counts."""
    others: str
    """JSON within JSON, so that a NUL in it is none for Postgres."""


def _stored(job: NewJob[Any]) -> msgspec.Raw:
    options, key = job.options, job.unique
    arguments = msgspec.json.decode(job.arguments, type=dict[str, msgspec.Raw])
    argument = next(iter(arguments))
    del arguments[argument]
    return msgspec.Raw(
        encode_json(
            _Stored(
                task=job.task,
                queue=options.queue,
                priority=options.priority,
                max_attempts=options.max_attempts,
                run_at=options.run_at,
                delay=None if options.delay is None else in_seconds(options.delay),
                retry=options.retry,
                limits=options.limits,
                gates=None if job.gates is None else msgspec.Raw(job.gates),
                key=None if key is None else key.text,
                until=None if key is None else key.until,
                within=None if key is None or key.within is None else in_seconds(key.within),
                on_conflict=None if key is None else key.on_conflict,
                argument=argument,
                others=encode_json(arguments).decode(),
            )
        )
    )


def told(job: NewJob[Any], counts: BatchCounts) -> NewJob[Any]:
    """A callback with these counts, for a backend that reads no SQL."""
    arguments = msgspec.json.decode(job.arguments, type=dict[str, msgspec.Raw])
    arguments[next(iter(arguments))] = msgspec.Raw(encode_json(counts))
    return msgspec.structs.replace(job, arguments=encode_json(arguments))


class Ends(NamedTuple):
    """How many batches a look has ended, and what went wrong with others, or with callbacks: a sentence each."""

    ended: int
    troubles: Sequence[str] = ()


FINISH_BATCHES = "SELECT ended, troubles FROM {schema}.finish_batches(%(ids)s::bigint[])"


def finish_batches(ids: Collection[int]) -> Statement[Ends]:
    """End those of these batches of which no job is live, and submit their callbacks.

    A batch that may be over is locked, in the order of the ids, and one that somebody else is at is waited for. What
    goes wrong with one batch stops no other.
    """
    return Statement(FINISH_BATCHES, {"ids": of_numbers(ids)}, lambda rows: Ends(*rows[0]))


FINISH_UNFINISHED = """
    SELECT unfinished.last, looked.ended, looked.troubles
    FROM (
        SELECT max(id) AS last, array_agg(id) AS ids FROM (
            SELECT id FROM {schema}.batch WHERE finished_at IS NULL AND id > %(after)s::bigint ORDER BY id LIMIT 500
        ) AS listed
    ) AS unfinished
    CROSS JOIN LATERAL {schema}.finish_batches(unfinished.ids) AS looked
"""


def finish_unfinished(after: int) -> Statement[tuple[int | None, Ends]]:
    """The same for 500 that are not finished, from the one behind `after` on; also the last of them, None if there is
    none.
    """
    return Statement(FINISH_UNFINISHED, {"after": after}, lambda rows: (rows[0][0], Ends(*rows[0][1:])))


SELECT_PROGRESS = """
    SELECT batch.total, live.waiting, live.running, past.succeeded, past.failed, past.discarded, past.cancelled,
        batch.finished_at
    FROM {schema}.batch AS batch
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE job.state = 'ready') AS waiting,
            count(*) FILTER (WHERE job.state = 'running') AS running
        FROM {schema}.job AS job WHERE job.batch = batch.id
    ) AS live
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE history.state = 'succeeded') AS succeeded,
            count(*) FILTER (WHERE history.state = 'failed') AS failed,
            count(*) FILTER (WHERE history.state = 'discarded') AS discarded,
            count(*) FILTER (WHERE history.state = 'cancelled') AS cancelled
        FROM {schema}.history AS history WHERE history.batch = batch.id
    ) AS past
    WHERE batch.id = %(id)s::bigint
"""


def select_progress(batch_id: int) -> Statement[BatchProgress | None]:
    """How far the batch is, or None."""
    return Statement(SELECT_PROGRESS, {"id": batch_id}, _parse_progress)


def _parse_progress(rows: Rows) -> BatchProgress | None:
    if not rows:
        return None
    *counts, finished_at = rows[0]
    names = BatchProgress.__struct_fields__[:-1]
    return BatchProgress(
        **dict(zip(names, counts, strict=True)), finished_at=finished_at and finished_at.astimezone(UTC)
    )
