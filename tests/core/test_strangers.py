"""What somebody gains who may create functions and operators where the caller's `search_path` leads: nothing."""

from __future__ import annotations

import itertools
from datetime import timedelta

import psycopg
import pytest
from every_verb import LOOKS, WRITES, count, fill
from psycopg.conninfo import make_conninfo

import chancy
import chancy_ops
from chancy import Unique, submit_many
from chancy.migrations.migrate import printed
from chancy.schema import BUILT_INS

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


TYPES = [
    "text", "name", "character varying", "bigint", "integer", "smallint", "double precision", "boolean", "date",
    "timestamp with time zone", "interval", "json", "jsonb", "oid", "text[]", "bigint[]", "integer[]", "smallint[]",
]  # fmt: skip
OPERATORS = ["=", "<>", "<", ">", "<=", ">=", "||", "+", "-", "*", "->", "->>", "&&", "@>", "&", "~"]
OF_POSTGRES = """
    SELECT oprname, format_type(oprleft, NULL), format_type(oprright, NULL) FROM pg_operator
    WHERE oprnamespace = 'pg_catalog'::regnamespace
"""


def trap_operators(conn):
    """Each that Postgres has not for just these types."""
    known = set(conn.execute(OF_POSTGRES).fetchall())
    for left, right in itertools.product(TYPES, TYPES):
        trap = f"""CREATE FUNCTION public.operator_trap({left}, {right}) RETURNS boolean LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'trapped: operator of {left} and {right}'; END $$;"""
        names = [name for name in OPERATORS if (name, left, right) not in known]
        operator = "CREATE OPERATOR public.%s (FUNCTION = public.operator_trap, LEFTARG = %s, RIGHTARG = %s)"
        conn.execute(";".join([trap.rstrip(";"), *(operator % (name, left, right) for name in names)]))
    with pytest.raises(psycopg.Error, match="trapped: operator of text"):
        conn.execute("SELECT ARRAY['a'::text] && ARRAY['b'::text]")
    with pytest.raises(
        psycopg.Error, match="invalid input syntax for type json"
    ):  # taken for JSON, as that of the trap
        conn.execute("SELECT json '{}' ->> 'a'")


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
    trap_operators(conn)
    with pytest.raises(psycopg.Error, match="trapped: unnest"):
        conn.execute("SELECT * FROM unnest(ARRAY['a'])")
    with pytest.raises(psycopg.Error, match="trapped: count"):
        conn.execute("SELECT count(n) FROM generate_series(1, 2) AS n")
    yield conn
    conn.close()
    database.conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.long
def test_a_function_or_an_operator_of_a_better_fit_is_never_called(trapped):
    conn = trapped
    chancy.configure(schema="chancy")
    chancy.migrate(conn)
    things = fill(conn, "chancy")
    for verb in (LOOKS | WRITES).values():
        verb(conn, things)
    replaced = count.using(unique=Unique(within=timedelta(hours=1), on_conflict="replace"))
    submit_many(conn, [replaced.bind(2), replaced.bind(2), replaced.bind(3)])
    chancy_ops.pause(conn, task=count)
    chancy_ops.resume(conn, task=count)
    conn.execute("SELECT chancy.submit(%s, '{}', unique_key => 'a')", [count.name])


def test_a_printed_migration_runs_by_the_operators_of_postgres(trapped):
    trapped.execute(printed("chancy").encode())
    assert chancy.migrate(trapped, schema="chancy") == []
