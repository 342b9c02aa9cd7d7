"""One connection of a worker: set up for its work, with a deadline on every call, and made anew when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg

from chancy.model import Script, Statement, Steps
from chancy.run import AsyncConn, follow

from . import forks
from .sessions import OwnSession, Session

T = TypeVar("T")

log = logging.getLogger("chancy.worker")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Link:
    """A connection in autocommit that outlives outages. One call at a time."""

    def __init__(
        self,
        conninfo: str,
        schema: str,
        purpose: str,
        *,
        deadline: float,
        lock_timeout: str = "100ms",
        session: type[Session] = OwnSession,
    ) -> None:
        self.conninfo = conninfo
        self.schema = schema
        self.purpose = purpose
        self.deadline = deadline
        self._session = session(lock_timeout=lock_timeout, deadline=deadline)
        self.on_connect: Callable[[AsyncConn], Awaitable[None]] | None = None
        self._conn: AsyncConn | None = None

    @property
    def conn(self) -> AsyncConn | None:
        """The connection if it is there and whole."""
        return self._conn if self._conn is not None and not self._conn.closed else None

    async def connect(self) -> None:
        """Connect once. Raises psycopg's error when that fails."""
        await self.close()
        conn: AsyncConn = await psycopg.AsyncConnection.connect(
            self.conninfo,
            autocommit=True,
            prepare_threshold=self._session.prepare_threshold,
            application_name=f"chancy {self.purpose}",
            connect_timeout=10,
            client_encoding="utf8",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
        )
        self._conn = conn
        forks.keep_from_forks(conn)
        try:
            cut = self._cut_later(conn)
            try:
                await self._session.set_up(conn)
            finally:
                cut.cancel()
            if self.on_connect is not None:
                await self.on_connect(conn)
        except BaseException:
            await self.close()
            raise

    async def reconnect(self) -> None:
        """Connect, however long that takes, with pauses that grow to five seconds."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self.connect()
            except psycopg.Error as error:
                log.warning("no connection for %s: %s; trying again", self.purpose, one_line(error))
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def send(self, statement: Statement[T]) -> T:
        """One statement, within the deadline. Raises psycopg's errors; see `is_broken`."""
        if self.conn is None:
            raise psycopg.OperationalError("not connected")
        conn = self.conn
        cut = self._cut_later(conn)
        try:
            return await self._session.send(conn, statement, self.schema)
        finally:
            cut.cancel()

    async def run(self, script: Script) -> None:
        """DDL, within the deadline; whether in a transaction is up to the session."""
        if self.conn is None:
            raise psycopg.OperationalError("not connected")
        conn = self.conn
        cut = self._cut_later(conn)
        try:
            await self._session.run(conn, script, self.schema)
        finally:
            cut.cancel()

    async def walk(self, steps: Steps[T]) -> T:
        """A verb of several steps, each sent as by `send` or `run`."""
        return await follow(steps, lambda step: self.send(step) if isinstance(step, Statement) else self.run(step))

    def is_broken(self, error: psycopg.Error) -> bool:
        """Whether the connection has to be made anew: it is gone, or it leads to a server that takes no writes."""
        return self.conn is None or isinstance(error, psycopg.errors.ReadOnlySqlTransaction)

    def _cut_later(self, conn: AsyncConn) -> asyncio.TimerHandle:
        """The deadline cuts the socket: cancelling would wait for a server that may be frozen."""
        return asyncio.get_running_loop().call_later(self.deadline, _cut, conn)

    async def close(self) -> None:
        """Close the connection if there is one."""
        if self._conn is not None:
            conn, self._conn = self._conn, None
            await conn.close()


def _cut(conn: AsyncConn) -> None:
    with contextlib.suppress(OSError, psycopg.Error):
        with socket.socket(fileno=os.dup(conn.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)


def one_line(error: BaseException) -> str:
    """An error's message for the log."""
    return " ".join(str(error).split()) or type(error).__name__
