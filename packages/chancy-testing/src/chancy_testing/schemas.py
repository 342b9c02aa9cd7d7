"""Temporary schemas: made by the whole migrated DDL in one round trip, dropped after use, swept up after a crash.

A process of pytest holds an advisory lock as long as it lives, and its schemas bear the lock's number. Where nobody
holds the lock any more, they are left over from a run that was killed.
"""

from __future__ import annotations

import re
import secrets
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from chancy.migrate import printed

_NAME = re.compile(r"chancy_test_(\d+)_\d+")
KEY = 0x0C4A7C7
"""The first half of the advisory lock of a run; the other is its number."""

EVERY_SCHEMA = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'chancy\\_test\\_%'"
TRY_RUN = "SELECT pg_try_advisory_lock(%s::integer, %s::integer)"
UNLOCK_RUN = "SELECT pg_advisory_unlock(%s::integer, %s::integer)"


class Schemas:
    """What one process makes in one database, through one connection."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._made = 0

    def __enter__(self) -> Self:
        self._conn: psycopg.Connection[Any] = psycopg.connect(
            self._dsn, autocommit=True, options="-c client_min_messages=warning -c lock_timeout=5s"
        )
        self.run = 0
        while not self.run or not self._value(TRY_RUN, KEY, self.run):
            self.run = secrets.randbelow(2**31 - 1) + 1
        self._sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._conn.close()

    def make(self) -> str:
        """A new schema, migrated: one round trip."""
        self._made += 1
        name = f"chancy_test_{self.run}_{self._made}"
        self._conn.execute(printed(name).encode())
        return name

    def drop(self, name: str) -> None:
        """Drop it with all that is in it. Raises psycopg's `LockNotAvailable` when somebody still uses it after 5 s."""
        self._conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))

    def _sweep(self) -> None:
        """Drop what runs have left that are no more."""
        names = [name for (name,) in self._conn.execute(EVERY_SCHEMA)]
        for run in {int(found[1]) for found in map(_NAME.fullmatch, names) if found} - {self.run}:
            if self._value(TRY_RUN, KEY, run):
                for name in names:
                    if name.startswith(f"chancy_test_{run}_"):
                        self.drop(name)
                self._value(UNLOCK_RUN, KEY, run)

    def _value(self, query: str, *params: int) -> Any:
        row = self._conn.execute(query, params).fetchone()
        assert row is not None
        return row[0]
