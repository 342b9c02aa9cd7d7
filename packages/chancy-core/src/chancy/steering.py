"""What operators do to a queue, a task or a job that waits: pause and resume, limit, keep, edit, delete."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias, overload

from .errors import UnknownJob, UnknownSchedule
from .literals import either, of_numbers, of_texts
from .model import HIGHEST_PRIORITY, LOWEST_PRIORITY, Statement, Steps
from .retention import Keep
from .run import AsyncConn, SyncConn, perform
from .schedules import pause_schedule, resume_schedule
from .schema import schema_in_use
from .task import BaseTask

TaskName: TypeAlias = "str | BaseTask[..., Any]"
"""A task, or the name of one that need not be known here."""

PAUSE = """
    INSERT INTO {schema}.pause (kind, name, until, paused_at)
    VALUES (%(kind)s::text, %(name)s::text,
        coalesce(%(until)s::timestamptz, {schema}.clock() + %(duration)s::interval, 'infinity'), {schema}.clock())
    ON CONFLICT (kind, name) DO UPDATE SET until = excluded.until
    RETURNING true
"""
RESUME = """
    WITH gone AS (
        DELETE FROM {schema}.pause WHERE kind = %(kind)s::text AND name = %(name)s::text RETURNING kind, name
    )
    SELECT {schema}.ring(CASE kind WHEN 'queue' THEN ARRAY[name]
        ELSE ARRAY(SELECT DISTINCT queue FROM {schema}.offer CROSS JOIN unnest(queues) AS queue) END)::text
    FROM gone
"""


@overload
def pause(
    conn: SyncConn,
    queue: str | None = None,
    /,
    *,
    task: TaskName | None = None,
    schedule: str | None = None,
    until: datetime | timedelta | None = None,
    schema: str | None = None,
) -> None: ...
@overload
def pause(
    conn: AsyncConn,
    queue: str | None = None,
    /,
    *,
    task: TaskName | None = None,
    schedule: str | None = None,
    until: datetime | timedelta | None = None,
    schema: str | None = None,
) -> Coroutine[Any, Any, None]: ...
def pause(
    conn: SyncConn | AsyncConn,
    queue: str | None = None,
    /,
    *,
    task: TaskName | None = None,
    schedule: str | None = None,
    until: datetime | timedelta | None = None,
    schema: str | None = None,
) -> Coroutine[Any, Any, None] | None:
    """Let no job of a queue, or of a task, begin from the commit on, or no tick of a schedule get one. What runs, runs
    on. One round trip.

    `until` is an aware datetime or how long from now; None is until `resume`. When the time is over, workers go on by
    themselves, within five seconds. Jobs can be submitted meanwhile, and wait; ticks of a paused schedule are dropped.
    To pause again sets another `until`. Raises `ValueError` unless one thing is named, and for a naive datetime, and
    `UnknownSchedule`.
    """
    kind, name = _named(queue, task, schedule)
    where = schema_in_use(schema)
    if isinstance(until, datetime) and until.tzinfo is None:
        raise ValueError(f"pause of {kind} {name!r}: until needs a time zone, got {until}")
    if kind == "schedule":
        return perform(conn, _pause_schedule(name, until, where), where)
    return perform(conn, Statement(PAUSE, {"kind": kind, "name": name, **either(until)}, lambda rows: None), where)


def _pause_schedule(name: str, until: datetime | timedelta | None, schema: str) -> Steps[None]:
    if not (yield pause_schedule(name, until)):
        raise UnknownSchedule(name, schema)


@overload
def resume(
    conn: SyncConn,
    queue: str | None = None,
    /,
    *,
    task: TaskName | None = None,
    schedule: str | None = None,
    schema: str | None = None,
) -> bool: ...
@overload
def resume(
    conn: AsyncConn,
    queue: str | None = None,
    /,
    *,
    task: TaskName | None = None,
    schedule: str | None = None,
    schema: str | None = None,
) -> Coroutine[Any, Any, bool]: ...
def resume(
    conn: SyncConn | AsyncConn,
    queue: str | None = None,
    /,
    *,
    task: TaskName | None = None,
    schedule: str | None = None,
    schema: str | None = None,
) -> bool | Coroutine[Any, Any, bool]:
    """Let jobs of a paused queue or task begin again, or a schedule tick. One round trip; wakes idle workers at the
    commit. Returns False for what was not paused. Raises `ValueError` unless one thing is named.
    """
    kind, name = _named(queue, task, schedule)
    statement = resume_schedule(name) if kind == "schedule" else Statement(RESUME, {"kind": kind, "name": name}, bool)
    return perform(conn, statement, schema_in_use(schema))


def _named(queue: str | None, task: TaskName | None, schedule: str | None) -> tuple[str, str]:
    named = {"queue": queue, "task": task.name if isinstance(task, BaseTask) else task, "schedule": schedule}
    given = [(kind, name) for kind, name in named.items() if name is not None]
    if len(given) != 1:
        raise ValueError('name one: pause(conn, "queue"), pause(conn, task=…) or pause(conn, schedule=…)')
    return given[0]


LIMIT_QUEUE = """
    WITH gone AS (
        DELETE FROM {schema}.queue_limit WHERE queue = %(queue)s::text AND %(concurrency)s::integer IS NULL
    ),
    kept AS (
        INSERT INTO {schema}.queue_limit (queue, concurrency)
        SELECT %(queue)s::text, %(concurrency)s::integer WHERE %(concurrency)s::integer IS NOT NULL
        ON CONFLICT (queue) DO UPDATE SET concurrency = excluded.concurrency, revision = excluded.revision
    )
    SELECT {schema}.ring(%(queue)s::text)::text
