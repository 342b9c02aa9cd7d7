"""Threads of the worker's own. The event loop's default executor belongs to handlers, who may have filled it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_own_thread(function: Callable[..., T], *arguments: object) -> T:
    """Call it in a thread made for that, and await what it returns or raises. `RuntimeError`: no thread is to be had.

    Cancelling leaves the thread to itself, and so does the end of the process, which waits for nobody.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name=f"chancy {getattr(function, '__name__', 'call')}", daemon=True).start()
    return await asyncio.wrap_future(outcome)
