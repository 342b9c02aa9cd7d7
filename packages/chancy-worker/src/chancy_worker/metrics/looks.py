"""What a scrape asks of the database, on the connection of life: how old the oldest job is, by the index that claims
read, and the last sample of how deep the queues are. It reads no more with a million jobs than with ten.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection

from chancy.model import Rows, Statement
from chancy.wires.literals import of_texts
from chancy_worker.claims.pieces import IN_USE
from chancy_worker.connection.link import Link
from chancy_worker.connection.turns import NextTurn

from .numbers import Depth, Seen

PATIENCE = 2.0
"""Seconds that a scrape waits for the database; then it has the other numbers alone."""

LOOK = """
    WITH RECURSIVE {in_use}
    SELECT 'oldest', in_use.queue,
        max(extract(epoch FROM {schema}.clock())::float8 - extract(epoch FROM oldest.run_at)::float8), 0, 0, 0, 0, 0
    FROM in_use CROSS JOIN LATERAL (
        SELECT job.run_at FROM {schema}.job AS job
        WHERE job.state = 'ready' AND job.parked IS NULL
            AND job.queue = in_use.queue AND job.priority = in_use.priority AND job.run_at <= {schema}.clock()
        ORDER BY job.run_at LIMIT 1
    ) AS oldest
    GROUP BY in_use.queue
    UNION ALL
    SELECT 'oldest', look.queue,
        extract(epoch FROM {schema}.clock())::float8 - extract(epoch FROM waits.run_at)::float8, 0, 0, 0, 0, 0
    FROM unnest(%(looking)s::text[]) AS look (queue)
    CROSS JOIN LATERAL {schema}.oldest_with_room(look.queue) AS waits
    WHERE waits.run_at IS NOT NULL
    UNION ALL
    SELECT 'depth', queue, 0, ready, waiting, scheduled, blocked, running FROM {schema}.depth
    WHERE at = (SELECT max(at) FROM {schema}.depth) AND at > {schema}.clock() - interval '3 minutes'
""".replace("{in_use}", IN_USE)


def look(queues: Collection[str], *, sampled: bool) -> Statement[Seen]:
    """Of these queues. Where depths are `sampled`, one that has none has nothing to do."""

    def parse(rows: Rows) -> Seen:
        oldest: dict[str, float] = {}
        for kind, queue, seconds, *_ in rows:
            if kind == "oldest":  # of jobs without gates, and of those whose gates have room
                oldest[queue] = max(seconds, oldest.get(queue, 0.0))
        depths = {queue: Depth(*numbers) for kind, queue, _, *numbers in rows if kind == "depth"}
        if sampled:
            depths = dict.fromkeys(queues, Depth()) | depths
        return Seen(oldest, depths or None)

    return Statement(LOOK, {"looking": of_texts(queues)}, parse)


class Looks:
    """Asks when a scrape comes, and never else. A duty."""

    def __init__(self, queues: Collection[str], *, sampled: bool) -> None:
        self.due = NextTurn("metrics", math.inf)
        self._queues = queues
        self._sampled = sampled
        self._waiting: list[asyncio.Future[Seen | None]] = []

    async def ask(self) -> Seen | None:
        """What there is; None if the database does not say so in time."""
        answer: asyncio.Future[Seen | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self.due.now()
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            return None

    async def turn(self, link: Link) -> float:
        """Answer all who wait, with nothing while the connection is lost, which others make anew.

        Where nobody waits it was lost and is there again, and this is how it is known that the database is.
        """
        waiting, self._waiting = self._waiting, []
        seen: Seen | None = None
        try:
            if link.conn is not None:
                seen = await link.send(look(self._queues, sampled=self._sampled))
        finally:
            for each in waiting:
                if not each.done():
                    each.set_result(seen)
        return math.inf
