"""The connections that a verb takes, as type checkers see them: by their methods, since their libraries may be missing.

An import for type checkers alone would make them all Any where a library is not installed, and an async session would
then pass for a sync one.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeAlias

import psycopg


class _Rows(Protocol):
    def fetchall(self) -> Sequence[Any]: ...


class SqlAlchemyConnection(Protocol):
    """`sqlalchemy.Connection`"""

    def exec_driver_sql(self, statement: str, parameters: Any = ..., /) -> _Rows: ...


class SqlAlchemySession(Protocol):
    """`sqlalchemy.orm.Session` and `scoped_session`, `sqlmodel.Session`"""

    def connection(self) -> SqlAlchemyConnection: ...
    def expunge_all(self) -> None: ...  # an AsyncConnection has a `connection` too, of NoReturn


class SqlAlchemyAsyncConnection(Protocol):
    """`sqlalchemy.ext.asyncio.AsyncConnection`"""

    def exec_driver_sql(self, statement: str, parameters: Any = ..., /) -> Coroutine[Any, Any, _Rows]: ...


class SqlAlchemyAsyncSession(Protocol):
    """`sqlalchemy.ext.asyncio.AsyncSession` and `async_scoped_session`, SQLModel's `AsyncSession`"""

    def connection(self) -> Coroutine[Any, Any, SqlAlchemyAsyncConnection]: ...
    def expunge_all(self) -> None: ...


class DjangoConnection(Protocol):
    """`django.db.connection`, `django.db.connections[alias]`"""

    @property
    def vendor(self) -> str: ...
    @property
    def in_atomic_block(self) -> bool: ...
    def ensure_connection(self) -> None: ...


class DjangoConnectionProxy(Protocol):
    """`django.db.connection` for who has no stubs of Django: all that its class says of itself."""

    def __getattr__(self, item: Any, /) -> Any: ...
    def __contains__(self, key: Any, /) -> Any: ...


class AsyncpgConnection(Protocol):
    """`asyncpg.Connection`"""

    def fetch(self, query: str, /, *args: Any) -> Coroutine[Any, Any, Sequence[Any]]: ...
    def is_in_transaction(self) -> bool: ...


class AsyncpgPooledConnection(Protocol):
    """What asyncpg's `pool.acquire()` gives: its methods are made at run time, and checkers see none of them."""

    def _detach(self) -> Any: ...


class Psycopg2Connection(Protocol):
    """`psycopg2.extensions.connection`"""

    def get_transaction_status(self) -> int: ...
    def get_dsn_parameters(self) -> Any: ...


PsycopgConn: TypeAlias = psycopg.Connection[Any]
PsycopgAsyncConn: TypeAlias = psycopg.AsyncConnection[Any]

SyncConn: TypeAlias = (
    PsycopgConn
    | SqlAlchemySession
    | SqlAlchemyConnection
    | DjangoConnection
    | DjangoConnectionProxy
    | Psycopg2Connection
)  # fmt: skip
AsyncConn: TypeAlias = (
    PsycopgAsyncConn
    | SqlAlchemyAsyncSession
    | SqlAlchemyAsyncConnection
    | AsyncpgConnection
    | AsyncpgPooledConnection
)  # fmt: skip
