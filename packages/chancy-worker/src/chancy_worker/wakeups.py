"""The doorbell: how an idle worker hears of new work within a millisecond, and a busy one costs submitters nothing.

An idle worker holds, or waits in line for, the exclusive lock on its queues' keys; who submits tries each key shared
and notifies where that fails. LISTEN is on the claim connection, the waiting on one of its own, because a
blocked session gets no notifications. A wakeup may be lost: the truth is the claimer's fallback look.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import psycopg
from psycopg import Notify, sql

from chancy.model import Statement
from chancy.run import AsyncConn

from .link import Link, one_line

log = logging.getLogger("chancy.worker")

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
        self._idle = asyncio.Event()
        self._busy = asyncio.Event()
        self._busy.set()

    def idle(self) -> None:
        """From now on, be heard of."""
        self._busy.clear()
        self._idle.set()

    def busy(self) -> None:
        """From now on, cost nobody anything."""
        self._idle.clear()
        self._busy.set()

    async def serve(self) -> None:
        """Take the keys and give them back, for ever."""
        while True:
            try:
                await self.link.reconnect()
                await self._hold(await self.link.send(bell_keys(self._queues)))
            except psycopg.Error as error:
                log.warning("%s: %s", self.link.purpose, one_line(error))
                await asyncio.sleep(1)

    async def _hold(self, keys: list[int]) -> None:
        held: set[int] = set()
        while True:
            await self._idle.wait()
            while self._idle.is_set() and len(held) < len(keys):
                if got := await self.link.send(bell_wait([key for key in keys if key not in held])):
                    held.update(got)
                    self._wake()
            await self._busy.wait()
            if held:
                await self.link.send(bell_unlock(sorted(held)))
                held.clear()


class Ear:
    """Hears of work and of cancelled jobs, on the claim connection: between queries by a reader, else by psycopg."""

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
        conn.add_notify_handler(self._heard)
        for channel in (self._bell, self._stops):
            await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    @contextlib.contextmanager
    def open(self, conn: AsyncConn) -> Iterator[None]:
        """Hear while no query runs. A broken connection wakes, too: the next query finds out.

        What was read together with the end of the last answer lies in libpq's buffer, of which no socket tells.
        """

        def readable() -> None:
            try:
                conn.pgconn.consume_input()
                while (notify := conn.pgconn.notifies()) is not None:
                    self._heard(Notify(notify.relname.decode(), notify.extra.decode(), notify.be_pid))
            except psycopg.OperationalError:
                self._wake()

        loop = asyncio.get_running_loop()
        descriptor = conn.fileno()
        loop.add_reader(descriptor, readable)
        readable()
        try:
            yield
        finally:
            loop.remove_reader(descriptor)

    def _heard(self, notify: Notify) -> None:
        if notify.channel == self._stops:
            worker, _, job = notify.payload.partition(" ")
            if worker == str(self._lease()):
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

    async def listen(self, conn: AsyncConn) -> None:
        """Start listening on a new connection of the claimer's."""
        await self._ear.listen(conn)

    def hearing(self, conn: AsyncConn) -> AbstractContextManager[None]:
        """Hear while no query runs."""
        return self._ear.open(conn)

    async def close(self) -> None:
        """Close the bell's own connection, and with that give up its keys."""
        await self._bell.link.close()
