"""Many jobs at once, by what they have in common: cancel, requeue, delete, in small batches.

On a connection in autocommit each batch is a transaction of its own, so that nobody waits long for anything, and what
is done stays done when the rest is stopped. Inside a transaction all of it is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from chancy.errors import InvalidOption, UnknownJob
from chancy.flows.resuming import requeue_jobs, resume_flows
from chancy.flows.statements import tell
from chancy.history.moving import DAYS_AHEAD, make_partitions
from chancy.model import Pause, Rows, Statement, Steps, attempts_of, priority_of
from chancy.options.plain import identity, instant, number, shown
from chancy.registry import registered
from chancy.schema import schema_in_use
from chancy.states import FINISHED, LIVE, State
from chancy.verb import verb
from chancy.verbs import ASKED, cancel_flows, cancel_jobs

from .matching import JobFilter, filter_of

BATCH = 200
"""Jobs a transaction: what a worker's own round may have to wait for."""
CHOSEN_AT_ONCE = 100_000
BROKEN = frozenset({State.FAILED, State.DISCARDED})
"""What a fingerprint alone means where finished jobs are meant."""

Told: TypeAlias = Callable[[int], None]
"""Is told after each batch how many jobs have been gone through."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of the jobs that were chosen."""

    changed: int
    left: int
    """How many were skipped: another session was faster, they run, or a live job has their unique key."""


_CHOOSE = "SELECT {schema}.choose_jobs(" + ASKED + ", %(after)s::bigint, %(most)s::integer)"
CHOOSE = {"choose_live": _CHOOSE, "choose_finished": _CHOOSE}


def chosen(name: str, which: JobFilter, states: Collection[State], after: int) -> Statement[list[int]]:
    """The next ids, ascending, of jobs that are all live, or all finished."""
    params = which.params(states) | {"after": after, "most": CHOSEN_AT_ONCE}
    return Statement(CHOOSE[name], params, lambda rows: [id_ for (id_,) in rows], name=name)


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
    """Stop the live jobs of the filter `which`, as `chancy.cancel` does one; two round trips a batch.

    Raises `InvalidOption` for a filter that fits every job, or asks for finished ones.
    """
    filter_of(which).refuse_all("cancel_many")
    if which.state in FINISHED:
        raise InvalidOption("state", f"cancel_many: jobs that have {which.state} cannot be cancelled any more")
    return _sweep(which, which.states & LIVE, _size(batch), _cancel, _listener(told))


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

    A filter with a fingerprint and no state means what has failed or was discarded. Raises `InvalidOption` unless the
    filter names either, the state one in which jobs are finished, and for a number of attempts that no row can hold.
    """
    if filter_of(which).state not in FINISHED and (which.state is not None or which.fingerprint is None):
        ended = ", ".join(sorted(FINISHED))
        raise InvalidOption("state", f"requeue_many: name a state, one of {ended}, or a fingerprint")
    more = None if attempts is None else attempts_of("attempts", attempts)

    def requeue(ids: Sequence[int]) -> Steps[int]:
        answers = yield requeue_jobs(ids, more, registered())
        done: int = sum(answer.done for answer in answers)
        if flows := [job_id for job_id, answer in zip(ids, answers, strict=True) if answer.flow]:
            done += yield from resume_flows(flows, more)
        return done

    return _sweep(which, which.states if which.state else BROKEN, _size(batch), requeue, _listener(told))


@verb
def delete_many(
    which: JobFilter, /, *, batch: int = BATCH, told: Told | None = None, schema: str | None = None
) -> Steps[Swept]:
    """Delete those of the filter `which` that wait or are finished, as `chancy_ops.delete` does one.

    One round trip a batch.

    Raises `InvalidOption` for a filter that fits every job, or asks for running ones.
    """
    filter_of(which).refuse_all("delete_many")
    if which.state is State.RUNNING:
        raise InvalidOption("state", "delete_many: jobs that run cannot be deleted; cancel them first")
    return _sweep(which, which.states, _size(batch), _delete, _listener(told))


def _delete(ids: Sequence[int]) -> Steps[int]:
    deleted, _, needed = yield Statement(DELETE_JOBS, {"ids": list(ids)}, lambda rows: rows[0][:3], name="delete_jobs")
    if needed:
        yield make_partitions(DAYS_AHEAD)
        yield from tell(needed)
    return int(deleted)


def _sweep(
    which: JobFilter,
    states: Collection[State],
    batch: int,
    change: Callable[[Sequence[int]], Generator[Any, Any, int]],
    told: Told | None,
) -> Steps[Swept]:
    """All that fit are looked up first, so many at once, since each look may read a whole table."""
    changed = left = 0
    for choice, there in (("choose_live", LIVE), ("choose_finished", FINISHED)):
        if not (wanted := there.intersection(states)):
            continue
        after, full = 0, True
        while full:
            ids: list[int] = yield chosen(choice, which, wanted, after)
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

    Waits for whoever holds the row. Returns False for a job that runs, is blocked or is finished, which is left alone.
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
    ),
    steps AS (
        DELETE FROM {schema}.step
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
