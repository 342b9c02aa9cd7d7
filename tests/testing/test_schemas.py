"""The temporary schema: one a test, nothing left behind, and nobody in each other's way."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

import chancy
import chancy_ops
from chancy_testing.clock import Clock
from chancy_testing.server.schemas import EVERY_SCHEMA, Schemas


@chancy.task
def note() -> None:
    pass


def names(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        return {name for (name,) in conn.execute(EVERY_SCHEMA)}


def test_a_schema_is_migrated_and_the_default_while_it_lasts(chancy_schema, chancy_conn):
    assert chancy.schema_in_use() == chancy_schema
    assert chancy.migrate(chancy_conn) == []


def test_schemas_are_dropped_in_the_end(chancy_dsn):
    with Schemas(chancy_dsn) as schemas:
        one, two = schemas.take(), schemas.take()
        assert {one, two} <= names(chancy_dsn)
        schemas.give_back(one)
        schemas.give_back(two)
    assert not {one, two} & names(chancy_dsn)


def test_a_schema_that_was_given_back_is_empty_and_counts_from_one(chancy_dsn):
    with Schemas(chancy_dsn) as schemas, psycopg.connect(chancy_dsn, autocommit=True) as conn:
        first = schemas.take()
        jobs = chancy.submit_many(conn, [note.bind() for _ in range(3)], schema=first)
        jobs[2].cancel(conn)
        with pytest.raises(ZeroDivisionError), conn.transaction():
            chancy.submit_many(conn, [note.bind()], schema=first)
            raise ZeroDivisionError
        schemas.give_back(first)
        assert schemas.take() == first
        assert chancy.jobs(conn, schema=first) == []
        assert chancy.submit_many(conn, [note.bind()], schema=first)[0].id == 1
        schemas.give_back(first)


def test_a_schema_whose_clock_was_moved_is_used_again_without_the_days_that_this_has_made(chancy_dsn):
    with Schemas(chancy_dsn) as schemas, psycopg.connect(chancy_dsn, autocommit=True) as conn:
        first = schemas.take()
        days = sql.SQL("SELECT {}(current_date + 8, current_date + 9)").format(sql.Identifier(first, "make_partitions"))
        for _ in range(2):
            clock = Clock(chancy_dsn, first)
            clock.move(timedelta(days=-3))
            chancy.submit_many(conn, [note.bind()], schema=first)
            clock.reset()
            clock.close()
            assert conn.execute(days).fetchone() == (6,)
            schemas.give_back(first)
            assert schemas.take() == first
        schemas.give_back(first)


def test_a_schema_in_which_a_queue_keeps_its_jobs_and_results_longer_is_used_again_without_what_this_has_made(
    chancy_dsn,
):
    with Schemas(chancy_dsn) as schemas, psycopg.connect(chancy_dsn, autocommit=True) as conn:
        first = schemas.take()
        for days in (3, 30):
            chancy_ops.keep(
                conn, "mail", chancy.Keep(succeeded=timedelta(days=days), results=timedelta(days=1)), schema=first
            )
            made = sql.SQL("SELECT to_regclass({})").format(sql.Literal(f"{first}.history_{days}d"))
            assert conn.execute(made).fetchone() != (None,)
            schemas.give_back(first)
            assert schemas.take() == first
            assert conn.execute(made).fetchone() == (None,)
        schemas.give_back(first)


def test_tables_that_have_grown_are_emptied_as_those_of_a_few_rows_are(chancy_dsn):
    with Schemas(chancy_dsn) as schemas, psycopg.connect(chancy_dsn, autocommit=True) as conn:
        first = schemas.take()
        worker = sql.SQL(
            "INSERT INTO {} (name, started_at, expires_at) SELECT %s, now(), now() FROM generate_series(1, %s)"
        )
        worker = worker.format(sql.Identifier(first, "worker"))
        offer = sql.SQL(
            "INSERT INTO {} (worker, queues, tasks, signatures, version, listens) SELECT id, %s, %s, %s, '', true FROM {} LIMIT 1"
        )
        offer = offer.format(sql.Identifier(first, "offer"), sql.Identifier(first, "worker"))
        for number in (1, 3000, 1):
            conn.execute(worker, ["x", number])
            conn.execute(offer, [[], [], []])
            chancy.submit_many(conn, [note.bind() for _ in range(number)], schema=first)
            conn.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(first, "worker")))
            schemas.give_back(first)
            assert schemas.take() == first
            assert chancy.jobs(conn, schema=first) == []
        schemas.give_back(first)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE {}.orders (id integer)",
        "ALTER TABLE {}.job ADD COLUMN mine text",
        "ALTER TABLE {}.job SET (fillfactor = 50)",
        "ALTER TABLE {}.job ALTER COLUMN priority SET DEFAULT 3",
        "ALTER TABLE {}.job ADD CHECK (attempt < 9)",
        "CREATE OR REPLACE FUNCTION {}.clock() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now()'",
        "CREATE TRIGGER t BEFORE INSERT ON {}.job FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE TYPE {}.size AS ENUM ('small')",
        "UPDATE {}.setting SET value = '1 day'",
        "DELETE FROM {}.migration WHERE number = 1",
        "INSERT INTO {}.worker (name, started_at, expires_at) VALUES ('still there', now(), now())",
        "DROP TABLE {}.dead_worker",
        "DROP SCHEMA {} CASCADE",
    ],
)
def test_a_schema_that_is_not_as_it_was_made_is_not_used_again(chancy_dsn, change):
    with Schemas(chancy_dsn) as schemas, psycopg.connect(chancy_dsn, autocommit=True) as conn:
        changed = schemas.take()
        conn.execute(sql.SQL(change).format(sql.Identifier(changed)))
        schemas.give_back(changed)
        assert changed not in names(chancy_dsn)


def test_a_transaction_that_was_left_open_cannot_reach_the_next_test(chancy_dsn):
    with Schemas(chancy_dsn) as schemas, psycopg.connect(chancy_dsn) as conn:
        schema = schemas.take()
        chancy.submit_many(conn, [note.bind()], schema=schema)
        schemas.give_back(schema)  # as when the fixture of that transaction ends later
        assert schemas.take() != schema
        conn.rollback()
    assert schema not in names(chancy_dsn)


def test_what_a_killed_run_has_left_is_swept_up_by_the_next(chancy_dsn):
    dead = Schemas(chancy_dsn).__enter__()
    left = dead.take()
    with Schemas(chancy_dsn) as living:
        kept = living.take()
        with Schemas(chancy_dsn):
            assert {left, kept} <= names(chancy_dsn)  # both runs are alive
        dead.__exit__(None, None, None)
        with Schemas(chancy_dsn):
            assert left not in names(chancy_dsn)
            assert kept in names(chancy_dsn)
        living.give_back(kept)


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
