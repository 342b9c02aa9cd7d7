"""SQLAlchemy's connections and sessions, on psycopg, psycopg2 and asyncpg.

Always by `exec_driver_sql`, and never by the driver's own connection. That of asyncpg has no transaction until
SQLAlchemy's first statement, and what was sent before would be committed alone; and within `run_sync` it is an async
one. So it is also SQLAlchemy that begins, tells its events, and raises its errors. Nothing is flushed.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from chancy.errors import InvalidConnection

from .asyncpg import is_busy
from .wire import BUSY, CLOSED, Query, Rows, Standing, encoding_of, has_failed

T = TypeVar("T")

_NO_PARAMETERS: Mapping[str, Any] = {"no_parameters": True}
"""A text without them goes to the driver as it is: else some take each `%%` for one `%`, and some do not."""
_NO_STREAM: Mapping[str, Any] = {"stream_results": False, "yield_per": None}
"""A cursor of the server's is for queries alone."""
_TWO_AT_ONCE = "isce"
"""SQLAlchemy's own code for what a session refuses while it does something else."""


class SqlAlchemy:
    """A `sqlalchemy.Connection`."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    def fetch(self, query: Query) -> Rows:
        """By the driver's own style of parameters."""
        conn = self._checked()
        params: Any
        if conn.dialect.paramstyle == "numeric_dollar":  # asyncpg
            text, params = query.dollars()
        else:
            text, params = query.percents(lambda: encoding_of(conn.connection.driver_connection))
        options = None if params else _NO_PARAMETERS
        if conn.get_execution_options().get("stream_results"):
            options = {**(options or {}), **_NO_STREAM}
        return conn.exec_driver_sql(text, params or None, options).fetchall()  # type: ignore[no-any-return]

    def run(self, script: str) -> None:
        """asyncpg takes several commands only without preparing them, which SQLAlchemy always does."""
        conn = self._checked()
        if conn.dialect.paramstyle == "numeric_dollar":
            conn.exec_driver_sql("SELECT 1")  # begins the transaction
            conn.connection.dbapi_connection.run_async(lambda driver: driver.execute(script))
        else:
            conn.exec_driver_sql(script, None, _NO_PARAMETERS)

    def standing(self) -> Standing:
        """What SQLAlchemy knows, and for autocommit the driver."""
        fresh = self._is_fresh()
        pooled = self._checked().connection
        if pooled.dbapi_connection.autocommit:
            return Standing.WITHIN if _is_begun(pooled.driver_connection) else Standing.AUTOCOMMIT
        if fresh:
            return Standing.FRESH
        return Standing.FAILED if has_failed(pooled.driver_connection) else Standing.WITHIN

    def let_go(self) -> None:
        """Nothing was written."""
        self._conn.rollback()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """In autocommit SQLAlchemy begins in name only, so it is said in words."""
        conn = self._checked()
        said = conn.connection.dbapi_connection.autocommit
        conn.exec_driver_sql("BEGIN") if said else None
        try:
            yield
        except BaseException:
            conn.exec_driver_sql("ROLLBACK") if said else self._conn.rollback()
            raise
        conn.exec_driver_sql("COMMIT") if said else self._conn.commit()

    def _open(self) -> Any:
        if self._conn.closed:
            raise InvalidConnection(CLOSED)
        return self._conn

    def _is_fresh(self) -> bool:
        return not self._conn.in_transaction()

    def _checked(self) -> Any:
        """The `sqlalchemy.Connection`, which leads to Postgres."""
        conn = self._open()
        if conn.dialect.name != "postgresql":
            raise InvalidConnection(
                f"this connection of SQLAlchemy leads to {conn.dialect.name}, and jobs are rows of Postgres"
            )
        if conn.dialect.paramstyle not in ("pyformat", "numeric_dollar"):
            raise InvalidConnection(
                f"SQLAlchemy's dialect {conn.dialect.name}+{conn.dialect.driver} is not spoken here: "
                f"take one on psycopg, psycopg2 or asyncpg"
            )
        return conn


class SqlAlchemyOfSession(SqlAlchemy):
    """A `sqlalchemy.orm.Session`: by the connection of its transaction, which begins with it if it has not."""

    def let_go(self) -> None:
        """By a commit, which flushes nothing where nothing was done: a rollback would expire the session's objects."""
        self._conn.commit()

    def _open(self) -> Any:
        return self._conn.connection()

    def _is_fresh(self) -> bool:
        if self._conn.in_transaction():
            return False
        bind = self._conn.get_bind()
        return not (hasattr(bind, "in_transaction") and bind.in_transaction())  # bound to a connection of the caller's


def of_scoped(conn: Any) -> SqlAlchemyOfSession:
    """A `scoped_session`: by the session that it stands for here and now."""
    return SqlAlchemyOfSession(conn.registry())


class AsyncSqlAlchemy:
    """An `AsyncConnection`: the same code as for a sync one, run beside it as SQLAlchemy runs its own."""

    _made: ClassVar[type[SqlAlchemy]] = SqlAlchemy

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    async def fetch(self, query: Query) -> Rows:
        """One statement."""
        return await self._within(lambda wire: wire.fetch(query))

    async def run(self, script: str) -> None:
        """Several."""
        await self._within(lambda wire: wire.run(script))

    async def standing(self) -> Standing:
        """What SQLAlchemy knows."""
        return await self._within(lambda wire: wire.standing())

    async def let_go(self) -> None:
        """Nothing was written."""
        await self._within(lambda wire: wire.let_go())

    @contextlib.asynccontextmanager
    async def block(self) -> AsyncIterator[None]:
        """Entered and left beside the body, which is the caller's and awaits."""
        stack = contextlib.ExitStack()
        await self._within(lambda wire: stack.enter_context(wire.block()))
        try:
            yield
        except BaseException as caught:
            error = caught  # its name would be gone
            await self._within(lambda wire: stack.__exit__(type(error), error, error.__traceback__))
            raise
        await self._within(lambda wire: stack.close())

    async def _within(self, act: Callable[[SqlAlchemy], T]) -> T:
        try:
            return await self._conn.run_sync(lambda conn: act(self._made(conn)))  # type: ignore[no-any-return]
        except Exception as error:
            if is_busy(error) or getattr(error, "code", None) == _TWO_AT_ONCE:
                raise InvalidConnection(BUSY) from error
            raise


class AsyncSqlAlchemyOfSession(AsyncSqlAlchemy):
    """An `AsyncSession`."""

    _made = SqlAlchemyOfSession


def of_async_scoped(conn: Any) -> AsyncSqlAlchemyOfSession:
    """An `async_scoped_session`: by the session that it stands for here and now."""
    return AsyncSqlAlchemyOfSession(conn.registry())


def _is_begun(driver: Any) -> bool:
    """Whether the driver's connection is in a transaction, whatever SQLAlchemy thinks."""
    return bool(driver.is_in_transaction() if hasattr(driver, "is_in_transaction") else driver.info.transaction_status)
