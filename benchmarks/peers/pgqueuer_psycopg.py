"""PgQueuer with a single connection of psycopg 3, as a contender of the benchmark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from pgqueuer import PsycopgDriver
from pgqueuer_common import Opened, contend


@asynccontextmanager
async def opening(dsn: str) -> AsyncIterator[Opened]:
    """The docs ask for autocommit."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        yield PsycopgDriver(conn), conn.transaction


if __name__ == "__main__":
    contend("psycopg", "pgqueuer[psycopg]==1.6.0 psycopg[binary]", opening)
