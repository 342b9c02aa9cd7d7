"""The pytest plugin: a Postgres for the session, a migrated schema for each test, and connections to it.

Everything is imported inside the fixtures, so that a suite which uses none of them pays nothing.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import psycopg


@pytest.fixture(scope="session")
def chancy_dsn() -> Iterator[str]:
    """`CHANCY_TEST_DSN`, or an embedded Postgres that lasts as long as the session (one a process under xdist)."""
    if dsn := os.environ.get("CHANCY_TEST_DSN"):
        yield dsn
        return
    from .postgres import QUICK, Postgres

    with Postgres(settings={**QUICK, "max_connections": "200"}) as server:
        yield server.dsn


@pytest.fixture
def chancy_schema(chancy_dsn: str) -> Iterator[str]:
    """A schema of its own, migrated, and the process's default while the test runs; dropped afterwards."""
    import psycopg
    from psycopg import sql

    import chancy

    schema = f"chancy_test_{secrets.token_hex(6)}"
    with psycopg.connect(chancy_dsn) as conn:
        chancy.migrate(conn, schema=schema)
    chancy.configure(schema=schema)
    try:
        yield schema
    finally:
        chancy.configure(schema=None)
        with psycopg.connect(chancy_dsn, autocommit=True, options="-c lock_timeout=5s") as conn:
            conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


@pytest.fixture
def chancy_conn(chancy_dsn: str, chancy_schema: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the test's schema; what it has not committed is rolled back."""
    import psycopg

    conn = psycopg.connect(chancy_dsn)
    try:
        yield conn
    finally:
        conn.close()


@pytest_asyncio.fixture
async def chancy_aconn(chancy_dsn: str, chancy_schema: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """The same, async."""
    import psycopg

    conn = await psycopg.AsyncConnection.connect(chancy_dsn)
    try:
        yield conn
    finally:
        await conn.close()
