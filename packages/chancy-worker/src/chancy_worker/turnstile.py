"""Who is in a slot of its queue, and the few that were claimed ahead and wait for one.

A worker asks for as many jobs more than it has slots as have ended during the last round: so many slots will have
emptied when the answer is there. What was claimed ahead and has not begun after 50 ms goes back, unharmed, for others.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

AHEAD_SECONDS = 0.05
KEPT = 0.97


class Visitor(Protocol):
    """What the turnstile has to know of an attempt."""

    inside: bool
    """It has a slot."""
    over: bool
    """Its verdict is given."""


V = TypeVar("V", bound=Visitor)


class Turnstile(Generic[V]):
    """`begin` is called of each that gets a slot, `too_long` of each that waited in vain."""

    def __init__(
        self, concurrency: Mapping[str, int], begin: Callable[[V], None], too_long: Callable[[V], None]
    ) -> None:
        self._concurrency = concurrency
        self._begin = begin
        self._too_long = too_long
        self._inside: Counter[str] = Counter()
        self._waiting: defaultdict[str, deque[tuple[float, V]]] = defaultdict(deque)
        self._emptied: Counter[str] = Counter()
        self._ahead: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def arrive(self, queue: str, attempt: V) -> None:
        """Give it a slot, now or within 50 ms."""
        if self._inside[queue] < self._concurrency[queue]:
            self._enter(queue, attempt)
            return
        loop = asyncio.get_running_loop()
        self._waiting[queue].append((loop.time(), attempt))
        if self._timer is None:
            self._timer = loop.call_later(AHEAD_SECONDS, self._sweep)

    def leave(self, queue: str, attempt: V) -> None:
        """It is over: the next one's turn."""
        if not attempt.inside:
            return
        self._inside[queue] -= 1
        self._emptied[queue] += 1
        if waiting := self._waiting[queue]:
            while waiting:
                _, following = waiting.popleft()
                if not following.over:
                    self._enter(queue, following)
                    break

    def ahead(self) -> Mapping[str, int]:
        """How many of each queue to claim ahead: as many as have ended since this was asked last, or a little less than
        then, whichever is more (jobs come in waves), and never more than there are slots.
        """
        for queue, slots in self._concurrency.items():
            self._ahead[queue] = min(max(self._emptied[queue], int(self._ahead[queue] * KEPT)), slots)
        self._emptied.clear()
        return self._ahead

    def _enter(self, queue: str, attempt: V) -> None:
        self._inside[queue] += 1
        attempt.inside = True
        self._begin(attempt)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for waiting in self._waiting.values():
            while waiting and (waiting[0][1].over or waiting[0][0] <= loop.time() - AHEAD_SECONDS):
                _, attempt = waiting.popleft()
                if not attempt.over:
                    self._too_long(attempt)
        if any(self._waiting.values()):
            self._timer = loop.call_later(AHEAD_SECONDS / 2, self._sweep)
