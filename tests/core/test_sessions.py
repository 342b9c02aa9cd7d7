"""The caller's session may be set in any way: every verb answers the same."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import chancy
from chancy import InvalidConnection, Keep, Unique, batch, days, submit_many, task
from chancy.migrate import printed

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
ENCODINGS = ["utf8", "latin1", "sql_ascii"]


@task
def count(number: int = 0, name: str = "") -> int:
    return number


@pytest.fixture
def filled(database):
    """A schema with something of everything; the ids of a waiting and of a finished job, and of a batch."""
    conn = database.conn
    waiting = count.using(unique=Unique(), delay=timedelta(hours=30)).submit(conn, 1, name="žluť")
    finished = count.submit(conn, 2)
    database.finish(finished.id, result="2")
    with batch(conn) as made:
        made.submit(count.bind(3))
    chancy.schedule(conn, "nightly", count.bind(4), chancy.every(timedelta(hours=25)))
    chancy.pause(conn, "mail", until=datetime(2099, 1, 1, tzinfo=UTC))
    chancy.limit(conn, "mail", concurrency=3)
    chancy.keep(conn, "mail", Keep(succeeded=days(3)))
    return waiting, finished, made


def looks(conn, filled):
    waiting, finished, made = filled
    told = [
        chancy.get(conn, waiting.id),
        chancy.get(conn, finished.id),
        chancy.jobs(conn, limit=10),
        chancy.logs(conn, finished.id),
        [(row.name, row.when) for row in chancy.schedules(conn)],
        sorted(chancy.count(conn).items()),
        chancy.why(conn, waiting.id).reason,
        chancy.batch_progress(conn, made.id),
        [(row.name, row.ready, row.paused_until) for row in chancy.queues(conn)],
        chancy.workers(conn),
        [(each.check, each.severity) for each in chancy.doctor(conn) if each.check not in ("bloat", "xmin")],
    ]
    return repr(told)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_verb_answers_the_same(database, filled, settings, encoding):
    odd = database.connect(autocommit=True, client_encoding=encoding)
    for name, value in settings.items():
        odd.execute(f"SET {name} = '{value}'")
    assert looks(odd, filled) == looks(database.conn, filled)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_verb_writes_the_same(database, settings, encoding):
    odd = database.connect(autocommit=True, client_encoding=encoding)
    for name, value in settings.items():
        odd.execute(f"SET {name} = '{value}'")
    at = datetime(2044, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    one = count.using(run_at=at, unique=Unique(within=timedelta(days=40))).submit(odd, 1, name="žluť")
    many = submit_many(odd, [count.using(run_at=at).bind(n, name="žluť") for n in range(2)])
    assert {chancy.get(database.conn, job.id).run_at for job in (one, *many)} == {at}
    rows = [chancy.get(database.conn, job.id) for job in (one, *many)]
    assert [count.signature.decode_arguments(row.arguments) for row in rows] == [((n, "žluť"), {}) for n in (1, 0, 1)]
    chancy.pause(odd, "mail", until=at)
    assert [row.paused_until for row in chancy.queues(database.conn) if row.name == "mail"] == [at]
    assert chancy.edit(odd, one.id, run_at=at + timedelta(days=1)) is True
    assert chancy.get(database.conn, one.id).run_at == at + timedelta(days=1)
    chancy.schedule(odd, "nightly", count.bind(4), chancy.every(timedelta(days=300, hours=7)))
    (row,) = chancy.schedules(database.conn)
    assert row.when == chancy.every(timedelta(days=300, hours=7))
    assert chancy.cancel(odd, one.id) is True
    assert chancy.requeue(odd, one.id) is True


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
