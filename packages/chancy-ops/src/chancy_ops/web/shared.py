"""What many viewers want to see, asked once for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

AT_MOST = 40
"""A look is repeated after so many times its own length at the earliest: so it takes a fortieth of one connection,
whoever watches."""
MOST_KEPT = 200


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any
    until: float


class Shared:
    """Answers by what was asked, kept for a while. Who asks for one that is on its way waits for it."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, _Answer] = {}
        self._late: dict[Hashable, BaseException] = {}
        self._asking: dict[Hashable, asyncio.Task[Any]] = {}

    async def get(self, what: Hashable, seconds: float, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` answers, now or at most so many seconds ago; longer ago if it takes long. Raises what it raises,
        to everybody who waits. Who stops waiting stops nobody else.
        """
        if (kept := self._kept(what)) is not None:
            value: T = kept.value
            return value
        key = (asyncio.get_running_loop(), what)
        if key not in self._asking:
            self._asking[key] = task = asyncio.create_task(self._ask(key, what, seconds, ask))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # who asked may have gone
        answer: T = await asyncio.shield(self._asking[key])
        return answer

    async def soon(self, what: Hashable, seconds: float, ask: Callable[[], Awaitable[T]], patience: float) -> T | None:
        """The same, or None where it takes longer than `patience` seconds: then it goes on, and whoever asks again has
        what came of it.
        """
        if what in self._late:
            raise self._late.pop(what)
        if (kept := self._kept(what)) is not None:
            value: T = kept.value
            return value
        answering = asyncio.ensure_future(self.get(what, seconds, ask))
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(answering)
        except TimeoutError:
            answering.add_done_callback(partial(self._keep_error, what))
            return None

    def _kept(self, what: Hashable) -> _Answer | None:
        found = self._answers.get(what)
        return found if found is not None and time.monotonic() < found.until else None

    def _keep_error(self, what: Hashable, answering: asyncio.Future[Any]) -> None:
        error = None if answering.cancelled() else answering.exception()
        if error is not None:
            self._late[what] = error

    async def _ask(self, key: Hashable, what: Hashable, seconds: float, ask: Callable[[], Awaitable[Any]]) -> Any:
        began = time.monotonic()
        try:
            value = await ask()
        finally:
            del self._asking[key]
        ended = time.monotonic()
        if len(self._answers) >= MOST_KEPT:
            self._answers.clear()
        self._answers[what] = _Answer(value, ended + max(seconds, AT_MOST * (ended - began)))
        return value
