"""Jobs without a database: what is submitted is performed at once, in the test's own process, and remembered.

The codec, the attempts and the verdicts are those of the worker, so a test sees the errors that production would:
arguments and results go through their JSON, retries count, time limits bind. A retry is made at once and its delay
noted; a job with a `run_at` runs at once, too; a job that snoozes stays scheduled. Jobs submitted by a handler run
after it. Memory limits, executors and the worker's middleware are not there; the first two are reported.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import psycopg

from chancy.app import Surround
from chancy.current import CurrentJob
from chancy.errors import ChancyError, InvalidConnection, UnknownJob
from chancy.flows.flow import flow_in, pieces_of
from chancy.flows.statements import become
from chancy.job import Job
from chancy.model import AttemptError, Progress, Statement
from chancy.options.limits import LimitType
from chancy.registry import registered
from chancy.run import NO_LOOP, answered_by, awaited, follow, walk
from chancy.states import State
from chancy.task import BaseTask
from chancy.wires.connections import AsyncConn, SyncConn
from chancy.wires.registry import wire_of
from chancy_testing.attempts import Call, Performed, limits_of, not_become, perform_here, perform_here_async
from chancy_testing.stand_ins import AsyncStandIn, AsyncUnasked, StandIn, Unasked
from chancy_worker.attempts.verdict import Completion

from .answers import answer
from .batches import finish_batches
from .flows import look
from .gates import not_enforced
from .logs import note_logs
from .rows import Kept, state_of
from .steps import end_rests
from .store import Memory

T = TypeVar("T")

Mode: TypeAlias = Literal["run", "collect"]
Calls: TypeAlias = Generator[Call, Performed, T]
Place: TypeAlias = tuple[str, int]
"""A job: its schema and id."""

_later: ContextVar[list[Place] | None] = ContextVar("chancy_eager_later", default=None)
"""What a handler has submitted, to be performed after it."""


class NotPerformed(ChancyError):
    """A test waits for a job that nothing will perform: it was only collected, or it has snoozed."""

    def __init__(self, job_id: int, task: str, state: State) -> None:
        self.job_id = job_id
        super().__init__(
            f"job {job_id} ({task}) is {state} and stays so, because no worker looks at it here: "
            f"perform it with `chancy_eager.perform(job)`"
        )


class EagerJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job as it is now: what was submitted, and what became of it."""

    id: int
    task: str
    queue: str
    priority: int
    state: State
    attempt: int
    max_attempts: int
    run_at: datetime
    """When it was due, in UTC; the last time if it was retried or has snoozed."""
    arguments: dict[str, Any]
    """As the function gets them: decoded, defaults filled in; of one that waits for what it needs, none yet."""
    result: Any
    """As `result()` gives it; None until it has succeeded."""
    errors: tuple[AttemptError, ...]
    delays: tuple[timedelta, ...]
    """How long each retry would have waited, first one first."""
    not_enforced: tuple[str, ...]
    """Limits and executors that a worker would have kept to."""


