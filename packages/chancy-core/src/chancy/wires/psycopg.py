"""psycopg's own connections, by cursors of our own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from chancy.errors import InvalidConnection
from chancy.schema import numbered

from .connections import PsycopgAsyncConn, PsycopgConn
from .cursors import AsyncCursor, Cursor
from .wire import Query, Rows, Standing


def fetch(conn: PsycopgConn, sql: str, params: Mapping[str, Any], schema: str) -> Rows:
    """One round trip. The answer comes in binary: no DateStyle or IntervalStyle of the session changes how it reads."""
    text, names = numbered(sql, schema)
    cursor = Cursor(conn, row_factory=tuple_row)
    cursor.execute(text, [params[name] for name in names], binary=True)
    return cursor.fetchall()


async def fetch_async(conn: PsycopgAsyncConn, sql: str, params: Mapping[str, Any], schema: str) -> Rows:
    """`fetch`, awaited."""
    text, names = numbered(sql, schema)
    cursor = AsyncCursor(conn, row_factory=tuple_row)
    await cursor.execute(text, [params[name] for name in names], binary=True)
    return await cursor.fetchall()


def standing(conn: PsycopgConn | PsycopgAsyncConn) -> Standing:
    """Where the connection stands."""
    match conn.info.transaction_status:
        case TransactionStatus.INERROR:
            return Standing.FAILED
        case TransactionStatus.IDLE if conn.autocommit:
            return Standing.AUTOCOMMIT
        case TransactionStatus.IDLE if conn.pgconn.pipeline_status == PipelineStatus.OFF:
            return Standing.FRESH
    return Standing.WITHIN


def refuse_scripts(conn: PsycopgConn | PsycopgAsyncConn) -> None:
    """Raise `InvalidConnection` where none could be sent."""
    if conn.closed:
        raise InvalidConnection("the connection is closed")
    if conn.info.pipeline_status is not PipelineStatus.OFF:
        raise InvalidConnection("the connection is in pipeline mode, in which several commands cannot be sent at once")


class Psycopg:
    """A `psycopg.Connection`."""

    def __init__(self, conn: PsycopgConn) -> None:
        self._conn = conn

    def fetch(self, query: Query) -> Rows:
        """In binary."""
        return fetch(self._conn, query.sql, query.params, query.schema)

    def run(self, script: str) -> None:
        """In one packet."""
        Cursor(self._conn).execute(script.encode())

    def standing(self) -> Standing:
        """What libpq knows, once a statement of another thread is over."""
        if self._conn.info.transaction_status is TransactionStatus.ACTIVE:
            with self._conn.lock:
                return standing(self._conn)
        return standing(self._conn)

    def let_go(self) -> None:
        """Nothing was written."""
        self._conn.rollback()

    def block(self) -> AbstractContextManager[Any]:
        """Its own."""
        return self._conn.transaction()


class AsyncPsycopg:
    """A `psycopg.AsyncConnection`."""

    def __init__(self, conn: PsycopgAsyncConn) -> None:
        self._conn = conn

    async def fetch(self, query: Query) -> Rows:
        """In binary."""
        return await fetch_async(self._conn, query.sql, query.params, query.schema)

    async def run(self, script: str) -> None:
        """In one packet."""
        await AsyncCursor(self._conn).execute(script.encode())

    async def standing(self) -> Standing:
        """What libpq knows, once a statement of another coroutine is over."""
        if self._conn.info.transaction_status is TransactionStatus.ACTIVE:
            async with self._conn.lock:
                return standing(self._conn)
        return standing(self._conn)

    async def let_go(self) -> None:
        """Nothing was written."""
        await self._conn.rollback()

    def block(self) -> AbstractAsyncContextManager[Any]:
        """Its own."""
        return self._conn.transaction()