"""


@overload
def limit(conn: SyncConn, queue: str, /, *, concurrency: int | None, schema: str | None = None) -> None: ...
@overload
def limit(
    conn: AsyncConn, queue: str, /, *, concurrency: int | None, schema: str | None = None
) -> Coroutine[Any, Any, None]: ...
def limit(
    conn: SyncConn | AsyncConn, queue: str, /, *, concurrency: int | None, schema: str | None = None
) -> Coroutine[Any, Any, None] | None:
    """Let at most so many jobs of the queue run at a time, over all workers; None lifts the limit. One round trip.

    Holds from the commit on for whatever is claimed then; what runs, runs on. 0 lets nothing begin. Claims of a queue
    with a limit wait for one another; those of other queues do not. Raises `ValueError` for a number below 0.
    """
    if concurrency is not None and concurrency < 0:
        raise ValueError(f"the limit of queue {queue!r} must be 0 or more, or None to lift it, got {concurrency}")
    statement = Statement(LIMIT_QUEUE, {"queue": queue, "concurrency": concurrency}, lambda rows: None)
    return perform(conn, statement, schema_in_use(schema))


KEEP_QUEUES = """
    SELECT {schema}.keep_queues(
        %(queues)s::text[], %(rule_queues)s::text[], %(whats)s::text[], %(days)s::smallint[])::text
