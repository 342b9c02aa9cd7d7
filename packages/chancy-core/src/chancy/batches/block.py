"""A block on the caller's connection, which begins and ends with steps of ours."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeVar, overload

from chancy.model import Steps
from chancy.run import awaited, backend, drive, drive_async
from chancy.wires.connections import AsyncConn, SyncConn
from chancy.wires.wire import AsyncWire, Standing, Wire

T = TypeVar("T")


@overload
def around(
    conn: SyncConn, before: Steps[T], after: Callable[[T], Steps[None]], schema: str
) -> AbstractContextManager[T]: ...
@overload
def around(
    conn: AsyncConn, before: Steps[T], after: Callable[[T], Steps[None]], schema: str
) -> AbstractAsyncContextManager[T]: ...
def around(
    conn: Any, before: Steps[T], after: Callable[[T], Steps[None]], schema: str
) -> AbstractContextManager[T] | AbstractAsyncContextManager[T]:
    """A block that begins with `before`, which gives its value, and ends with `after`, unless it raises.

    On a connection in autocommit it is a transaction; elsewhere a part of the caller's, which is not touched.
    """
    return (_around_async if awaited(conn) else _around)(conn, before, after, schema)


# A block on a connection that is FRESH would commit what the caller has yet to commit.
@contextlib.contextmanager
def _around(conn: SyncConn, before: Steps[T], after: Callable[[T], Steps[None]], schema: str) -> Iterator[T]:
    answering = backend()
    wire: Wire = answering.wire(conn)
    with wire.block() if wire.standing() is Standing.AUTOCOMMIT else contextlib.nullcontext():
        value = drive(conn, before, schema, answering)
        yield value
        drive(conn, after(value), schema, answering)


@contextlib.asynccontextmanager
async def _around_async(
    conn: AsyncConn, before: Steps[T], after: Callable[[T], Steps[None]], schema: str
) -> AsyncIterator[T]:
    answering = backend()
    wire: AsyncWire = answering.wire(conn)
    async with wire.block() if await wire.standing() is Standing.AUTOCOMMIT else contextlib.nullcontext():
        value = await drive_async(conn, before, schema, answering)
        yield value
        await drive_async(conn, after(value), schema, answering)
