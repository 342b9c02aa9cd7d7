"""What tasks declare beside their code, written down for who has no code: `chancy.submit` in SQL, `requeue`."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import psycopg

from chancy.arguments.codec import encode_json
from chancy.carried.secrets import secrets_in
from chancy.model import Statement
from chancy.statements import names_known
from chancy.task import BaseTask
from chancy.wires.literals import JsonColumn, of_intervals, of_numbers, of_texts
from chancy_worker.connection.link import Link
from chancy_worker.connection.turns import NextTurn

from .part import Part

T = TypeVar("T")

log = logging.getLogger("chancy.worker")

ALONE = """patient AS MATERIALIZED (
        SELECT set_config('lock_timeout', '2s', true)
    ),
    alone AS MATERIALIZED (
        SELECT pg_advisory_xact_lock('{schema}'::regnamespace::oid::integer, -4) FROM patient
    )"""
"""One worker at a time, so that two of different versions that start together cannot wait for each other's rows. The
connection is the rounds', which wait for nothing; here many that start together wait for one another. Not as long as a
round may take, after which a server counts as silent: `in_turn` waits again.
"""

DECLARE = (
    """
    WITH """
    + ALONE
    + """,
    given AS MATERIALIZED (
        SELECT task.*
        FROM alone
        CROSS JOIN unnest(%(names)s::text[], %(queues)s::text[], %(priorities)s::smallint[],
            %(max_attempts)s::smallint[], %(gates)s::json[], %(untils)s::text[], %(withins)s::interval[],
            %(on_conflicts)s::text[], %(all_names)s::json[], %(secrets)s::json[])
            AS task (name, queue, priority, max_attempts, gates, unique_until, unique_within, unique_on_conflict, names,
                secrets)
    ),
    kept AS (
        INSERT INTO {schema}.task AS task
            (name, queue, priority, max_attempts, gates, unique_until, unique_within, unique_on_conflict, names,
             secrets)
        SELECT name, queue, priority, max_attempts, gates, unique_until, unique_within, unique_on_conflict, names,
            secrets
        FROM given
        ON CONFLICT (name) DO UPDATE
        SET queue = excluded.queue, priority = excluded.priority, max_attempts = excluded.max_attempts,
            gates = excluded.gates, unique_until = excluded.unique_until, unique_within = excluded.unique_within,
            unique_on_conflict = excluded.unique_on_conflict, names = excluded.names, secrets = excluded.secrets
    )
    SELECT count(*) FROM given
"""
)


def declare(tasks: Iterable[BaseTask[..., Any]]) -> Statement[None]:
    """Write down what these tasks declare, under all their names: queue, priority, attempts, limits over all workers,
    groups, keys, secrets; forget what they do not any more.
    """
    every = {name: task for task in tasks for name in task.names}
    gates = [[part.declared for part in task.gates.parts] if task.gates else None for task in every.values()]
    unique = [task.unique for task in every.values()]
    secrets = [secrets_in(task.function) for task in every.values()]
    return Statement(
        DECLARE,
        {
            "names": of_texts(every),
            "queues": of_texts(task.options.queue for task in every.values()),
            "priorities": of_numbers(task.options.priority for task in every.values()),
            "max_attempts": of_numbers(task.options.max_attempts for task in every.values()),
            "gates": JsonColumn(None if parts is None else encode_json(parts) for parts in gates),
            "untils": of_texts(None if each is None else each.until for each in unique),
            "withins": of_intervals(None if each is None else each.within for each in unique),
            "on_conflicts": of_texts(None if each is None else each.on_conflict for each in unique),
            "all_names": JsonColumn(names_known(task) for task in every.values()),
            "secrets": JsonColumn(encode_json(each) if each else None for each in secrets),
        },
        lambda rows: None,
    )


async def in_turn(link: Link, statement: Statement[T]) -> T:
    """Send what one worker at a time does, as often as it takes until this one's turn has come."""
    while True:
        try:
            return await link.send(statement)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            log.warning("another worker is writing down what its tasks declare, or has begun to: this one waits for it")
            await asyncio.sleep(0.1)


