"""Each stack through which Chancy speaks: how its users open a connection, write a row, and begin and end what they do.

An act gives its value, or something to be awaited where the stack is async.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import django.conf
import psycopg
import psycopg2
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio
import sqlmodel
import sqlmodel.ext.asyncio.session
from django.db import connection, connections
from django.db.transaction import atomic
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import orm

from chancy_testing.attempts import on_a_loop_of_its_own
from conformance.grounds import go_on, go_on_awaiting


@dataclass(frozen=True)
class Stack:
    """`opened(dsn, autocommit)` is a context, whose value is an `Actor`."""

    name: str
    opened: Callable[[str, bool], Any]
    is_async: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass
class Actor:
    """Somebody with a connection of this stack, in a transaction unless it is in autocommit."""

    conn: Any
    execute: Callable[[str], Any]
    commit: Callable[[], Any]
    rollback: Callable[[], Any]
    savepoint: Callable[[], Any]
    """A block within the transaction."""


def url(driver: str, dsn: str) -> sqlalchemy.URL:
    """For SQLAlchemy."""
    place = conninfo_to_dict(dsn)
    names = {"username": "user", "password": "password", "host": "host", "database": "dbname"}
    given = {name: place.get(ours) for name, ours in names.items()}
    more = {}
    if str(given["host"]).startswith("/"):
        more = {"host": given.pop("host")}
    port = place.get("port")
    if more and driver == "asyncpg":
        return sqlalchemy.URL.create(f"postgresql+{driver}", **given, query=more | {"port": str(port or 5432)})
    return sqlalchemy.URL.create(f"postgresql+{driver}", **given, port=port and int(port), query=more)


def for_asyncpg(dsn: str) -> dict[str, Any]:
    """The arguments of its `connect`."""
    place = conninfo_to_dict(dsn)
    names = {"user": "user", "password": "password", "host": "host", "port": "port", "database": "dbname"}
    return {name: place[ours] for name, ours in names.items() if place.get(ours)}


# psycopg and psycopg2


@contextlib.contextmanager
def of_psycopg(dsn: str, autocommit: bool):
    with contextlib.closing(psycopg.connect(dsn, autocommit=autocommit)) as conn:
        yield Actor(conn, conn.execute, conn.commit, conn.rollback, conn.transaction)


@contextlib.asynccontextmanager
async def of_psycopg_async(dsn: str, autocommit: bool):
    conn = await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit)
    yield Actor(conn, conn.execute, conn.commit, conn.rollback, conn.transaction)
    await conn.close()


@contextlib.contextmanager
def of_psycopg2(dsn: str, autocommit: bool, **more: Any):
    with contextlib.closing(psycopg2.connect(dsn, **more)) as conn:
        conn.autocommit = autocommit

        def execute(text: str) -> None:
            with conn.cursor() as cursor:
                cursor.execute(text)

        yield Actor(conn, execute, conn.commit, conn.rollback, lambda: _savepoint(execute))


@contextlib.contextmanager
def _savepoint(execute: Callable[[str], Any]):
    execute("SAVEPOINT one")
    try:
        yield
    except BaseException:
        execute("ROLLBACK TO SAVEPOINT one")
        raise
    execute("RELEASE SAVEPOINT one")


# SQLAlchemy


def engine(driver: str, dsn: str, autocommit: bool, **more: Any) -> sqlalchemy.Engine:
    level = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    return sqlalchemy.create_engine(url(driver, dsn), **level, **more)


def async_engine(driver: str, dsn: str, autocommit: bool, **more: Any) -> sqlalchemy.ext.asyncio.AsyncEngine:
    level = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    return sqlalchemy.ext.asyncio.create_async_engine(url(driver, dsn), **level, **more)


KINDS = {
    "Connection": lambda engine: engine.connect(),
    "Session": orm.Session,
    "scoped_session": lambda engine: orm.scoped_session(orm.sessionmaker(engine)),
    "SQLModel": sqlmodel.Session,
}
ASYNC_KINDS = {
    "AsyncConnection": lambda engine: engine.connect(),
    "AsyncSession": sqlalchemy.ext.asyncio.AsyncSession,
    "async_scoped_session": lambda engine: sqlalchemy.ext.asyncio.async_scoped_session(
        sqlalchemy.ext.asyncio.async_sessionmaker(engine), scopefunc=lambda: 1
    ),
    "SQLModel's AsyncSession": sqlmodel.ext.asyncio.session.AsyncSession,
}


def of_sqlalchemy(driver: str, kind: str):
    @contextlib.contextmanager
    def opened(dsn: str, autocommit: bool):
        made = engine(driver, dsn, autocommit)
        conn = KINDS[kind](made)
        try:
            yield Actor(
                conn,
                lambda text: (
                    conn.connection().exec_driver_sql(text) if kind != "Connection" else conn.exec_driver_sql(text)
                ),
                conn.commit,
                conn.rollback,
                conn.begin_nested,
            )
        finally:
            conn.remove() if kind == "scoped_session" else conn.close()
            made.dispose()

    return opened


def of_sqlalchemy_async(driver: str, kind: str):
    @contextlib.asynccontextmanager
    async def opened(dsn: str, autocommit: bool):
        made = async_engine(driver, dsn, autocommit)
        conn: Any = ASYNC_KINDS[kind](made)
        if kind == "AsyncConnection":
            await conn.start()

        async def execute(text: str) -> None:
            await (conn if kind == "AsyncConnection" else await conn.connection()).exec_driver_sql(text)

        try:
            yield Actor(conn, execute, conn.commit, conn.rollback, conn.begin_nested)
        finally:
            await (conn.remove() if kind == "async_scoped_session" else conn.close())
            await made.dispose()

    return opened


# asyncpg


@contextlib.asynccontextmanager
async def of_asyncpg(dsn: str, autocommit: bool):
    conn = await asyncpg.connect(**for_asyncpg(dsn))
    async with _asyncpg(conn, autocommit) as actor:
        yield actor
    await conn.close()


@contextlib.asynccontextmanager
async def of_asyncpg_pool(dsn: str, autocommit: bool):
    async with asyncpg.create_pool(**for_asyncpg(dsn), min_size=1, max_size=2) as pool, pool.acquire() as conn:
        async with _asyncpg(conn, autocommit) as actor:
            yield actor


@contextlib.asynccontextmanager
async def _asyncpg(conn: Any, autocommit: bool):
    outer = None if autocommit else conn.transaction()

    async def over(how: str) -> None:
        nonlocal outer
        await getattr(outer, how)()
        outer = None

    if outer is not None:
        await outer.start()
    yield Actor(conn, conn.execute, lambda: over("commit"), lambda: over("rollback"), conn.transaction)
    if outer is not None:
        with contextlib.suppress(asyncpg.InterfaceError):  # the server has ended it
            await outer.rollback()


# Django, whose connections are named by aliases. Which psycopg it uses it decides once a process.

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "server-side": {"server_side_binding": True},
    "pool": {"pool": {"min_size": 1, "max_size": 3}},
}
USE_TZ = os.environ.get("CHANCY_DJANGO_USE_TZ", "1") == "1"
ON_PSYCOPG2 = os.environ.get("CHANCY_DJANGO_DRIVER") == "psycopg2"


def set_up_django() -> None:
    if not django.conf.settings.configured:
        django.conf.settings.configure(USE_TZ=USE_TZ, TIME_ZONE="America/Chicago", SECRET_KEY="x", DATABASES={})
        django.setup()
    if ON_PSYCOPG2 and "django.db.backends.postgresql.psycopg_any" not in sys.modules:
        kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "psycopg"}
        sys.modules["psycopg"] = None  # type: ignore[assignment]
        importlib.import_module("django.db.backends.postgresql.base")
        del sys.modules["psycopg"]
        sys.modules.update(kept)


def alias_of(dsn: str, kind: str, engine: str = "django.db.backends.postgresql", **options: Any) -> str:
    """A database of Django's settings."""
    set_up_django()
    place = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    settings = {name: place.get(ours) or "" for name, ours in names.items()}
    alias = "default" if kind == "proxy" else f"of_tests_{kind}"
    whole = connections.configure_settings(
        {
            "default": {"ENGINE": engine},
            alias: {"ENGINE": engine, "OPTIONS": OPTIONS.get(kind, {}) | options, **settings},
        }
    )
    connections.settings[alias] = whole[alias]
    return alias


