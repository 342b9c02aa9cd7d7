"""What operators do to a queue, a task or a job that waits: pause and resume, limit, keep, edit, delete."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any, overload

from .errors import InvalidOption, UnknownJob, UnknownSchedule
from .literals import either, of_numbers, of_texts
from .model import Statement, Steps, TaskName, names_of, priority_of
from .plain import Duration, identity, instant, number, shown, text
from .plain import name as name_of
from .retention import Keep
from .run import AsyncConn, SyncConn, perform
from .schedules import pause_schedule, resume_schedule, schedule_name
from .schema import schema_in_use

PAUSE = """
    WITH kept AS (
        INSERT INTO {schema}.pause (kind, name, until, paused_at)
        SELECT %(kind)s::text, name,
            coalesce(%(until)s::timestamptz, {schema}.clock() + %(duration)s::interval, 'infinity'), {schema}.clock()
        FROM unnest(%(names)s::text[]) AS name
        ORDER BY name
        ON CONFLICT (kind, name) DO UPDATE SET until = excluded.until
    )
    SELECT true
"""
RESUME = """
    WITH gone AS (
        DELETE FROM {schema}.pause WHERE kind = %(kind)s::text AND name = ANY (%(names)s::text[]) RETURNING kind
    )
    SELECT {schema}.ring(CASE kind WHEN 'queue' THEN %(names)s::text[]
        ELSE ARRAY(SELECT DISTINCT queue FROM {schema}.offer CROSS JOIN unnest(queues) AS queue) END)::text
    FROM gone
    LIMIT 1
"""


@overload
def pause(
    conn: SyncConn,
    queue: str | None = None,
    /,
    *,
    task: TaskName | None = None,
    schedule: str | None = None,
    until: datetime | Duration | None = None,
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
    until: datetime | Duration | None = None,
    schema: str | None = None,
) -> Coroutine[Any, Any, None]: ...
def pause(
    conn: SyncConn | AsyncConn,
    queue: str | None = None,
    /,
    *,
    task: TaskName | None = None,
    schedule: str | None = None,
    until: datetime | Duration | None = None,
    schema: str | None = None,
) -> Coroutine[Any, Any, None] | None:
    """Let no job of a queue, or of a task, begin from the commit on, or no tick of a schedule get one. What runs, runs
    on. One round trip.

    `until` is an aware datetime or how long from now, as a `timedelta` or in seconds; None is until `resume`. When the
    time is over, workers go on by themselves, within five seconds. Jobs can be submitted meanwhile, and wait; ticks of
    a paused schedule are dropped. To pause again sets another `until`. A task is paused by all its names, a name by
    itself. Raises `InvalidOption`, a `ValueError`, also unless one thing is named, and `UnknownSchedule`.
    """
    kind, names = _named(queue, task, schedule)
    where = schema_in_use(schema)
    if kind == "schedule":
        return perform(conn, _pause_schedule(names[0], until, where), where)
    for name in names:
        name_of(kind, name)  # a row of its own
    return perform(conn, Statement(PAUSE, {"kind": kind, "names": names, **either(until)}, lambda rows: None), where)


def _pause_schedule(name: str, until: datetime | Duration | None, schema: str) -> Steps[None]:
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
    commit. Returns False for what was not paused. Raises `InvalidOption` unless one thing is named.
    """
    kind, names = _named(queue, task, schedule)
    params = {"kind": kind, "names": names}
    statement = resume_schedule(names[0]) if kind == "schedule" else Statement(RESUME, params, bool)
    return perform(conn, statement, schema_in_use(schema))


def _named(queue: str | None, task: TaskName | None, schedule: str | None) -> tuple[str, list[str]]:
    given: list[tuple[str, object]] = [("queue", queue), ("task", task), ("schedule", schedule)]
    said = [(kind, value) for kind, value in given if value is not None]
    if len(said) != 1:
        named = " and ".join(kind for kind, _ in said) or "none"
        raise InvalidOption(
            "queue", f'name one, got {named}: pause(conn, "queue"), pause(conn, task=…) or pause(conn, schedule=…)'
        )
    kind, value = said[0]
    if kind == "schedule":
        return kind, [schedule_name(kind, value)]
    return kind, names_of(kind, value) if kind == "task" else [text(kind, value)]


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
    params = {
        "queue": name_of("queue", queue),
        "concurrency": None if concurrency is None else number("concurrency", concurrency, 0),
    }
    statement = Statement(LIMIT_QUEUE, params, lambda rows: None)
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
    if not (rules is None or isinstance(rules, Keep)):
        raise InvalidOption("rules", f"expected a Keep, or None to lift them, got {shown(rules)}")
    return perform(conn, keep_queues({name_of("queue", queue): rules}), schema_in_use(schema))


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
    Raises `UnknownJob`, and `InvalidOption` for a priority outside of -100 to 100 or a datetime without a time zone.
    """
    where, job_id = schema_in_use(schema), identity("job_id", job_id)
    params = {
        "id": job_id,
        "priority": None if priority is None else priority_of(priority),
        "run_at": None if run_at is None else instant("run_at", run_at),
    }
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
    where, job_id = schema_in_use(schema), identity("job_id", job_id)
    return perform(conn, _of_known(DELETE_JOBS, job_id, {"ids": [job_id]}, where), where)


def _of_known(sql: str, job_id: int, params: dict[str, Any], schema: str) -> Steps[bool]:
    """Whether it was done, of a job that exists."""
    done, exists = yield Statement(sql, params, lambda rows: rows[0][:2])
    if not exists:
        raise UnknownJob(job_id, schema)
    return bool(done)
