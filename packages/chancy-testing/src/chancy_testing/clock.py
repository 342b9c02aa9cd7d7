"""The time of one schema, moved by a test: what is due, leases, backoffs, and the days of the history."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from chancy.history.moving import DAYS_AHEAD, make_partitions
from chancy.model import Statement
from chancy.options.plain import Duration, duration, instant
from chancy.run import send

SET_CLOCK = "CREATE OR REPLACE FUNCTION {} RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS {}"
TIME_OF_DAY = " SELECT pg_catalog.now() "
"""The body as the schema was made with, to the letter: so a schema whose clock was moved can be used again."""
# To everybody, and not by the doorbell, which is for work that is added: a worker may sleep until a time of before.
WAKE = """
    SELECT pg_notify('{name}', left(queue, 2000))::text
    FROM (SELECT DISTINCT queue FROM {schema}.job WHERE state = 'ready') AS waiting
"""


class Clock:
    """All instants in Chancy's SQL come from one function of its schema, and this is another body for that function.

    It runs on, from where it was moved to; `set` makes it stand still. Everybody sees the change at once, also in a
    transaction that is open (of which Postgres' own `now()` is the beginning). Idle workers are woken, since jobs may
    have come due. Leases go by this clock, too: when it has jumped, workers declare nobody dead for 15 s, so that all
    who live have extended theirs.
    """

    def __init__(self, dsn: str, schema: str) -> None:
        self._conn: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True)
        self._schema = schema
        self._moved = timedelta(0)
        self._stands: datetime | None = None

    def now(self) -> datetime:
        """The time in this schema. One round trip."""
        clock = sql.SQL("SELECT {}()").format(sql.Identifier(self._schema, "clock"))
        row = self._conn.execute(clock).fetchone()
        assert row is not None
        now: datetime = row[0]
        return now

    def move(self, by: Duration) -> None:
        """Forward by a `timedelta` or seconds, or back; a clock that stands still does so at the new instant."""
        by = duration("by", by)
        if self._stands is not None:
            self._stands += by
        else:
            self._moved += by
        self._replace()

    def set(self, to: datetime) -> None:
        """Stand still at this instant. Raises `ValueError` for one without a time zone."""
        self._stands = instant("to", to)
        self._replace()

    def reset(self) -> None:
        """The time of day again."""
        self._moved, self._stands = timedelta(0), None
        self._replace()

    def close(self) -> None:
        """Let go of the connection; the schema keeps its time."""
        self._conn.close()

    def _replace(self) -> None:
        body = f"SELECT now() + interval '{self._moved.total_seconds():.6f} s'" if self._moved else TIME_OF_DAY
        if self._stands is not None:
            body = f"SELECT timestamptz '{self._stands.isoformat()}'"
        name = sql.Identifier(self._schema, "clock") + sql.SQL("()")
        self._conn.execute(sql.SQL(SET_CLOCK).format(name, sql.Literal(body)))
        send(self._conn, make_partitions(DAYS_AHEAD), self._schema)
        send(self._conn, Statement(WAKE, {}, list), self._schema)
