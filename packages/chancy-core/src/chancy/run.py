"""The two drivers, sync and async: the only file in core that sends anything.

A verb says what it wants as a `Statement`, or as a generator that yields statements and pauses (httpx's
`auth_flow` and psycopg's own `generators` show the idea); `perform` sends it on the connection that the caller
gave, in the caller's transaction. Nothing here commits, opens a connection or starts a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar, overload

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from .errors import InvalidConnection, SchemaOutdated
from .model import LetGo, Pause, Script, Statement, Steps
from .schema import named, numbered
from .wires.connections import AsyncConn, SyncConn, driver_of, in_transaction
from .wires.cursors import AsyncCursor, Cursor

T = TypeVar("T")


def send(conn: SyncConn, statement: Statement[T], schema: str) -> T:
    """One round trip. The answer comes in binary: no DateStyle or IntervalStyle of the session changes how it reads."""
    text, names = numbered(statement.sql, schema)
    cursor = Cursor(conn, row_factory=tuple_row)
    cursor.execute(text, [statement.params[name] for name in names], binary=True)
    return statement.parse(cursor.fetchall())


async def send_async(conn: AsyncConn, statement: Statement[T], schema: str) -> T:
    """`send`, awaited."""
    text, names = numbered(statement.sql, schema)
    cursor = AsyncCursor(conn, row_factory=tuple_row)
    await cursor.execute(text, [statement.params[name] for name in names], binary=True)
    return statement.parse(await cursor.fetchall())


class Backend(Protocol):
    """Who answers the statements of the package's verbs: the server at the end of the caller's connection, or, while
    tests run, what stands in for it. A backend of your own has to pass tests/conformance.
    """

    elsewhere: bool
    """Whether jobs are performed by other processes, which have to import their tasks."""

    def send(self, conn: SyncConn, statement: Statement[T], schema: str) -> T:
        """The answer to one statement."""

    def send_async(self, conn: AsyncConn, statement: Statement[T], schema: str) -> Coroutine[Any, Any, T]:
        """The same, awaited."""


NO_LOOP = "async connections need an event loop of asyncio, and none runs here: trio is not supported"
_MISSING = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
)


class Postgres:
    """The backend that there is outside of tests."""

    elsewhere = True

    def send(self, conn: SyncConn, statement: Statement[T], schema: str) -> T:
        """One round trip. Raises `SchemaOutdated` where the schema lacks what the statement names."""
        try:
            return send(conn, statement, schema)
        except (*_MISSING, psycopg.DataError) as error:
            raise _told(error, schema) from error

    async def send_async(self, conn: AsyncConn, statement: Statement[T], schema: str) -> T:
        """`send`, awaited."""
        try:
            return await send_async(conn, statement, schema)
        except (*_MISSING, psycopg.DataError) as error:
            raise _told(error, schema) from error
        except RuntimeError as error:
            if str(error) == "no running event loop":
                raise InvalidConnection(NO_LOOP) from None
            raise


def _told(error: psycopg.Error, schema: str) -> Exception:
    """What the error means, unless a trigger or a function that is not ours has raised it: our functions fire those
    triggers, too, so what counts is the innermost statement, or function.
    """
    message = error.diag.message_primary or ""
    inside = error.diag.internal_query or (error.diag.context or "").partition("\n")[0]
    if isinstance(error, psycopg.DataError):
        if message.endswith(': "NULL"'):
            return InvalidConnection("the session has array_nulls = off, and Chancy sends arrays with NULLs: set it on")
        return error
    if inside and f"{schema}." not in inside and f'"{schema}".' not in inside:
        return error
    return SchemaOutdated(schema, lacks=message)


_backend: Backend = Postgres()


def backend() -> Backend:
    """Who answers now."""
    return _backend


@contextlib.contextmanager
def answered_by(stand_in: Backend) -> Iterator[None]:
    """Within the block `stand_in` answers what any thread of this process asks through the package's verbs.

    Workers are not affected: they speak to their server themselves.
    """
    global _backend
    before, _backend = _backend, stand_in
    try:
        yield
    finally:
        _backend = before


def perform(conn: SyncConn | AsyncConn, work: Statement[T] | Steps[T], schema: str) -> T | Coroutine[Any, Any, T]:
    """Have `work` answered for `conn`: the result on a sync connection, a coroutine of it on an async one."""
    if isinstance(conn, psycopg.AsyncConnection):
        if isinstance(work, Statement):
            return _backend.send_async(conn, work, schema)
        return _walk_async(conn, work, schema, _backend)
    driver_of(conn)
    return _backend.send(conn, work, schema) if isinstance(work, Statement) else _walk(conn, work, schema, _backend)


def walk(steps: Generator[Any, Any, T], do: Callable[[Any], Any]) -> T:
    """Drive a generator of steps to its result. Each is for `do`, whose answer it gets; only pauses are made here."""
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            answer = None
        else:
            answer = do(step)


async def follow(steps: Generator[Any, Any, T], do: Callable[[Any], Awaitable[Any]]) -> T:
    """`walk`, awaited. Cancelling it between two steps leaves nothing behind."""
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            answer = None
        else:
            answer = await do(step)


def _walk(conn: SyncConn, steps: Steps[T], schema: str, backend: Backend) -> T:
    def do(step: Statement[Any] | Script | LetGo) -> Any:
        if isinstance(step, Statement):
            return backend.send(conn, step, schema)
        if isinstance(step, LetGo):
            return conn.rollback()
        return Cursor(conn).execute(named(step.sql, schema).encode())

    return walk(steps, do)


async def _walk_async(conn: AsyncConn, steps: Steps[T], schema: str, backend: Backend) -> T:
    def do(step: Statement[Any] | Script | LetGo) -> Awaitable[Any]:
        if isinstance(step, Statement):
            return backend.send_async(conn, step, schema)
        if isinstance(step, LetGo):
            return conn.rollback()
        return AsyncCursor(conn).execute(named(step.sql, schema).encode())

    return await follow(steps, do)


@overload
def around(
    conn: SyncConn, before: Steps[T], after: Callable[[T], Steps[None]], schema: str
) -> AbstractContextManager[T]: ...
@overload
def around(
    conn: AsyncConn, before: Steps[T], after: Callable[[T], Steps[None]], schema: str
) -> AbstractAsyncContextManager[T]: ...
def around(
    conn: SyncConn | AsyncConn, before: Steps[T], after: Callable[[T], Steps[None]], schema: str
) -> AbstractContextManager[T] | AbstractAsyncContextManager[T]:
    """A block that begins with `before`, which gives its value, and ends with `after`, unless it raises.

    On a connection in autocommit it is a transaction; elsewhere a part of the caller's, which is not touched.
    """
    if isinstance(conn, psycopg.AsyncConnection):
        return _around_async(conn, before, after, schema)
    driver_of(conn)
    return _around(conn, before, after, schema)


# psycopg's `transaction()` would commit what an idle connection without autocommit has begun.
@contextlib.contextmanager
def _around(conn: SyncConn, before: Steps[T], after: Callable[[T], Steps[None]], schema: str) -> Iterator[T]:
    with contextlib.nullcontext() if in_transaction(conn) else conn.transaction():
        value = _walk(conn, before, schema, _backend)
        yield value
        _walk(conn, after(value), schema, _backend)


@contextlib.asynccontextmanager
async def _around_async(
    conn: AsyncConn, before: Steps[T], after: Callable[[T], Steps[None]], schema: str
) -> AsyncIterator[T]:
    async with contextlib.nullcontext() if in_transaction(conn) else conn.transaction():
        value = await _walk_async(conn, before, schema, _backend)
        yield value
        await _walk_async(conn, after(value), schema, _backend)


def perform_in_transaction(
    conn: SyncConn | AsyncConn, first: str, steps: Steps[T], schema: str
) -> T | Coroutine[Any, Any, T]:
    """Drive `steps` in one transaction: on an idle connection their own, which begins with the command `first` and is
    committed, else the caller's.
    """
    driver = driver_of(conn)
    if driver.closed:
        raise InvalidConnection("the connection is closed")
    if driver.info.pipeline_status is not PipelineStatus.OFF:
        raise InvalidConnection("the connection is in pipeline mode, in which several commands cannot be sent at once")
    status = driver.info.transaction_status
    if status is TransactionStatus.INERROR:
        raise InvalidConnection("the transaction of the connection has failed: roll it back first")
    alone = status is TransactionStatus.IDLE
    if isinstance(conn, psycopg.AsyncConnection):
        return _walk_in_transaction_async(conn, first if alone else None, steps, schema)
    if not alone:
        return _walk(conn, steps, schema, Postgres())
    with conn.transaction():
        Cursor(conn).execute(first.encode())
        return _walk(conn, steps, schema, Postgres())


async def _walk_in_transaction_async(conn: AsyncConn, first: str | None, steps: Steps[T], schema: str) -> T:
    if first is None:
        return await _walk_async(conn, steps, schema, Postgres())
    async with conn.transaction():
        await AsyncCursor(conn).execute(first.encode())
        return await _walk_async(conn, steps, schema, Postgres())