class Eager:
    """The backend of one test; see `eager`."""

    elsewhere = False

    def __init__(self, mode: Mode = "run", *, raise_errors: bool = True, surround: Surround | None = None) -> None:
        if mode not in ("run", "collect"):
            raise ValueError(f'mode is "run" or "collect", got {mode!r}')
        self.mode = mode
        self.raise_errors = raise_errors
        self.surround = surround
        """What is around each function, as `Chancy(surround=…)` has it around those of a worker."""
        self._memories: defaultdict[str, Memory] = defaultdict(Memory)
        self._due: list[Place] = []
        self.conn: psycopg.Connection[Any] = StandIn(self)
        """A stand-in for a connection, by its type one of psycopg's: give it to code under test."""
        self.aconn: psycopg.AsyncConnection[Any] = AsyncStandIn(self)
        """The same, async."""

    @property
    def jobs(self) -> list[EagerJob]:
        """All jobs that were submitted, first one first."""
        return [_shown(kept) for memory in self._memories.values() for kept in memory.jobs.values()]

    @property
    def not_enforced(self) -> dict[str, tuple[str, ...]]:
        """The tasks that ran without something that a worker would have kept to, and what that is."""
        return {job.task: job.not_enforced for job in self.jobs if job.not_enforced and job.attempt}

    def perform(self, job: Job[Any], /) -> EagerJob:
        """Perform a job that was only collected, or has snoozed; the job as it is then. Its sleeps are over, and so are
        its waits that have an end.

        Its retries are made at once. What its function raises is raised here when the job has failed, unless
        `raise_errors=False`. Raises `UnknownJob`, and `ValueError` for one that is running or finished.
        """
        self._drive(self._perform((job.schema, job.id)))
        return _shown(self._memories[job.schema].jobs[job.id])

    async def aperform(self, job: Job[Any], /) -> EagerJob:
        """The same on the caller's event loop."""
        await self._drive_async(self._perform((job.schema, job.id)))
        return _shown(self._memories[job.schema].jobs[job.id])

    # The backend's methods.

    def send(self, conn: SyncConn, statement: Statement[T], schema: str) -> T:
        """Answer it, and perform what it has made due."""
        return self._drive(self._answer(conn, statement, schema))

    def send_async(self, conn: AsyncConn, statement: Statement[T], schema: str) -> Coroutine[Any, Any, T]:
        """The same, awaited."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidConnection(NO_LOOP) from None
        return self._drive_async(self._answer(conn, statement, schema))

    def wire(self, conn: SyncConn | AsyncConn) -> Any:
        """Of psycopg's own, and so of the stand-ins, what they say. Others are not asked: they may lead nowhere."""
        if isinstance(conn, (psycopg.Connection, psycopg.AsyncConnection)):
            return wire_of(conn)
        return AsyncUnasked() if awaited(conn) else Unasked()

    # What the stand-ins tell at the borders of a block.

    def save(self) -> Callable[[], None]:
        """What brings back the jobs as they are now."""
        back = {schema: memory.save() for schema, memory in self._memories.items()}
        waiting = list(self._due)

        def restore() -> None:
            for schema, memory in self._memories.items():
                back.get(schema, memory.clear)()
            self._due = waiting

        return restore

    def committed(self) -> None:
        """Perform what was submitted in the block."""
        self._drive(self._perform_due())

    async def committed_async(self) -> None:
        """The same, awaited."""
        await self._drive_async(self._perform_due())

    def _drive(self, calls: Calls[T]) -> T:
        with contextlib.closing(calls):
            return walk(calls, perform_here)

    async def _drive_async(self, calls: Calls[T]) -> T:
        with contextlib.closing(calls):
            return await follow(calls, perform_here_async)

    def _answer(self, conn: SyncConn | AsyncConn, statement: Statement[T], schema: str) -> Calls[T]:
        memory = self._memories[schema]
        block = conn.block if isinstance(conn, (StandIn, AsyncStandIn)) and conn.depth else None
        if statement.name in ("select_outcome", "select_live_outcome"):
            yield from self._before_result((schema, statement.params["id"]), block)
        rows = answer(memory, statement, block)
        look(memory)
        finish_batches(memory)
        self._due += [(schema, job_id) for job_id in memory.take_due()]
        if block is None:
            yield from self._perform_due()
        return statement.parse(rows)

    def _before_result(self, place: Place, block: str | None) -> Calls[None]:
        """Whoever asks for a result gets one, or an error: nobody else would ever make it."""
        kept = self._memories[place[0]].jobs.get(place[1])
        if kept is not None and kept.row.state is State.BLOCKED and self.mode == "run":
            yield from self._until_released(place)
            kept = self._memories[place[0]].jobs[place[1]]
        if kept is None or kept.row.state not in (State.BLOCKED, State.READY) or kept.transaction == block:
            return
        if self.mode == "run" and not kept.fence and kept.row.state is State.READY:  # by the handler that asks
            yield from self._attempts(place)
            kept = self._memories[place[0]].jobs[place[1]]
        if kept.row.state in (State.BLOCKED, State.READY):
            raise NotPerformed(kept.row.id, kept.row.task, _shown(kept).state)

    def _until_released(self, place: Place) -> Calls[None]:
        """Perform what the handler that asks has submitted, as far as this one waits for it."""
        later = _later.get() or []
        while later and self._memories[place[0]].jobs[place[1]].row.state is State.BLOCKED:
            first = later.pop(0)
            yield from self._attempts(first)
            later += self._called_for(first[0])

    def _perform(self, place: Place) -> Calls[None]:
        schema, job_id = place
        kept = self._memories[schema].jobs.get(job_id)
        if kept is None:
            raise UnknownJob(job_id, schema)
        if kept.row.state is not State.READY:
            raise ValueError(
                f"job {job_id} ({kept.row.task}) is {kept.row.state}; only one that waits can be performed"
            )
        end_rests(self._memories[schema], job_id)
        yield from self._perform_all([place])

    def _perform_due(self) -> Calls[None]:
        due, self._due = self._due, []
        if self.mode == "collect":
            return
        if (later := _later.get()) is not None:
            later += due
        else:
            yield from self._perform_all(due)

    def _perform_all(self, due: list[Place]) -> Calls[None]:
        """Perform these jobs and what they submit; then raise what the first one that has failed raised."""
        errors: list[BaseException] = []
        token = _later.set(due)
        try:
            while due:
                place = due.pop(0)
                error = yield from self._attempts(place)
                due += self._called_for(place[0])
                if error is not None:
                    errors.append(error)
        finally:
            _later.reset(token)
        if errors and self.raise_errors:
            raise errors[0]

    def _called_for(self, schema: str) -> list[Place]:
        """What an end has made due: jobs that needed it, and callbacks of batches."""
        memory = self._memories[schema]
        look(memory)
        finish_batches(memory)
        due = [(schema, job_id) for job_id in memory.take_due()]
        return due if self.mode == "run" else []

    def _attempts(self, place: Place) -> Calls[BaseException | None]:
        """Perform a job until it is finished or has snoozed; the error with which it has failed."""
        memory = self._memories[place[0]]
        while (job := memory.claim(place[1])) is not None:
            asked = Call(job, registered()[job.task], place[0], self._told, self._begins, self.surround)
            try:
                performed = yield asked
            finally:
                memory.running.pop(place[1], None)
            verdict, error, logged = performed
            note_logs(memory, logged)
            if verdict.flow is not None:
                fate, other = answer(memory, become(*job.owner, flow_in(verdict.flow)), None)[0]
                if fate == "became":
                    return None
                verdict = not_become(job, fate, other)
            memory.settle(verdict)
            if not _is_retried(memory.jobs[job.id], verdict):
                return error if verdict.state is State.FAILED else None
            memory.note_delay(job.id, verdict.delay or timedelta(0))
        return None

    def _begins(self, current: CurrentJob) -> None:
        self._memories[current.schema].running[current.id] = current

    def _told(self, current: CurrentJob, progress: Progress) -> None:
        self._memories[current.schema].note_progress(current.id, progress)


