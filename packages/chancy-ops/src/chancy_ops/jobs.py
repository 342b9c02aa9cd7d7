"""Many jobs at once, by what they have in common: count, cancel, requeue, delete, in small batches.

On a connection in autocommit each batch is a transaction of its own, so that nobody waits long for anything, and what
is done stays done when the rest is stopped. Inside a transaction all of it is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeAlias

from chancy.errors import InvalidOption, UnknownJob
from chancy.flows.statements import tell
from chancy.history.moving import DAYS_AHEAD, make_partitions
from chancy.model import Pause, Rows, Statement, Steps, TaskName, attempts_of, names_of, priority_of
from chancy.options.plain import identity, instant, number, one_of, shown, text
from chancy.registry import registered
from chancy.schema import schema_in_use
from chancy.states import FINISHED, LIVE, State
from chancy.verb import verb
from chancy.verbs import cancel_flows, cancel_jobs, requeue_jobs, resume_flows

BATCH = 200
"""Jobs a transaction: what a worker's own round may have to wait for."""
CHOSEN_AT_ONCE = 100_000

Told: TypeAlias = Callable[[int], None]
"""Is told after each batch how many jobs have been gone through."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: those that fit all that is given. Raises `InvalidOption`, a `ValueError`."""

    queue: str | None = None
    task: TaskName | None = None
    """A task, with the names that it had before; or one name."""
    state: State | None = None
    error: str | None = None
    """The kind of the last error: `"TimeLimitExceeded"`, `"WorkerDied"`, the name of an exception's class."""
    since: datetime | None = None
    """From this instant on they finished; or if they are live, were submitted."""
    until: datetime | None = None
    """Before this instant."""

    def __post_init__(self) -> None:
        for name, plain in _PLAIN.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, plain(name, value))
        if self.task is not None:
            names_of("task", self.task)

    def refuse_all(self, verb: str) -> None:
        """Raise `InvalidOption` if every job fits."""
        if all(getattr(self, field.name) is None for field in fields(self)):
            raise InvalidOption(verb, "say which jobs; JobFilter() fits every one, and that is never meant")


_PLAIN: dict[str, Callable[[str, object], object]] = {
    "queue": text,
    "state": lambda option, value: one_of(option, value, State),
    "error": text,
    "since": instant,
    "until": instant,
}


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of the jobs that were chosen."""

    changed: int
    left: int
    """Left as they were: another session was faster, they run, or a live job has their unique key."""


_MATCHING = """
    SELECT id, {state} AS state FROM {schema}.{table} AS job
    WHERE (%(queue)s::text IS NULL OR queue = %(queue)s::text)
        AND (%(tasks)s::text[] IS NULL OR task = ANY (%(tasks)s::text[]))
        AND (%(since)s::timestamptz IS NULL OR {instant} >= %(since)s::timestamptz)
        AND (%(until)s::timestamptz IS NULL OR {instant} < %(until)s::timestamptz)
        AND (%(error)s::text IS NULL OR {schema}.last_error_is(errors, %(error)s::text))
"""
_LIVE = (
    _MATCHING.replace("{table}", "job")
    .replace("{instant}", "submitted_at")
    .replace("{state}", "CASE WHEN state = 'ready' AND run_at > {schema}.clock() THEN 'scheduled' ELSE state END")
)
_FINISHED = _MATCHING.replace("{table}", "history").replace("{instant}", "finished_at").replace("{state}", "state")

COUNT_JOBS = (
    "SELECT state::text, count(*) FROM ("
    + _LIVE
    + " UNION ALL "
    + _FINISHED
    + ") AS matching WHERE state::text = ANY (%(states)s::text[]) GROUP BY state"
)
_CHOOSE = """
    SELECT id FROM ({matching}) AS matching
    WHERE state::text = ANY (%(states)s::text[]) AND id > %(after)s::bigint
    ORDER BY id
    LIMIT %(most)s::integer
