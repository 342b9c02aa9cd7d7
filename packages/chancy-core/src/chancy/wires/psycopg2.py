"""psycopg2's connections, by plain cursors, whatever kind of cursor the connection makes for its owner."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from chancy.errors import InvalidConnection

from .wire import CLOSED, Query, Rows, Standing, encoding_of, has_failed

_IDLE = 0
"""`psycopg2.extensions.TRANSACTION_STATUS_IDLE`"""


class Psycopg2:
    """A `psycopg2.extensions.connection`."""

    def __init__(self, conn: Any) -> None:
        if conn.closed:
            raise InvalidConnection(CLOSED)
        self._conn = conn

    def fetch(self, query: Query) -> Rows:
        """One statement."""
        with self._cursor() as cursor:
            cursor.execute(*query.percents(lambda: encoding_of(self._conn)))
            return cursor.fetchall()  # type: ignore[no-any-return]

    def run(self, script: str) -> None:
        """As it is."""
        with self._cursor() as cursor:
            cursor.execute(script)

    def standing(self) -> Standing:
        """What libpq knows."""
        if self._conn.get_transaction_status() == _IDLE:
            return Standing.AUTOCOMMIT if self._conn.autocommit else Standing.FRESH
        return Standing.FAILED if has_failed(self._conn) else Standing.WITHIN

    def let_go(self) -> None:
        """Nothing was written."""
        self._conn.rollback()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """In autocommit it has no words for it."""
        said = self._conn.autocommit
        self.run("BEGIN") if said else None
        try:
            yield
        except BaseException:
            self.run("ROLLBACK") if said else self._conn.rollback()
            raise
        self.run("COMMIT") if said else self._conn.commit()

    def _cursor(self) -> Any:
        from psycopg2.extensions import cursor  # there is one of its connections

        return self._conn.cursor(cursor_factory=cursor)
