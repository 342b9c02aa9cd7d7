"""The project's database: Django's connection to it, the same as a connection string, and the care that Django takes of
its connections around a request, which a job needs as well.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from psycopg import pq
from psycopg.conninfo import make_conninfo

from .settings import settings_in_use

_GONE = ("57P01", "57P02", "57P03", "57P05")
"""The server has ended the session, or takes none: it is told to stop, it has crashed, it starts."""


def connection_in_use(alias: str | None = None) -> Any:
    """Django's connection to the database in which the jobs are, of this thread."""
    return connections[alias or settings_in_use().database]


def dsn_of(alias: str) -> str:
    """What `DATABASES` says, as libpq takes it. Raises `ImproperlyConfigured` for what is not Postgres."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        raise ImproperlyConfigured(
            f"CHANCY: the jobs are in database {alias!r}, which is {connection.vendor} and has to be Postgres"
        )
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    given = {name: value for name, value in connection.get_connection_params().items() if name in known}
    if role := connection.settings_dict["OPTIONS"].get("assume_role"):
        given["options"] = f"{given.get('options', '')} -c role={_escaped(str(role))}".strip()
    return make_conninfo(**given)


def _escaped(value: str) -> str:
    """For libpq's `options`, where a space ends a word."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


@contextlib.contextmanager
def cared_for() -> Iterator[None]:
    """Around a job in this thread: whatever connections it finds are usable, and it leaves none that is not to be kept
    (`CONN_MAX_AGE`). What is inside a transaction is somebody else's, a test's perhaps, and is left alone.
    """
    for connection in _idle():
        connection.queries_log.clear()
        connection.close_if_unusable_or_obsolete()
        if _has_been_spoken_to(connection) and not connection.is_usable():
            connection.close()
    try:
        yield
    finally:
        let_go()


def let_go() -> None:
    """Close those of this thread that are broken, or too old."""
    for connection in _idle():
        connection.close_if_unusable_or_obsolete()


def close_all() -> None:
    """Close those of a thread that ends with its job."""
    for connection in _idle():
        connection.close()


def _idle() -> list[Any]:
    return [each for each in connections.all(initialized_only=True) if not each.in_atomic_block]


def _has_been_spoken_to(connection: Any) -> bool:
    """Whether the server has said something on an idle connection, most likely its last word. Costs no round trip."""
    if not isinstance(driver := connection.connection, psycopg.Connection):
        return False
    try:
        return bool(select.select([driver.fileno()], [], [], 0)[0])
    except (OSError, ValueError, psycopg.Error):  # it has none any more, or one that `select` cannot watch
        return True


def was_lost(error: BaseException) -> bool:
    """Whether it says that the connection to a database is gone, and nothing about what was asked of it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, psycopg.OperationalError):
            state = cause.sqlstate
            return state is None or state in _GONE or state.startswith("08")
        cause = cause.__cause__
    return False
