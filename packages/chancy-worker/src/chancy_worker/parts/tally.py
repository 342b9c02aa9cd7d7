"""The tally, written down every ten seconds; and once a minute, by whoever is first, what was written is folded into
minutes, hours and days, and a sample is taken of how deep the queues are.

On the connection of life, which is there anyway: each is one short statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from typing import Protocol

import psycopg

from chancy.model import Statement
from chancy.wires.literals import of_numbers, of_texts
from chancy_worker.config import Timing
from chancy_worker.connection.link import Link
from chancy_worker.connection.turns import NextTurn
from chancy_worker.life.lease import Extension
from chancy_worker.tally.tally import Cell, Cells, Key, Tally

from .part import Part

LAST_SECONDS = 2.0
"""That the last of it gets to reach the database when the worker stops."""
FOLDED_AT_ONCE = 2_000
"""Rows: what eight workers say of forty tasks in a minute, and a tenth of a second or two."""
TURNS_A_FOLD = 6
AWAY_SECONDS = 1.0
"""After which to look whether the connection is there again."""

# Rows are only added, so nobody waits for anybody. That it was said is noted in the row of the lease: an answer that
# never came is no reason to count it twice.
SAY = """
    WITH mine AS (
        UPDATE {schema}.worker SET tallied = %(n)s::bigint
        WHERE id = %(worker)s::bigint AND tallied < %(n)s::bigint
        RETURNING id
    ),
    said AS (
        INSERT INTO {schema}.tally
        SELECT date_trunc('minute', {schema}.clock()), cell.queue, cell.task, cell.outcome, cell.jobs,
            cell.waited, cell.ran, cell.wait_buckets::smallint[], cell.wait_counts::bigint[],
            cell.run_buckets::smallint[], cell.run_counts::bigint[]
        FROM mine CROSS JOIN unnest(
            %(queues)s::text[], %(tasks)s::text[], %(outcomes)s::text[], %(jobs)s::bigint[], %(waited)s::float8[],
            %(ran)s::float8[], %(wait_buckets)s::text[], %(wait_counts)s::text[], %(run_buckets)s::text[],
            %(run_counts)s::text[]
        ) AS cell (queue, task, outcome, jobs, waited, ran, wait_buckets, wait_counts, run_buckets, run_counts)
    )
    SELECT EXISTS (SELECT FROM mine) OR EXISTS (SELECT FROM {schema}.worker WHERE id = %(worker)s::bigint)
"""


def say(worker: int, n: int, cells: Mapping[Key, Cell]) -> Statement[bool]:
    """Add this to the tally as the n-th that this lease says, unless that is there; whether the lease is."""
    rows = cells.values()
    params = {
        "worker": worker,
        "n": n,
        "queues": of_texts(queue for queue, _, _ in cells),
        "tasks": of_texts(task for _, task, _ in cells),
        "outcomes": of_texts(outcome for _, _, outcome in cells),
        "jobs": of_numbers(cell.jobs for cell in rows),
        "waited": of_texts(round(cell.waited, 6) for cell in rows),
        "ran": of_texts(round(cell.ran, 6) for cell in rows),
        "wait_buckets": of_texts(of_numbers(sorted(cell.waits)) for cell in rows),
        "wait_counts": of_texts(of_numbers(cell.waits[bucket] for bucket in sorted(cell.waits)) for cell in rows),
        "run_buckets": of_texts(of_numbers(sorted(cell.runs)) for cell in rows),
        "run_counts": of_texts(of_numbers(cell.runs[bucket] for bucket in sorted(cell.runs)) for cell in rows),
    }
    return Statement(SAY, params, lambda rows: bool(rows[0][0]))


FOLD = "SELECT {schema}.fold_tally(%(most)s::integer)"
SAMPLE = "SELECT {schema}.sample_depth()::text"


def fold(most: int = FOLDED_AT_ONCE) -> Statement[bool]:
    """Fold up to so many rows of minutes that are over, unless somebody is at it; whether there may be more."""
    return Statement(FOLD, {"most": most}, lambda rows: bool(rows[0][0]))


def sample() -> Statement[None]:
    """Write down how deep the queues are, unless somebody has in this minute."""
    return Statement(SAMPLE, {}, lambda rows: None)


class Lease(Protocol):
    """In whose name."""

    @property
    def id(self) -> int:
        """That of now."""


class Telling(Part):
    """Says what the tally has counted, and tends what all have said."""

    def __init__(self, tally: Tally, lease: Lease, timing: Timing, *, is_told: bool) -> None:
        """Without `is_told` nothing is written, and it wants no turn."""
        self.due = NextTurn("tally", timing.tally)
        self._tally = tally
        self._lease = lease
        self._timing = timing
        self._is_told = is_told
        self._saying: Cells = {}
        """On its way, as the n-th."""
        self._n = 0
        self._tend_at = time.monotonic() + timing.tally * TURNS_A_FOLD * random.random()

    def heard(self, news: Extension) -> None:
        """What the database's clock shows."""
        self._tally.ahead = time.time() - news.upto.timestamp() - self._timing.unheard

    async def turn(self, link: Link) -> float:
        """Say what is new; and now and then, tend, also to know that the database is back.

        A connection that is lost is made anew by who needs it for the lease: nobody else has to try that, too.
        """
        if link.conn is None:
            return min(self._timing.tally, AWAY_SECONDS)
        await self._say(link)
        if self._tend_at <= time.monotonic() or self.due.recovery.lasts:
            if await link.send(fold()):
                return 0.0
            await link.send(sample())
            self._tend_at = time.monotonic() + self._timing.tally * TURNS_A_FOLD * random.uniform(0.75, 1.25)
        return self._timing.tally * random.uniform(0.75, 1.0)

    async def close(self, link: Link) -> None:
        """Say the rest, if the database can be reached."""
        with contextlib.suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                while self._is_told and self._has_more():
                    await link.open()
                    if not await self._say(link):
                        return

    def _has_more(self) -> bool:
        """Whether there is something to say. What could not be said is said again as the same, and what is new then."""
        if not self._saying:
            self._saying = self._tally.take()
            self._n += 1
        return bool(self._saying)

    async def _say(self, link: Link) -> bool:
        """Whether what there was to say was heard."""
        if self._has_more():
            if not await link.send(say(self._lease.id, self._n, self._saying)):
                return False  # the lease is over, and there will be another
            self._saying = {}
        return True
