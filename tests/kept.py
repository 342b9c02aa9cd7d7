"""Sessions that a process keeps from test to test: half of what a short test takes is to be known to the server.

To begin one and to read what a first statement needs of the catalogs takes ten to twenty milliseconds of processor, five
thousand times a run. What a session is set to, listens to, holds or has made is not kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

AS_NEW = """
    RESET SESSION AUTHORIZATION; RESET ALL; UNLISTEN *; CLOSE ALL; DISCARD TEMP; DISCARD SEQUENCES;
    SELECT pg_advisory_unlock_all()
"""

_free: dict[str, list[Kept]] = {}
"""By server, for as long as it is there."""


class Kept(psycopg.Connection[Any]):
    """In autocommit. `close` leaves it to the next test, unless this one has changed what it cannot put right."""

    _dsn = ""

    def close(self) -> None:
        free = _free.get(self._dsn)
        if free is None or not self._is_as_new():
            super().close()
        elif self not in free:  # and not closed twice
            free.append(self)

    def _is_as_new(self) -> bool:
        if self.closed or self.row_factory is not tuple_row or self.prepare_threshold != 5:
            return False
        try:
            if self.info.transaction_status is not TransactionStatus.IDLE:
                self.rollback()
            self.autocommit = True
            self.execute(AS_NEW)
        except psycopg.Error:
            return False
        return True


def connect(dsn: str) -> psycopg.Connection[Any]:
    """A session in autocommit, of which nobody knows who had it before."""
    free = _free.get(dsn, [])
    while free:
        conn = free.pop()
        if not conn.closed:
            return conn
    conn = Kept.connect(dsn, autocommit=True)
    conn._dsn = dsn
    return conn


@contextlib.contextmanager
def sessions_of(dsn: str) -> Iterator[None]:
    """Sessions of this server are kept so long."""
    _free[dsn] = []
    yield
    for conn in _free.pop(dsn):
        conn.close()
