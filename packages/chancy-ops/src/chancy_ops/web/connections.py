"""The dashboard's few connections, and the two kinds of transactions on them: to look, and to act.

Whether anything may be written is Postgres' affair: a look is in a transaction that is READ ONLY, and so is everything
in a dashboard that is. All that a session has to be told is told to the transaction, so a pooler may stand between.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus

from chancy.model import Statement
from chancy.run import perform
from chancy.wires.connections import PsycopgAsyncConn

T = TypeVar("T")

MOST_CONNECTIONS = 3
PATIENCE = 5.0
"""Seconds that a page waits for one of them, and for a new one to be made."""
IDLE = 60.0
"""Seconds after which a connection that nobody uses is closed."""

# A page is on a few milliseconds of Postgres' time; whoever needs seconds is stopped, and told so. `jit` would take
# seconds over plans that run for milliseconds, and other processors belong to the workers.
LOOKING = """
    BEGIN READ ONLY;
    SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '1s';
    SET LOCAL idle_in_transaction_session_timeout = '10s';
    SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0
"""
ACTING = LOOKING.replace("READ ONLY", "READ WRITE")


class Busy(Exception):
    """All connections are in use, and none was given back in time."""


@dataclass
class _Here:
    """What belongs to one event loop."""

    places: asyncio.Semaphore
    idle: list[tuple[float, PsycopgAsyncConn]] = field(default_factory=list)
    tidying: asyncio.TimerHandle | None = None


class Connections:
    """At most three for each event loop, opened when they are needed; those that nobody uses are closed after a minute.

    `conninfo` gives where Postgres is, anew for each connection.
    """

    def __init__(self, conninfo: Callable[[], str], *, read_only: bool, most: int = MOST_CONNECTIONS) -> None:
        self.read_only = read_only
        self.role = ""
        """As whom it was connected last."""
        self._conninfo = conninfo
        self._most = most
        self._here: WeakKeyDictionary[asyncio.AbstractEventLoop, _Here] = WeakKeyDictionary()

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[PsycopgAsyncConn]:
        """A connection in a transaction that can write nothing, and is rolled back.

        Raises `Busy`, and psycopg's errors where Postgres cannot be reached.
        """
        async with self._one(LOOKING) as conn:
            try:
                yield conn
            finally:
                await _end(conn)

    @contextlib.asynccontextmanager
    async def acting(self) -> AsyncIterator[PsycopgAsyncConn]:
        """A connection in a transaction that is committed, or if an error leaves the block, rolled back.

        In a dashboard that is read-only it can write nothing: Postgres refuses with `ReadOnlySqlTransaction`.
        """
        async with self._one(LOOKING if self.read_only else ACTING) as conn:
            try:
                yield conn
            except BaseException:
                await _end(conn)
                raise
            await conn.execute("COMMIT")

    @contextlib.asynccontextmanager
    async def untied(self) -> AsyncIterator[PsycopgAsyncConn]:
        """A connection in autocommit, for what no transaction may be around: nobody keeps it from writing."""
        async with self._one("") as conn:
            yield conn

    def close(self) -> None:
        """Close those of this event loop that nobody uses. What is opened afterwards is opened anew."""
        here = self._here.pop(asyncio.get_running_loop(), None)
        if here is not None:
            if here.tidying is not None:
                here.tidying.cancel()
            for _, conn in here.idle:
                conn.pgconn.finish()

    @contextlib.asynccontextmanager
    async def _one(self, begin: str) -> AsyncIterator[PsycopgAsyncConn]:
        """With this said already: whether a connection that was idle is broken, nobody knows before."""
        loop = asyncio.get_running_loop()
        here = self._here.setdefault(loop, _Here(asyncio.Semaphore(self._most)))
        try:
            async with asyncio.timeout(PATIENCE):
                await here.places.acquire()
        except TimeoutError:
            raise Busy from None
        try:
            conn = await self._begun(here, begin)
            try:
                yield conn
            finally:
                if conn.info.transaction_status is TransactionStatus.IDLE:
                    here.idle.append((time.monotonic(), conn))
                    self._tidy_later(here)
                else:
                    await conn.close()
        finally:
            here.places.release()

    async def _begun(self, here: _Here, begin: str) -> PsycopgAsyncConn:
        while here.idle:
            _, conn = here.idle.pop()
            try:
                await conn.execute(begin)
            except psycopg.OperationalError:
                await conn.close()
            else:
                return conn
        conn = await connected(self._conninfo)
        self.role = conn.info.user
        await conn.execute(begin)
        return conn

    def _tidy_later(self, here: _Here) -> None:
        if here.tidying is None:
            here.tidying = asyncio.get_running_loop().call_later(IDLE, self._tidy, here)

    def _tidy(self, here: _Here) -> None:
        here.tidying = None
        old = [each for each in here.idle if each[0] <= time.monotonic() - IDLE]
        here.idle[:] = [each for each in here.idle if each not in old]
        for _, conn in old:
            conn.pgconn.finish()
        if here.idle:
            self._tidy_later(here)


async def answer_of(conn: PsycopgAsyncConn, asked: Statement[T], schema: str) -> T:
    """What the database answers to something that is no verb."""
    answering: Any = perform(conn, asked, schema)
    answered: T = await answering
    return answered


async def connected(conninfo: Callable[[], str]) -> PsycopgAsyncConn:
    """A connection of the dashboard's. To find out where Postgres is may take a while: a service file is read."""
    return await psycopg.AsyncConnection.connect(
        await asyncio.to_thread(conninfo), autocommit=True, prepare_threshold=None, connect_timeout=int(PATIENCE),
        fallback_application_name="chancy dashboard",
    )  # fmt: skip


async def _end(conn: PsycopgAsyncConn) -> None:
    """Roll back; if the connection is broken, what went wrong is told already."""
    with contextlib.suppress(psycopg.Error):
        await conn.execute("ROLLBACK")
