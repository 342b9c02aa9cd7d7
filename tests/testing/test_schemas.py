"""The temporary schema: one a test, nothing left behind, and nobody in each other's way."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

import chancy
from chancy_testing.schemas import EVERY_SCHEMA, Schemas


def names(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        return {name for (name,) in conn.execute(EVERY_SCHEMA)}


def test_a_schema_is_migrated_and_the_default_while_it_lasts(chancy_schema, chancy_conn):
    assert chancy.schema_in_use() == chancy_schema
    assert chancy.migrate(chancy_conn) == []


def test_schemas_are_dropped_after_use(chancy_dsn):
    with Schemas(chancy_dsn) as schemas:
        one, two = schemas.make(), schemas.make()
        assert {one, two} <= names(chancy_dsn)
        schemas.drop(one)
        schemas.drop(two)
        assert not {one, two} & names(chancy_dsn)


def test_what_a_killed_run_has_left_is_swept_up_by_the_next(chancy_dsn):
    dead = Schemas(chancy_dsn).__enter__()
    left = dead.make()
    with Schemas(chancy_dsn) as living:
        kept = living.make()
        with Schemas(chancy_dsn):
            assert {left, kept} <= names(chancy_dsn)  # both runs are alive
        dead.__exit__(None, None, None)
        with Schemas(chancy_dsn):
            assert left not in names(chancy_dsn)
            assert kept in names(chancy_dsn)
        living.drop(kept)


def test_two_connections_of_one_test_see_each_others_commits(chancy_conn, chancy_dsn, chancy_schema):
    chancy_conn.execute(sql.SQL("INSERT INTO {} VALUES ('x', 'y')").format(sql.Identifier(chancy_schema, "setting")))
    with psycopg.connect(chancy_dsn) as other:
        seen = sql.SQL("SELECT count(*) FROM {} WHERE name = 'x'").format(sql.Identifier(chancy_schema, "setting"))
        assert other.execute(seen).fetchone() == (0,)
        chancy_conn.commit()
        assert other.execute(seen).fetchone() == (1,)


@pytest.mark.asyncio
async def test_the_async_connection_works_on_the_tests_loop(chancy_aconn):
    cursor = await chancy_aconn.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)
