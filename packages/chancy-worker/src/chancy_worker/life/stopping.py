"""A stop, and its stages: each has its time, and a further word skips what is left of one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

TO_OBEY = 1.0
"""Seconds that stopped jobs, and a stopped lifespan, get for their `finally`."""
TO_WRITE = 10.0
"""Seconds that the last verdicts get to reach the database."""


class Stopping:
    """Whether somebody wants this worker to stop, and how urgently."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Somebody does."""
        self._hurry = asyncio.Event()
        self.was_cancelled = False
        """The worker itself was cancelled, which is made known at the very end."""
        self._main: asyncio.Task[Any] | None = None
        self._cancels_before = 0
        """Of that task, which may have survived some."""

    def begins(self) -> None:
        """This asyncio task is the worker."""
        self._main = asyncio.current_task()
        assert self._main is not None
        self._cancels_before = self._main.cancelling()

    def is_cancelled(self) -> bool:
        """Whether the worker is being cancelled, as by the end of its loop, which cancels all tasks at once."""
        return self._main is not None and self._main.cancelling() > self._cancels_before

    def ask(self) -> None:
        """Begin to stop; again, skip what is left of a stage."""
        (self._hurry if self.asked.is_set() else self.asked).set()

    async def until_asked(self, loops: Iterable[asyncio.Task[Any]]) -> None:
        """Returns when somebody asks for a stop. A loop never ends by itself: one that does is a bug, told as one."""
        stop = asyncio.create_task(self.asked.wait())
        try:
            done, _ = await asyncio.wait([stop, *loops], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        if stop in done:
            return
        for task in done:
            if not task.cancelled():
                task.result()
        raise RuntimeError(f"{done.pop().get_name()} has ended")

    async def stage(self, work: asyncio.Task[Any], seconds: float) -> None:
        """Wait for the end of `work`, at most so long. What is left of the time is skipped when somebody asks again for
        a stop, or cancels this worker.
        """
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait([work, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.was_cancelled = True
        finally:
            hurry.cancel()
            self._hurry.clear()

    async def unless_asked(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What it returns; None if somebody asks for a stop before, which cancels it. Raises what it raises."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self.asked.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await self.stage(task, TO_WRITE)
