"""What somebody gains who may create functions where the caller's `search_path` leads: nothing."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import chancy
from chancy import Keep, Unique, batch, days, submit_many, task
from chancy.schema import BUILT_INS


@task
def count(number: int = 0) -> int:
    return number


PLACE = {
    "anyarray": ["text[]", "bigint[]", "integer[]", "smallint[]", "json[]", "timestamptz[]", "interval[]"],
    "anyelement": ["text", "bigint", "integer", "smallint", "json", "timestamptz"],
    "any": ["text", "bigint", "integer", "smallint", "json", "timestamptz", "boolean"],
    "timestamp without time zone": ["date", "timestamptz"],
    "timestamp with time zone": ["date"],
    "text": ["name", "varchar"],
    "bigint": ["smallint", "integer"],
    "integer": ["smallint"],
}
PLACE["anycompatiblearray"], PLACE["anycompatible"] = PLACE["anyarray"], PLACE["anyelement"]
PLACE["anynonarray"] = PLACE["anyelement"]

CANDIDATES = """
    SELECT proname, prokind, proretset, format_type(prorettype, NULL),
        ARRAY(SELECT format_type(type, NULL) FROM unnest(proargtypes) WITH ORDINALITY AS of (type, n) ORDER BY n)
    FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%s) AND provariadic = 0 AND pronargs BETWEEN 1 AND 3
"""


def better_fits(kinds):
    """Signatures that suit somebody's call better than Postgres' own of these kinds does."""
    for position, kind in enumerate(kinds):
        for other in PLACE.get(kind.strip('"'), []):
            same = [other if each == kind and kind.strip('"') in ("anyarray", "anyelement") else each for each in kinds]
            same[position] = other
            if not any(each.strip('"').startswith("any") for each in same):
                yield tuple(same)


@pytest.fixture
def trapped(database):
    """A database in whose public schema somebody has put a trap for each call that is sent without a schema."""
    name = f"{database.schema}_trapped"
    database.conn.execute(f'CREATE DATABASE "{name}"')
    conn = psycopg.connect(make_conninfo(database.dsn, dbname=name), autocommit=True)
    conn.execute(
        "CREATE FUNCTION public.trap(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped: %', $1; END $$"
    )
    traps = set()
    for function, kind, several, returns, kinds in conn.execute(CANDIDATES, [sorted(BUILT_INS)]).fetchall():
        for signature in better_fits(kinds):
            if (function, signature) in traps or kind == "w":
                continue
            traps.add((function, signature))
            result = "text" if returns.strip('"').startswith("any") else returns
            whole = f"{'SETOF ' if several else ''}{result}"
            text = (
                f"CREATE AGGREGATE public.{function}({', '.join(signature)}) (sfunc = public.{function}_trap, stype = text)"
                if kind == "a"
                else f"CREATE FUNCTION public.{function}({', '.join(signature)}) RETURNS {whole} LANGUAGE plpgsql "
                f"AS $$ BEGIN PERFORM public.trap('{function}'); END $$"
            )
            if kind == "a":
                conn.execute(
                    f"CREATE OR REPLACE FUNCTION public.{function}_trap(text, {', '.join(signature)}) RETURNS text "
                    f"LANGUAGE plpgsql AS $$ BEGIN RETURN public.trap('{function}'); END $$"
                )
            conn.execute(text)
    assert len(traps) > 100
    with pytest.raises(psycopg.Error, match="trapped: unnest"):
        conn.execute("SELECT * FROM unnest(ARRAY['a'])")
    with pytest.raises(psycopg.Error, match="trapped: count"):
        conn.execute("SELECT count(n) FROM generate_series(1, 2) AS n")
    yield conn
    conn.close()
    database.conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_a_function_of_a_better_fit_is_never_called(trapped):
    conn = trapped
    chancy.configure(schema="chancy")
    chancy.migrate(conn)
    one = count.submit(conn, 1)
    submit_many(conn, [count.bind(n) for n in range(3)])
    unique = count.using(unique=Unique(within=timedelta(hours=1), on_conflict="replace"))
    unique.submit(conn, 2)
    submit_many(conn, [unique.bind(2), unique.bind(3)])
    with batch(conn, on_finished=chancy.callback(called)) as made:
        made.submit_many([count.bind(4)])
    chancy.schedule(conn, "nightly", count.bind(5), chancy.every(timedelta(hours=1)))
    chancy.run_now(conn, "nightly")
    chancy.pause(conn, "q")
    chancy.pause(conn, task=count)
    chancy.limit(conn, "q", concurrency=3)
    chancy.keep(conn, "q", Keep(succeeded=days(3), results=days(1)))
    chancy.edit(conn, one.id, priority=3)
    assert chancy.why(conn, one.id).reason
    assert chancy.cancel(conn, one.id) is True
    assert chancy.requeue(conn, one.id) is True
    chancy.cancel_many(conn, chancy.JobFilter(queue="default"))
    chancy.requeue_many(conn, chancy.JobFilter(state=chancy.State.CANCELLED))
    chancy.resume(conn, "q")
    chancy.resume(conn, task=count)
    chancy.batch_progress(conn, made.id)
    chancy.jobs(conn)
    chancy.count(conn)
    chancy.queues(conn)
    chancy.workers(conn)
    chancy.schedules(conn)
    chancy.logs(conn, one.id)
    chancy.doctor(conn)
    conn.execute("SELECT chancy.submit(%s, '{}', unique_key => 'a')", [count.name])
    chancy.delete(conn, one.id)
    chancy.delete_many(conn, chancy.JobFilter(queue="default"))
    chancy.unschedule(conn, "nightly")


@task
def called(counts: chancy.BatchCounts) -> None: ...
