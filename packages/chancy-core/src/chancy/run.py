"""The two drivers, sync and async: the only file in core that sends anything.

A verb says what it wants as a `Statement`, or as a generator that yields statements and pauses (httpx's
`auth_flow` and psycopg's own `generators` show the idea); `perform` sends it on the connection that the caller
gave, in the caller's transaction. Nothing here commits, opens a connection or starts a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, Protocol, TypeVar

import psycopg

from .errors import InvalidConnection
from .model import AskStanding, LetGo, Pause, Script, Statement, Steps
from .schema import named
from .wires.connections import AsyncConn, PsycopgAsyncConn, PsycopgConn, SyncConn
from .wires.failures import meaning
from .wires.psycopg import fetch, fetch_async
from .wires.registry import kind_of, wire_of
from .wires.wire import AsyncWire, Query, Rows, Wire

T = TypeVar("T")


def send(conn: PsycopgConn, statement: Statement[T], schema: str) -> T:
    """One round trip on a connection of psycopg's."""
    return statement.parse(fetch(conn, _words_for(conn, statement), statement.params, schema))


async def send_async(conn: PsycopgAsyncConn, statement: Statement[T], schema: str) -> T:
    """`send`, awaited."""
    return statement.parse(await fetch_async(conn, _words_for(conn, statement), statement.params, schema))


def _words_for(conn: PsycopgConn | PsycopgAsyncConn, statement: Statement[Any]) -> str:
    return statement.prepared if statement.prepared and conn.prepare_threshold is not None else statement.sql


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

    def wire(self, conn: SyncConn | AsyncConn) -> Any:
        """The `Wire` or `AsyncWire` for all else that a verb has to know of the connection, or to do with it."""


NO_LOOP = "async connections need an event loop of asyncio, and none runs here: trio is not supported"


class Postgres:
    """The backend that there is outside of tests."""

    elsewhere = True

    def send(self, conn: SyncConn, statement: Statement[T], schema: str) -> T:
        """One round trip. Raises `SchemaOutdated` where the schema lacks what the statement names."""
        try:
            if isinstance(conn, psycopg.Connection):
                return send(conn, statement, schema)
            rows = wire_of(conn).fetch(Query(statement.sql, statement.params, schema))
        except Exception as error:
            if (told := meaning(error, schema)) is not None:
                raise told from error
            raise
        return statement.parse(_plain(rows))

    async def send_async(self, conn: AsyncConn, statement: Statement[T], schema: str) -> T:
        """`send`, awaited."""
        try:
            if isinstance(conn, psycopg.AsyncConnection):
                return await send_async(conn, statement, schema)
            rows = await wire_of(conn).fetch(Query(statement.sql, statement.params, schema))
        except Exception as error:
            if str(error) == "no running event loop":
                raise InvalidConnection(NO_LOOP) from None
            if (told := meaning(error, schema)) is not None:
                raise told from error
            raise
        return statement.parse(_plain(rows))

    def wire(self, conn: SyncConn | AsyncConn) -> Any:
        """Of its own stack."""
        return wire_of(conn)


def _plain(rows: Rows) -> Rows:
    """As psycopg gives them to us: tuples, and bytes where psycopg2 has a memoryview."""
    return [tuple(bytes(value) if type(value) is memoryview else value for value in row) for row in rows]


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


def awaited(conn: SyncConn | AsyncConn) -> bool:
    """Whether what is sent on it is awaited. Raises `InvalidConnection` for what is none."""
    if isinstance(conn, psycopg.Connection):
        return False
    return isinstance(conn, psycopg.AsyncConnection) or kind_of(conn).is_async


def perform(conn: SyncConn | AsyncConn, work: Statement[T] | Steps[T], schema: str) -> T | Coroutine[Any, Any, T]:
    """Have `work` answered for `conn`: the result on a sync connection, a coroutine of it on an async one."""
    given: Any = conn
    if awaited(conn):
        if isinstance(work, Statement):
            return _backend.send_async(given, work, schema)
        return drive_async(given, work, schema, _backend)
    return _backend.send(given, work, schema) if isinstance(work, Statement) else drive(given, work, schema, _backend)


def walk(steps: Generator[Any, Any, T], do: Callable[[Any], Any]) -> T:
    """Drive a generator of steps to its result. Each is for `do`, whose answer it gets; only pauses are made here.

    What goes wrong with a step is raised in the generator, where it was asked for: a block around it is left then.
    """
    try:
        step = steps.send(None)
        while True:
            try:
                if isinstance(step, Pause):
                    answer = None
                    time.sleep(step.seconds)
                else:
                    answer = do(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def follow(steps: Generator[Any, Any, T], do: Callable[[Any], Awaitable[Any]]) -> T:
    """`walk`, awaited. Cancelling it between two steps leaves nothing behind."""
    try:
        step = steps.send(None)
        while True:
            try:
                if isinstance(step, Pause):
                    answer = None
                    await asyncio.sleep(step.seconds)
                else:
                    answer = await do(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def doing(conn: Any, schema: str, backend: Backend, send: Callable[[Any, Any, str], Any]) -> Callable[[Any], Any]:
    """What does a step of a verb on this connection, at once or awaited: statements by `send`, all else by its wire."""

    def do(step: Statement[Any] | Script | LetGo | AskStanding | Callable[[], Any]) -> Any:
        if isinstance(step, Statement):
            return send(conn, step, schema)
        if callable(step):
            return step()
        wire: Wire | AsyncWire = backend.wire(conn)
        match step:
            case AskStanding():
                return wire.standing()
            case LetGo():
                return wire.let_go()
        return wire.run(named(step.sql, schema))

    return do


def drive(conn: SyncConn, steps: Steps[T], schema: str, backend: Backend) -> T:
    """The steps of a verb on this connection, to their result."""
    return walk(steps, doing(conn, schema, backend, backend.send))


async def drive_async(conn: AsyncConn, steps: Steps[T], schema: str, backend: Backend) -> T:
    """`drive`, awaited."""
    return await follow(steps, doing(conn, schema, backend, backend.send_async))
