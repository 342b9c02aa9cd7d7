"""The doorbell: how an idle worker hears of new work within a millisecond, and a busy one costs submitters nothing.

An idle worker holds, or waits in line for, the exclusive lock on its queues' keys; who submits tries each key shared
and notifies where that fails. LISTEN is on the claim connection, the waiting on one of its own, because a
blocked session gets no notifications. A wakeup may be lost: the truth is the claimer's fallback look.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence

import psycopg
from psycopg import Notify, sql

from chancy.model import Statement
from chancy.run import AsyncConn

from .link import Link

BELL_KEYS = "SELECT array_agg(DISTINCT {schema}.bell_key(queue)) FROM unnest(%(queues)s::text[]) AS queue"
BELL_WAIT = "SELECT {schema}.bell_wait(%(missing)s::integer[])"
BELL_UNLOCK = """
    SELECT pg_advisory_unlock('{schema}'::regnamespace::oid::integer, key) FROM unnest(%(held)s::integer[]) AS key
"""


def bell_keys(queues: Sequence[str]) -> Statement[list[int]]:
    """The queues' keys, each once."""
    return Statement(BELL_KEYS, {"queues": list(queues)}, lambda rows: sorted(rows[0][0]))


def bell_wait(missing: Sequence[int]) -> Statement[list[int]]:
    """Take the keys, waiting up to 1.8 s for the first that somebody else holds; returns those that it got."""
    return Statement(BELL_WAIT, {"missing": list(missing)}, lambda rows: list(rows[0][0]))


def bell_unlock(held: Sequence[int]) -> Statement[None]:
    """Give the keys to the next in line."""
    return Statement(BELL_UNLOCK, {"held": list(held)}, lambda rows: None)


class Bell:
    """Holds the keys while its worker is idle. `wake` is called at a grant: somebody may have submitted before it."""

    def __init__(self, link: Link, queues: Sequence[str], wake: Callable[[], None]) -> None:
        self.link = link
        self._queues = queues
        self._wake = wake
        self._keys: list[int] = []
        self._held: set[int] = set()
        self._idle = False
        self._told = asyncio.Event()

    def idle(self) -> None:
        """From now on, be heard of."""
        if not self._idle:
            self._idle = True
            self._told.set()

    def busy(self) -> None:
        """From now on, cost nobody anything."""
        if self._idle:
            self._idle = False
            self._told.set()

    async def serve(self) -> None:
        """Take the keys and give them back, for ever."""
        await self.link.forever(self._turn, self._told)

    async def _turn(self) -> float:
        """One step towards holding all keys while idle, and none while busy."""
        if self.link.conn is None:
            self._keys, self._held = [], set()
            await self.link.connect()
        if not self._keys:
            self._keys = await self.link.send(bell_keys(self._queues))
        missing = [key for key in self._keys if key not in self._held]
        try:
            if self._idle and missing:
                if got := await self.link.send(bell_wait(missing)):
                    self._held.update(got)
                    self._wake()
                return 0.0
            if self._held and not self._idle:
                await self.link.send(bell_unlock(sorted(self._held)))
                self._held = set()
        except psycopg.Error:
            await self.link.close()  # nobody knows what a statement that has failed has left locked
            raise
        return math.inf


class Ear:
    """Hears of work and of cancelled jobs, on the claim connection."""

    def __init__(
        self,
        schema: str,
        queues: Sequence[str],
        wake: Callable[[], None],
        lease: Callable[[], int],
        cancel: Callable[[Iterable[int]], None],
    ) -> None:
        self._bell = schema
        self._stops = f"{schema}.cancel"
        self._queues = frozenset(queue[:500] for queue in queues)
        self._wake = wake
        self._lease = lease
        self._cancel = cancel

    async def listen(self, conn: AsyncConn) -> None:
        """Start listening on a new connection."""
        for channel in (self._bell, self._stops):
            await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def heard(self, notify: Notify) -> None:
        """What somebody has said there, whoever that is."""
        if notify.channel == self._stops:
            worker, _, job = notify.payload.partition(" ")
            if worker == str(self._lease()) and job.isdecimal():
                self._cancel([int(job)])
        elif notify.payload[:500] in self._queues:
            self._wake()


class Doorbell:
    """Both sides of it, as one way of hearing of work; `polling.Poll` is the other."""

    def __init__(self, bell: Bell, ear: Ear) -> None:
        self._bell = bell
        self._ear = ear

    def idle(self) -> None:
        """From now on, be heard of."""
        self._bell.idle()

    def busy(self) -> None:
        """From now on, cost nobody anything."""
        self._bell.busy()

    async def serve(self) -> None:
        """Take the keys and give them back, for ever."""
        await self._bell.serve()

    def hear_on(self, link: Link) -> None:
        """Listen on the claimer's link, from its next connection on."""
        link.on_connect, link.on_notify = self._ear.listen, self._ear.heard

    async def close(self) -> None:
        """Close the bell's own connection, and with that give up its keys."""
        await self._bell.link.close()
