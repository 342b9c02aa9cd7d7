"""Bring a schema up to date: numbered files, forward only, in one transaction, by one process at a time."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib import resources
from typing import Any, overload

from .model import Rows, Script, Statement, Steps
from .run import AsyncConn, SyncConn, perform_alone
from .schema import named, schema_in_use


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `0001_first.sql`."""

    number: int
    name: str
    sql: str


@functools.cache
def migrations() -> tuple[Migration, ...]:
    """All of them, in order."""
    files = (resources.files(__package__) / "migrations").iterdir()
    found = [(file.name.removesuffix(".sql"), file) for file in files if file.name.endswith(".sql")]
    return tuple(Migration(int(name[:4]), name, file.read_text("utf-8")) for name, file in sorted(found))


def newest() -> int:
    """The number that this version of Chancy needs."""
    return migrations()[-1].number


# A lock_timeout, so that a migration waiting for a long transaction never stalls everybody behind itself.
LOCK = """
    SELECT set_config('lock_timeout', '3s', true), pg_advisory_xact_lock(hashtext('chancy migrate'), hashtext('{name}'))
"""
SCHEMA_EXISTS = "SELECT to_regnamespace('{schema}') IS NOT NULL"
CREATE_SCHEMA = "CREATE SCHEMA {schema}"
CREATE_LEDGER = """
    CREATE TABLE {schema}.migration (
        number integer PRIMARY KEY,
        name text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
LEDGER_EXISTS = "SELECT to_regclass('{schema}.migration') IS NOT NULL"
VERSION = "SELECT coalesce(max(number), 0) FROM {schema}.migration"
RECORD = "INSERT INTO {schema}.migration (number, name) VALUES (%(number)s::integer, %(name)s::text) RETURNING number"

PRINTED_RECORD = "INSERT INTO {schema}.migration (number, name) VALUES (%d, '%s');"


def version() -> Steps[int]:
    """The number of the newest migration that the database has; 0 where there is none."""
    if not (yield _value(LEDGER_EXISTS)):
        return 0
    found: int = yield _value(VERSION)
    return found


@overload
def migrate(conn: SyncConn, /, *, schema: str | None = None) -> list[str]: ...
@overload
def migrate(conn: AsyncConn, /, *, schema: str | None = None) -> Coroutine[Any, Any, list[str]]: ...
def migrate(conn: SyncConn | AsyncConn, /, *, schema: str | None = None) -> list[str] | Coroutine[Any, Any, list[str]]:
    """Apply what is missing, and return the names of what was applied, in order.

    Needs an idle connection, because it makes a transaction of its own, which it commits: all or nothing.
    Waits at most three seconds for a lock, then raises psycopg's `LockNotAvailable` and leaves everything as it was.
    A worker of the previous minor version goes on running on the newer schema.
    """
    return perform_alone(conn, _apply_missing(), schema_in_use(schema))


def _apply_missing() -> Steps[list[str]]:
    yield _value(LOCK)
    if not (yield _value(SCHEMA_EXISTS)):
        yield Script(CREATE_SCHEMA)
    if not (yield _value(LEDGER_EXISTS)):
        yield Script(CREATE_LEDGER)
    found: int = yield _value(VERSION)
    missing = [migration for migration in migrations() if migration.number > found]
    for migration in missing:
        yield Script(migration.sql)
        yield Statement(RECORD, {"number": migration.number, "name": migration.name}, _first)
    return [migration.name for migration in missing]


def printed(schema: str | None = None, after: int = 0) -> str:
    """The SQL of every migration with a number above `after`, for a person to read and run."""
    parts = [] if after else [f"{CREATE_SCHEMA};", f"{textwrap.dedent(CREATE_LEDGER).strip()};\n"]
    for migration in migrations():
        if migration.number > after:
            parts.append(migration.sql)
            parts.append(PRINTED_RECORD % (migration.number, migration.name))
    return named("\n".join(["BEGIN;", *parts, "COMMIT;"]), schema_in_use(schema)) + "\n"


def _value(sql: str) -> Statement[Any]:
    return Statement(sql, {}, _first)


def _first(rows: Rows) -> Any:
    return rows[0][0]
