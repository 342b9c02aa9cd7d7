"""What tasks declare beside their code, written down for who has no code: `chancy.submit` in SQL, `requeue`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, TypeVar

import psycopg

from chancy.codec import encode_json
from chancy.literals import JsonColumn, of_intervals, of_numbers, of_texts
from chancy.model import Statement
from chancy.statements import names_known
from chancy.task import BaseTask

from .link import Link

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
        CROSS JOIN unnest(%(names)s::text[], %(gates)s::json[], %(untils)s::text[], %(withins)s::interval[],
            %(max_attempts)s::smallint[], %(all_names)s::json[])
            AS task (name, gates, unique_until, unique_within, max_attempts, names)
    ),
    kept AS (
        INSERT INTO {schema}.task AS task (name, gates, unique_until, unique_within, max_attempts, names)
        SELECT name, gates, unique_until, unique_within, max_attempts, names
        FROM given
        ON CONFLICT (name) DO UPDATE
        SET gates = excluded.gates, unique_until = excluded.unique_until, unique_within = excluded.unique_within,
            max_attempts = excluded.max_attempts, names = excluded.names
    )
    SELECT count(*) FROM given
"""
)


def declare(tasks: Iterable[BaseTask[..., Any]]) -> Statement[None]:
    """Write down what these tasks declare, under all their names: limits over all workers, groups, keys, attempts;
    forget what they do not any more.
    """
    every = {name: task for task in tasks for name in task.names}
    gates = [[part.declared for part in task.gates.parts] if task.gates else None for task in every.values()]
    unique = [task.unique for task in every.values()]
    return Statement(
        DECLARE,
        {
            "names": of_texts(every),
            "gates": JsonColumn(None if parts is None else encode_json(parts) for parts in gates),
            "untils": of_texts(None if each is None else each.until for each in unique),
            "withins": of_intervals(None if each is None else each.within for each in unique),
            "max_attempts": of_numbers(task.options.max_attempts for task in every.values()),
            "all_names": JsonColumn(names_known(task) for task in every.values()),
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
