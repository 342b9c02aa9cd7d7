"""Temporary schemas: made by the whole migrated DDL in one round trip, emptied and used again, swept up after a crash.

One is used again only if it is in every respect as it was made but for the rows, and if no worker is left that believes
to work in it. Else it is dropped, and the next test gets a new one: 4 ms against 200 ms.

A process of pytest holds an advisory lock as long as it lives, and its schemas bear the lock's number. Where nobody
holds the lock any more, they are left over from a run that was killed.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from types import TracebackType
from typing import Any, LiteralString, Self

import psycopg
from psycopg import sql

from chancy.migrations.migrate import printed

_NAME = re.compile(r"chancy_test_(\d+)_\d+")
KEY = 0x0C4A7C7
"""The first half of the advisory lock of a run; the other is its number."""

# All that is in it was made with it: whoever creates, alters or replaces anything leaves another xmin in the catalogs
# than that of the schema. (In pg_class, so does TRUNCATE. The clock is compared as it is, for one that was moved is put
# right again.)
SHAPE = """
    SELECT md5(concat_ws('; ',
        (SELECT string_agg(concat_ws(' ', oid, relname, relnatts, relhasrules, relrowsecurity, reloptions, relacl), ', '
            ORDER BY oid) FROM pg_class WHERE relnamespace = {schema}::regnamespace),
        (SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE a.xmin <> made)) FROM pg_attribute AS a
            JOIN pg_class ON attrelid = pg_class.oid WHERE relnamespace = {schema}::regnamespace),
        (SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE t.xmin <> made)) FROM pg_trigger AS t
            JOIN pg_class ON tgrelid = pg_class.oid
            WHERE relnamespace = {schema}::regnamespace AND relkind IN ('r', 'p', 'v')),
        (SELECT count(*) FROM pg_statistic
            JOIN pg_class ON starelid = pg_class.oid WHERE relnamespace = {schema}::regnamespace),
        (SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE xmin <> made)) FROM pg_constraint
            WHERE connamespace = {schema}::regnamespace),
        (SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE xmin <> made)) FROM pg_type
            WHERE typnamespace = {schema}::regnamespace),
        (SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE xmin <> made AND proname <> 'clock'),
                string_agg(p::text, ', ' ORDER BY oid) FILTER (WHERE proname = 'clock'))
            FROM pg_proc AS p WHERE pronamespace = {schema}::regnamespace),
        (SELECT string_agg(s::text, ', ' ORDER BY s) FROM {name}.setting AS s),
        (SELECT string_agg(m::text, ', ' ORDER BY m) FROM {name}.migration AS m),
        (SELECT count(*) FROM {name}.worker)))
    FROM (SELECT xmin AS made FROM pg_namespace WHERE oid = {schema}::regnamespace) AS its_schema
"""
# The lock waits for who has written and not ended the transaction, as a DROP would. TRUNCATE takes ten times as long as
# to delete a few rows, and each session has to read again what the tables are like; it is for those that have grown.
EMPTY = """
    DO $$
    DECLARE
        used text;
        grown text;
        name text;
    BEGIN
        SELECT string_agg(oid::regclass::text, ', '),
            string_agg(oid::regclass::text, ', ') FILTER (WHERE pg_table_size(oid) > 65536)
        INTO used, grown FROM pg_class
        WHERE relnamespace = {schema}::regnamespace AND relkind = 'r' AND relname NOT IN ('setting', 'migration')
            AND pg_relation_size(oid) > 0;
        IF used IS NOT NULL THEN
            EXECUTE 'LOCK ' || used;
            IF grown IS NOT NULL THEN
                EXECUTE 'TRUNCATE ' || grown || ' CASCADE'; -- what a worker offers goes with it
            END IF;
            FOREACH name IN ARRAY pg_catalog.string_to_array(used, ', ') LOOP
                EXECUTE 'DELETE FROM ' || name;
            END LOOP;
        END IF;
        PERFORM setval(oid, 1, false) FROM pg_class WHERE relnamespace = {schema}::regnamespace AND relkind = 'S';
    END
    $$
