"""What a worker hears on its claim connection: of work, and of jobs that somebody has cancelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

from psycopg import Notify, sql

from chancy.wires.connections import AsyncConn
from chancy_worker.connection.link import Link

from .locks import asked_to_stop


class Ear:
    """Hears of work and of cancelled jobs, on the claim connection; of both until it is told what it need not hear.

    Every session that listens to anything costs who notifies a little, whatever it is about.
    """

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
        self._wanted = {self._bell, self._stops}
        self._listens: set[str] = set()
        self.stir: Callable[[], None] = lambda: None
        """Called when there is something to `attend` to."""
        self.began: Callable[[], None] = lambda: None
        """Called when it listens to the bell, after a time in which it did not."""

    @property
    def follows_bell(self) -> bool:
        """Whether it is to hear of work."""
        return self._bell in self._wanted

    @property
    def channel(self) -> str | None:
        """One that it listens to, and goes on to, if there is any."""
        return min(self._listens & self._wanted, default=None)

    def follow(self, *, bell: bool | None = None, cancels: bool | None = None) -> None:
        """From now on hear of this, or not."""
        wanted = {
            channel
            for channel, wish in ((self._bell, bell), (self._stops, cancels))
            if wish or (wish is None and channel in self._wanted)
        }
        if wanted != self._wanted:
            self._wanted = wanted
            self.stir()

    async def listen(self, conn: AsyncConn) -> None:
        """Start listening on a new connection."""
        self._listens = set()
        for channel in sorted(self._wanted):
            await self._begin(conn, channel)

    async def attend(self, link: Link) -> None:
        """Begin to listen on the link's connection, or cease to, where that has changed. Raises psycopg's errors."""
        while (conn := link.conn) is not None and self._listens != self._wanted:
            wanted = set(self._wanted)
            for channel in self._listens - wanted:
                await conn.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))
                self._listens.remove(channel)
            for channel in wanted - self._listens:
                await self._begin(conn, channel)
                if channel == self._bell:
                    self.began()
                else:
                    self._cancel(await link.send(asked_to_stop(self._lease())))

    async def _begin(self, conn: AsyncConn, channel: str) -> None:
        await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        self._listens.add(channel)

    def heard(self, notify: Notify) -> None:
        """What somebody has said there, whoever that is."""
        if notify.channel == self._stops:
            worker, _, job = notify.payload.partition(" ")
            if worker == str(self._lease()) and job.isdecimal():
                self._cancel([int(job)])
        elif queues := self._queues.get(notify.payload[:500]):
            self._wake(queues)