@contextlib.contextmanager
def eager(mode: Mode = "run", *, raise_errors: bool = True, surround: Surround | None = None) -> Iterator[Eager]:
    """Within the block no job needs a database: what any thread of this process submits is performed at once.

    It does not matter on which connection: one that the code under test holds is not touched by Chancy, and `conn`
    and `aconn` of what this gives are stand-ins for code that has none. Only with those a rollback undoes a submit.

    `mode="collect"` performs nothing until `perform(job)`. An error of a handler is raised where the job was submitted,
    when the job has failed; with `raise_errors=False` it is only kept on the job. `surround` is around each function,
    as that of an app is.
    """
    backend = Eager(mode, raise_errors=raise_errors, surround=surround)
    with answered_by(backend):
        yield backend


def _is_retried(kept: Kept, verdict: Completion) -> bool:
    return verdict.state is State.READY and not verdict.refund and kept.row.state is State.READY


def _shown(kept: Kept) -> EagerJob:
    row, task = kept.row, registered()[kept.row.task]
    return EagerJob(
        id=row.id,
        task=row.task,
        queue=row.queue,
        priority=row.priority,
        state=state_of(row),
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        run_at=row.run_at,
        arguments=_arguments(kept, task),
        result=None if row.result is None else task.signature.decode_result(row.result),
        errors=row.errors,
        delays=kept.delays,
        not_enforced=_not_enforced(kept, task),
    )


def _arguments(kept: Kept, task: BaseTask[..., Any]) -> dict[str, Any]:
    if pieces_of(kept.row.arguments, kept.row.needs) is not None:
        return {}
    args, kwargs = task.signature.decode_arguments(kept.row.arguments)
    return dict(zip(task.signature.names, args, strict=False)) | kwargs


def _not_enforced(kept: Kept, task: BaseTask[..., Any]) -> tuple[str, ...]:
    limits = limits_of(kept.limits, task)
    memory = [f"memory limit of {limit.value:,.0f} bytes" for limit in limits if limit.type is LimitType.MEMORY]
    return (*memory, *([f'executor="{task.executor}"'] if task.executor else []), *not_enforced(kept.gates))
