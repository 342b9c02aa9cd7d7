"""Behind PgBouncer in transaction mode, with the settings that the guide gives for each driver."""

from __future__ import annotations

import random
import sys
import uuid
from pathlib import Path

import asyncpg
import psycopg
import psycopg2
import pytest
from django.db import connections
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession
from stacks_tasks import bounced

from chancy_testing.attempts import on_a_loop_of_its_own
from stacks import alias_of, async_engine, engine, for_asyncpg

sys.path.append(str(Path(__file__).parents[1] / "worker"))

from bouncer_help import Bouncer

CLIENTS, JOBS = 5, 12


@pytest.fixture(scope="module")
def bouncer(chancy_dsn):
    with Bouncer(chancy_dsn, size=3) as bouncer:
        yield bouncer.dsn


@pytest.fixture
def shuffle(bouncer):
    """Transactions of others come and go, so that the next one is in another session of the server."""
    others, dice = [psycopg.connect(bouncer, prepare_threshold=None) for _ in range(2)], random.Random(7)

    def act():
        for other in others:
            other.rollback()
        for other in others:
            if dice.random() < 0.5:
                other.execute("SELECT 1")

    yield act
    for other in others:
        other.close()


def django(dsn, number):
    return connections[alias_of(dsn, f"bounced_{number}")]


SYNC = {
    "psycopg": lambda dsn, number: psycopg.connect(dsn, prepare_threshold=None),
    "psycopg2": lambda dsn, number: psycopg2.connect(dsn),
    "SQLAlchemy on psycopg": lambda dsn, number: orm.Session(
        engine("psycopg", dsn, False, connect_args={"prepare_threshold": None})
    ),
    "SQLAlchemy on psycopg2": lambda dsn, number: orm.Session(engine("psycopg2", dsn, False)),
    "Django": django,
}


@pytest.mark.parametrize("open_one", SYNC.values(), ids=SYNC)
def test_sync_stacks_behind_a_pooler(open_one, bouncer, shuffle, onlooker):
    conns = [open_one(bouncer, number) for number in range(CLIENTS)]
    for number in range(JOBS):
        for conn in conns:
            shuffle()
            bounced.submit(conn, number)
            if open_one is not django:
                conn.commit()
    for conn in conns:
        conn.close()
    assert len(onlooker.jobs()) == CLIENTS * JOBS


UNNAMED = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: f"__chancy_{uuid.uuid4()}__",
}


@pytest.mark.parametrize("kind", ["asyncpg", "SQLAlchemy on asyncpg"])
def test_async_stacks_behind_a_pooler(kind, bouncer, shuffle, onlooker):
    async def run():
        made = async_engine("asyncpg", bouncer, False, connect_args=UNNAMED)
        if kind == "asyncpg":
            conns = [await asyncpg.connect(**for_asyncpg(bouncer), statement_cache_size=0) for _ in range(CLIENTS)]
        else:
            conns = [AsyncSession(made) for _ in range(CLIENTS)]
        for number in range(JOBS):
            for conn in conns:
                shuffle()
                await bounced.submit(conn, number)
                if kind != "asyncpg":
                    await conn.commit()
        for conn in conns:
            await conn.close()
        await made.dispose()

    on_a_loop_of_its_own(run())
    assert len(onlooker.jobs()) == CLIENTS * JOBS
