"""One connection of a worker: set up for its work, with a deadline on every wait for its server, watched while nothing
is asked of it, and made anew when it breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg import Notify
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from chancy.model import Script, Statement, Steps
from chancy.run import follow
from chancy.wires.connections import PsycopgAsyncConn
from chancy_worker import forks

from .addresses import addresses, conninfo_of
from .outage import Outage
from .recovery import Recovery, Trouble
from .sessions import OwnSession, Session

T = TypeVar("T")

TO_CANCEL_SECONDS = 1.0
"""That a server gets to end a statement whose caller was cancelled."""
MANNERS: Mapping[str, str | int] = {
    "connect_timeout": 10,
    "client_encoding": "utf8",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Seconds, for each address; and so that a host which is gone is missed within half a minute. (Milliseconds.)"""


class Ended(psycopg.OperationalError):
    """The connection was lost while nothing was asked of it."""


class _Conn(psycopg.AsyncConnection[tuple[Any, ...]]):
    """Whoever waits for its server, and for whatever: at the deadline the socket is cut, and psycopg raises its error.

    (To ask for a cancel would mean to wait for a server that may be frozen.)
    """

    deadline: float
    _patience: float
    """Seconds: what holds of the wait that is going on."""
    _timer: asyncio.TimerHandle | None = None
    _was_cut = False

    async def wait(self, gen: Any, *arguments: Any, **more: Any) -> Any:
        """See psycopg: all its waits come through here, but for those of connecting."""
        self._cut_in(self.deadline)
        try:
            return await super().wait(gen, *arguments, **more)
        except psycopg.OperationalError as error:
            if self._was_cut:
                raise psycopg.OperationalError(f"no answer within {self._patience:g} s") from error
            raise
        finally:
            self._cut_never()

    def hurry(self, seconds: float) -> None:
        """Whoever waits now waits no longer than that."""
        if self._timer is not None and self._timer.when() > asyncio.get_running_loop().time() + seconds:
            self._cut_in(seconds)

    async def cancel_safe(self, **more: Any) -> None:
        """See psycopg, which calls this, and waits on, when the task that waits is cancelled."""
        self._cut_in(TO_CANCEL_SECONDS)
        if psycopg.capabilities.has_cancel_safe():
            await super().cancel_safe(timeout=TO_CANCEL_SECONDS)
        else:  # it would ask in a thread of the default executor
            self.cut()

    def _cut_in(self, seconds: float) -> None:
        self._cut_never()
        self._patience = seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self.cut)

    def _cut_never(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def cut(self) -> None:
        """Shut the socket down, which libpq finds out and closes. Needs no new descriptor: there may be none."""
        self._was_cut = True
        with contextlib.suppress(OSError, psycopg.Error):
            twin = socket.socket(fileno=self.fileno())
            try:
                twin.shutdown(socket.SHUT_RDWR)
            finally:
                twin.detach()


class Link:
    """A connection in autocommit that outlives outages. One call at a time."""

    def __init__(
        self,
        conninfo: str | Callable[[], str],
        schema: str,
        purpose: str,
        *,
        deadline: float,
        lock_timeout: str = "100ms",
        session: type[Session] = OwnSession,
        outage: Outage | None = None,
    ) -> None:
        self.conninfo = conninfo
        self.schema = schema
        self.purpose = purpose
        self.deadline = deadline
        self.recovery = Recovery(purpose, outage)
        self.on_connect: Callable[[PsycopgAsyncConn], Awaitable[None]] | None = None
        self.on_notify: Callable[[Notify], None] | None = None
        self._session = session(lock_timeout=lock_timeout, deadline=deadline)
        self._conn: _Conn | None = None
        self.answered_at = 0.0
        """When a statement was answered last, by `time.monotonic`."""
        self.connected_at = 0.0
        """When the connection was made that is there, or was, by `time.monotonic`."""

    @property
    def conn(self) -> PsycopgAsyncConn | None:
        """The connection if it is there and whole."""
        return self._conn if self._conn is not None and not self._conn.closed else None

    async def connect(self) -> None:
        """Connect once. Raises psycopg's error when that fails."""
        await self.close()
        conn = await self._dial()
        conn.deadline = self.deadline
        if self.on_notify is not None:
            conn.add_notify_handler(self.on_notify)
        forks.keep_from_forks(conn)
        try:
            await self._session.set_up(conn)
            if self.on_connect is not None:
                await self.on_connect(conn)
        except BaseException:
            await conn.close()
            raise
        self._conn = conn
        self.connected_at = time.monotonic()

    async def open(self) -> None:
        """Connect once, unless there is a connection."""
        if self.conn is None:
            await self.connect()

    async def reconnect(self, error: psycopg.Error) -> None:
        """`recover`, and connect if that is necessary, however long it takes."""
        await self.recover(error)
        await self.persist(self.open)

    async def persist(self, turn: Callable[[], Awaitable[T]]) -> T:
        """Take this turn until it succeeds."""
        while True:
            began = time.monotonic()
            try:
                result = await turn()
            except psycopg.Error as error:
                await self.recover(error, since=began)
                continue
            if self.answered_at >= began or self.conn is None:  # it was of use, or not needed
                self.recovery.over()
            return result

    async def recover(self, error: psycopg.Error, *, since: float | None = None) -> None:
        """Part with a broken connection, and wait until it is time for another attempt at whatever has failed.

        `since` when that was tried, by the monotonic clock: a server may have taken its time to say nothing.
        """
        trouble, why = await self.part_with(error)
        await asyncio.sleep(self.recovery.failed(trouble, why, since))

    async def part_with(self, error: psycopg.Error) -> tuple[Trouble, str]:
        """Close the connection if this error has broken it; what is to be said of it."""
        broken = self.is_broken(error)
        if broken:
            await self.close()
        trouble = Trouble.IDLE if isinstance(error, Ended) else Trouble.LOST if broken else Trouble.REFUSED
        return trouble, one_line(error)

    async def wait(self, told: asyncio.Event, seconds: float = math.inf) -> None:
        """Until `told` is set, or for so many seconds (which may set it, too). Notifications are heard meanwhile.

        Raises `Ended` as soon as the connection, if there is one, is known to be lost.
        """
        if told.is_set() or seconds <= 0:
            return await asyncio.sleep(0)
        conn = self._conn
        if conn is not None and conn.closed:
            raise Ended("it was closed")
        timer = asyncio.get_running_loop().call_later(seconds, told.set) if seconds < math.inf else None
        try:
            if conn is None:
                await told.wait()
            else:
                with self._watching(conn, told) as found:
                    await told.wait()
                if found:
                    raise Ended(one_line(found[0]))
        finally:
            if timer is not None:
                timer.cancel()

    @contextlib.contextmanager
    def _watching(self, conn: _Conn, told: asyncio.Event) -> Iterator[list[psycopg.Error]]:
        """Gives a list, of the error with which the connection was lost.

        What was read together with the end of the last answer lies in libpq's buffer, of which no socket tells.
        """
        loop, descriptor = asyncio.get_running_loop(), conn.fileno()
        found: list[psycopg.Error] = []

        def readable() -> None:
            try:
                conn.pgconn.consume_input()
                while (notify := conn.pgconn.notifies()) is not None:
                    if self.on_notify is not None:
                        self.on_notify(Notify(notify.relname.decode(), notify.extra.decode(), notify.be_pid))
            except psycopg.OperationalError as error:
                loop.remove_reader(descriptor)  # now: libpq has closed it, and the next one to open gets its number
                found.append(error)
                told.set()

        loop.add_reader(descriptor, readable)
        readable()
        try:
            yield found
        finally:
            if not found:
                loop.remove_reader(descriptor)

    async def send(self, statement: Statement[T]) -> T:
        """One statement, within the deadline. Raises psycopg's errors; see `is_broken`."""
        answer = await self._session.send(self._whole(), statement, self.schema)
        self.answered_at = time.monotonic()
        return answer

    async def run(self, script: Script) -> None:
        """DDL, within the deadline; whether in a transaction is up to the session."""
        await self._session.run(self._whole(), script, self.schema)
        self.answered_at = time.monotonic()

    async def walk(self, steps: Steps[T]) -> T:
        """A verb of several steps, each sent as by `send` or `run`."""
        return await follow(steps, lambda step: self.send(step) if isinstance(step, Statement) else self.run(step))

    def hurry(self, seconds: float) -> None:
        """What is on its way has so many seconds left at most: then it fails as at its deadline."""
        if self._conn is not None:
            self._conn.hurry(seconds)

    def is_broken(self, error: psycopg.Error) -> bool:
        """Whether the connection has to be made anew: it is gone, out of step, or leads to a server that takes no
        writes.
        """
        return (
            self._conn is None
            or self._conn.info.transaction_status is not TransactionStatus.IDLE  # of one that is closed: UNKNOWN
            or isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
        )

    async def close(self) -> None:
        """Close the connection if there is one. Waits for nobody."""
        if self._conn is not None:
            conn, self._conn = self._conn, None
            await conn.close()

    def _whole(self) -> _Conn:
        if self._conn is None or self._conn.closed:
            raise psycopg.OperationalError("not connected")
        return self._conn

    async def _dial(self) -> _Conn:
        """To the first of all addresses that lets us in. Each has `connect_timeout`, and so has each name."""
        conninfo = await conninfo_of(self.conninfo)
        wanted = conninfo_to_dict(conninfo, application_name=f"chancy {self.purpose}", **MANNERS)
        errors: list[psycopg.Error] = []
        for address in await addresses(wanted):
            try:
                return await _Conn.connect(
                    make_conninfo("", **address), autocommit=True, prepare_threshold=self._session.prepare_threshold
                )
            except psycopg.Error as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        raise psycopg.OperationalError("; ".join(map(one_line, errors)))


def one_line(error: BaseException) -> str:
    """An error's message for the log."""
    return " ".join(str(error).split()) or type(error).__name__
