"""Where a task's function runs inside the worker's own process: on the event loop, or in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .attempt import Attempt, call, call_async
from .verdict import Completion


def _on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
        loop.call_soon_threadsafe(callback)


class Loop:
    """`async def` on the worker's own event loop. One that is cancelled may catch that, and go on."""

    size: int | None = None
    problem: str | None = None

    def run(self, attempt: Attempt) -> Coroutine[Any, Any, Completion]:
        """Await the function."""
        attempt.began()
        return call_async(attempt.job, attempt.task, attempt.since)

    async def close(self) -> None:
        """Nothing of its own is left."""


class Threads:
    """`def` in a thread. A thread cannot be stopped: one that is cancelled goes on until its function returns."""

    problem: str | None = None

    def __init__(self, most: int) -> None:
        self._most = most
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="chancy")
        self.stranded = 0
        """Threads that are inside a function whose attempt was given up."""

    @property
    def size(self) -> int:
        """The threads that can be had."""
        return self._most - self.stranded

    async def run(self, attempt: Attempt) -> Completion:
        """Run the function in a thread that sees the attempt's context variables."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        attempt.began()
        future = self._pool.submit(context.run, call, attempt.job, attempt.task, attempt.since)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancelled():
                self.stranded += 1
                future.add_done_callback(lambda _: _on(loop, self._came_back))
            raise

    def _came_back(self) -> None:
        self.stranded -= 1

    async def close(self) -> None:
        """Take no more, and wait for nobody."""
        self._pool.shutdown(wait=False, cancel_futures=True)
