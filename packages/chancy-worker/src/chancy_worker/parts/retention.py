"""The days of history, results, logs and steps: made a week ahead, dropped when their time is over. One process drops.

And the slots of limits that nobody has used lately, the times of unique keys that have run out, finished batches, and
what people did more than 400 days ago.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import psycopg

from chancy.app import Chancy
from chancy.history.moving import make_partitions
from chancy.history.rules import keep_queues
from chancy.model import Script, Statement
from chancy_worker.claims.gates import sweep_slots
from chancy_worker.config import Timing
from chancy_worker.connection.link import Link
from chancy_worker.connection.recovery import Trouble
from chancy_worker.connection.turns import NextTurn

from .part import Part
from .steps import carry_steps

log = logging.getLogger("chancy.worker")

DAYS_AHEAD = 7
FIRST_SECONDS = 5.0
"""A worker's first turn is at some time within these: of many that are started at once, few open one more connection at
a time. One that always ends sooner has its turn now and then all the same."""

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
ALONE_NO_MORE = "SELECT pg_advisory_unlock('{schema}'::regnamespace::oid::integer, -1)"

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


SWEEP_NEEDS = """
    WITH swept AS (
        DELETE FROM {schema}.need
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {schema}.need
            WHERE doomed_at <= {schema}.clock() - greatest(
                (SELECT value::interval FROM {schema}.setting WHERE name = 'keep'),
                (SELECT max(days) FROM {schema}.retention) * interval '1 day') - interval '2 days'
            ORDER BY doomed_at LIMIT 1000
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING job
    )
    SELECT count(*) FROM swept
"""


def sweep_needs() -> Statement[bool]:
    """Delete up to 1,000 needs of jobs that were ended because of one so long ago that no row of them is left; whether
    there may be more.
    """
    return Statement(SWEEP_NEEDS, {}, lambda rows: rows[0][0] == 1000)


SWEEP_AUDIT = """
    WITH swept AS (
        DELETE FROM {schema}.audit
        WHERE id = ANY (ARRAY(SELECT id FROM {schema}.audit ORDER BY id LIMIT 1000))
            AND at <= {schema}.clock() - interval '400 days'
        RETURNING id
    )
    SELECT count(*) FROM swept
"""


def sweep_audit() -> Statement[bool]:
    """Delete up to 1,000 acts of people of more than 400 days ago; whether there may be more."""
    return Statement(SWEEP_AUDIT, {}, lambda rows: rows[0][0] == 1000)


class Retention(Part):
    """Makes and drops days, and sweeps what is over, now and then: one duty a turn, since others wait for the link.

    Whatever has become of one duty, the others are done; what failed is done again in a minute.
    """

    def __init__(self, app: Chancy, timing: Timing, *, is_lent: bool) -> None:
        """`is_lent` is whether the link's session is, as behind a pooler."""
        self.due = NextTurn("upkeep", random.uniform(0, min(FIRST_SECONDS, timing.upkeep)))
        self._app = app
        self._timing = timing
        self._duties: Sequence[tuple[str, Callable[[Link], Awaitable[bool | None]]]] = (
            ("making partitions", _make),
            ("dropping partitions", drop_briefly if is_lent else drop_alone),
            ("sweeping slots", _sweeping(sweep_slots)),
            ("sweeping keys", _sweeping(sweep_windows)),
            ("sweeping batches", _sweeping(sweep_batches)),
            ("sweeping needs", _sweeping(sweep_needs)),
            ("sweeping the audit", _sweeping(sweep_audit)),
        )
        self._next = 0
        """Which of them is next."""
        self._done = True
        """All that were taken this time went well."""

    async def declare(self, link: Link) -> None:
        """Store for how long jobs are kept, where the app says so."""
        await link.send(keep(self._app.keep))
        if wishes := {queue.name: queue.keep for queue in self._app.queues if queue.keep is not None}:
            await link.send(keep_queues(wishes))

    async def turn(self, link: Link) -> float:
        """The next duty, or a part of it."""
        what, duty = self._duties[self._next]
        await link.open()
        try:
            if await duty(link):
                return 0.0
        except psycopg.Error as error:
            self._done = False
            trouble, why = await link.part_with(error)
            if trouble is not Trouble.REFUSED:
                self._next = (self._next + 1) % len(self._duties)  # should it be this one that costs the connection
                raise psycopg.OperationalError(f"{what}: {why}") from error
            log.warning("upkeep of the history, %s: %s; it goes on in a minute", what, why)
        self._next += 1
        if self._next < len(self._duties):
            return 0.0
        pause = self._timing.upkeep if self._done else min(60.0, self._timing.upkeep)
        self._next, self._done = 0, True
        return pause * random.uniform(0.75, 1.25)


async def _make(link: Link) -> None:
    await link.send(make_partitions(DAYS_AHEAD))


def _sweeping(sweep: Callable[[], Statement[bool]]) -> Callable[[Link], Awaitable[bool]]:
    """The duty to send this, again and again as long as there may be more."""

    async def duty(link: Link) -> bool:
        return await link.send(sweep())

    return duty


async def drop_alone(link: Link) -> None:
    """Drop what is over unless another process is at it. The lock is the session's, and ends with it at the latest."""
    alone, owner = await link.send(Statement(TRY_ALONE, {}, lambda rows: rows[0]))
    if not alone:
        return
    try:
        await (drop_overdue if owner else drop_briefly)(link)
    except psycopg.Error:
        if link.conn is not None:
            await link.send(Statement(ALONE_NO_MORE, {}, lambda rows: None))
        raise
    await link.send(Statement(ALONE_NO_MORE, {}, lambda rows: None))


DETACH = 'ALTER TABLE {schema}."{parent}" DETACH PARTITION {schema}."{partition}" {how}'


async def drop_overdue(link: Link) -> None:
    """Detach without stopping the completions of others, then drop. Raises after all of them, if one cannot be."""
    failed: list[psycopg.Error] = []
    for name, parent, pending in await link.send(overdue()):
        try:
            if name.startswith("step_"):
                await carry_steps(link, name)
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
            if name.startswith("step_"):
                await carry_steps(link, name)
            if await link.send(Statement(DROP_DAY, {"day": name}, lambda rows: bool(rows[0][0]))):
                log.info("dropped %s: the retention of its jobs is over", name)
        except psycopg.Error as error:
            failed.append(error)
            if link.conn is None:
                break
    if failed:
        raise failed[0]
