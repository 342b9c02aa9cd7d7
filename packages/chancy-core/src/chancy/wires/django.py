"""Django's connections of any alias, on psycopg 3 and psycopg2.

Always by Django's own cursor: it counts for `assertNumQueries`, refuses a broken transaction, and notices a connection
that is dead. A cursor of the driver's would leave a dead one in its place for ever.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from chancy.errors import InvalidConnection

from .wire import Query, Rows, Standing, encoding_of, has_failed


class Django:
    """`django.db.connection`, `connections[alias]`."""

    def __init__(self, conn: Any) -> None:
        if conn.vendor != "postgresql":
            raise InvalidConnection(
                f"Django's database {conn.alias!r} is {conn.vendor}, and jobs are rows of Postgres: "
                f"give `connections[alias]` of one on Postgres"
            )
        self._conn = conn

    def fetch(self, query: Query) -> Rows:
        """With the zone of their connection where instants come without one: with USE_TZ = False."""
        with self._conn.cursor() as cursor:
            cursor.execute(*query.percents(lambda: encoding_of(self._conn.connection)))
            rows: Rows = cursor.fetchall()
        if self._conn.timezone is None:
            zone = ZoneInfo(self._conn.timezone_name)
            rows = [tuple(_in(zone, value) for value in row) for row in rows]
        return rows

    def run(self, script: str) -> None:
        """As it is."""
        with self._conn.cursor() as cursor:
            cursor.execute(script)

    def standing(self) -> Standing:
        """What Django knows."""
        if self._conn.in_atomic_block or not self._conn.get_autocommit():
            return Standing.FAILED if has_failed(self._conn.connection) else Standing.WITHIN
        return Standing.AUTOCOMMIT

    def let_go(self) -> None:
        """None is ever fresh: without autocommit it is the caller who begins."""

    def block(self) -> AbstractContextManager[Any]:
        """An `atomic` block."""
        from django.db import connections, transaction  # there is one of its connections

        if connections[self._conn.alias] != self._conn:
            raise InvalidConnection(
                f"this connection is none of django.db.connections, so no atomic block can be made on it: "
                f"give `connections[{self._conn.alias!r}]`"
            )
        block: AbstractContextManager[Any] = transaction.atomic(using=self._conn.alias)
        return block


def _in(zone: ZoneInfo, value: object) -> object:
    return value.replace(tzinfo=zone) if isinstance(value, datetime) and value.tzinfo is None else value
