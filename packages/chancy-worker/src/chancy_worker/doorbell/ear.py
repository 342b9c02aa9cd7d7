"""What a worker listens to on the connection of its rounds, and what it makes of what is said there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from psycopg import AsyncConnection, Notify, sql

from chancy_worker.connection.link import Link


class Ear:
    """Listens for work and for cancelled jobs; to both until it is told what it need not hear.

    Every session that listens to anything costs who notifies a little, whatever it is about.
    """

    def __init__(self, schema: str, queues: Sequence[str]) -> None:
        self.bell = schema
        """The channel on which somebody rings."""
        self.stops = f"{schema}.cancel"
        """That on which somebody cancels."""
        self._queues: defaultdict[str, list[str]] = defaultdict(list)
        """By what a notification says of them."""
        for queue in queues:
            self._queues[queue[:500]].append(queue)
        self._wanted = {self.bell, self.stops}
        self._listens: set[str] = set()

    @property
    def follows_bell(self) -> bool:
        """Whether it is to hear of work."""
        return self.bell in self._wanted

    @property
    def channel(self) -> str | None:
        """One that it listens to, and goes on to, if there is any."""
        return min(self._listens & self._wanted, default=None)

    def follow(self, *, bell: bool | None = None, cancels: bool | None = None) -> bool:
        """From now on hear of this, or not; whether that is news, so that there is something to `attend` to."""
        wanted = {
            channel
            for channel, wish in ((self.bell, bell), (self.stops, cancels))
            if wish or (wish is None and channel in self._wanted)
        }
        news, self._wanted = wanted != self._wanted, wanted
        return news

    async def listen(self, conn: AsyncConnection[Any]) -> None:
        """Start listening on a new connection."""
        self._listens = set()
        for channel in sorted(self._wanted):
            await self._begin(conn, channel)

    async def attend(self, link: Link) -> set[str]:
        """Begin to listen on the link's connection, or cease to, where that has changed; the channels to which it has
        begun to listen. Raises psycopg's errors.
        """
        begun = set()
        while (conn := link.conn) is not None and self._listens != self._wanted:
            wanted = set(self._wanted)
            for channel in self._listens - wanted:
                await conn.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))
                self._listens.remove(channel)
            for channel in wanted - self._listens:
                await self._begin(conn, channel)
                begun.add(channel)
        return begun

    async def _begin(self, conn: AsyncConnection[Any], channel: str) -> None:
        await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        self._listens.add(channel)

    def rung(self, notify: Notify) -> Collection[str]:
        """The queues in which there may be work by that, whoever has said it."""
        return self._queues.get(notify.payload[:500], ()) if notify.channel != self.stops else ()

    def cancelled(self, notify: Notify, lease: int) -> int | None:
        """The job of this lease that is to stop by that, if it is one."""
        worker, _, job = notify.payload.partition(" ")
        return int(job) if notify.channel == self.stops and worker == str(lease) and job.isdecimal() else None
