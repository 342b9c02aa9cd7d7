"""What there is in one schema: its jobs, live and finished, and what else its tables would hold.

What happens to it is told a file a capability, in the functions that answer Chancy's statements; here is what happens
to a job between its submit and its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import msgspec

from chancy import statements
from chancy.arguments.codec import encode_json
from chancy.arguments.meta import parsed
from chancy.current import CurrentJob
from chancy.job import NewJob
from chancy.model import JobRow, Progress
from chancy.schedules.schedule import ScheduleRow
from chancy.states import State
from chancy_worker.attempts.verdict import Claimed, Completion

from .rows import Kept, KeptBatch, KeptStep, now

WORKER_ID = 1


class Memory:
    """Plain dicts: jobs by their ids, batches, schedules. Ids are drawn as from a sequence: none comes twice."""

    def __init__(self) -> None:
        self.jobs: dict[int, Kept] = {}
        self.batches: dict[int, KeptBatch] = {}
        self.windows: dict[tuple[str, str], tuple[datetime, int]] = {}
        """Of keys that were submitted `within` a time: until when, and the job."""
        self.logs: dict[int, list[tuple[datetime, int, int, bytes]]] = {}
        """By their jobs: instant, attempt, number, entry."""
        self.schedules: dict[str, ScheduleRow] = {}
        self.needs: dict[int, dict[int, str]] = {}
        """Of blocked jobs: whom each needs, and what of that."""
        self.doomed: dict[int, dict[int, str]] = {}
        """The same of those that were ended because of a need."""
        self.ended: set[int] = set()
        """Jobs that are over, or gone, since anybody has looked at who needs them."""
        self.steps: dict[int, tuple[KeptStep, ...]] = {}
        """By their jobs, oldest first."""
        self.running: dict[int, CurrentJob] = {}
        """The attempts that run, by their jobs."""
        self.due: list[int] = []
        """Jobs that a worker would come to perform now; the backend takes them from here."""
        self._ids = itertools.count(1)
        self._batch_ids = itertools.count(1)

    def next_id(self) -> int:
        """Of a job."""
        return next(self._ids)

    def next_batch_id(self) -> int:
        """Of a batch."""
        return next(self._batch_ids)

    def take_due(self) -> list[int]:
        """The jobs that have become due, first one first."""
        due, self.due = self.due, []
        return due

    def clear(self) -> None:
        """Nothing has ever been submitted."""
        self.jobs, self.windows, self.logs, self.batches, self.schedules, self.steps = {}, {}, {}, {}, {}, {}
        self.needs, self.doomed = {}, {}

    def save(self) -> Callable[[], None]:
        """What brings back all that is here now."""
        jobs, windows, batches = dict(self.jobs), dict(self.windows), dict(self.batches)
        schedules, steps, needs, doomed = dict(self.schedules), dict(self.steps), dict(self.needs), dict(self.doomed)

        def restore() -> None:
            self.jobs, self.windows, self.batches, self.schedules = jobs, windows, batches, schedules
            self.steps, self.needs, self.doomed = steps, needs, doomed

        return restore

    def add(self, job: NewJob[Any], transaction: str, job_id: int | None = None) -> int:
        """Remember a job; its id."""
        job_id, at, options = self.next_id() if job_id is None else job_id, now(), job.options
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
            submitted_at=at,
            run_at=(options.run_at or at + (options.delay or timedelta(0))).astimezone(UTC),
            started_at=None,
            finished_at=None,
            arguments=job.arguments,
            result=None,
            errors=(),
            cancel_at=None,
            progress=None,
            unique_key=None if job.unique is None else job.unique.text,
            batch=None,
            meta=parsed(job.meta),
        )
        retry, limits = (None if value is None else encode_json(value) for value in (options.retry, options.limits))
        self.jobs[job_id] = Kept(
            row=row,
            transaction=transaction,
            retry=retry,
            limits=limits,
            gates=job.gates,
            unique=job.unique,
            meta=job.meta,
        )
        return job_id

    def claim(self, job_id: int) -> Claimed | None:
        """Make it run, if it is ready or scheduled."""
        kept = self.jobs.get(job_id)
        if kept is None or kept.row.state is not State.READY:
            return None
        at, row = now(), kept.row
        kept = kept.with_row(state=State.RUNNING, attempt=row.attempt + 1, worker=WORKER_ID, started_at=at)
        kept = self.jobs[job_id] = msgspec.structs.replace(kept, fence=kept.fence + 1)
        row = kept.row
        return Claimed(
            row.id, row.task, row.queue, row.attempt, row.max_attempts, kept.fence, row.crashes,
            row.arguments, kept.retry, kept.limits, kept.errors, None, row.batch, row.priority, row.run_at, None,
            row.submitted_at, kept.meta,
        )  # fmt: skip

    def settle(self, verdict: Completion) -> None:
        """Write the verdict, unless another claim has the job or it is over already."""
        kept = self.jobs.get(verdict.id)
        if kept is None or kept.fence != verdict.fence or kept.row.state is not State.RUNNING:
            return
        errors = verdict.errors or kept.errors
        kept = msgspec.structs.replace(kept, errors=errors).with_row(errors=statements.parse_errors(errors))
        if verdict.state is not State.READY:
            self.finish(kept, verdict.state, verdict.result)
        elif kept.row.cancel_at is not None:
            self.finish(kept, State.CANCELLED)
        else:
            row = kept.row
            self.jobs[verdict.id] = kept.with_row(
                state=State.READY,
                worker=None,
                progress=None,
                attempt=row.attempt - verdict.refund,
                run_at=row.run_at if verdict.delay is None or verdict.snooze == "kept" else now() + verdict.delay,
            )
            if verdict.snooze == "kept" and row.run_at <= now():  # it was told meanwhile
                self.due.append(verdict.id)

    def finish(self, kept: Kept, state: State, result: bytes | None = None) -> None:
        """The job is over."""
        self.jobs[kept.row.id] = kept.with_row(
            state=state, result=result, finished_at=now(), cancel_at=None, progress=None
        )
        self.ended.add(kept.row.id)

    def note_delay(self, job_id: int, delay: timedelta) -> None:
        """A retry would have waited so long."""
        kept = self.jobs[job_id]
        self.jobs[job_id] = msgspec.structs.replace(kept, delays=(*kept.delays, delay))

    def note_progress(self, job_id: int, progress: Progress) -> None:
        """A running job has said how far it is."""
        self.jobs[job_id] = self.jobs[job_id].with_row(progress=progress)


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement, as far as its answer depends on it."""

    params: Mapping[str, Any]
    adds: Sequence[Any]
    transaction: str | None
    """The block that the caller is in, if any."""


Row: TypeAlias = tuple[Any, ...]
Answer: TypeAlias = Callable[[Memory, Asked], Iterable[Row]]
"""The rows that the statement would give, which its own parser reads."""
