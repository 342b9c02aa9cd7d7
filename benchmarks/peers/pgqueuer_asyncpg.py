"""PgQueuer with a single connection of asyncpg, as a contender of the benchmark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from pgqueuer import AsyncpgDriver
from pgqueuer_common import Opened, contend


def arguments(dsn: str) -> dict[str, str | int]:
    """What asyncpg takes of libpq's connection string, be it a URI or words."""
    if "://" in dsn:
        parts = urlsplit(dsn)
        found = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
        found |= {"dbname": parts.path.lstrip("/"), **dict(parse_qsl(parts.query))}
    else:
        found = dict(word.split("=", 1) for word in dsn.split())
    names = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database"}
    taken = {ours: found[theirs] for theirs, ours in names.items() if found.get(theirs)}
    return {**taken, "port": int(taken.get("port", 5432))}


@asynccontextmanager
async def opening(dsn: str) -> AsyncIterator[Opened]:
    conn = await asyncpg.connect(**arguments(dsn))
    try:
        yield AsyncpgDriver(conn), conn.transaction
    finally:
        await conn.close()


if __name__ == "__main__":
    contend("asyncpg", "pgqueuer[asyncpg]==1.6.0", opening)
