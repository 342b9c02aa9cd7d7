"""Every verb of core and of chancy-ops answers and writes the same on every stack."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from every_verb import LOOKS, WRITES, fill, told

import chancy
from chancy_testing.clock import Clock
from conformance.grounds import go_on
from stacks import ONE_OF_EACH, params, play

NOW = datetime.now(UTC)
DIFFERS = {"bloat", "xmin", "pooler"}
"""What doctor finds beside this schema; and what it asks psycopg's connections alone."""


def looks(conn, things):
    answers = {}
    for name, look in LOOKS.items():
        answer = yield look(conn, things)
        answers[name] = [
            (each.check, each.severity) for each in answer if each.check not in DIFFERS
        ] if name == "doctor" else told(answer)  # fmt: skip
    return answers


def everything(conn, things, seen):
    seen.append((yield from looks(conn, things)))
    for name, write in WRITES.items():
        seen.append((name, told((yield write(conn, things)))))
    seen.append((yield from looks(conn, replace(things, succeeded=things.running))))


@pytest.fixture(scope="module")
def as_ever(chancy_dsn):
    """What is seen on psycopg's own connection."""
    name = f"verbs_as_ever_{os.getpid()}"
    clock, seen = Clock(chancy_dsn, name), []
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        chancy.migrate(conn, schema=name)
        chancy.configure(schema=name)
        try:
            clock.set(NOW)
            go_on(everything(conn, fill(conn, name), seen))
            return seen
        finally:
            chancy.configure(schema=None)
            clock.close()
            conn.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.mark.long
@pytest.mark.parametrize("stack", params(ONE_OF_EACH))
def test_every_verb_answers_and_writes_the_same(stack, as_ever, onlooker, chancy_dsn, chancy_clock):
    chancy_clock.set(NOW)
    things, seen = fill(onlooker.conn, onlooker.schema), []
    play(stack, chancy_dsn, lambda actor: everything(actor.conn, things, seen), autocommit=True)
    for one, other in zip(seen, as_ever, strict=True):
        assert one == other


@pytest.mark.parametrize("stack", params(ONE_OF_EACH))
@pytest.mark.parametrize("autocommit", [True, False], ids=["in autocommit", "in a transaction"])
def test_a_schema_is_migrated_on_every_stack(stack, autocommit, onlooker, chancy_dsn):
    name = f"migrated_{os.getpid()}"

    def there():
        return onlooker.conn.execute(f"SELECT to_regclass('{name}.job') IS NOT NULL").fetchone()[0]

    def migrated(actor):
        if not autocommit:
            yield actor.execute("SELECT 1")
        assert (yield chancy.migrate(actor.conn, schema=name)) == ["0001_start"]
        assert there() is autocommit
        if not autocommit:
            yield actor.commit()
            assert there()
        assert (yield chancy.migrate(actor.conn, schema=name)) == []

    try:
        play(stack, chancy_dsn, migrated, autocommit)
    finally:
        onlooker.conn.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
