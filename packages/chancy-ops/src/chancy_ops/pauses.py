"""Pause and resume a queue, a task or a schedule."""

from __future__ import annotations

from datetime import datetime

from chancy.errors import InvalidOption, UnknownSchedule
from chancy.model import Statement, Steps, TaskName, names_of
from chancy.options.plain import Duration, text, word
from chancy.options.plain import name as name_of
from chancy.schedules.schedule import pause_schedule, resume_schedule, schedule_name
from chancy.schema import schema_in_use
from chancy.verb import verb
from chancy.wires.literals import either

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


@verb
def pause(
    queue: str | None = None,
    /,
    *,
    task: TaskName | None = None,
    schedule: str | None = None,
    until: datetime | Duration | None = None,
    schema: str | None = None,
) -> Steps[None]:
    """Let no job of a queue, or of a task, begin from the commit on, or no tick of a schedule get one. What runs, runs
    on. One round trip.

    `until` is an aware datetime or how long from now, as a `timedelta` or in seconds; None is until `resume`. When the
    time is over, workers go on by themselves, within five seconds. Jobs can be submitted meanwhile, and wait; ticks of
    a paused schedule are dropped. To pause again sets another `until`. A task is paused by all its names, a name by
    itself. Raises `InvalidOption`, a `ValueError`, also unless one thing is named, and `UnknownSchedule`.
    """
    kind, names = _named(queue, task, schedule)
    if kind == "schedule":
        statement = pause_schedule(names[0], until)
    else:
        for name in names:
            name_of(kind, name)  # a row of its own
        statement = Statement(PAUSE, {"kind": kind, "names": names, **either(until)}, bool, name="pause")
    return _pause(statement, names[0], schema_in_use(schema))


def _pause(statement: Statement[bool], name: str, schema: str) -> Steps[None]:
    if not (yield statement):
        raise UnknownSchedule(name, schema)


@verb
def resume(
    queue: str | None = None, /, *, task: TaskName | None = None, schedule: str | None = None, schema: str | None = None
) -> Statement[bool]:
    """Let jobs of a paused queue or task begin again, or a schedule tick. One round trip; wakes idle workers at the
    commit. Returns False for what was not paused. Raises `InvalidOption` unless one thing is named.
    """
    kind, names = _named(queue, task, schedule)
    return (
        resume_schedule(names[0])
        if kind == "schedule"
        else Statement(RESUME, {"kind": kind, "names": names}, bool, name="resume")
    )


# A pause or a limit of a name makes nobody know it.
KNOWN = """
    SELECT CASE %(kind)s::text
        WHEN 'schedule' THEN EXISTS (SELECT FROM {schema}.schedule WHERE name = %(name)s::text)
        WHEN 'task' THEN EXISTS (SELECT FROM {schema}.task WHERE name = %(name)s::text)
            OR EXISTS (SELECT FROM {schema}.offer WHERE %(name)s::text = ANY (tasks))
            OR EXISTS (SELECT FROM {schema}.job WHERE task = %(name)s::text)
        ELSE EXISTS (SELECT FROM {schema}.offer WHERE %(name)s::text = ANY (queues))
            OR EXISTS (SELECT FROM {schema}.task WHERE queue = %(name)s::text)
            OR EXISTS (
                SELECT FROM {schema}.job WHERE state = 'ready' AND parked IS NULL AND queue = %(name)s::text)
            OR EXISTS (
                SELECT FROM {schema}.job WHERE state = 'ready' AND parked IS NOT NULL AND queue = %(name)s::text)
            OR EXISTS (
                SELECT FROM {schema}.job WHERE state = 'blocked' AND worker IS NULL AND queue = %(name)s::text)
            OR EXISTS (
                SELECT FROM {schema}.job WHERE state = 'running' AND worker IS NOT NULL AND queue = %(name)s::text)
        END
"""
STRANGE = {
    "queue": "no worker takes it, no task is in it by default, and no job waits or runs in it",
    "task": "no worker has ever known it, and no job of it waits or runs",
    "schedule": "there is none of this name",
}
"""What is so of a name that nobody knows."""


@verb
def is_known(kind: str, name: str, /, *, schema: str | None = None) -> Statement[bool]:
    """Whether anybody knows a queue, task or schedule of this name: if not it may be misspelt. One round trip."""
    params = {"kind": word("kind", kind, STRANGE), "name": text("name", name)}
    return Statement(KNOWN, params, lambda rows: bool(rows[0][0]), name="is_known")


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
