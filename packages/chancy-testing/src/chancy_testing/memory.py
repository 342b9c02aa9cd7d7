"""The jobs of one schema in a dict, which answers Chancy's statements as its tables would.

No SQL is read here: a statement is known by its constant, and its rows are made from its parameters. What a statement
means is told once more, in Python; `conformance` holds the two together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from chancy import statements
from chancy.codec import encode_json
from chancy.model import JobRow, NewJob, Progress, Rows, Statement
from chancy.states import FINISHED, State
from chancy_worker.verdict import Claimed, Completion

WORKER_ID = 1


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A job, live or finished: what its row shows, and the columns that nobody is shown."""

    row: JobRow
    transaction: str
    fence: int = 0
    retry: bytes | None = None
    limits: bytes | None = None
    gates: bytes | None = None
    errors: bytes | None = None
    delays: tuple[timedelta, ...] = ()
    """After which delay each retry was due; all of them were made at once."""

    def with_row(self, **changes: Any) -> Kept:
        """The same with other values in its row."""
        return msgspec.structs.replace(self, row=msgspec.structs.replace(self.row, **changes))


class Memory:
    """Live and finished jobs by their ids."""

    def __init__(self) -> None:
        self.jobs: dict[int, Kept] = {}
        self._ids = itertools.count(1)
        self._answers: dict[str, Callable[[Mapping[str, Any]], Iterator[tuple[Any, ...]]]] = {
            statements.SELECT_JOB: self._job,
            statements.SELECT_JOBS: self._jobs,
            statements.CANCEL_JOB: self._cancel,
            statements.REQUEUE_JOB: self._requeue,
            statements.COMPLETE_JOB: self._complete,
            statements.LIMIT_QUEUE: lambda params: iter([(None,)]),  # one job at a time is within every limit
            statements.MAKE_PARTITIONS: lambda params: iter([(0,)]),
        }

    def answer(self, statement: Statement[Any], transaction: str | None) -> Rows:
        """The rows. `transaction` is the block that the caller is in, if any."""
        if statement.adds:
            ids = [self._add(job, transaction or "0") for job in statement.adds]
            return [(ids if statement.sql == statements.INSERT_JOBS else ids[0], transaction or "0", None)]
        if statement.sql == statements.SELECT_OUTCOME:
            return [self._outcome(statement.params["id"], transaction)]
        if (answer := self._answers.get(statement.sql)) is None:
            raise NotImplementedError(f"there is no database here, and no answer in memory to: {statement.sql}")
        return list(answer(statement.params))

    def claim(self, job_id: int) -> Claimed | None:
        """Make it run, if it is ready or scheduled."""
        kept = self.jobs.get(job_id)
        if kept is None or kept.row.state is not State.READY:
            return None
        now, row = _now(), kept.row
        kept = kept.with_row(state=State.RUNNING, attempt=row.attempt + 1, worker=WORKER_ID, started_at=now)
        kept = self.jobs[job_id] = msgspec.structs.replace(kept, fence=kept.fence + 1)
        row = kept.row
        return Claimed(
            row.id, row.task, row.queue, row.attempt, row.max_attempts, kept.fence, row.crashes,
            row.arguments, kept.retry, kept.limits, kept.errors,
        )  # fmt: skip

    def settle(self, verdict: Completion) -> None:
        """Write the verdict, unless another claim has the job or it is over already."""
        kept = self.jobs.get(verdict.id)
        if kept is None or kept.fence != verdict.fence or kept.row.state is not State.RUNNING:
            return
        errors = verdict.errors or kept.errors
        kept = msgspec.structs.replace(kept, errors=errors).with_row(errors=statements.parse_errors(errors))
        if verdict.state is not State.READY:
            self._finish(kept, verdict.state, verdict.result)
        elif kept.row.cancel_at is not None:
            self._finish(kept, State.CANCELLED)
        else:
            row = kept.row
            self.jobs[verdict.id] = kept.with_row(
                state=State.READY,
                worker=None,
                progress=None,
                attempt=row.attempt - verdict.refund,
                run_at=row.run_at if verdict.delay is None else _now() + verdict.delay,
            )

    def note_delay(self, job_id: int, delay: timedelta) -> None:
        """A retry would have waited so long."""
        kept = self.jobs[job_id]
        self.jobs[job_id] = msgspec.structs.replace(kept, delays=(*kept.delays, delay))

    def note_progress(self, job_id: int, progress: Progress) -> None:
        """A running job has said how far it is."""
        self.jobs[job_id] = self.jobs[job_id].with_row(progress=progress)

    def _add(self, job: NewJob[Any], transaction: str) -> int:
        job_id, now, options = next(self._ids), _now(), job.options
        row = JobRow(
            id=job_id,
            task=job.task,
            queue=options.queue,
            state=State.READY,
            priority=options.priority,
            attempt=0,
            max_attempts=options.max_attempts,
            crashes=0,
            worker=None,
            submitted_at=now,
            run_at=(options.run_at or now + (options.delay or timedelta(0))).astimezone(UTC),
            started_at=None,
            finished_at=None,
            arguments=job.arguments,
            result=None,
            errors=(),
            cancel_at=None,
            progress=None,
        )
        retry, limits = (None if value is None else encode_json(value) for value in (options.retry, options.limits))
        self.jobs[job_id] = Kept(row=row, transaction=transaction, retry=retry, limits=limits, gates=job.gates)
        return job_id

    def _finish(self, kept: Kept, state: State, result: bytes | None = None) -> None:
        self.jobs[kept.row.id] = kept.with_row(
            state=state, result=result, finished_at=_now(), cancel_at=None, progress=None
        )

    def _job(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        if kept := self.jobs.get(params["id"]):
            yield _columns(kept)

    def _jobs(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        def wanted(kept: Kept) -> bool:
            row = kept.row
            return (
                params["queue"] in (None, row.queue)
                and params["task"] in (None, row.task)
                and params["state"] in (None, state_of(row))
                and (params["before"] is None or row.id < params["before"])
            )

        newest_first = sorted(filter(wanted, self.jobs.values()), key=lambda kept: -kept.row.id)
        yield from map(_columns, newest_first[: params["limit"]])

    def _outcome(self, job_id: int, transaction: str | None) -> tuple[Any, ...]:
        kept = self.jobs.get(job_id)
        if kept is None:
            return None, None, None, None, None, transaction, "read committed"
        row = kept.row
        return state_of(row), row.task, row.attempt, row.result, kept.errors, transaction, "read committed"

    def _cancel(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        kept = self.jobs.get(params["id"])
        state = kept and kept.row.state
        if kept is not None and state is State.READY:
            self._finish(kept, State.CANCELLED)
        elif kept is not None and state is State.RUNNING:
            self.jobs[params["id"]] = kept.with_row(cancel_at=kept.row.cancel_at or _now())
        live = state in (State.READY, State.RUNNING)
        yield live, live, state in FINISHED, None

    def _requeue(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        kept = self.jobs.get(params["id"])
        finished = kept is not None and kept.row.state in FINISHED
        if kept is not None and finished:
            self.jobs[params["id"]] = kept.with_row(
                state=State.READY,
                max_attempts=min(kept.row.attempt + params["attempts"], 32_767),
                run_at=_now(),
                result=None,
                finished_at=None,
                worker=None,
            )
        yield finished, kept is not None, None

    def _complete(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        kept = self.jobs.get(params["id"])
        mine = kept is not None and kept.row.state is State.RUNNING and kept.fence == params["fence"]
        if kept is not None and mine:
            self._finish(kept, State.SUCCEEDED, bytes(params["result"]))
        yield (mine,)


def _now() -> datetime:
    return datetime.now(UTC)


def state_of(row: JobRow) -> State:
    """As others see it: `scheduled` is not stored."""
    return State.SCHEDULED if row.state is State.READY and row.run_at > _now() else row.state


def _columns(kept: Kept) -> tuple[Any, ...]:
    """As `statements.SELECT_JOB` gives them."""
    row = kept.row
    return (
        row.id, row.task, row.queue, state_of(row).value, row.priority, row.attempt, row.max_attempts, row.crashes,
        row.worker, row.submitted_at, row.run_at, row.started_at, row.finished_at, row.cancel_at,
        row.arguments, row.result, kept.errors, None if row.progress is None else encode_json(row.progress),
    )  # fmt: skip
