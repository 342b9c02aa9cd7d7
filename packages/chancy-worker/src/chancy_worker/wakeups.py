"""The doorbell: how an idle worker hears of new work within a millisecond, and a busy one costs submitters nothing.

Of each queue that is idle a worker holds, or waits in line for, the exclusive lock on its key; who submits tries the
key shared, and notifies where that fails. LISTEN is on the claim connection, the waiting on one of its own, because a
blocked session gets no notifications. A wakeup may be lost: the truth is the claimer's fallback look.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import psycopg
from psycopg import Notify, sql

from chancy.model import Statement
from chancy.run import AsyncConn

from .link import Link

BELL_KEYS = "SELECT queue, {schema}.bell_key(queue) FROM unnest(%(queues)s::text[]) AS queue"
BELL_TRY = """
    SELECT key FROM unnest(%(missing)s::integer[]) AS key
    WHERE pg_try_advisory_lock('{schema}'::regnamespace::oid::integer, key)
"""
BELL_WAIT = "SELECT {schema}.bell_wait(%(missing)s::integer[])"
BELL_UNLOCK = """
    SELECT pg_advisory_unlock('{schema}'::regnamespace::oid::integer, key) FROM unnest(%(held)s::integer[]) AS key
"""


def bell_keys(queues: Sequence[str]) -> Statement[dict[str, int]]:
    """The key of each queue. Queues may share one: it is a hash."""
    return Statement(BELL_KEYS, {"queues": list(queues)}, lambda rows: {row[0]: row[1] for row in rows})


def bell_try(missing: Sequence[int]) -> Statement[list[int]]:
    """Take those of the keys that are free; returns them."""
    return Statement(BELL_TRY, {"missing": list(missing)}, lambda rows: [key for (key,) in rows])


def bell_wait(missing: Sequence[int]) -> Statement[list[int]]:
    """Take the keys, waiting up to 1.8 s for the first that somebody else holds; returns those that it got."""
    return Statement(BELL_WAIT, {"missing": list(missing)}, lambda rows: list(rows[0][0]))


def bell_unlock(held: Sequence[int]) -> Statement[None]:
    """Give the keys to the next in line."""
    return Statement(BELL_UNLOCK, {"held": list(held)}, lambda rows: None)


KEEP_SECONDS = 0.05
"""A queue that has work keeps its key for so long: by then it may be idle again, as it is after a lone job."""
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.25, 1.8
"""How soon a worker that has work in other queues tries again for the keys of idle ones that somebody else holds; twice
as long each time."""


class Bell:
    """Holds the keys of its worker's idle queues. `wake` is called at a grant: somebody may have submitted before it.

    Where somebody else holds the key, submits are heard of all the same, but that one may give it up. A worker that is
    idle altogether waits in line for it; one that has work in other queues could take no other key meanwhile.
    """

    def __init__(self, link: Link, queues: Sequence[str], wake: Callable[[Collection[str]], None]) -> None:
        self.link = link
        self._queues = queues
        self._wake = wake
        self._keys: Mapping[str, int] = {}
        self._held: set[int] = set()
        self._idle: set[str] = set()
        self._leaving: dict[str, float] = {}
        """Queues that have work again, and until when their keys are kept."""
        self._in_vain: list[int] = []
        """The keys that it has tried for."""
        self._retry, self._retry_at = RETRY_SECONDS, 0.0
        self._changed = asyncio.Event()

    def idle(self, queues: Iterable[str]) -> None:
        """From now on, be heard of there."""
        for queue in queues:
            self._idle.add(queue)
            self._leaving.pop(queue, None)
        self._changed.set()

    def busy(self, queues: Iterable[str]) -> None:
        """There is work in these queues: soon, cost nobody anything there."""
        for queue in self._idle.intersection(queues):
            self._idle.remove(queue)
            self._leaving[queue] = time.monotonic() + KEEP_SECONDS
            self._changed.set()

    async def serve(self) -> None:
        """Take the keys and give them back, for ever."""
        await self.link.forever(self._turn, self._changed)

    async def _turn(self) -> float:
        """One step towards holding the keys of all idle queues, and no others; seconds until the next one."""
        if self.link.conn is None:
            self._keys, self._held, self._in_vain = {}, set(), []
            await self.link.connect()
        if not self._keys:
            self._keys = await self.link.send(bell_keys(self._queues))
        try:
            return await self._step(self._keys)
        except psycopg.Error:
            await self.link.close()  # nobody knows what a statement that has failed has left locked
            raise

    async def _step(self, keys: Mapping[str, int]) -> float:
        now = time.monotonic()
        self._leaving = {queue: until for queue, until in self._leaving.items() if until > now}
        wanted = {keys[queue] for queue in self._idle}
        if given_up := self._held - wanted - {keys[queue] for queue in self._leaving}:
            await self.link.send(bell_unlock(sorted(given_up)))
            self._held -= given_up
        pause = min(self._leaving.values(), default=math.inf) - now
        if not (missing := sorted(wanted - self._held)):
            return pause
        if len(self._idle) == len(self._queues):
            self._got(await self.link.send(bell_wait(missing)))
            return 0.0
        if missing != self._in_vain:
            self._retry, self._retry_at = RETRY_SECONDS, 0.0
        if now < self._retry_at:
            return min(pause, self._retry_at - now)
        self._got(await self.link.send(bell_try(missing)))
        self._in_vain = [key for key in missing if key not in self._held]
        self._retry_at, self._retry = now + self._retry, min(2 * self._retry, LONGEST_RETRY_SECONDS)
        return min(pause, self._retry_at - now) if self._in_vain else pause

    def _got(self, keys: Collection[int]) -> None:
        self._held.update(keys)
        if keys:
            self._wake([queue for queue in self._idle if self._keys[queue] in keys])


class Ear:
    """Hears of work and of cancelled jobs, on the claim connection."""

    def __init__(
        self,
        schema: str,
        queues: Sequence[str],
        wake: Callable[[Collection[str] | None], None],
        lease: Callable[[], int],
        cancel: Callable[[Iterable[int]], None],
    ) -> None:
        self._bell = schema
        self._stops = f"{schema}.cancel"
        self._queues: defaultdict[str, list[str]] = defaultdict(list)
        """By what a notification says of them."""
        for queue in queues:
            self._queues[queue[:500]].append(queue)
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
        elif queues := self._queues.get(notify.payload[:500]):
            self._wake(queues)


class Doorbell:
    """Both sides of it, as one way of hearing of work; `polling.Poll` is the other."""

    def __init__(self, bell: Bell, ear: Ear) -> None:
        self._bell = bell
        self._ear = ear

    def idle(self, queues: Iterable[str]) -> None:
        """From now on, be heard of there."""
        self._bell.idle(queues)

    def busy(self, queues: Iterable[str]) -> None:
        """There is work in these queues: soon, cost nobody anything there."""
        self._bell.busy(queues)

    async def serve(self) -> None:
        """Take the keys and give them back, for ever."""
        await self._bell.serve()

    def hear_on(self, link: Link) -> None:
        """Listen on the claimer's link, from its next connection on."""
        link.on_connect, link.on_notify = self._ear.listen, self._ear.heard

    async def close(self) -> None:
        """Close the bell's own connection, and with that give up its keys."""
        await self._bell.link.close()
