"""Where a task's function runs: on the event loop, or in a thread."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from chancy.limits import LimitType
from chancy.task import AsyncTask, BaseTask


class Executor(Protocol):
    """Room for running functions."""

    enforces: frozenset[LimitType]
    """A task that asks for another limit is refused when the worker starts."""

    async def run(self, task: BaseTask[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function and return what it returned, or raise what it raised."""


class Loop:
    """`async def` on the worker's own event loop."""

    enforces: frozenset[LimitType] = frozenset()

    async def run(self, task: BaseTask[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Await the function."""
        return await task.function(*args, **kwargs)


class Threads:
    """`def` in a thread. A thread cannot be stopped: one that is cancelled goes on until its function returns."""

    enforces: frozenset[LimitType] = frozenset()

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="chancy")
        self.running = 0
        """Threads that are inside a function, also of an attempt that was given up."""

    async def run(self, task: BaseTask[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the function in a thread that sees the attempt's context variables."""
        context = contextvars.copy_context()
        self.running += 1
        future = self._pool.submit(context.run, lambda: task.function(*args, **kwargs))
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._left))
        return await asyncio.wrap_future(future)

    def _left(self) -> None:
        self.running -= 1

    def close(self) -> None:
        """Take no more, and wait for nobody."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def executor_of(task: BaseTask[..., Any], loop: Loop, threads: Threads) -> Executor:
    """Where this task's function runs."""
    return loop if isinstance(task, AsyncTask) else threads
