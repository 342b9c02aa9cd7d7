"""Which connections there are, and the wire of each, found by the name of its class: nothing is imported for that but
what the caller has imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from chancy.errors import InvalidConnection, InvalidOption
from chancy.options.plain import flag, shown, text

from .wire import AsyncWire, Wire

Made: TypeAlias = Callable[[Any], Wire | AsyncWire]


class Kind(msgspec.Struct, frozen=True):
    """A class of connections: whether what is sent through one is awaited, and what makes its wire."""

    is_async: bool
    wire: Made


_KNOWN: dict[str, tuple[bool, str | Made]] = {
    "psycopg.Connection": (False, "chancy.wires.psycopg:Psycopg"),
    "psycopg.AsyncConnection": (True, "chancy.wires.psycopg:AsyncPsycopg"),
    "sqlalchemy.engine.base.Connection": (False, "chancy.wires.sqlalchemy:SqlAlchemy"),
    "sqlalchemy.orm.session.Session": (False, "chancy.wires.sqlalchemy:SqlAlchemyOfSession"),
    "sqlalchemy.orm.scoping.scoped_session": (False, "chancy.wires.sqlalchemy:of_scoped"),
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": (True, "chancy.wires.sqlalchemy:AsyncSqlAlchemy"),
    "sqlalchemy.ext.asyncio.session.AsyncSession": (True, "chancy.wires.sqlalchemy:AsyncSqlAlchemyOfSession"),
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session": (True, "chancy.wires.sqlalchemy:of_async_scoped"),
    "django.db.backends.base.base.BaseDatabaseWrapper": (False, "chancy.wires.django:Django"),
    "django.utils.connection.ConnectionProxy": (False, "chancy.wires.django:Django"),
    "asyncpg.connection.Connection": (True, "chancy.wires.asyncpg:Asyncpg"),
    "asyncpg.pool.PoolConnectionProxy": (True, "chancy.wires.asyncpg:Asyncpg"),
    "psycopg2.extensions.connection": (False, "chancy.wires.psycopg2:Psycopg2"),
}
_WITH, _ASYNC_WITH = "take one with `with {}:`", "take one with `async with {}:`"
_REMEDIES = {
    "builtins.str": "connect with it first",
    "builtins.coroutine": "await it first",
    "builtins.type": "it is a class: give one that is made and open",
    "contextlib._GeneratorContextManager": "enter it, with `with … as conn:`",
    "contextlib._AsyncGeneratorContextManager": "enter it, with `async with … as conn:`",
    "sqlalchemy.ext.asyncio.session._AsyncSessionContextManager": "enter it, with `async with … as session:`",
    "sqlalchemy.ext.asyncio.base.GeneratorStartableContext": "enter it, with `async with … as conn:`",
    "sqlalchemy.engine.base.Engine": _WITH.format("engine.begin() as conn"),
    "sqlalchemy.ext.asyncio.engine.AsyncEngine": _ASYNC_WITH.format("engine.begin() as conn"),
    "sqlalchemy.orm.session.sessionmaker": _WITH.format("sessions.begin() as session"),
    "sqlalchemy.ext.asyncio.session.async_sessionmaker": _ASYNC_WITH.format("sessions.begin() as session"),
    "sqlalchemy.engine.base.Transaction": "give the connection whose transaction it is",
    "sqlalchemy.orm.session.SessionTransaction": "give the session whose transaction it is",
    "sqlalchemy.ext.asyncio.engine.AsyncTransaction": "give the connection whose transaction it is",
    "sqlalchemy.ext.asyncio.session.AsyncSessionTransaction": "give the session whose transaction it is",
    "sqlalchemy.pool.base._ConnectionFairy": "give the session or the `sqlalchemy.Connection` that it comes from",
    "django.utils.connection.BaseConnectionHandler": "give `connection`, or `connections[alias]`",
    "django.db.backends.utils.CursorWrapper": "give `connection`, or `connections[alias]`",
    "asyncpg.pool.Pool": _ASYNC_WITH.format("pool.acquire() as conn"),
    "asyncpg.pool.PoolAcquireContext": _ASYNC_WITH.format("pool.acquire() as conn"),
    "asyncpg.transaction.Transaction": "give the connection whose transaction it is",
    "psycopg.Transaction": "give the connection whose transaction it is",
    "psycopg.AsyncTransaction": "give the connection whose transaction it is",
    "psycopg.Cursor": "give its `connection`",
    "psycopg.AsyncCursor": "give its `connection`",
    "psycopg_pool.pool.ConnectionPool": _WITH.format("pool.connection() as conn"),
    "psycopg_pool.pool_async.AsyncConnectionPool": _ASYNC_WITH.format("pool.connection() as conn"),
    "psycopg2.extensions.cursor": "give its `connection`",
    "psycopg2.pool.AbstractConnectionPool": "take one with `conn = pool.getconn()`",
    "peewee.Database": "inside `with db.atomic():` give `db.connection()`",
    "tortoise.backends.base.client.BaseDBAsyncClient": "see docs/guides/other-stacks.md",
    "piccolo.engine.base.Engine": "see docs/guides/other-stacks.md",
    "sqlite3.Connection": "it leads to SQLite, and jobs are rows of Postgres",
}
"""What people give in place of a connection, and what to give instead."""
_FIRST = "give the connection before everything else"
_OR_REGISTER = f"{_FIRST}, or `chancy.register` the wire of this kind"
_found: dict[type, Kind] = {}


def register(kind: str | type, wire: str | Made, *, is_async: bool) -> None:
    """Have connections of this class, and of those derived from it, spoken to by `wire`: a class or function that takes
    one and gives its `Wire`, or its `AsyncWire` where `is_async`.

    Each may be given as itself or by its name, so that nothing is imported before it is used: the class as
    `"module.Class"`, by the module that it was defined in; the wire as `"module:name"`. For this process; whoever comes
    last counts. Raises `InvalidOption`.
    """
    name = _name_of(kind) if isinstance(kind, type) else text("kind", kind)
    if "." not in name:
        raise InvalidOption("kind", f'expected a class, or the full name of one ("module.Class"), got {shown(kind)}')
    if not callable(wire) and text("wire", wire).count(":") != 1:
        raise InvalidOption("wire", f'expected what makes a wire, or where it is ("module:name"), got {shown(wire)}')
    _KNOWN[name] = flag("is_async", is_async), wire
    _found.clear()


def kind_of(conn: object) -> Kind:
    """What kind of connection this is. Raises `InvalidConnection`, with the remedy, for what is none."""
    kind = conn.__class__  # and not type(conn): what instruments connections wraps them in proxies
    found = _found.get(kind)
    if found is None:
        found = _found[kind] = _find(kind)
    return found


def wire_of(conn: object) -> Any:
    """The `Wire` or `AsyncWire` of this connection. Raises `InvalidConnection`."""
    return kind_of(conn).wire(conn)


def refuse_no_connection(conn: object) -> None:
    """Raise `InvalidConnection` for what is none."""
    kind_of(conn)


def _find(kind: type) -> Kind:
    names = [_name_of(each) for each in kind.__mro__]
    for name in names:
        if name in _KNOWN:
            is_async, wire = _KNOWN[name]
            if isinstance(wire, str):
                module, _, attribute = wire.partition(":")
                wire = getattr(importlib.import_module(module), attribute)
            return Kind(is_async, wire)
    usual = _OR_REGISTER if hasattr(kind, "cursor") or hasattr(kind, "execute") else _FIRST
    remedy = next((_REMEDIES[name] for name in names if name in _REMEDIES), usual)
    raise InvalidConnection(
        f"the first argument is your connection: expected one of psycopg, SQLAlchemy, Django, asyncpg or psycopg2, "
        f"got {names[0].removeprefix('builtins.')}: {remedy}"
    )


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
