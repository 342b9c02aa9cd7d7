"""Bring a schema up to date, in one transaction, by one process at a time.

Tables change by numbered steps, forward only: a folder `sql/NNNN_name` each, with a file a capability. Functions and
views are whole files beside them, which every migration replaces.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Coroutine
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, overload

import msgspec

from chancy.errors import DevelopmentSchema, InvalidConnection, SchemaOutdated, UnsupportedDatabase
from chancy.history.moving import make_partitions
from chancy.model import Rows, Script, Statement, Steps
from chancy.schema import named, schema_in_use
from chancy.wires.connections import AsyncConn, SyncConn

from .transaction import perform_in_transaction

DAYS_AHEAD = 7


class Step(msgspec.Struct, frozen=True):
    """What changes the tables: the files of `0001_start`, say, in order."""

    number: int
    name: str
    sql: str


@functools.cache
def steps() -> tuple[Step, ...]:
    """All of them, in order."""
    folders = sorted((folder for folder in _home().iterdir() if folder.is_dir()), key=lambda folder: folder.name)
    return tuple(Step(int(folder.name[:4]), folder.name, _text(folder)) for folder in folders)


def steps_after(number: int) -> list[Step]:
    """Those that a schema lacks which is at this number."""
    return [step for step in steps() if step.number > number]


@functools.cache
def functions() -> str:
    """The functions and views, as this version has them."""
    return _text(_home())


def newest() -> int:
    """The number of the step that this version of Chancy needs."""
    return steps()[-1].number


def _home() -> Traversable:
    return resources.files("chancy") / "sql"


def _text(folder: Traversable) -> str:
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return "\n".join(file.read_text("utf-8") for file in files)


READ_COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
"""Whoever has waited for the lock has to see what the one before has committed."""

PATH = "SET LOCAL search_path = pg_catalog, pg_temp"
"""Every name of ours has its schema, but no operator has: `->>` in a CHECK would be that of whoever may create in
`public` and has one that fits better, for as long as the CHECK is there (CVE-2018-1058)."""

# A lock_timeout, so that a migration waiting for a long transaction never stalls everybody behind itself.
LOCK = """
    SELECT set_config('lock_timeout', '3s', true), pg_advisory_xact_lock(hashtext('chancy migrate'), hashtext('{name}'))
"""
CIRCUMSTANCES = """
    SELECT current_setting('server_encoding'), current_setting('transaction_isolation'),
        current_setting('lock_timeout'), current_setting('search_path')
"""
RESTORE = """
    SELECT set_config('lock_timeout', %(lock_timeout)s::text, true), set_config('search_path', %(path)s::text, true)
