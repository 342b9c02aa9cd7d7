"""Connections that lead nowhere: what code under test is given in place of a psycopg one.

They are in autocommit and know transactions by `conn.transaction()` alone: at its end the jobs that were submitted in
it are performed, and after an exception they have never been.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, NoReturn, Protocol

import psycopg
from psycopg.pq import TransactionStatus

from chancy.errors import InvalidConnection
from chancy.wires.wire import Query, Standing

_blocks = itertools.count(1)


class Ledger(Protocol):
    """What has to be taken back by a rollback, and what waits for a commit."""

    def save(self) -> Callable[[], None]:
        """What brings back what is now."""

    def committed(self) -> None:
        """The outermost block of a connection has ended well."""

    async def committed_async(self) -> None:
        """The same, awaited."""


class _Info(psycopg.ConnectionInfo):
    def __init__(self, depth: Callable[[], int]) -> None:
        self._depth = depth

    @property
    def transaction_status(self) -> TransactionStatus:
        return TransactionStatus.INTRANS if self._depth() else TransactionStatus.IDLE


class _NoSql:
    """What the two kinds share. Nothing here is a connection's own state but how many blocks are open."""

    autocommit = True

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.depth = 0
        self.block = "0"
        """The name of the transaction, as Postgres' `xid8`: another one for each outermost block."""

    def __del__(self, *_: Any) -> None: ...

    @property
    def info(self) -> psycopg.ConnectionInfo:
        return _Info(lambda: self.depth)

    @property
    def closed(self) -> bool:
        return False

    @property
    def broken(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__}, without a database>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # asked for by Python and by psycopg themselves
            raise AttributeError(name)
        raise InvalidConnection(
            f"a stand-in of chancy_testing.eager has no {name!r}, because there is no database behind it: give code "
            f"that runs SQL of its own a real connection; Chancy's own statements are answered inside eager() only"
        )

    def cursor(self, *_: Any, **__: Any) -> Any:
        self.__getattr__("cursor")

    def pipeline(self) -> Any:
        self.__getattr__("pipeline")

    @contextlib.contextmanager
    def _block(self, force_rollback: bool) -> Iterator[None]:
        restore = self.ledger.save()
        if not self.depth:
            self.block = str(next(_blocks))
        self.depth += 1
        try:
            yield
            if force_rollback:
                restore()
        except psycopg.Rollback:
            restore()
        except BaseException:
            restore()
            raise
        finally:
            self.depth -= 1


class StandIn(_NoSql, psycopg.Connection[Any]):
    """A `psycopg.Connection` by its type."""

    @contextlib.contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Any]:
        """A block; what was submitted in it is performed when the outermost one ends."""
        with self._block(force_rollback):
            yield self
        if not self.depth:
            self.ledger.committed()

    def execute(self, *_: Any, **__: Any) -> Any:
        """Not here."""
        self.__getattr__("execute")

    def commit(self) -> None:
        """Nothing is left to commit."""

    def rollback(self) -> None:
        """Nothing is left to roll back."""

    def close(self) -> None:
        """It stays as it is."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None: ...


class AsyncStandIn(_NoSql, psycopg.AsyncConnection[Any]):
    """A `psycopg.AsyncConnection` by its type."""

    @contextlib.asynccontextmanager
    async def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> AsyncIterator[Any]:
        """A block; what was submitted in it is performed when the outermost one ends."""
        with self._block(force_rollback):
            yield self
        if not self.depth:
            await self.ledger.committed_async()

    async def execute(self, *_: Any, **__: Any) -> Any:
        """Not here."""
        self.__getattr__("execute")

    async def commit(self) -> None:
        """Nothing is left to commit."""

    async def rollback(self) -> None:
        """Nothing is left to roll back."""

    async def close(self) -> None:
        """It stays as it is."""

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None: ...


class Unasked:
    """The wire of another stack's connection, which may be bound to nothing: as one that the caller will commit."""

    def standing(self) -> Standing:
        """Nothing is in its transaction."""
        return Standing.FRESH

    def let_go(self) -> None:
        """It holds nothing."""

    def block(self) -> AbstractContextManager[None]:
        """None is made."""
        return contextlib.nullcontext()

    def fetch(self, query: Query) -> NoReturn:
        """Statements are answered by the backend."""
        raise InvalidConnection("there is no database behind chancy_testing.eager")

    def run(self, script: str) -> NoReturn:
        """Nor is there one for scripts."""
        raise InvalidConnection("there is no database behind chancy_testing.eager")


class AsyncUnasked:
    """The same, awaited."""

    async def standing(self) -> Standing:
        """Nothing is in its transaction."""
        return Standing.FRESH

    async def let_go(self) -> None:
        """It holds nothing."""

    def block(self) -> AbstractAsyncContextManager[None]:
        """None is made."""
        return contextlib.nullcontext()

    async def fetch(self, query: Query) -> NoReturn:
        """Statements are answered by the backend."""
        raise InvalidConnection("there is no database behind chancy_testing.eager")

    async def run(self, script: str) -> NoReturn:
        """Nor is there one for scripts."""
        raise InvalidConnection("there is no database behind chancy_testing.eager")
