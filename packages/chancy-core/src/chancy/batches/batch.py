"""Batches: jobs that are submitted together, and what is to run when the last of them has finished.

That a batch is over is read from the rows of its jobs: when none of them is live, whoever looks first submits the
callbacks, in the transaction that marks the batch as finished.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar, overload

from typing_extensions import ParamSpec

from chancy.errors import ChancyError, InvalidArguments, InvalidOption, UnknownBatch
from chancy.job import Job, NewJob, bound, submit_all, submit_flow
from chancy.keys.unique import SubmitOutcome
from chancy.model import Steps
from chancy.options.plain import identity, shown
from chancy.run import perform
from chancy.schema import schema_in_use
from chancy.verb import verb
from chancy.wires.connections import AsyncConn, SyncConn

from .block import around
from .statements import draw_batch, finish_batches, insert_batch, select_progress
from .values import BatchCounts, BatchProgress, Callback

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
        if any(job.needs for job in jobs):
            made, ids = yield from submit_flow(jobs, self.schema)
        else:
            made = yield from submit_all(jobs, self.schema)
            ids = [job.id for job in made if job.outcome is SubmitOutcome.INSERTED]
        self._jobs += ids
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


@verb
def batch_progress(batch_id: int, /, *, schema: str | None = None) -> Steps[BatchProgress]:
    """How many jobs of a batch are where, by its number, `batch_id`, which is `Batch.id`.

    One round trip, which counts them: about a second for a million. Raises `UnknownBatch`.
    """
    return _progress(identity("batch_id", batch_id), schema_in_use(schema))


def _progress(batch_id: int, schema: str) -> Steps[BatchProgress]:
    seen: BatchProgress | None = yield select_progress(batch_id)
    if seen is None:
        raise UnknownBatch(batch_id, schema)
    return seen
