"""What is asked of jobs that are there, and done to them: get, list, cancel, requeue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from typing import Any, TypeVar

import msgspec

from .arguments.meta import parsed as parsed_meta
from .errors import DuplicateJob, UnknownJob
from .flows.resuming import Requeue, requeue_jobs, resume_flows
from .flows.statements import select_unneeded, tell
from .history.moving import DAYS_AHEAD, keeping, make_partitions
from .model import Found, JobRow, Progress, Rows, Statement, Steps, TaskName, attempts_of, names_of
from .options.plain import LARGEST_ID, flag, identity, number, one_of, text
from .registry import registered
from .schema import schema_in_use
from .statements import parse_errors
from .states import State
from .verb import verb
from .wires.literals import readable_or_null

T = TypeVar("T")

# JSON is read as bytea: it arrives as UTF-8 whatever the connection's client_encoding is.
INSTANTS = ", ".join(map(readable_or_null, ("submitted_at", "run_at", "started_at", "finished_at", "cancel_at")))
_COLUMNS = """
    id, task, queue, state::text, priority, attempt, max_attempts, crashes, worker,
    {instants},
    convert_to(arguments::text, 'UTF8'), convert_to(result::text, 'UTF8'), convert_to(errors::text, 'UTF8'),
    convert_to(progress::text, 'UTF8'), convert_to(unique_key, 'UTF8'), batch, convert_to(meta::text, 'UTF8'),
    needs, becomes
""".replace("{instants}", INSTANTS)

SELECT_JOB = "SELECT " + _COLUMNS + " FROM {schema}.any_job WHERE id = %(id)s::bigint"

ASKED = """
        %(states)s::text[], %(queue)s::text, %(tasks)s::text[], %(batch)s::bigint, %(kind)s::text,
        %(fingerprint)s::text, %(since)s::timestamptz, %(until)s::timestamptz"""
"""Which jobs, as the functions of `sql/90_looks.sql` take it."""
FIND_JOBS = (
    "{schema}.find_jobs("
    + ASKED
    + """,
        %(words)s::text, %(before)s::bigint, %(limit)s::integer, %(seconds)s::double precision
    ) WITH ORDINALITY AS found (found_id, found_at, looked_to, looked_back_to, nth)
    LEFT JOIN LATERAL (
        SELECT * FROM {schema}.any_job AS live
        WHERE live.id = found_id AND live.finished_at IS NULL AND found_at IS NULL
        UNION ALL
        SELECT * FROM {schema}.any_job AS past WHERE past.id = found_id AND past.finished_at = found_at
        OFFSET 0
    ) AS job ON true
    ORDER BY nth"""
)
"""The jobs that fit, by the columns of `any_job`. `parse_found` reads what it says."""
SELECT_JOBS = "SELECT looked_to, looked_back_to, " + _COLUMNS + " FROM " + FIND_JOBS

LOOK_SECONDS = 0.5
"""So long a look goes on that has not found enough."""
ANY: Mapping[str, Any] = dict.fromkeys(
    ("queue", "tasks", "batch", "kind", "fingerprint", "since", "until", "words", "before")
) | {"states": list(State), "seconds": LOOK_SECONDS}
"""Parameters of a look that asks for nothing in particular."""


def select_job(job_id: int) -> Statement[JobRow | None]:
    """One job, live or finished, or None."""
    return Statement(SELECT_JOB, {"id": job_id}, lambda rows: _parse_job(rows[0]) if rows else None, name="select_job")


def select_jobs(limit: int, **asked: Any) -> Statement[Found[JobRow]]:
    """Jobs, live and finished, newest id first, at most so many; `asked` is what differs from `ANY`."""
    return Statement(SELECT_JOBS, {**ANY, "limit": limit, **asked}, parse_found(_parse_job), name="select_jobs")


def parse_found(parse: Callable[[tuple[Any, ...]], T]) -> Callable[[Rows], Found[T]]:
    """A parser for rows that begin with how far was looked, which is said in a last one, and of which the others are
    for `parse`.
    """

    def parse_all(rows: Rows) -> Found[T]:
        found: list[T] = []
        looked_to = looked_back_to = None
        for to, back_to, *row in rows:
            if row[0] is None:
                looked_to, looked_back_to = to, back_to and back_to.astimezone(UTC)
            else:
                found.append(parse(tuple(row)))
        return Found(found, looked_to, looked_back_to)

    return parse_all


def _parse_job(row: tuple[Any, ...]) -> JobRow:
    (
        id_,
        task,
        queue,
        state,
        priority,
        attempt,
        max_attempts,
        crashes,
        worker,
        *instants,
        arguments,
        result,
        errors,
        progress,
        unique_key,
        batch,
        meta,
        needs,
        becomes,
    ) = row
    submitted_at, run_at, started_at, finished_at, cancel_at = (at and at.astimezone(UTC) for at in instants)
    return JobRow(
        id=id_,
        task=task,
        queue=queue,
        state=State(state),
        priority=priority,
        attempt=attempt,
        max_attempts=max_attempts,
        crashes=crashes,
        worker=worker,
        submitted_at=submitted_at,
        run_at=run_at,
        started_at=started_at,
        finished_at=finished_at,
        arguments=arguments,
        result=result,
        errors=parse_errors(errors),
        cancel_at=cancel_at,
        progress=parse_progress(progress),
        unique_key=None if unique_key is None else unique_key.decode(),
        batch=batch,
        meta=parsed_meta(meta),
        needs=tuple(needs or ()),
        becomes=becomes,
    )


def parse_progress(progress: bytes | None) -> Progress | None:
    """What a running job has said last."""
    try:
        return None if progress is None else msgspec.json.decode(progress, type=Progress)
    except (ValueError, RecursionError):  # of somebody else
        return None


CANCEL_JOBS = keeping(
    """
    WITH cancelled AS (
        DELETE FROM {schema}.job
        WHERE id = ANY (%(ids)s::bigint[]) AND state IN ('blocked', 'ready')
        RETURNING *, {keep}
    ),
    ended AS (
        SELECT {moved}, 'cancelled'::{schema}.state AS state, NULL::json AS result, errors, keep FROM cancelled
    ),
    {kept},
    doomed AS (
        UPDATE {schema}.need SET doomed_at = {schema}.clock() WHERE job = ANY (ARRAY(SELECT id FROM cancelled))
    ),
    asked AS (
        UPDATE {schema}.job SET cancel_at = coalesce(cancel_at, {schema}.clock())
        WHERE id = ANY (%(ids)s::bigint[]) AND worker IS NOT NULL -- it runs; by its state, another index might be read
        RETURNING id, worker
    )
    SELECT sent.id IN (SELECT id FROM cancelled) OR sent.id IN (SELECT id FROM asked),
        EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = sent.id),
        EXISTS (SELECT FROM {schema}.history AS past WHERE past.id = sent.id),
        EXISTS (SELECT FROM cancelled WHERE cancelled.id = sent.id AND cancelled.needed),
        (SELECT becomes FROM cancelled WHERE cancelled.id = sent.id),
        (SELECT pg_notify('{name}.cancel', worker::text || ' ' || asked.id::text)::text
         FROM asked WHERE asked.id = sent.id AND current_setting('chancy.quiet', true) IS DISTINCT FROM 'on')
    FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS sent (id, position)
    ORDER BY sent.position
