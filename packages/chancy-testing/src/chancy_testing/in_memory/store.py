"""The jobs of one schema in a dict, which answers Chancy's statements as its tables would.

No SQL is read here: a statement is known by its constant, and its rows are made from its parameters. What a statement
means is told once more, in Python; tests/conformance holds the two together.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from chancy import registry, statements
from chancy.arguments.codec import encode_json
from chancy.arguments.meta import parsed
from chancy.batches.statements import DRAW_BATCH, FINISH_BATCHES, INSERT_BATCH, SELECT_PROGRESS, told
from chancy.batches.values import BatchCounts
from chancy.history.moving import MAKE_PARTITIONS
from chancy.history.rules import KEEP_QUEUES
from chancy.job import NewJob
from chancy.keys.statements import SUBMIT_UNIQUE, SUBMIT_UNIQUE_OR_NONE
from chancy.logs import SELECT_LOGS
from chancy.model import JobRow, Progress, Rows, Statement, UniqueKey
from chancy.states import FINISHED, LIVE, State
from chancy.verbs import CANCEL_JOBS, REQUEUE_JOBS, SELECT_JOB, SELECT_JOBS
from chancy_worker.attempts.logs import Kept as KeptRecord
from chancy_worker.attempts.verdict import Claimed, Completion

from .schedules import Schedules

WORKER_ID = 1
_ENDS = (State.SUCCEEDED, State.FAILED, State.DISCARDED, State.CANCELLED)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A job, live or finished: what its row shows, and the columns that nobody is shown."""

    row: JobRow
    transaction: str
    fence: int = 0
    retry: bytes | None = None
    limits: bytes | None = None
    gates: bytes | None = None
    unique: UniqueKey | None = None
    errors: bytes | None = None
    meta: bytes | None = None
    delays: tuple[timedelta, ...] = ()
    """After which delay each retry was due; all of them were made at once."""

    @property
    def holds_key(self) -> bool:
        """Whether nobody else may have its key."""
        key = self.unique
        return key is not None and self.row.state not in FINISHED and (not self.fence or key.until == "finished")

    def with_row(self, **changes: Any) -> Kept:
        """The same with other values in its row."""
        return msgspec.structs.replace(self, row=msgspec.structs.replace(self.row, **changes))


class KeptBatch(msgspec.Struct, frozen=True):
    """A batch, its callbacks untold."""

    members: tuple[int, ...]
    on_success: NewJob[Any] | None
    on_finished: NewJob[Any] | None
    finished_at: datetime | None = None


