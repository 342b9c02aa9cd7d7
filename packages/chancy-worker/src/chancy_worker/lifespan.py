"""The app's `lifespan` around the jobs of a worker, in an asyncio task of its own: it is entered and left in the same
one, as cancel scopes and task groups want it, and who waits for it can stop waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from .life.stopping import TO_OBEY, Stopping
from .logs.setting import unfailing

log = unfailing("chancy.worker")

TO_LEAVE = 10.0
"""Seconds that the lifespan gets to be left."""


class Lifespan:
    """What `make` gives is entered by `enter`, and left some time after `leave`; without it nothing is done."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]] | None) -> None:
        self._make = make or contextlib.nullcontext
        self._entered = asyncio.Event()
        self._leaving = asyncio.Event()
        self.context = contextvars.copy_context()
        """What it sets in there is seen by whoever runs in a copy."""
        self.task: asyncio.Task[None] | None = None
        """Ends when it is left, with what it has raised."""

    async def enter(self) -> None:
        """Returns when it is entered. Raises what it raises instead. Cancelled, it goes on entering: see `task`."""
        loop = asyncio.get_running_loop()
        # By no factory of tasks: those of before Python 3.11 take no context.
        self.task = asyncio.Task(self._live(), loop=loop, name="chancy lifespan", context=self.context)
        entered = asyncio.create_task(self._entered.wait())
        try:
            await asyncio.wait([self.task, entered], return_when=asyncio.FIRST_COMPLETED)
        finally:
            entered.cancel()
        if not self._entered.is_set():
            self.task.result()

    @property
    def is_entered(self) -> bool:
        """Whether it has ever been."""
        return self._entered.is_set()

    def leave(self) -> None:
        """Leave it, as soon as it is entered."""
        self._leaving.set()

    async def _live(self) -> None:
        async with self._make():
            self._entered.set()
            await self._leaving.wait()


async def leave(lifespan: Lifespan, stopping: Stopping) -> None:
    """Leave it, in its time; if it is still being entered, cancel that. Raises what it raises."""
    if (task := lifespan.task) is None:
        return
    if is_entered := lifespan.is_entered:
        lifespan.leave()
        await stopping.stage(task, TO_LEAVE)
    if not task.done():
        log.warning("the app's `lifespan` waits on its way %s, and is cancelled", "out" if is_entered else "in")
        task.cancel()
        await stopping.stage(task, TO_OBEY if is_entered else TO_LEAVE)
    if not task.done():
        log.error("the app's `lifespan` was cancelled and goes on; it is left to itself")
    elif is_entered and not task.cancelled():
        task.result()