"""
CHOOSE_LIVE = _CHOOSE.replace("{matching}", _LIVE)
CHOOSE_FINISHED = _CHOOSE.replace("{matching}", _FINISHED)
CHOOSE = {"choose_live": CHOOSE_LIVE, "choose_finished": CHOOSE_FINISHED}


def _params(which: JobFilter) -> dict[str, Any]:
    return {
        "queue": which.queue,
        "tasks": None if which.task is None else names_of("task", which.task),
        "since": which.since,
        "until": which.until,
        "error": which.error,
        "states": [state.value for state in (State if which.state is None else (which.state,))],
    }


def count_jobs(which: JobFilter) -> Statement[dict[State, int]]:
    """How many jobs fit, by state."""
    return Statement(
        COUNT_JOBS, _params(which), lambda rows: {State(state): number for state, number in rows}, name="count_jobs"
    )


def _chosen(name: str, which: JobFilter, after: int) -> Statement[list[int]]:
    """The next ids, ascending."""
    params = _params(which) | {"after": after, "most": CHOSEN_AT_ONCE}
    return Statement(CHOOSE[name], params, lambda rows: [id_ for (id_,) in rows], name=name)


@verb
def count(which: JobFilter = JobFilter(), /, *, schema: str | None = None) -> Statement[dict[State, int]]:
    """How many jobs fit, by state; states without any are left out. One round trip, which reads them all."""
    return count_jobs(_filter(which))


def _filter(which: object) -> JobFilter:
    if isinstance(which, JobFilter):
        return which
    raise InvalidOption("which", f"expected a JobFilter, got {shown(which)}")


def _size(batch: object) -> int:
    return number("batch", batch, 1, CHOSEN_AT_ONCE)


def _listener(told: Told | None) -> Told | None:
    if told is None or callable(told):
        return told
    raise InvalidOption("told", f"expected a function, got {shown(told)}")


@verb
def cancel_many(
    which: JobFilter, /, *, batch: int = BATCH, told: Told | None = None, schema: str | None = None
) -> Steps[Swept]:
    """Stop live jobs, as `chancy.cancel` does one; two round trips a batch.

    Raises `InvalidOption` for a filter that fits every job, or asks for finished ones.
    """
    _filter(which).refuse_all("cancel_many")
    if which.state in FINISHED:
        raise InvalidOption("state", f"cancel_many: jobs that have {which.state} cannot be cancelled any more")
    return _sweep(["choose_live"], which, _size(batch), _cancel, _listener(told))


def _cancel(ids: Sequence[int]) -> Steps[int]:
    yield make_partitions(DAYS_AHEAD)
    answers = yield cancel_jobs(ids)
    yield from cancel_flows(ids, answers)
    return sum(answer.done for answer in answers)


@verb
def requeue_many(
    which: JobFilter,
    /,
    *,
    attempts: int | None = None,
    batch: int = BATCH,
    told: Told | None = None,
    schema: str | None = None,
) -> Steps[Swept]:
    """Make finished jobs ready again, as `chancy.requeue` does one, with the attempts that their tasks declare unless
    they are given; one round trip a batch. Those whose unique key a live job has are left, and of several with one key
    all but the first.

    Raises `InvalidOption` unless the filter names a state in which jobs are finished, and for a number of attempts that
    no row can hold.
    """
    if _filter(which).state not in FINISHED:
        raise InvalidOption("state", f"requeue_many: name a state, one of {', '.join(sorted(FINISHED))}")
    more = None if attempts is None else attempts_of("attempts", attempts)

    def requeue(ids: Sequence[int]) -> Steps[int]:
        answers = yield requeue_jobs(ids, more, registered())
        done: int = sum(answer.done for answer in answers)
        if flows := [job_id for job_id, answer in zip(ids, answers, strict=True) if answer.flow]:
            done += yield from resume_flows(flows, more)
        return done

    return _sweep(["choose_finished"], which, _size(batch), requeue, _listener(told))


@verb
def delete_many(
    which: JobFilter, /, *, batch: int = BATCH, told: Told | None = None, schema: str | None = None
) -> Steps[Swept]:
    """Delete jobs that wait or are finished, as `chancy_ops.delete` does one; one round trip a batch.

    Raises `InvalidOption` for a filter that fits every job, or asks for running ones.
    """
    _filter(which).refuse_all("delete_many")
    if which.state is State.RUNNING:
        raise InvalidOption("state", "delete_many: jobs that run cannot be deleted; cancel them first")
    choices = ["choose_live"] if which.state in LIVE else ["choose_finished"]
    if which.state is None:
        choices = ["choose_live", "choose_finished"]
    return _sweep(choices, which, _size(batch), _delete, _listener(told))


def _delete(ids: Sequence[int]) -> Steps[int]:
    deleted, _, needed = yield Statement(DELETE_JOBS, {"ids": list(ids)}, lambda rows: rows[0][:3], name="delete_jobs")
    if needed:
        yield make_partitions(DAYS_AHEAD)
        yield from tell(needed)
    return int(deleted)


def _sweep(
    choices: Sequence[str],
    which: JobFilter,
    batch: int,
    change: Callable[[Sequence[int]], Generator[Any, Any, int]],
    told: Told | None,
) -> Steps[Swept]:
    """All that fit are looked up first, so many at once, since each look may read a whole table."""
    changed = left = 0
    for choice in choices:
        after, full = 0, True
        while full:
            ids: list[int] = yield _chosen(choice, which, after)
            full = len(ids) == CHOSEN_AT_ONCE
            for part in (ids[first : first + batch] for first in range(0, len(ids), batch)):
                began = time.monotonic()
                done = yield from change(part)
                yield Pause(time.monotonic() - began)  # workers have the disk to themselves half of the time
                changed, left, after = changed + done, left + len(part) - done, part[-1]
                if told is not None:
                    told(changed + left)
    return Swept(changed, left)


EDIT_JOB = """
    WITH edited AS (
        UPDATE {schema}.job
        SET priority = coalesce(%(priority)s::smallint, priority), run_at = coalesce(%(run_at)s::timestamptz, run_at)
        WHERE id = %(id)s::bigint AND state = 'ready'
        RETURNING queue
    )
    SELECT EXISTS (SELECT FROM edited), EXISTS (SELECT FROM {schema}.any_job WHERE id = %(id)s::bigint),
        (SELECT {schema}.ring(queue)::text FROM edited)