class Memory:
    """Live and finished jobs by their ids, and batches. And of keys that were submitted `within` a time: until when,
    and the job.
    """

    def __init__(self) -> None:
        self.jobs: dict[int, Kept] = {}
        self.batches: dict[int, KeptBatch] = {}
        self.windows: dict[tuple[str, str], tuple[datetime, int]] = {}
        self.logs: dict[int, list[tuple[datetime, int, int, bytes]]] = {}
        """By their jobs: instant, attempt, number, entry."""
        self.schedules = Schedules()
        self._ids = itertools.count(1)
        self._batch_ids = itertools.count(1)
        self._answers: dict[str, Callable[[Mapping[str, Any]], Iterator[tuple[Any, ...]]]] = {
            SELECT_JOB: self._job,
            SELECT_JOBS: self._jobs,
            CANCEL_JOBS: self._cancel,
            REQUEUE_JOBS: self._requeue,
            statements.COMPLETE_JOB: self._complete,
            **self._of_operators(),
            KEEP_QUEUES: lambda params: iter([(None,)]),  # nothing goes before the test is over
            MAKE_PARTITIONS: lambda params: iter([(0,)]),
            SELECT_LOGS: self._logs,
            DRAW_BATCH: lambda params: iter([(next(self._batch_ids),)]),
            FINISH_BATCHES: lambda params: iter([(0, ())]),  # whoever asks does so by himself, after each answer
            SELECT_PROGRESS: self._progress,
            **self.schedules.answers,
        }

    def _of_operators(self) -> dict[str, Callable[[Mapping[str, Any]], Iterator[tuple[Any, ...]]]]:
        """To the verbs of chancy-ops, where that is installed."""
        try:
            from chancy_ops import jobs, queue
        except ModuleNotFoundError:
            return {}
        return {
            jobs.EDIT_JOB: self._edit,
            jobs.DELETE_JOBS: self._delete,
            jobs.COUNT_JOBS: self._count,
            jobs.CHOOSE_LIVE: functools.partial(self._choose, LIVE),
            jobs.CHOOSE_FINISHED: functools.partial(self._choose, FINISHED),
            queue.LIMIT_QUEUE: lambda params: iter([(None,)]),  # one job at a time is within every limit
        }

    def answer(self, statement: Statement[Any], transaction: str | None) -> Rows:
        """The rows. `transaction` is the block that the caller is in, if any."""
        if statement.sql in (SUBMIT_UNIQUE, SUBMIT_UNIQUE_OR_NONE):
            return [self._submit_unique(statement.adds, transaction)]
        if statement.sql == INSERT_BATCH:
            return [(self._insert_batch(statement.params, statement.adds),)]
        if statement.adds:
            ids = [self._add(job, transaction or "0") for job in statement.adds]
            where = transaction or "0", self.jobs[ids[0]].row.submitted_at
            return [(ids, *where) if statement.sql == statements.INSERT_JOBS else (encode_json((ids[0], *where)),)]
        if statement.sql in (statements.SELECT_OUTCOME, statements.SELECT_LIVE_OUTCOME):
            return [self._outcome(statement.params["id"], transaction)]
        if (answer := self._answers.get(statement.sql)) is None:
            raise NotImplementedError(
                "eager mode has no database, and in memory there is no answer to this verb, as to pause, resume, "
                "limit, keep, queues, workers, why and doctor: use the fixture chancy_conn, on a real Postgres"
            )
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

    def note_logs(self, logged: Sequence[KeptRecord]) -> None:
        """Attempts have logged this."""
        for kept in logged:
            at = _now() - timedelta(seconds=time.monotonic() - kept.at)
            self.logs.setdefault(kept.job, []).append((at, kept.attempt, kept.n, kept.entry))

    def clear(self) -> None:
        """Nothing has ever been submitted."""
        self.jobs, self.windows, self.logs, self.batches = {}, {}, {}, {}
        self.schedules.rows = {}

    def save(self) -> Callable[[], None]:
        """What brings back all that is here now."""
        jobs, windows, batches = dict(self.jobs), dict(self.windows), dict(self.batches)
        schedules = dict(self.schedules.rows)

        def restore() -> None:
            self.jobs, self.windows, self.batches = jobs, windows, batches
            self.schedules.rows = schedules

        return restore

    def finish_batches(self) -> list[int]:
        """End the batches of which no job is live; the jobs that this has added."""
        added = []
        for batch_id, kept in self.batches.items():
            if kept.finished_at is None and not any(self._is_live(id_) for id_ in reversed(kept.members)):
                self.batches[batch_id] = msgspec.structs.replace(kept, finished_at=_now())
                counts = BatchCounts(batch_id, len(kept.members), **self._ended(kept))
                success = counts.succeeded == counts.total
                for callback in (kept.on_success if success else None, kept.on_finished):
                    if callback is not None:
                        job_id, outcome = self._submit_one(told(callback, counts), "0", next(self._ids))
                        added += [job_id] if outcome == "inserted" else []
        return added

    def _is_live(self, job_id: int) -> bool:
        return job_id in self.jobs and self.jobs[job_id].row.state not in FINISHED

    def _states(self, kept: KeptBatch) -> Counter[State]:
        """Of its jobs, without those that were deleted."""
        return Counter(self.jobs[id_].row.state for id_ in kept.members if id_ in self.jobs)

    def _ended(self, kept: KeptBatch) -> dict[str, int]:
        states = self._states(kept)
        return {state.value: states[state] for state in _ENDS}

    def _insert_batch(self, params: Mapping[str, Any], callbacks: Sequence[NewJob[Any]]) -> int:
        members = tuple(int(id_) for id_ in params["jobs"].strip("{}").split(",") if int(id_ or 0) in self.jobs)
        for id_ in members:
            self.jobs[id_] = self.jobs[id_].with_row(batch=params["id"])
        left = iter(callbacks)
        on_success, on_finished = (next(left) if params[name] else None for name in ("on_success", "on_finished"))
        self.batches[params["id"]] = KeptBatch(members, on_success, on_finished)
        return len(members)

    def _progress(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        if kept := self.batches.get(params["id"]):
            states = self._states(kept)
            ended = self._ended(kept).values()
            yield len(kept.members), states[State.READY], states[State.RUNNING], *ended, kept.finished_at

    def _add(self, job: NewJob[Any], transaction: str, job_id: int | None = None) -> int:
        job_id, now, options = next(self._ids) if job_id is None else job_id, _now(), job.options
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

    def _submit_unique(self, jobs: Sequence[NewJob[Any]], transaction: str | None) -> tuple[Any, ...]:
        """As `submit_unique` of the schema: the ids, outcomes, queues, what only the caller sees yet, and instants."""
        restore = self.save()
        made: list[tuple[Any, ...]] = [(None, None, None, True, None)] * len(jobs)
        given = [(job, position, next(self._ids)) for position, job in enumerate(jobs)]
        for job, position, new_id in sorted(given, key=lambda one: (one[0].task, _text(one[0].unique), one[1])):
            job_id, outcome = self._submit_one(job, transaction or "0", new_id)
            kept = self.jobs.get(job_id)  # none that was deleted, and whose time is not over
            own = outcome in ("inserted", "replaced") or (kept is not None and kept.transaction == transaction)
            queue, at = (job.options.queue, None) if kept is None else (kept.row.queue, kept.row.submitted_at)
            made[position] = job_id, outcome, queue, own, at
            if outcome == "refused":
                restore()
                break
        return (*map(list, zip(*made, strict=True)), transaction or "0")

    def _submit_one(self, job: NewJob[Any], transaction: str, new_id: int) -> tuple[int, str]:
        key = job.unique
        if key is None:
            return self._add(job, transaction, new_id), "inserted"
        now = _now()
        job = msgspec.structs.replace(job, task=self._name_with_key(job.task, key, now))
        place = job.task, key.text
        ends, other = self.windows.get(place, (now, 0))
        if key.within is None or ends <= now:
            other = self._holder(*place) or 0
            if not other:
                if key.within is not None:
                    self.windows[place] = now + key.within, new_id
                return self._add(job, transaction, new_id), "inserted"
        kept = self.jobs.get(other)
        if kept is None or key.on_conflict != "replace" or kept.row.state is not State.READY:
            return other, "refused" if key.on_conflict == "raise" else "existing"
        self._add(job, transaction, other)
        asked, brought = job.options, self.jobs[other]
        changed = {name: getattr(brought.row, name) for name in ("arguments", "priority", "max_attempts", "meta")}
        if asked.run_at is not None or asked.delay is not None:
            changed["run_at"] = brought.row.run_at
        self.jobs[other] = msgspec.structs.replace(
            kept,
            transaction=transaction,
            retry=brought.retry,
            limits=brought.limits,
            gates=brought.gates,
            meta=brought.meta,
        ).with_row(**changed)
        return other, "replaced"

    def _name_with_key(self, task: str, key: UniqueKey, now: datetime) -> str:
        """Under which of its names the key is held already."""
        names = sorted(key.others)
        timed = [name for name in names if key.within and self.windows.get((name, key.text), (now, 0))[0] > now]
        held = [name for name in names if self._holder(name, key.text)]
        return next(iter(timed + held), task)

    def _holder(self, task: str, key: str | None) -> int | None:
        """The job that has the key."""
        return next(
            (
                id_
                for id_, kept in self.jobs.items()
                if kept.row.unique_key == key and kept.row.task == task and kept.holds_key
            ),
            None,
        )

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
                and (params["tasks"] is None or row.task in params["tasks"])
                and params["state"] in (None, state_of(row))
                and params["batch"] in (None, row.batch)
                and (params["before"] is None or row.id < params["before"])
            )

        newest_first = sorted(filter(wanted, self.jobs.values()), key=lambda kept: -kept.row.id)
        yield from map(_columns, newest_first[: params["limit"]])

    def _logs(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        after = params["attempt"], params["n"]
        later = [row for row in self.logs.get(params["job"], ()) if row[1:3] > after]
        yield from sorted(later, key=lambda row: row[1:3])[: params["limit"]]

    def _outcome(self, job_id: int, transaction: str | None) -> tuple[Any, ...]:
        kept = self.jobs.get(job_id)
        if kept is None:
            return None, None, None, None, None, transaction, "read committed"
        row = kept.row
        return state_of(row), row.task, row.attempt, row.result, kept.errors, transaction, "read committed"

    def _cancel(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        for job_id in params["ids"]:
            kept = self.jobs.get(job_id)
            state = kept and kept.row.state
            if kept is not None and state is State.READY:
                self._finish(kept, State.CANCELLED)
            elif kept is not None and state is State.RUNNING:
                self.jobs[job_id] = kept.with_row(cancel_at=kept.row.cancel_at or _now())
            live = state in (State.READY, State.RUNNING)
            yield live, live, state in FINISHED, None

    def _requeue(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        for job_id in params["ids"]:
            yield self._requeue_one(job_id, params["attempts"])

    def _requeue_one(self, job_id: int, attempts: int | None) -> tuple[Any, ...]:
        kept = self.jobs.get(job_id)
        finished = kept is not None and kept.row.state in FINISHED
        holder = None
        if kept is not None and finished:
            row, task = kept.row, registry.tasks.get(kept.row.task)
            declared = row.max_attempts if task is None else task.options.max_attempts
            again = kept.with_row(
                state=State.READY,
                max_attempts=min(row.attempt + (declared if attempts is None else attempts), 32_767),
                run_at=_now(),
                result=None,
                finished_at=None,
                worker=None,
            )
            if again.holds_key:
                names = (row.task,) if task is None else task.names
                holder = next(filter(None, (self._holder(name, row.unique_key) for name in names)), None)
            if holder is None:
                self.jobs[job_id] = again
        unique = kept is not None and finished and kept.unique is not None
        return (
            finished and holder is None, kept is not None, kept.row.task if kept is not None and unique else None,
            kept.unique.text.encode() if kept is not None and kept.unique is not None else None, holder, None,
        )  # fmt: skip

    def _edit(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        kept = self.jobs.get(params["id"])
        waits = kept is not None and kept.row.state is State.READY
        if kept is not None and waits:
            given = {name: params[name] for name in ("priority", "run_at") if params[name] is not None}
            self.jobs[params["id"]] = kept.with_row(**given)
        yield waits, kept is not None, None

    def _delete(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        there = [job_id for job_id in params["ids"] if job_id in self.jobs]
        gone = [job_id for job_id in there if self.jobs[job_id].row.state is not State.RUNNING]
        for job_id in gone:
            del self.jobs[job_id]
        yield len(gone), bool(there)

    def _count(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        yield from Counter(str(state_of(kept.row)) for kept in self._matching(params)).items()

    def _choose(self, states: Collection[State], params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        ids = sorted(kept.row.id for kept in self._matching(params) if state_of(kept.row) in states)
        yield from ((id_,) for id_ in ids if id_ > params["after"])

    def _matching(self, params: Mapping[str, Any]) -> Iterator[Kept]:
        for kept in self.jobs.values():
            row = kept.row
            instant = row.finished_at or row.submitted_at
            if (
                params["queue"] in (None, row.queue)
                and (params["tasks"] is None or row.task in params["tasks"])
                and state_of(row) in params["states"]
                and (params["since"] is None or instant >= params["since"])
                and (params["until"] is None or instant < params["until"])
                and (params["error"] is None or (row.errors and row.errors[-1].kind == params["error"]))
            ):
                yield kept

    def _complete(self, params: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        kept = self.jobs.get(params["id"])
        mine = kept is not None and kept.row.state is State.RUNNING and kept.fence == params["fence"]
        if kept is not None and mine:
            self._finish(kept, State.SUCCEEDED, bytes(params["result"]))
        yield (mine,)


def _text(key: UniqueKey | None) -> str:
    return "" if key is None else key.text


def _now() -> datetime:
    return datetime.now(UTC)


def state_of(row: JobRow) -> State:
    """As others see it: `scheduled` is not stored."""
    return State.SCHEDULED if row.state is State.READY and row.run_at > _now() else row.state


def _columns(kept: Kept) -> tuple[Any, ...]:
    """As `SELECT_JOB` gives them."""
    row = kept.row
    return (
        row.id, row.task, row.queue, state_of(row).value, row.priority, row.attempt, row.max_attempts, row.crashes,
        row.worker, row.submitted_at, row.run_at, row.started_at, row.finished_at, row.cancel_at,
        row.arguments, row.result, kept.errors, None if row.progress is None else encode_json(row.progress),
        None if row.unique_key is None else row.unique_key.encode(), row.batch, kept.meta,
    )  # fmt: skip
