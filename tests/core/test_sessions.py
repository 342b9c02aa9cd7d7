"""The caller's session may be set in any way: every verb answers the same."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from every_verb import LOOKS, VERBS, WRITES, count, exported, fill, told
from odd_settings import each_with_each
from psycopg.conninfo import make_conninfo

import chancy
from chancy import InvalidConnection, submit_many
from chancy.migrations.migrate import printed
from chancy_testing.clock import Clock

SETTINGS = {
    "German dates": {"datestyle": "German"},
    "SQL dates": {"datestyle": "SQL, DMY"},
    "Postgres' dates": {"datestyle": "Postgres, MDY"},
    "SQL intervals": {"intervalstyle": "sql_standard"},
    "verbose intervals": {"intervalstyle": "postgres_verbose"},
    "ISO intervals": {"intervalstyle": "iso_8601"},
    "a zone of half hours": {"timezone": "Asia/Kolkata"},
    "a zone whose name means another": {"timezone": "Asia/Manila", "datestyle": "SQL, DMY"},
    "old bytes": {"bytea_output": "escape", "extra_float_digits": "0"},
    "serializable": {"default_transaction_isolation": "serializable"},
    "no path": {"search_path": ""},
    "compiled": {"jit": "on", "jit_above_cost": "0", "plan_cache_mode": "force_generic_plan"},
}

NOW = datetime.now(UTC)


def test_no_verb_is_forgotten():
    assert VERBS.keys() == exported()


def of_doctor(findings):
    return [(each.check, each.severity) for each in findings if each.check not in ("bloat", "xmin")]


def looks(conn, things):
    answers = {name: look(conn, things) for name, look in LOOKS.items()}
    answers["doctor"] = of_doctor(answers["doctor"])
    return {name: told(answer) for name, answer in answers.items()}


def written(conn, onlooker, things):
    """What each verb answers that writes, and what is there afterwards."""
    answers = {name: told(write(conn, things)) for name, write in WRITES.items()}
    return answers, looks(onlooker, replace(things, succeeded=things.running))


@pytest.fixture(scope="module")
def as_ever(chancy_dsn):
    """What all verbs answer on a session of which nothing is set."""
    name = f"as_ever_{os.getpid()}"
    clock = Clock(chancy_dsn, name)
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        chancy.migrate(conn, schema=name)
        chancy.configure(schema=name)
        try:
            clock.set(NOW)
            things = fill(conn, name)
            return looks(conn, things), written(conn, conn, things)
        finally:
            chancy.configure(schema=None)
            clock.close()
            conn.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.mark.long
@pytest.mark.parametrize(("settings", "encoding"), each_with_each(SETTINGS))
def test_every_verb_answers_and_writes_the_same(as_ever, database, chancy_clock, settings, encoding):
    chancy_clock.set(NOW)
    things = fill(database.conn, database.schema)
    odd = database.connect(autocommit=True, client_encoding=encoding)
    for name, value in settings.items():
        odd.execute(f"SET {name} = '{value}'")
    looked, wrote = as_ever
    assert looks(odd, things) == looked
    assert written(odd, database.conn, things) == wrote


BOUNDS = """
    SELECT pg_get_expr(relpartbound, oid) FROM pg_class
    WHERE relnamespace = %s::text::regnamespace AND relname ~ '^history_[0-9]{8}$' ORDER BY relname
"""


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_day_of_history_is_a_day_of_utc_whatever_the_session_that_makes_it(database, settings):
    name = f"{database.schema}_odd"
    odd = database.connect(autocommit=True)
    for key, value in settings.items():
        odd.execute(f"SET {key} = '{value}'")
    try:
        chancy.migrate(odd, schema=name)
        database.conn.execute("SET timezone = 'UTC'")
        made = [bound for (bound,) in database.conn.execute(BOUNDS, [name]).fetchall()]
        assert len(made) == 8
        assert all(bound.count("00:00:00+00") == 2 for bound in made)
    finally:
        database.conn.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


def test_arrays_without_nulls_are_told_in_words(database):
    conn = database.connect(autocommit=True)
    conn.execute("SET array_nulls = off")
    with pytest.raises(InvalidConnection, match="array_nulls = off"):
        submit_many(conn, [count.bind(1), count.bind(2)])


SCRIPT = """
import sys, psycopg
from psycopg.adapt import Loader
class Shout(Loader):
    def load(self, data):
        return "SHOUTED"
class BinaryShout(Shout):
    format = psycopg.pq.Format.BINARY
for name in ("int8", "text", "timestamptz", "json", "bool"):
    psycopg.adapters.register_loader(name, Shout)
    psycopg.adapters.register_loader(name, BinaryShout)
import chancy
with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    (row,) = chancy.jobs(conn, schema=sys.argv[2])
    assert conn.execute("SELECT 1::int8").fetchone() == ("SHOUTED",)
    print(row.id, row.queue, row.run_at.year >= 2026, row.arguments)
"""


def test_adapters_of_the_application_do_not_reach_our_rows_whenever_they_were_registered(database):
    job = count.submit(database.conn, 7)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, database.dsn, database.schema], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout) == ("", f"{job.id} default True {job.refresh(database.conn).arguments!r}\n")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_is_not_utf8_is_refused_by_migrate_in_words(database, encoding):
    name = f"odd_{encoding.lower()}"
    database.conn.execute(f"DROP DATABASE IF EXISTS {name}")
    database.conn.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    try:
        with psycopg.connect(make_conninfo(database.dsn, dbname=name)) as conn:
            with pytest.raises(chancy.UnsupportedDatabase, match=f"encoding is {encoding}, and Chancy needs UTF8"):
                chancy.migrate(conn)
            assert conn.execute("SELECT to_regnamespace('chancy')").fetchone() == (None,)
            conn.rollback()
            with pytest.raises(psycopg.errors.RaiseException, match="needs a database whose encoding is UTF8"):
                conn.execute(printed("chancy").encode())
    finally:
        database.conn.execute(f"DROP DATABASE {name}")