"""


def keep_queues(wishes: Mapping[str, Keep | None]) -> Statement[None]:
    """Set the rules of these queues, None lifts them, and make the partitions that they need.

    Where anything changes, it waits for whoever makes partitions, 5 s at most.
    """
    rules = [(queue, what, days) for queue, keep in wishes.items() if keep for what, days in keep.rules.items()]
    params = {
        "queues": of_texts(wishes),
        "rule_queues": of_texts(queue for queue, _, _ in rules),
        "whats": of_texts(what for _, what, _ in rules),
        "days": of_numbers(days for _, _, days in rules),
    }
    return Statement(KEEP_QUEUES, params, lambda rows: None)


@overload
def keep(conn: SyncConn, queue: str, rules: Keep | None, /, *, schema: str | None = None) -> None: ...
@overload
def keep(
    conn: AsyncConn, queue: str, rules: Keep | None, /, *, schema: str | None = None
) -> Coroutine[Any, Any, None]: ...
def keep(
    conn: SyncConn | AsyncConn, queue: str, rules: Keep | None, /, *, schema: str | None = None
) -> Coroutine[Any, Any, None] | None:
    """Set how long finished jobs of the queue are kept, in place of all its rules; None lifts them. One round trip.

    Holds for jobs that finish after the commit; where those are that have finished before, they stay. A worker whose
    `Queue` has a `keep=` sets that again when it starts. Makes the tables of the days that it names: it waits for
    whoever else does so, 5 s at most (then psycopg's `LockNotAvailable`), and they for the end of this transaction.
    """
    return perform(conn, keep_queues({queue: rules}), schema_in_use(schema))


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


@overload
def edit(
    conn: SyncConn,
    job_id: int,
    /,
    *,
    priority: int | None = None,
    run_at: datetime | None = None,
    schema: str | None = None,
) -> bool: ...
@overload
def edit(
    conn: AsyncConn,
    job_id: int,
    /,
    *,
    priority: int | None = None,
    run_at: datetime | None = None,
    schema: str | None = None,
) -> Coroutine[Any, Any, bool]: ...
def edit(
    conn: SyncConn | AsyncConn,
    job_id: int,
    /,
    *,
    priority: int | None = None,
    run_at: datetime | None = None,
    schema: str | None = None,
) -> bool | Coroutine[Any, Any, bool]:
    """Change when a ready or scheduled job is due, or its priority, or both; None leaves it as it is. One round trip.

    Waits for whoever holds the row. Returns False for a job that runs or is finished, which is left alone.
    Raises `UnknownJob`, and `ValueError` for a priority outside of -100 to 100 or a datetime without a time zone.
    """
    if priority is not None and not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise ValueError(f"priority of job {job_id}: expected {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, got {priority}")
    if run_at is not None and run_at.tzinfo is None:
        raise ValueError(f"run_at of job {job_id} needs a time zone, got {run_at}")
    where = schema_in_use(schema)
    params = {"id": job_id, "priority": priority, "run_at": run_at}
    return perform(conn, _of_known(EDIT_JOB, job_id, params, where), where)


DELETE_JOBS = """
    WITH waiting AS (
        DELETE FROM {schema}.job WHERE id = ANY (%(ids)s::bigint[]) AND state = 'ready' RETURNING id
    ),
    past AS (
        DELETE FROM {schema}.history WHERE id = ANY (%(ids)s::bigint[]) RETURNING id
    ),
    results AS (
        DELETE FROM {schema}.history_result WHERE id = ANY (%(ids)s::bigint[])
    ),
    logs AS (
        DELETE FROM {schema}.log
        WHERE job = ANY (%(ids)s::bigint[]) AND (job IN (SELECT id FROM waiting) OR job IN (SELECT id FROM past))
    )
    SELECT (SELECT count(*) FROM waiting) + (SELECT count(*) FROM past),
        EXISTS (SELECT FROM {schema}.any_job WHERE id = ANY (%(ids)s::bigint[]))
"""


@overload
def delete(conn: SyncConn, job_id: int, /, *, schema: str | None = None) -> bool: ...
@overload
def delete(conn: AsyncConn, job_id: int, /, *, schema: str | None = None) -> Coroutine[Any, Any, bool]: ...
def delete(
    conn: SyncConn | AsyncConn, job_id: int, /, *, schema: str | None = None
) -> bool | Coroutine[Any, Any, bool]:
    """Delete a job that waits, or is finished, as if it had never been there. One round trip.

    Returns False for one that runs, which is left alone: cancel it first. Raises `UnknownJob`.
    """
    where = schema_in_use(schema)
    return perform(conn, _of_known(DELETE_JOBS, job_id, {"ids": [job_id]}, where), where)


def _of_known(sql: str, job_id: int, params: dict[str, Any], schema: str) -> Steps[bool]:
    """Whether it was done, of a job that exists."""
    done, exists = yield Statement(sql, params, lambda rows: rows[0][:2])
    if not exists:
        raise UnknownJob(job_id, schema)
    return bool(done)
