"""Bring a schema up to date, in one transaction, by one process at a time.

Tables change by numbered steps, forward only: a folder `sql/NNNN_name` each, with a file a capability. Functions and
views are whole files beside them, which every migration replaces.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, overload

from .errors import DevelopmentSchema
from .model import Rows, Script, Statement, Steps
from .run import AsyncConn, SyncConn, perform_alone
from .schema import named, schema_in_use
from .statements import make_partitions

DAYS_AHEAD = 7


@dataclass(frozen=True, slots=True)
class Step:
    """What changes the tables: the files of `0001_start`, say, in order."""

    number: int
    name: str
    sql: str


@functools.cache
def steps() -> tuple[Step, ...]:
    """All of them, in order."""
    folders = sorted((folder for folder in _home().iterdir() if folder.is_dir()), key=lambda folder: folder.name)
    return tuple(Step(int(folder.name[:4]), folder.name, _text(folder)) for folder in folders)


@functools.cache
def functions() -> str:
    """The functions and views, as this version has them."""
    return _text(_home())


def newest() -> int:
    """The number of the step that this version of Chancy needs."""
    return steps()[-1].number


def _home() -> Traversable:
    return resources.files(__package__) / "sql"


def _text(folder: Traversable) -> str:
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return "\n".join(file.read_text("utf-8") for file in files)


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
VERSION = """
    SELECT coalesce(max(number), 0), coalesce(bool_or(name = '0001_first'), false) FROM {schema}.migration
"""
RECORD = "INSERT INTO {schema}.migration (number, name) VALUES (%(number)s::integer, %(name)s::text) RETURNING number"

PRINTED_RECORD = "INSERT INTO {schema}.migration (number, name) VALUES (%d, '%s');"


def version() -> Steps[int]:
    """The number of the newest step that the database has; 0 where there is none.

    Raises `DevelopmentSchema` for one that was made before the first release.
    """
    if not (yield _value(LEDGER_EXISTS)):
        return 0
    found, early = yield Statement(VERSION, {}, lambda rows: rows[0])
    if early:
        raise DevelopmentSchema
    return int(found)


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
    found: int = yield from version()
    missing = [step for step in steps() if step.number > found]
    if not missing:
        return []
    for step in missing:
        yield Script(step.sql)
    yield Script(functions())
    yield make_partitions(DAYS_AHEAD)
    for step in missing:
        yield Statement(RECORD, {"number": step.number, "name": step.name}, _first)
    return [step.name for step in missing]


def printed(schema: str | None = None, after: int = 0) -> str:
    """The SQL of every step with a number above `after`, and of the functions, for a person to read and run."""
    missing = [step for step in steps() if step.number > after]
    parts = [] if after else [f"{CREATE_SCHEMA};", f"{textwrap.dedent(CREATE_LEDGER).strip()};\n"]
    parts += [step.sql for step in missing]
    if missing:
        made = textwrap.dedent(make_partitions(DAYS_AHEAD).sql).strip()
        parts += [functions(), made.replace("%(days)s", str(DAYS_AHEAD)) + ";"]
    parts += [PRINTED_RECORD % (step.number, step.name) for step in missing]
    return named("\n".join(["BEGIN;", *parts, "COMMIT;"]), schema_in_use(schema)) + "\n"


def _value(sql: str) -> Statement[Any]:
    return Statement(sql, {}, _first)


def _first(rows: Rows) -> Any:
    return rows[0][0]