"""
SCHEMA_EXISTS = "SELECT to_regnamespace('{schema}') IS NOT NULL"
CREATE_SCHEMA = "CREATE SCHEMA {schema}"
CREATE_LEDGER = """
    CREATE TABLE {schema}.migration (
        number integer PRIMARY KEY,
        name text NOT NULL,
        schema text NOT NULL DEFAULT '{name}', -- what it was called then
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
LEDGER_EXISTS = "SELECT to_regclass('{schema}.migration') IS NOT NULL"
VERSION = """
    SELECT coalesce(max(number), 0), coalesce(bool_or(name = '0001_first'), false),
        max(to_jsonb(migration)->>'schema') -- which the ledger of a development version has not
    FROM {schema}.migration
"""
RENAME = "UPDATE {schema}.migration SET schema = '{name}' RETURNING number"
RECORD = "INSERT INTO {schema}.migration (number, name) VALUES (%(number)s::integer, %(name)s::text) RETURNING number"

PRINTED_RECORD = "INSERT INTO {schema}.migration (number, name) VALUES (%d, '%s');"


class Version(msgspec.Struct, frozen=True):
    """What a schema is."""

    number: int
    """Of the newest step that it has; 0 where there is none."""
    schema: str | None
    """The name that it had then. Its functions name it: after an ALTER SCHEMA … RENAME they look for another one."""


def version() -> Steps[Version]:
    """How far the schema is. Raises `DevelopmentSchema` for one that was made before the first release."""
    if not (yield _value(LEDGER_EXISTS, "ledger_exists")):
        return Version(0, None)
    number, early, schema = yield Statement(VERSION, {}, lambda rows: rows[0], name="version")
    if early:
        raise DevelopmentSchema
    return Version(number, schema)


def check_version(schema: str) -> Steps[Version]:
    """`version`; raises `SchemaOutdated` for one that this version of Chancy cannot work in."""
    found = yield from version()
    if found.number < newest() or found.schema not in (None, schema):
        raise SchemaOutdated(schema, found.number, newest(), was=found.schema)
    return found


@overload
def migrate(conn: SyncConn, /, *, schema: str | None = None) -> list[str]: ...
@overload
def migrate(conn: AsyncConn, /, *, schema: str | None = None) -> Coroutine[Any, Any, list[str]]: ...
def migrate(conn: SyncConn | AsyncConn, /, *, schema: str | None = None) -> list[str] | Coroutine[Any, Any, list[str]]:
    """Apply what is missing, and return the names of what was applied, in order: all or nothing.

    On an idle connection in a transaction of its own, which it commits; else in the caller's, which has to be READ
    COMMITTED, and with that its locks last until the caller commits. Waits at most three seconds for a lock, then
    raises psycopg's `LockNotAvailable` and leaves everything as it was. Raises `UnsupportedDatabase` where the
    database's encoding is not UTF-8. A worker of the previous minor version goes on running on the newer schema.
    """
    where = schema_in_use(schema)
    return perform_in_transaction(conn, READ_COMMITTED, _apply_missing(where), where)


def _apply_missing(schema: str) -> Steps[list[str]]:
    encoding, isolation, lock_timeout, path = yield Statement(
        CIRCUMSTANCES, {}, lambda rows: rows[0], name="circumstances"
    )
    if encoding != "UTF8":
        raise UnsupportedDatabase(encoding)
    if isolation != "read committed":
        raise InvalidConnection(f"a migration needs a transaction that is READ COMMITTED, and this one is {isolation}")
    yield Script(PATH)
    yield _value(LOCK, "lock")
    applied = yield from _apply(schema)
    yield Statement(RESTORE, {"lock_timeout": lock_timeout, "path": path}, _first, name="restore")
    return applied


def _apply(schema: str) -> Steps[list[str]]:
    if not (yield _value(SCHEMA_EXISTS, "schema_exists")):
        yield Script(CREATE_SCHEMA)
    if not (yield _value(LEDGER_EXISTS, "ledger_exists")):
        yield Script(CREATE_LEDGER)
        found = Version(0, None)
    else:
        found = yield from version()
    missing = steps_after(found.number)
    if not missing and found.schema in (None, schema):
        return []
    for step in missing:
        yield Script(step.sql)
    yield Script(functions())
    if found.schema not in (None, schema):
        yield _value(RENAME, "rename")
    yield make_partitions(DAYS_AHEAD)
    for step in missing:
        yield Statement(RECORD, {"number": step.number, "name": step.name}, _first, name="record")
    return [step.name for step in missing] or [f"functions of {schema}, which was {found.schema}"]


NOTHING_BEFORE = """
    DO $$ BEGIN
        IF current_setting('server_encoding') <> 'UTF8' THEN
            RAISE 'Chancy needs a database whose encoding is UTF8';
        END IF;
    END $$;
"""


def printed(schema: str | None = None, after: int = 0) -> str:
    """The SQL of every step with a number above `after`, and of the functions, for a person to read and run: in one
    transaction, with the guards of `migrate`. Run twice, it fails and changes nothing.
    """
    missing = steps_after(after)
    parts = [f"{READ_COMMITTED};", f"{PATH};", f"{textwrap.dedent(LOCK).strip()};", textwrap.dedent(NOTHING_BEFORE)]
    parts += [] if after else [f"{CREATE_SCHEMA};", f"{textwrap.dedent(CREATE_LEDGER).strip()};\n"]
    parts += [PRINTED_RECORD % (step.number, step.name) for step in missing]
    parts += [step.sql for step in missing]
    if missing:
        made = make_partitions(DAYS_AHEAD).sql.replace("%(days)s", str(DAYS_AHEAD))
        parts += [functions(), f"{textwrap.dedent(made).strip()};"]
    return named("\n".join(["BEGIN;", *parts, "COMMIT;"]), schema_in_use(schema)) + "\n"


def _value(sql: str, name: str) -> Statement[Any]:
    return Statement(sql, {}, _first, name=name)


def _first(rows: Rows) -> Any:
    return rows[0][0]