def of_django(kind: str):
    @contextlib.contextmanager
    def opened(dsn: str, autocommit: bool):
        alias = alias_of(dsn, kind)
        conn: Any = connection if kind == "proxy" else connections[alias]
        conn.ensure_connection()
        outer = contextlib.ExitStack()
        if not autocommit:
            outer.enter_context(atomic(using=alias))

        def execute(text: str) -> None:
            with conn.cursor() as cursor:
                cursor.execute(text)

        def rollback() -> None:
            with contextlib.suppress(ZeroDivisionError), outer:
                raise ZeroDivisionError

        try:
            yield Actor(conn, execute, outer.close, rollback, lambda: atomic(using=alias))
        finally:
            rollback()
            if kind == "pool":
                conn.close_pool()
            conn.close()
            del connections[alias], connections.settings[alias]

    return opened


DJANGO = [] if ON_PSYCOPG2 else ["server-side", *(["pool"] if django.VERSION >= (5, 1) else [])]

STACKS = [
    Stack("psycopg", of_psycopg),
    Stack("psycopg, async", of_psycopg_async, is_async=True),
    Stack("psycopg2", of_psycopg2),
    *[
        Stack(
            f"SQLAlchemy {kind} on {driver}",
            of_sqlalchemy(driver, kind),
        )
        for driver in ("psycopg", "psycopg2")
        for kind in KINDS
    ],
    *[
        Stack(
            f"SQLAlchemy {kind} on {driver}",
            of_sqlalchemy_async(driver, kind),
            is_async=True,
        )
        for driver in ("psycopg", "asyncpg")
        for kind in ASYNC_KINDS
    ],
    Stack("asyncpg", of_asyncpg, is_async=True),
    Stack("asyncpg, pool", of_asyncpg_pool, is_async=True),
    *[Stack(f"Django, {kind}", of_django(kind)) for kind in ("default", "proxy", *DJANGO)],
]
BY_NAME = {stack.name: stack for stack in STACKS}

OFTEN = ["SQLAlchemy Session on psycopg", "SQLAlchemy AsyncSession on asyncpg", "Django, default"]
"""Each promise is tried on one of these on each commit, in turn; for the others much follows from that."""
ONE_OF_EACH = [*OFTEN, "SQLAlchemy Session on psycopg2", "asyncpg, pool", "psycopg2"]


def params(often: list[str]) -> list[Any]:
    """All of them, of which only these are tried on each commit."""
    return [
        pytest.param(stack, marks=() if stack.name in often else pytest.mark.every_stack, id=stack.name)
        for stack in STACKS
    ]


def play(stack: Stack, dsn: str, case: Callable[[Actor], Any], autocommit: bool = False) -> None:
    """`case` gives a generator, which yields what acts give and gets the values back."""
    if not stack.is_async:
        with stack.opened(dsn, autocommit) as actor:
            go_on(case(actor))
        return

    async def play_async() -> None:
        async with stack.opened(dsn, autocommit) as actor:
            await go_on_awaiting(case(actor))

    on_a_loop_of_its_own(play_async())
