"""Acts on many jobs, begun by a page and done beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

import chancy_ops
from chancy_ops import Sweep

from .connections import connected

log = logging.getLogger("chancy.dashboard")

MOST = 2
"""Of one process at a time."""
_READ_ONLY = "-c default_transaction_read_only=on"


class TooMany(Exception):
    """As many go on as may."""


class Sweeps:
    """Those that this process performs, each on a connection of its own. How far they are is in the audit."""

    def __init__(self, conninfo: Callable[[], str], schema: str, *, read_only: bool) -> None:
        self._conninfo = conninfo
        self._schema = schema
        self._read_only = read_only
        self._going: dict[asyncio.Task[None], tuple[Any, asyncio.Future[int]]] = {}

    async def begin(self, planned: Sweep, who: str) -> int:
        """Begin it, and return the id of its row in the audit. What is the same as one that goes on is that one.

        Raises `TooMany`, and what Postgres has against its first statement.
        """
        what = (planned.kind.name, planned.what)
        for each, begun in self._going.values():
            if each == what:
                return await asyncio.shield(begun)
        if len(self._going) >= MOST:
            raise TooMany
        begun = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._perform(planned, who, begun))
        self._going[task] = (what, begun)
        task.add_done_callback(partial(self._ended, begun))
        return await asyncio.shield(begun)

    async def _perform(self, planned: Sweep, who: str, begun: asyncio.Future[int]) -> None:
        async with await connected(self._where) as conn:
            await chancy_ops.sweep(conn, planned, who=who, via="dashboard", begun=begun.set_result, schema=self._schema)

    def _where(self) -> str:
        given = self._conninfo()
        if not self._read_only:
            return given
        options = conninfo_to_dict(given).get("options") or ""
        return make_conninfo(given, options=f"{options} {_READ_ONLY}")

    def _ended(self, begun: asyncio.Future[int], task: asyncio.Task[None]) -> None:
        del self._going[task]
        error = None if task.cancelled() else task.exception()
        if begun.done():
            if error is not None:
                log.warning("an act on many jobs has ended early: %s", error)
        elif error is not None:
            begun.set_exception(error)
        else:
            begun.cancel()

    def close(self) -> None:
        """End those of this event loop, each without the batch that it is at. The same again does the rest."""
        for task in list(self._going):
            if task.get_loop() is asyncio.get_running_loop():
                task.cancel()
