"""Separate connections for separate actors, sync and async behind one face, so that each sentence is told once.

`every_verb` is found under its plain name.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from pathlib import Path
from typing import Any

import kept
import psycopg
import pytest
from psycopg import sql

import chancy

sys.path.insert(0, str(Path(__file__).parent))  # their helpers are found under their plain names


@pytest.fixture(autouse=True)
def _schema_of_this_test(request):
    """Where a test has a schema, it is the process's default; tests without a database never start one."""
    if {"database", "caller"} & set(request.fixturenames):
        chancy.configure(schema=request.getfixturevalue("chancy_schema"))
    yield
    chancy.configure(schema=None)


class Database:
    """An onlooker with a connection of its own in autocommit, and raw SQL that shares nothing with Chancy's."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.dsn = dsn
        self.schema = schema
        self.conn = kept.connect(dsn)
        self._opened: list[psycopg.Connection[Any]] = [self.conn]

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        conn = psycopg.connect(self.dsn, **options)
        self._opened.append(conn)
        return conn

    def rows(self, query: str, *params: Any, schema: str | None = None) -> list[tuple[Any, ...]]:
        """`{}` in the query is the schema."""
        text = sql.SQL(query).format(sql.Identifier(schema or self.schema))
        return self.conn.execute(text, params).fetchall()

    def ids(self, schema: str | None = None) -> list[int]:
        return [id_ for (id_,) in self.rows("SELECT id FROM {}.job ORDER BY id", schema=schema)]

    def finish(
        self, job_id: int, state: str = "succeeded", result: str | None = "null", errors: str | None = None
    ) -> None:
        """What a worker does at the end of a job."""
        self.rows(
            """WITH done AS (DELETE FROM {0}.job WHERE id = %s RETURNING *)
            INSERT INTO {0}.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, run_at,
                submitted_at, finished_at, arguments, result, errors)
            SELECT id, task, queue, priority, %s, 1, max_attempts, 1, crashes, run_at, submitted_at, now(), arguments,
                %s, %s FROM done RETURNING id""",
            job_id,
            state,
            result,
            errors,
        )

    def close(self) -> None:
        for conn in self._opened[1:]:
            conn.close()
        with contextlib.suppress(psycopg.Error):  # no worker is at work here; a schema without any is used again
            self.conn.execute("SET lock_timeout = '500ms'")
            self.conn.execute(sql.SQL("DELETE FROM {}.worker").format(sql.Identifier(self.schema)))
        self.conn.close()


@pytest.fixture
def database(chancy_dsn, chancy_schema):
    database = Database(chancy_dsn, chancy_schema)
    yield database
    database.close()


class Caller:
    """The user's side: `await caller.now(…)` is the value, whichever of the two drivers made it."""

    def __init__(self, dsn: str, kind: str) -> None:
        self.dsn = dsn
        self.kind = kind
        self._opened: list[Any] = []

    async def connect(self, **options: Any) -> Any:
        driver = psycopg.Connection if self.kind == "sync" else psycopg.AsyncConnection
        conn = await self.now(driver.connect(self.dsn, **options))
        self._opened.append(conn)
        return conn

    async def now(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    async def one(self, conn: Any, query: str) -> Any:
        cursor = await self.now(conn.execute(query))
        return await self.now(cursor.fetchone())

    def entered(self, manager: Any) -> Any:
        return manager if hasattr(manager, "__aenter__") else _awaited(manager)

    async def close(self) -> None:
        for conn in self._opened:
            await self.now(conn.close())


@contextlib.asynccontextmanager
async def _awaited(manager: Any) -> Any:
    with manager as value:
        yield value


@pytest.fixture(params=["sync", "async"])
async def caller(request, chancy_dsn, chancy_schema):
    caller = Caller(chancy_dsn, request.param)
    yield caller
    await caller.close()