# Ticks that were missed are not lost by a restart: what ticks as before goes
# on where it was, and so does what has another name now.
DECLARE_SCHEDULES = (
    """
    WITH """
    + ALONE
    + """,
    given AS MATERIALIZED (
        SELECT task.*
        FROM alone
        CROSS JOIN unnest(%(names)s::text[], %(now)s::text[], %(whens)s::json[], %(arguments)s::json[])
            AS task (name, now, recurrence, arguments)
    ),
    gone AS (
        DELETE FROM {schema}.schedule AS schedule
        USING given
        WHERE schedule.declared AND schedule.name = given.name AND given.recurrence IS NULL
        RETURNING given.now, schedule.recurrence::text AS recurrence, schedule.since, schedule.next_at,
            schedule.paused_until, schedule.last_at, schedule.last_job
    ),
    former AS (
        SELECT DISTINCT ON (now) * FROM gone ORDER BY now, since DESC
    ),
    kept AS (
        INSERT INTO {schema}.schedule AS schedule
            (name, task, arguments, changes, recurrence, declared, since, next_at, paused_until, last_at, last_job)
        SELECT given.name, given.name, given.arguments, '{}', given.recurrence, true,
            CASE WHEN former.recurrence = given.recurrence::text THEN former.since ELSE {schema}.clock() END,
            CASE WHEN former.recurrence = given.recurrence::text THEN former.next_at END,
            former.paused_until, former.last_at, former.last_job
        FROM given
        LEFT JOIN former ON former.now = given.name
        WHERE given.recurrence IS NOT NULL
        ON CONFLICT (name) DO UPDATE
        SET arguments = excluded.arguments, recurrence = excluded.recurrence, revision = DEFAULT, note = NULL,
            next_at = CASE WHEN schedule.recurrence::text = excluded.recurrence::text THEN schedule.next_at END,
            since = CASE WHEN schedule.recurrence::text = excluded.recurrence::text THEN schedule.since
                ELSE excluded.since END
        WHERE schedule.declared AND (schedule.recurrence::text, schedule.arguments::text)
            IS DISTINCT FROM (excluded.recurrence::text, excluded.arguments::text)
    )
    SELECT ARRAY(
        SELECT schedule.name FROM {schema}.schedule AS schedule
        WHERE NOT schedule.declared AND schedule.name IN (SELECT name FROM given WHERE recurrence IS NOT NULL)
        ORDER BY schedule.name)
"""
)


def declare_schedules(tasks: Mapping[str, BaseTask[..., Any]]) -> Statement[list[str]]:
    """Write down the schedules of these tasks, by all their names, and forget those that they do not declare any more.

    The names of those that somebody has replaced at run time, which stay.
    """
    declared = {task.name: task for task in tasks.values() if task.schedule is not None}
    names = sorted(declared.keys() | tasks.keys())
    whens, arguments = [], []
    for name in names:
        task = declared.get(name)
        whens.append(None if task is None else encode_json(task.schedule))
        arguments.append(None if task is None else task.signature.encode_arguments((), {}))
    return Statement(
        DECLARE_SCHEDULES,
        {
            "names": of_texts(names),
            "now": of_texts(tasks[name].name if name in tasks else name for name in names),
            "whens": JsonColumn(whens),
            "arguments": JsonColumn(arguments),
        },
        lambda rows: list(rows[0][0]),
    )


class Declarations(Part):
    """What the tasks of this worker declare, written down once, when it starts."""

    def __init__(self, tasks: Mapping[str, BaseTask[..., Any]]) -> None:
        self.due = NextTurn("declarations", math.inf)
        self._tasks = tasks

    async def declare(self, link: Link) -> None:
        """After those of other workers that start now; see `in_turn`."""
        await in_turn(link, declare(self._tasks.values()))
        for name in await in_turn(link, declare_schedules(self._tasks)):
            log.warning("schedule %s was made at run time: what its task declares waits for `chancy.unschedule`", name)
