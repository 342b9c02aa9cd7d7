"""The days of history, results and logs: made a week ahead, dropped when their retention is over. One process drops.

And the slots of limits that nobody has used lately, the times of unique keys that have run out, and finished batches.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import psycopg

from chancy.history.moving import make_partitions
from chancy.model import Script, Statement
from chancy_worker.claims.gates import sweep_slots
from chancy_worker.config import Timing
from chancy_worker.connection.link import Link, one_line

log = logging.getLogger("chancy.worker")

DAYS_AHEAD = 7

KEEP = """
    WITH kept AS (
        UPDATE {schema}.setting SET value = %(keep)s::interval::text
        WHERE name = 'keep' AND %(keep)s::interval IS NOT NULL
    )
    SELECT coalesce(%(keep)s::interval, value::interval) FROM {schema}.setting WHERE name = 'keep'
"""


def keep(wish: timedelta | None) -> Statement[timedelta]:
    """Store the retention if one is wished for; returns what holds."""
    return Statement(KEEP, {"keep": wish}, lambda rows: rows[0][0])


TRY_ALONE = """
    SELECT pg_try_advisory_lock('{schema}'::regnamespace::oid::integer, -1),
        (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('{schema}.history'))
"""

OVERDUE = "SELECT name, parent, detaching FROM {schema}.kept_days('0') WHERE over"


def overdue() -> Statement[list[tuple[str, str | None, bool]]]:
    """Partitions past the retention: name, of what they still are part, whether a detach was interrupted."""
    return Statement(OVERDUE, {}, lambda rows: [(name, parent, pending) for name, parent, pending in rows])


SWEEP_WINDOWS = """
    WITH swept AS (
        DELETE FROM {schema}.unique_window
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {schema}.unique_window WHERE expires_at <= {schema}.clock()
            ORDER BY expires_at LIMIT 1000
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING job
    )
    SELECT count(*) FROM swept
"""


def sweep_windows() -> Statement[bool]:
    """Delete up to 1,000 of the times of `Unique(within=…)` that have run out; whether there may be more."""
    return Statement(SWEEP_WINDOWS, {}, lambda rows: rows[0][0] == 1000)


SWEEP_BATCHES = """
    WITH swept AS (
        DELETE FROM {schema}.batch
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {schema}.batch
            WHERE finished_at <= {schema}.clock() - (
                SELECT value::interval FROM {schema}.setting WHERE name = 'keep')
            ORDER BY finished_at LIMIT 1000
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING id
    )
    SELECT count(*) FROM swept
"""


def sweep_batches() -> Statement[bool]:
    """Delete up to 1,000 batches that have finished longer ago than the retention; whether there may be more."""
    return Statement(SWEEP_BATCHES, {}, lambda rows: rows[0][0] == 1000)


async def care_for_history(
    new_link: Callable[[], Link], drop: Callable[[Link], Awaitable[None]], timing: Timing
) -> None:
    """Make and drop partitions for ever, each time on a connection of its own: a detach waits for open readers."""
    while True:
        link = new_link()
        try:
            await link.connect()
            done = await _care(link, drop)
        except psycopg.Error as error:
            log.warning("upkeep of the history: %s; it goes on in a minute", one_line(error))
            done = False
        finally:
            await link.close()
        pause = timing.upkeep if done else min(60.0, timing.upkeep)
        await asyncio.sleep(pause * random.uniform(0.75, 1.25))


async def _care(link: Link, drop: Callable[[Link], Awaitable[None]]) -> bool:
    """Each duty once, whatever has become of the others; whether all are done. Raises when the connection is lost."""

    async def sweep(statement: Callable[[], Statement[bool]]) -> None:
        while await link.send(statement()):
            pass

    duties: dict[str, Callable[[], Awaitable[object]]] = {
        "making partitions": lambda: link.send(make_partitions(DAYS_AHEAD)),
        "dropping partitions": lambda: drop(link),
        "sweeping slots": lambda: sweep(sweep_slots),
        "sweeping keys": lambda: sweep(sweep_windows),
        "sweeping batches": lambda: sweep(sweep_batches),
    }
    done = True
    for what, duty in duties.items():
        try:
            await duty()
        except psycopg.Error as error:
            if link.conn is None:
                raise
            log.warning("upkeep of the history, %s: %s; it goes on in a minute", what, one_line(error))
            done = False
    return done


async def drop_alone(link: Link) -> None:
    """Drop what is over unless another process is at it. The lock is the session's, and ends with it."""
    alone, owner = await link.send(Statement(TRY_ALONE, {}, lambda rows: rows[0]))
    if alone:
        await (drop_overdue if owner else drop_briefly)(link)


DETACH = 'ALTER TABLE {schema}."{parent}" DETACH PARTITION {schema}."{partition}" {how}'


async def drop_overdue(link: Link) -> None:
    """Detach without stopping the completions of others, then drop. Raises after all of them, if one cannot be."""
    failed: list[psycopg.Error] = []
    for name, parent, pending in await link.send(overdue()):
        try:
            if parent is not None:
                detach = DETACH.replace("{parent}", parent).replace("{partition}", name)
                await link.run(Script(detach.replace("{how}", "FINALIZE" if pending else "CONCURRENTLY")))
            await link.run(Script('DROP TABLE {schema}."' + name + '"'))
        except psycopg.Error as error:
            failed.append(error)
            if link.conn is None:
                break
        else:
            log.info("dropped %s: the retention of its jobs is over", name)
    if failed:
        raise failed[0]


DROP_DAY = "SELECT {schema}.drop_day(%(day)s::text)"


async def drop_briefly(link: Link) -> None:
    """Drop each in a transaction of its own: for a link whose session is lent, or whose role does not own the tables.

    DETACH CONCURRENTLY runs in no transaction and in no function, and without one there is no setting and no lock that
    would not stay in a pooler's session. One process at a time. Holds up completions for 100 ms at most. Raises
    `LockNotAvailable` when a reader is in the way.
    """
    failed: list[psycopg.Error] = []
    for name, _, _ in await link.send(overdue()):
        try:
            if await link.send(Statement(DROP_DAY, {"day": name}, lambda rows: bool(rows[0][0]))):
                log.info("dropped %s: the retention of its jobs is over", name)
        except psycopg.Error as error:
            failed.append(error)
            if link.conn is None:
                break
    if failed:
        raise failed[0]