"""
# And what has days of its own: the part of the history that is kept for so many.
DAYS = """
    SELECT relname::text FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid
    WHERE nspname = {schema} AND relkind IN ('r', 'p')
        AND relname ~ '^((history|log|step)_[0-9]{{8}}|history(_result)?_[0-9]+d(_[0-9]{{8}})?)$'
"""
EVERY_SCHEMA = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'chancy\\_test\\_%'"
TRY_RUN = "SELECT pg_try_advisory_lock(%s::integer, %s::integer)"
UNLOCK_RUN = "SELECT pg_advisory_unlock(%s::integer, %s::integer)"


class Schemas:
    """What one process makes in one database, through one connection."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._made = 0
        self._shapes: dict[str, str] = {}
        self._days: dict[str, set[str]] = {}
        self._empty: list[str] = []
        self._in_use: list[str] = []

    def __enter__(self) -> Self:
        self._conn: psycopg.Connection[Any] = psycopg.connect(
            self._dsn, autocommit=True, options="-c client_min_messages=warning -c lock_timeout=500ms"
        )
        self.run = 0
        while not self.run or not self._value(TRY_RUN, KEY, self.run):
            self.run = secrets.randbelow(2**31 - 1) + 1
        self._sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A server that is gone already took them along, or the next run sweeps them up.
        with contextlib.suppress(psycopg.OperationalError), self._conn:
            for name in (*self._empty, *self._in_use):
                self._drop(name)

    def take(self) -> str:
        """A migrated schema without jobs: one that was given back, or a new one."""
        if self._empty:
            return self._empty.pop()
        self._made += 1
        name = f"chancy_test_{self.run}_{self._made}"
        self._conn.execute(printed(name).encode())
        self._shapes[name], self._days[name] = self._shape(name), self._days_of(name)
        return name

    def give_back(self, name: str) -> None:
        """Empty it for the next test, or drop it with all that is in it.

        One that somebody still uses after half a second, as a fixture does whose turn to end has not come, is set
        aside for good, and dropped at the end of the run.
        """
        try:
            if self._is_as_it_was_made(name):
                self._conn.execute(_filled(EMPTY, name))
                self._empty.append(name)
            else:
                self._drop(name)
        except psycopg.errors.LockNotAvailable:
            self._in_use.append(name)

    def _is_as_it_was_made(self, name: str) -> bool:
        """But for rows, and after the days have gone which a clock that was moved has made, or what a queue keeps."""
        if self._shape(name) == self._shapes[name]:
            return True
        if not (new := self._days_of(name) - self._days[name]):
            return False
        days = sql.SQL(", ").join(sql.Identifier(name, day) for day in sorted(new))
        try:
            self._conn.execute(sql.SQL("DROP TABLE {}").format(days))
        except psycopg.errors.DependentObjectsStillExist:  # a view of the test, which goes with the whole schema
            return False
        return self._shape(name) == self._shapes[name]

    def _days_of(self, name: str) -> set[str]:
        return {str(day) for (day,) in self._conn.execute(_filled(DAYS, name))}

    def _shape(self, name: str) -> str:
        try:
            row = self._conn.execute(_filled(SHAPE, name)).fetchone()
        except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable):
            return "gone"
        assert row is not None
        return str(row[0])

    def _drop(self, name: str) -> None:
        self._conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))

    def _sweep(self) -> None:
        """Drop what runs have left that are no more."""
        names = [name for (name,) in self._conn.execute(EVERY_SCHEMA)]
        for run in {int(found[1]) for found in map(_NAME.fullmatch, names) if found} - {self.run}:
            if self._value(TRY_RUN, KEY, run):
                for name in names:
                    if name.startswith(f"chancy_test_{run}_"):
                        self._drop(name)
                self._value(UNLOCK_RUN, KEY, run)

    def _value(self, query: str, *params: int) -> Any:
        row = self._conn.execute(query, params).fetchone()
        assert row is not None
        return row[0]


def _filled(statement: LiteralString, name: str) -> sql.Composed:
    return sql.SQL(statement).format(schema=sql.Literal(name), name=sql.Identifier(name))
