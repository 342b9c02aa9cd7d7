"""Where a task's function runs inside the worker's own process: on the event loop, or in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from .attempt import Attempt, as_it_is, call, call_async
from .surround import Surround
from .verdict import Completion, released

log = logging.getLogger("chancy.worker")

PAUSE_SECONDS = 5.0
"""After no thread could be started, until the next attempt."""


def _on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
        loop.call_soon_threadsafe(callback)


class Loop:
    """`async def` on the worker's own event loop. One that is cancelled may catch that, and go on."""

    size: int | None = None
    problem: str | None = None

    def __init__(self, surround: Surround | None = None) -> None:
        self._surround = surround

    def run(self, attempt: Attempt) -> Coroutine[Any, Any, Completion]:
        """Await the function."""
        attempt.began()
        return call_async(attempt.job, attempt.task, attempt.since, as_it_is, self._surround)

    async def close(self) -> None:
        """Nothing of its own is left."""


class _Order:
    """What a thread is to do. The pool keeps what it was given also where it says that it could start no thread."""

    def __init__(self, work: Callable[[], Completion]) -> None:
        self._work = work
        self.is_withdrawn = False

    def __call__(self) -> Completion:
        if self.is_withdrawn:
            raise asyncio.CancelledError
        return self._work()


class Threads:
    """`def` in a thread. A thread cannot be stopped: one that is cancelled goes on until its function returns."""

    def __init__(self, most: int, surround: Surround | None = None) -> None:
        self._most = most
        self._surround = surround
        self.problem: str | None = None
        """Why no thread can be started now."""
        self._busy = 0
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="chancy")
        self.stranded = 0
        """Threads that are inside a function whose attempt was given up."""

    @property
    def size(self) -> int:
        """The threads that can be had."""
        return self._busy if self.problem is not None else self._most - self.stranded

    async def run(self, attempt: Attempt) -> Completion:
        """Run the function in a thread that sees the attempt's context variables."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        attempt.began()
        work = functools.partial(call, attempt.job, attempt.task, attempt.since, as_it_is, self._surround)
        order = _Order(functools.partial(context.run, work))
        try:
            future = self._pool.submit(order)
        except RuntimeError as error:
            order.is_withdrawn = True
            return released(attempt.job, self._cannot_start(error), timedelta(seconds=PAUSE_SECONDS))
        self._busy += 1
        future.add_done_callback(lambda _: _on(loop, self._done))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancelled():
                self.stranded += 1
                future.add_done_callback(lambda _: _on(loop, self._came_back))
            raise

    def _cannot_start(self, error: RuntimeError) -> str:
        if self.problem is None:
            self.problem = f"no thread can be started: {error}"
            log.error("%s; until that is mended, jobs that need one go back unharmed", self.problem)
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._try_again)
        return self.problem

    def _try_again(self) -> None:
        self.problem = None

    def _done(self) -> None:
        self._busy -= 1

    def _came_back(self) -> None:
        self.stranded -= 1

    async def close(self) -> None:
        """Take no more, and wait for nobody."""
        self._pool.shutdown(wait=False, cancel_futures=True)
