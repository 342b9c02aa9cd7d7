"""The caller's connection: what is one, and in which transaction it is."""

from __future__ import annotations

from typing import Any, TypeAlias

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from chancy.errors import InvalidConnection

SyncConn: TypeAlias = psycopg.Connection[Any]
AsyncConn: TypeAlias = psycopg.AsyncConnection[Any]


def in_transaction(conn: SyncConn | AsyncConn) -> bool:
    """Whether what is sent next on `conn` shares its transaction with what was sent before."""
    return driver_of(conn).info.transaction_status is not TransactionStatus.IDLE or not conn.autocommit


def begins_its_own(conn: SyncConn | AsyncConn) -> bool:
    """Whether what is sent next on `conn` begins a transaction in which there is nothing else."""
    driver = driver_of(conn)
    idle = driver.info.transaction_status is TransactionStatus.IDLE
    return idle and not driver.autocommit and driver.pgconn.pipeline_status == PipelineStatus.OFF


def backend_pid(conn: SyncConn | AsyncConn) -> int:
    """Of the server process at the other end of `conn`, as it was told at the start: a pooler tells one of its own."""
    return driver_of(conn).info.backend_pid


def driver_of(conn: SyncConn | AsyncConn) -> SyncConn | AsyncConn:
    """The same. Raises `InvalidConnection` for what is none."""
    if isinstance(conn, (psycopg.Connection, psycopg.AsyncConnection)):
        return conn
    raise InvalidConnection(
        f"the first argument is your connection: expected a psycopg.Connection or psycopg.AsyncConnection, "
        f"got {type(conn).__module__}.{type(conn).__qualname__}"
    )


def refuse_no_connection(conn: object) -> None:
    """Raise `InvalidConnection` for what is none."""
    driver_of(conn)  # type: ignore[arg-type]