"""


@verb
def edit(
    job_id: int, /, *, priority: int | None = None, run_at: datetime | None = None, schema: str | None = None
) -> Steps[bool]:
    """Change when a ready or scheduled job is due, or its priority, or both; None leaves it as it is. One round trip.

    Waits for whoever holds the row. Returns False for a job that runs or is finished, which is left alone.
    Raises `UnknownJob`, and `InvalidOption` for a priority outside of -100 to 100 or a datetime without a time zone.
    """
    job_id = identity("job_id", job_id)
    params = {
        "id": job_id,
        "priority": None if priority is None else priority_of(priority),
        "run_at": None if run_at is None else instant("run_at", run_at),
    }
    return _of_known(Statement(EDIT_JOB, params, _done_and_known, name="edit_job"), job_id, schema_in_use(schema))


DELETE_JOBS = """
    WITH waiting AS (
        DELETE FROM {schema}.job
        WHERE id = ANY (%(ids)s::bigint[]) AND state IN ('blocked', 'ready')
        RETURNING id, needed
    ),
    past AS (
        DELETE FROM {schema}.history WHERE id = ANY (%(ids)s::bigint[]) RETURNING id, needed
    ),
    needs AS (
        DELETE FROM {schema}.need
        WHERE job = ANY (%(ids)s::bigint[]) AND (job IN (SELECT id FROM waiting) OR job IN (SELECT id FROM past))
    ),
    results AS (
        DELETE FROM {schema}.history_result WHERE id = ANY (%(ids)s::bigint[])
    ),
    logs AS (
        DELETE FROM {schema}.log
        WHERE job = ANY (%(ids)s::bigint[]) AND (job IN (SELECT id FROM waiting) OR job IN (SELECT id FROM past))
    )
    SELECT (SELECT count(*) FROM waiting) + (SELECT count(*) FROM past),
        EXISTS (SELECT FROM {schema}.any_job WHERE id = ANY (%(ids)s::bigint[])),
        ARRAY(SELECT id FROM waiting WHERE needed UNION SELECT id FROM past WHERE needed)
"""


@verb
def delete(job_id: int, /, *, schema: str | None = None) -> Steps[bool]:
    """Delete a job that waits, or is finished, as if it had never been there. One round trip; of a job that others need
    some more, and what waits for it is cancelled.

    Returns False for one that runs, which is left alone: cancel it first. Raises `UnknownJob`.
    """
    return _delete_one(identity("job_id", job_id), schema_in_use(schema))


def _delete_one(job_id: int, schema: str) -> Steps[bool]:
    done, exists, needed = yield Statement(DELETE_JOBS, {"ids": [job_id]}, lambda rows: rows[0][:3], name="delete_jobs")
    if needed:
        yield make_partitions(DAYS_AHEAD)
        yield from tell(needed)
    if not exists:
        raise UnknownJob(job_id, schema)
    return bool(done)


def _done_and_known(rows: Rows) -> tuple[bool, bool]:
    done, known, *_ = rows[0]
    return bool(done), bool(known)


def _of_known(statement: Statement[tuple[bool, bool]], job_id: int, schema: str) -> Steps[bool]:
    """Whether it was done, of a job that exists."""
    done, exists = yield statement
    if not exists:
        raise UnknownJob(job_id, schema)
    return bool(done)
