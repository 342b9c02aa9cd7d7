"""Whose session of the server statements run in: the link's own, or one that a pooler lends for a transaction."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Protocol, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Buffer
from psycopg.rows import tuple_row
from psycopg.types.datetime import IntervalLoader, TimestamptzLoader

from chancy.model import Script, Statement
from chancy.run import send_async
from chancy.schema import fill
from chancy.wires.connections import PsycopgAsyncConn
from chancy.wires.cursors import ADAPTERS
from chancy_worker.config import Pooler

T = TypeVar("T")

# What a role or a database is set to must not change what a statement says or how its answer is read.
# The worker's own statements are written for nested loops over its indexes; a plan that looks cheaper while the
# tables are small would be a scan over dead rows an hour later. `lock_timeout`: a round never waits for a row.
# A Postgres before 17 has no transaction_timeout. The path: our statements name the schema of all but operators, and
# whoever may create in a schema of the role's own path could have one that fits better.
_SETTINGS = """
        ('lock_timeout', {lock_timeout}), ('statement_timeout', {deadline}), ('jit', 'off'),
        ('TimeZone', 'UTC'), ('DateStyle', 'ISO'), ('IntervalStyle', 'postgres'), ('extra_float_digits', '1'),
        ('array_nulls', 'on'), ('transaction_timeout', '0'), ('search_path', 'pg_catalog, pg_temp'),
        ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
        ('enable_bitmapscan', 'off'), ('enable_sort', 'off'),
        ('plan_cache_mode', 'force_generic_plan')
    ) AS wish (name, value)
    WHERE name <> 'transaction_timeout' OR pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL
"""
SET_UP = (
    """
    SELECT pg_catalog.set_config(name, value, false)
    FROM (VALUES
        ('default_transaction_isolation', 'read committed'), ('idle_session_timeout', '0'),"""
    + _SETTINGS
)
SET_LOCALLY = (
    """
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SELECT pg_catalog.set_config(name, value, true)
    FROM (VALUES"""
    + _SETTINGS
    + ";"
)


class Session(Protocol):
    """How a link's statements are sent. `deadline` in seconds, `lock_timeout` in Postgres' words."""

    pooler: ClassVar[Pooler]
    """The word of the command line that asks for it."""
    prepare_threshold: ClassVar[int | None]

    def __init__(self, *, lock_timeout: str, deadline: float) -> None: ...

    async def set_up(self, conn: PsycopgAsyncConn) -> None:
        """What a new connection needs before its first statement."""

    async def send(self, conn: PsycopgAsyncConn, statement: Statement[T], schema: str, /) -> T:
        """One statement, committed when this returns."""

    async def run(self, conn: PsycopgAsyncConn, script: Script, schema: str) -> None:
        """DDL."""


class OwnSession:
    """Settings are made once a connection, and statements are prepared: one round trip each, and no transaction block.

    What needs a session works: its locks, LISTEN, DDL that refuses to run in a transaction.
    """

    pooler: ClassVar[Pooler] = "session"
    prepare_threshold: ClassVar[int | None] = 1

    def __init__(self, *, lock_timeout: str, deadline: float) -> None:
        self._settings = _filled(SET_UP, lock_timeout, deadline)

    async def set_up(self, conn: PsycopgAsyncConn) -> None:
        """The settings: one round trip."""
        await conn.execute(self._settings)

    async def send(self, conn: PsycopgAsyncConn, statement: Statement[T], schema: str, /) -> T:
        """One round trip."""
        return await send_async(conn, statement, schema)

    async def run(self, conn: PsycopgAsyncConn, script: Script, schema: str) -> None:
        """One round trip. A script of one statement runs in no transaction block."""
        await conn.execute(fill(script.sql, schema))


class LentSession:
    """Nothing outlives a transaction, since the next one may be in another session and this one be somebody else's.

    The settings and the statement go out in one packet, which Postgres takes for one transaction: one round trip, and
    no moment at which the transaction waits for us. (With a COMMIT of its own it would hold its locks for as long as a
    handler blocks the event loop.) For that, parameters are written into the text. Nothing is prepared: names of
    prepared statements belong to a session.
    """

    pooler: ClassVar[Pooler] = "transaction"
    prepare_threshold: ClassVar[int | None] = None

    def __init__(self, *, lock_timeout: str, deadline: float) -> None:
        self._settings = _filled(SET_LOCALLY, lock_timeout, deadline)

    async def set_up(self, conn: PsycopgAsyncConn) -> None:
        """Nothing: it would be gone with the transaction, or worse, stay for others."""

    async def send(self, conn: PsycopgAsyncConn, statement: Statement[T], schema: str, /) -> T:
        """One round trip, one transaction."""
        async with _Cursor(conn, row_factory=tuple_row) as cursor:
            await cursor.execute(self._settings + fill(statement.sql, schema), statement.params)
            while cursor.nextset():
                pass
            return statement.parse(await cursor.fetchall())

    async def run(self, conn: PsycopgAsyncConn, script: Script, schema: str) -> None:
        """One round trip, one transaction."""
        await conn.execute(self._settings + fill(script.sql, schema))


# psycopg asks the connection how its instants are written, and that tells of the session between two transactions.
class _InstantLoader(TimestamptzLoader):
    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid)  # without a connection: ISO, UTC


class _IntervalLoader(IntervalLoader):
    def load(self, data: Buffer) -> timedelta:
        return self._load_postgres(self, data)


_ADAPTERS = AdaptersMap(ADAPTERS)
"""As core's own cursors speak, on a connection that speaks UTF-8, of what is written as the settings say."""
_ADAPTERS.register_loader("timestamptz", _InstantLoader)
_ADAPTERS.register_loader("interval", _IntervalLoader)


class _Cursor(psycopg.AsyncClientCursor[tuple[Any, ...]]):
    @property
    def adapters(self) -> AdaptersMap:
        return _ADAPTERS


def _filled(text: str, lock_timeout: str, deadline: float) -> bytes:
    """Constants in the text: a packet of several statements has no parameters."""
    literals = {"lock_timeout": sql.Literal(lock_timeout), "deadline": sql.Literal(f"{deadline * 1000:.0f}ms")}
    return sql.SQL(text).format(**literals).as_bytes()
