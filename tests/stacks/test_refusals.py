"""What is no connection is refused in a sentence that says what to give instead, and nothing is sent."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy
from django.db import connections
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sa_asyncio
from stacks_tasks import plain

import chancy
from chancy import InvalidConnection, InvalidOption, current_job, task
from chancy_testing import drain
from chancy_testing.attempts import on_a_loop_of_its_own
from stacks import BY_NAME, STACKS, alias_of, async_engine, engine, for_asyncpg, set_up_django

WITH_THE_REMEDY = {
    7: "got int: give the connection before everything else",
    "postgresql://db": "got str: connect with it first",
    orm.Session: "got type: it is a class: give one that is made and open",
    sqlalchemy.create_engine("postgresql+psycopg://"): r"Engine: take one with `with engine\.begin\(\) as conn:`",
    sqlalchemy.create_engine("postgresql+psycopg://").begin(): r"enter it, with `with … as conn:`",
    sa_asyncio.create_async_engine("postgresql+asyncpg://"): r"`async with engine\.begin\(\) as conn:`",
    sa_asyncio.create_async_engine("postgresql+asyncpg://").begin(): r"enter it, with `async with … as conn:`",
    sa_asyncio.async_sessionmaker(sa_asyncio.create_async_engine("postgresql+asyncpg://")).begin(): (
        r"enter it, with `async with … as session:`"
    ),
    orm.sessionmaker(): r"`with sessions\.begin\(\) as session:`",
    sa_asyncio.async_sessionmaker(): r"`async with sessions\.begin\(\) as session:`",
    orm.Session().begin(): "give the session whose transaction it is",
    ConnectionPool(open=False): r"`with pool\.connection\(\) as conn:`",
    AsyncConnectionPool(open=False): r"`async with pool\.connection\(\) as conn:`",
    sqlite3.connect(":memory:"): "it leads to SQLite",
    connections: "give `connection`",
}


@pytest.mark.parametrize("given", WITH_THE_REMEDY, ids=lambda given: type(given).__name__)
def test_what_is_no_connection_is_refused_with_the_remedy(given):
    with pytest.raises(InvalidConnection, match=WITH_THE_REMEDY[given]) as refused:
        plain.submit(given, 1)
    assert str(refused.value).startswith("the first argument is your connection: expected one of psycopg, SQLAlchemy,")
    assert "\n" not in str(refused.value)
    with pytest.raises(InvalidConnection):
        chancy.get(given, 1)
    with pytest.raises(InvalidConnection), chancy.batch(given):
        pass


def test_a_pool_of_asyncpg_and_a_coroutine_are_refused_with_the_remedy():
    async def try_them():
        with pytest.raises(InvalidConnection, match=r"`async with pool\.acquire\(\) as conn:`"):
            plain.submit(asyncpg.create_pool(), 1)
        coming = asyncio.sleep(0)
        with pytest.raises(InvalidConnection, match=r"got coroutine: await it first"):
            plain.submit(coming, 1)
        await coming

    on_a_loop_of_its_own(try_them())


def test_what_leads_to_another_database_is_refused_by_its_name(tmp_path):
    with orm.Session(sqlalchemy.create_engine("sqlite://")) as session:
        with pytest.raises(InvalidConnection, match="leads to sqlite, and jobs are rows of Postgres"):
            plain.submit(session, 1)
    set_up_django()
    alias = alias_of(f"dbname={tmp_path}/db", "sqlite", engine="django.db.backends.sqlite3")
    with contextlib.closing(connections[alias]) as conn:
        with pytest.raises(InvalidConnection, match=f"Django's database '{alias}' is sqlite, and jobs are rows of"):
            plain.submit(conn, 1)


class Cursorless:
    pass


class WithCursors:
    def cursor(self): ...


def test_only_who_could_be_spoken_to_hears_of_wires():
    with pytest.raises(InvalidConnection, match=r"Cursorless: give the connection before everything else$"):
        plain.submit(Cursorless(), 1)
    with pytest.raises(
        InvalidConnection, match=r"before everything else, or `chancy\.register` the wire of this kind$"
    ):
        plain.submit(WithCursors(), 1)


def test_a_cursor_of_djangos_is_refused_with_the_remedy(chancy_dsn):
    with contextlib.closing(connections[alias_of(chancy_dsn, "cursor")]) as conn, conn.cursor() as cursor:
        with pytest.raises(InvalidConnection, match=r"CursorWrapper: give `connection`, or `connections\[alias\]`"):
            plain.submit(cursor, 1)


def closed(dsn):
    """One of each stack, as it is after its end."""
    for conn in psycopg.connect(dsn), psycopg2.connect(dsn), engine("psycopg", dsn, False).connect():
        conn.close()
        yield conn


def test_a_closed_connection_is_refused_and_nothing_is_sent(onlooker, chancy_dsn):
    for conn in closed(chancy_dsn):
        with pytest.raises(InvalidConnection, match="this connection is closed: submit on one that is open"):
            plain.submit(conn, 1)
    assert onlooker.jobs() == []


def test_a_closed_async_connection_is_refused_and_nothing_is_sent(onlooker, chancy_dsn):
    async def try_them():
        one = await psycopg.AsyncConnection.connect(chancy_dsn)
        other = await asyncpg.connect(**for_asyncpg(chancy_dsn))
        made = async_engine("asyncpg", chancy_dsn, False)
        third = await made.connect()
        for conn in one, other, third:
            await conn.close()
            with pytest.raises(InvalidConnection, match="this connection is closed: submit on one that is open"):
                await plain.submit(conn, 1)
        async with asyncpg.create_pool(**for_asyncpg(chancy_dsn), min_size=1) as pool:
            async with pool.acquire() as conn:
                pass
            with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                await plain.submit(conn, 1)
        await made.dispose()

    on_a_loop_of_its_own(try_them())
    assert onlooker.jobs() == []


ONE_AT_A_TIME = [
    stack for stack in STACKS if stack.is_async and ("ession" in stack.name or stack.name.startswith("asyncpg"))
]


def says_what_to_do(sentence):
    return sentence.endswith(
        "connections of asyncpg and sessions of SQLAlchemy do one thing at a time: do one after the other, or give "
        "each a connection of its own"
    )


@pytest.mark.parametrize("stack", ONE_AT_A_TIME, ids=str)
def test_two_at_once_on_a_connection_that_does_one_at_a_time_are_refused_with_the_remedy(
    stack, onlooker, chancy_dsn
):  # fmt: skip
    async def try_them():
        async with stack.opened(chancy_dsn, True) as actor:
            found = await asyncio.gather(*(plain.submit(actor.conn, n) for n in range(3)), return_exceptions=True)
            refused = [each for each in found if isinstance(each, BaseException)]
            assert refused
            assert {type(each) for each in refused} == {InvalidConnection}
            assert all(says_what_to_do(str(each)) for each in refused)

    on_a_loop_of_its_own(try_them())


async def said(number: int) -> int:
    return number


@task(name="stacks.at_once", max_attempts=1)
async def at_once(stack: str, dsn: str) -> list[int]:
    job = current_job()
    async with BY_NAME[stack].opened(dsn, True) as actor:
        steps = [job.step(actor.conn, f"step {n}", said, n) for n in range(3)]
        done = await asyncio.gather(*steps, return_exceptions=True)  # a connection that is busy cannot be closed
    for each in done:
        if isinstance(each, BaseException):
            raise each
    return done


@pytest.mark.parametrize("stack", ONE_AT_A_TIME, ids=str)
def test_two_steps_at_once_on_such_a_connection_fail_with_the_remedy(stack, onlooker, chancy_dsn):
    job = at_once.submit(onlooker.conn, stack.name, chancy_dsn)
    drain(onlooker.conn)
    (error,) = job.refresh(onlooker.conn).errors
    assert (error.kind, says_what_to_do(error.message)) == ("InvalidConnection", True)


@pytest.mark.parametrize(
    "stack", ["psycopg, async", "SQLAlchemy AsyncConnection on psycopg", "SQLAlchemy AsyncConnection on asyncpg"]
)
def test_and_on_one_that_has_the_second_wait_they_are_done(stack, onlooker, chancy_dsn):
    job = at_once.submit(onlooker.conn, stack, chancy_dsn)
    drain(onlooker.conn)
    assert job.result(onlooker.conn) == [0, 1, 2]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_schema_that_is_not_there_is_told_as_such_on_every_stack(name, chancy_dsn):
    from stacks import play

    def ask(actor):
        with pytest.raises(chancy.SchemaOutdated, match="run `python -m chancy migrate --schema nowhere`"):
            yield chancy.jobs(actor.conn, schema="nowhere")

    play(BY_NAME[name], chancy_dsn, ask, autocommit=True)


IMPORTS = """
import sys, chancy, chancy.wires.registry
import chancy_worker, chancy_ops
found = {name.split(".")[0] for name in sys.modules} & {"sqlalchemy", "django", "asyncpg", "psycopg2", "greenlet"}
assert not found, found
assert "chancy.wires.sqlalchemy" not in sys.modules
"""


def test_nothing_of_other_stacks_is_imported_that_its_user_has_not():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert done.stderr == ""


# Wires of one's own.


class Held:
    """A connection of somebody's own, which holds one of psycopg2's."""

    def __init__(self, conn):
        self.conn = conn


GUIDE = Path(__file__).parents[2] / "docs/guides/other-stacks.md"


def wire_of_the_guide():
    """Its class, as it stands there; what it registers is forgotten with the test."""
    text = GUIDE.read_text(encoding="utf-8").split("## A wire of your own")[1]
    names = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], names)
    return names["HeldWire"]


class Derived(Held):
    pass


@pytest.fixture
def forgotten(monkeypatch):
    from chancy.wires import registry

    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    monkeypatch.setattr(registry, "_found", {})


@pytest.mark.parametrize("kind", [Held, f"{Held.__module__}.Held"], ids=["by itself", "by name"])
def test_a_wire_of_ones_own_is_spoken_through(kind, forgotten, onlooker, chancy_dsn):
    chancy.register(kind, wire_of_the_guide(), is_async=False)
    with contextlib.closing(psycopg2.connect(chancy_dsn)) as conn:
        for held in Held(conn), Derived(conn):
            job = plain.submit(held, 1)
            with pytest.raises(chancy.NotCommitted):
                job.result(held, timeout=20)
            conn.rollback()
            with pytest.raises(chancy.UnknownJob):
                job.refresh(held)
            conn.rollback()
        with chancy.batch(Held(conn)) as batch:
            batch.submit_many([plain.bind(n) for n in range(3)])
        conn.commit()
        assert chancy.batch_progress(Held(conn), batch.id).total == 3


def test_a_wire_is_imported_when_its_first_connection_is_seen(forgotten, tmp_path, monkeypatch):
    chancy.register(Held, "not_there_yet:Wire", is_async=False)
    with pytest.raises(ModuleNotFoundError, match="not_there_yet"):
        plain.submit(Held(None), 1)
    (tmp_path / "not_there_yet.py").write_text("def Wire(held): raise ZeroDivisionError")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        plain.submit(Held(None), 1)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (("Held", Derived, False), "kind"),
        ((7, Derived, False), "kind"),
        ((Held, "module.Wire", False), "wire"),
        ((Held, 7, False), "wire"),
        ((Held, Derived, "no"), "is_async"),
    ],
)
def test_a_registration_that_cannot_be_is_refused_by_the_option(given, option, forgotten):
    kind, wire, is_async = given
    with pytest.raises(InvalidOption) as refused:
        chancy.register(kind, wire, is_async=is_async)
    assert refused.value.option == option
