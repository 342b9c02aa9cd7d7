"""Where the shop's Postgres is, and the tables that are its own. Chancy's are made by `chancy.migrate`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

AsyncConnection = psycopg.AsyncConnection[Any]

TABLES = """
    CREATE TABLE IF NOT EXISTS stock (
        item text PRIMARY KEY,
        pieces integer NOT NULL CONSTRAINT enough_pieces CHECK (pieces >= 0)
    );
    CREATE TABLE IF NOT EXISTS orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        email text NOT NULL,
        item text NOT NULL REFERENCES stock,
        pieces integer NOT NULL,
        tracking text
    );
"""


def dsn() -> str:
    """Asked for when it is needed, so that tests can set it."""
    return os.environ["SHOP_DSN"]


def migrate(conn: psycopg.Connection[Any]) -> None:
    """Make the tables, in the first schema of the connection's search_path."""
    conn.execute(TABLES)


@asynccontextmanager
async def connection() -> AsyncIterator[AsyncConnection]:
    """A connection for one job; what was done on it is committed at the end, or rolled back after an error."""
    async with await psycopg.AsyncConnection.connect(dsn()) as conn:
        yield conn
