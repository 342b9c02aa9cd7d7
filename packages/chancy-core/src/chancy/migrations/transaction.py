"""A transaction for steps of ours: their own on a connection that has none, else the caller's."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import psycopg

from chancy.errors import InvalidConnection
from chancy.model import Steps
from chancy.run import Postgres, awaited, drive, drive_async
from chancy.wires.connections import AsyncConn, SyncConn
from chancy.wires.psycopg import refuse_scripts
from chancy.wires.registry import wire_of
from chancy.wires.wire import AsyncWire, Standing, Wire

T = TypeVar("T")


def perform_in_transaction(
    conn: SyncConn | AsyncConn, first: str, steps: Steps[T], schema: str
) -> T | Coroutine[Any, Any, T]:
    """Drive `steps` in one transaction: on an idle connection their own, which begins with the command `first` and is
    committed, else the caller's.
    """
    given: Any = conn
    if awaited(conn):
        return _drive_in_transaction_async(given, first, steps, schema)
    wire: Wire = wire_of(conn)
    if _has_one(given, wire.standing()):
        return drive(given, steps, schema, Postgres())
    with wire.block():
        wire.run(first)
        return drive(given, steps, schema, Postgres())


async def _drive_in_transaction_async(conn: AsyncConn, first: str, steps: Steps[T], schema: str) -> T:
    wire: AsyncWire = wire_of(conn)
    if _has_one(conn, await wire.standing()):
        return await drive_async(conn, steps, schema, Postgres())
    async with wire.block():
        await wire.run(first)
        return await drive_async(conn, steps, schema, Postgres())


def _has_one(conn: object, standing: Standing) -> bool:
    """Whether there is a transaction, which can take scripts. Raises `InvalidConnection`."""
    if isinstance(conn, (psycopg.Connection, psycopg.AsyncConnection)):
        refuse_scripts(conn)
    if standing is Standing.FAILED:
        raise InvalidConnection("the transaction of the connection has failed: roll it back first")
    return standing is Standing.WITHIN