""",
    "'cancelled'",
)


class Cancellation(msgspec.Struct, frozen=True):
    """Whether the job was stopped or asked to stop; where it was when the statement began."""

    done: bool
    live: bool
    finished: bool
    needed: bool = False
    """It has ended, and others need it."""
    becomes: int | None = None
    """It has ended, and waited for this one."""


def cancel_jobs(ids: Sequence[int]) -> Statement[list[Cancellation]]:
    """Move jobs that wait to history, where their queues keep such; ask the workers of running ones to stop them.
    Answers in that order.

    Waits for whoever holds a row, which is never longer than one round of a worker; a job whose state has changed
    meanwhile is left alone, and is live.
    """
    return Statement(
        CANCEL_JOBS, {"ids": list(ids)}, lambda rows: [Cancellation(*row[:5]) for row in rows], name="cancel_jobs"
    )


_TRIES = 5


@verb
def get(job_id: int, /, *, schema: str | None = None) -> Steps[JobRow]:
    """One job, live or finished. One round trip. Raises `UnknownJob`."""
    return _get(identity("job_id", job_id), schema_in_use(schema))


def _get(job_id: int, schema: str) -> Steps[JobRow]:
    row: JobRow | None = yield select_job(job_id)
    if row is None:
        raise UnknownJob(job_id, schema)
    return row


@verb
def jobs(
    *,
    queue: str | None = None,
    task: TaskName | None = None,
    state: State | None = None,
    batch: int | None = None,
    limit: int = 100,
    before: int | None = None,
    schema: str | None = None,
) -> Statement[Found[JobRow]]:
    """Jobs, live and finished, newest id first; of a state in which jobs are that did not succeed, the last that
    finished first. One round trip, which ends after half a second where it has not found enough by then: the list says
    how far it looked.

    For the next page give the last row's id as `before`, and to look further the list's own `looked_to`. `task` is a
    task, with the names that it had before, or one name; `batch` the id of a batch. The rows have all that jobs have,
    large arguments too: `chancy_ops.search` has lists without. Raises `InvalidOption`, a `ValueError`.
    """
    return select_jobs(
        number("limit", limit, 0),
        queue=None if queue is None else text("queue", queue),
        tasks=None if task is None else names_of("task", task),
        states=list(State) if state is None else [one_of("state", state, State).value],
        before=None if before is None else number("before", before, 0, LARGEST_ID),
        batch=None if batch is None else identity("batch", batch),
    )


@verb
def cancel(job_id: int, /, *, needs: bool = False, schema: str | None = None) -> Steps[bool]:
    """Stop a job. Two round trips; takes effect when the caller's transaction commits.

    One that is ready, scheduled or blocked moves to history as cancelled, and so does what needs it; one that waits for
    the job that its function has returned takes that along. With `needs` all that it needed and nobody else does is
    cancelled as well. One that runs is asked to stop: its worker hears of it at the commit, or else within 5 s, cancels
    a coroutine, kills a child process, and tells a thread, which cannot be stopped (`current_job().cancelled`). It will
    not run again: where its attempt has succeeded or finally failed before it could be stopped, that is what counts,
    and anything else makes it cancelled.

    Returns False for a job that is finished already. Until the commit the row is locked, and workers pass it by.
    Raises `UnknownJob`.
    """
    return _cancel(identity("job_id", job_id), flag("needs", needs), schema_in_use(schema))


def _cancel(job_id: int, needs: bool, schema: str) -> Steps[bool]:
    # Inside the caller's transaction a missing partition could not be made up for afterwards.
    yield make_partitions(DAYS_AHEAD)
    seen: Cancellation
    (seen,) = yield cancel_jobs([job_id])
    for _ in range(_TRIES):
        if seen.done or not seen.live:  # live and not done: it was claimed, or finished, while we waited for its row
            break
        (seen,) = yield cancel_jobs([job_id])
    if not (seen.done or seen.live or seen.finished):
        raise UnknownJob(job_id, schema)
    yield from cancel_flows([job_id], [seen], needs=needs)
    return seen.done


def cancel_flows(ids: Sequence[int], seen: Sequence[Cancellation], *, needs: bool = False) -> Steps[None]:
    """Of jobs that were cancelled, cancel what they were to become, and end what needs them; with `needs` also cancel
    what they needed and nobody else does.
    """
    gone = {job_id: each for job_id, each in zip(ids, seen, strict=True) if each.done}
    ended = {job_id for job_id, each in gone.items() if each.needed}
    while gone:
        also = {each.becomes for each in gone.values() if each.becomes is not None}
        also.update((yield select_unneeded(gone)) if needs else ())
        answers = (yield cancel_jobs(sorted(also))) if also else []
        gone = {job_id: each for job_id, each in zip(sorted(also), answers, strict=True) if each.done}
        ended |= {job_id for job_id, each in gone.items() if each.needed}
    if ended:
        yield from tell(ended)


@verb
def requeue(job_id: int, /, *, attempts: int | None = None, schema: str | None = None) -> Steps[bool]:
    """Make a finished job ready again, under its old id and with `attempts` more attempts. One round trip; more where
    it needs others, or others need it.

    What was ended because of it waits for it again. A job that was ended because of a need waits again, too, and what
    is to blame runs again; what has succeeded does not, unless it is the job that is asked for.

    Without `attempts` it gets as many as its task declares: where this process does not know the task, as a worker that
    does has written down, and where nobody has, as many as the job had. Its errors, attempt count and fence stay with
    it. Returns False for a job that is still live, which is left alone.

    Raises `UnknownJob`, `DuplicateJob` if a live job has its unique key meanwhile, under whatever name of its task
    (then nothing changes), and `InvalidOption` for a number of attempts that no row can hold.
    """
    more = None if attempts is None else attempts_of("attempts", attempts)
    return _requeue(identity("job_id", job_id), more, schema_in_use(schema))


def _requeue(job_id: int, attempts: int | None, schema: str) -> Steps[bool]:
    seen: Requeue
    (seen,) = yield requeue_jobs([job_id], attempts, registered())
    for _ in range(_TRIES):
        if seen.done or seen.task is None or seen.holder is not None:
            break
        # Its key was taken, or given back, while we waited.
        (seen,) = yield requeue_jobs([job_id], attempts, registered())
    if seen.task is not None and not seen.done:
        raise DuplicateJob(seen.task, seen.key, seen.holder)
    if not seen.exists:
        raise UnknownJob(job_id, schema)
    resumed = (yield from resume_flows([job_id], attempts)) if seen.flow else 0
    return seen.done or resumed > 0
