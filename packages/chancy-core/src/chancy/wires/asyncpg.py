"""asyncpg's connections, alone and from its pool: each statement is a transaction of its own, unless within
`async with conn.transaction():`.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from chancy.errors import InvalidConnection

from .wire import BUSY, CLOSED, Query, Rows, Standing


class Asyncpg:
    """An `asyncpg.Connection`, or what `pool.acquire()` gives."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    async def fetch(self, query: Query) -> Rows:
        """One statement."""
        if self._conn.is_closed():
            raise InvalidConnection(CLOSED)
        text, params = query.dollars()
        try:
            return await self._conn.fetch(text, *params)  # type: ignore[no-any-return]
        except Exception as error:
            if is_busy(error):
                raise InvalidConnection(BUSY) from error
            raise

    async def run(self, script: str) -> None:
        """Not prepared."""
        await self._conn.execute(script)

    async def standing(self) -> Standing:
        """What asyncpg knows: not whether the transaction has failed."""
        return Standing.WITHIN if self._conn.is_in_transaction() else Standing.AUTOCOMMIT

    async def let_go(self) -> None:
        """None is ever fresh."""

    def block(self) -> AbstractAsyncContextManager[Any]:
        """Its own."""
        return self._conn.transaction()  # type: ignore[no-any-return]


def is_busy(error: Exception) -> bool:
    """Whether asyncpg refuses to do two things at once; SQLAlchemy says it in its words, too."""
    return "another operation is in progress" in str(error)
