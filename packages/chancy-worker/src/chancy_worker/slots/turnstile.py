"""Who is in a slot of its queue, and the few that were claimed ahead and wait for one.

A worker asks for as many jobs more than it has slots as have ended during the last round: so many slots will have
emptied when the answer is there. What was claimed ahead and has not begun after 50 ms goes back, unharmed, for others.

Those of a queue begin in the order of their places. So whoever goes back takes along all that wait behind it; and where
there is one slot only, nobody passes one that has a slot to go to and, yet, no thread or child to run in.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Generic, Protocol, TypeAlias, TypeVar

AHEAD_SECONDS = 0.05
KEPT = 0.97


Rank: TypeAlias = tuple[int, datetime, int]
"""A place in the order of a queue, the first is the least: by priority from the top, run_at and id."""


class Visitor(Protocol):
    """What the turnstile has to know of an attempt."""

    inside: bool
    """It has a slot."""
    over: bool
    """Its verdict is given."""
    confined: bool
    """A slot is not enough: where it runs there has to be room, too."""

    @property
    def rank(self) -> Rank:
        """Its place in the order of its queue."""


V = TypeVar("V", bound=Visitor)


class Turnstile(Generic[V]):
    """`begin` is called of each that gets a slot, `too_long` of each that waited in vain. `fits` is asked of a confined
    one that could have a slot: it takes its room where it runs, or there is none.
    """

    def __init__(
        self,
        concurrency: Mapping[str, int],
        fits: Callable[[V], bool],
        begin: Callable[[V], None],
        too_long: Callable[[V], None],
    ) -> None:
        self._concurrency = concurrency
        self._fits = fits
        self._begin = begin
        self._too_long = too_long
        self._inside = dict.fromkeys(concurrency, 0)
        self._lines: dict[str, deque[tuple[Rank, float, V]]] = {queue: deque() for queue in concurrency}
        """Of each queue those that wait, in order: their place, since when, and the attempt."""
        self._confined: dict[str, None] = {}
        """Queues in which somebody waits though a slot is free."""
        self._emptied = dict.fromkeys(concurrency, 0)
        """How many slots, since `ahead` was asked last."""
        self._ahead: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def arrive(self, queue: str, attempt: V) -> None:
        """Give it a slot, now or within 50 ms."""
        line, has_slot = self._lines[queue], self._inside[queue] < self._concurrency[queue]
        if has_slot and not line and (not attempt.confined or self._fits(attempt)):
            self._enter(queue, attempt)
            return
        loop = asyncio.get_running_loop()
        self._stand(queue, attempt, loop.time())
        if has_slot:
            self._let_in(queue)
        if self._timer is None:
            self._timer = loop.call_later(AHEAD_SECONDS, self._sweep)

    def leave(self, queue: str, attempt: V) -> None:
        """It is over: the next one's turn."""
        if not attempt.inside:
            return
        self._inside[queue] -= 1
        self._emptied[queue] += 1
        if self._lines[queue]:
            self._let_in(queue)
        if attempt.confined and self._confined:
            self._try_the_confined()

    def send_back(self, queue: str, rank: Rank) -> None:
        """One with this place in the order goes back, and so do all that wait behind it."""
        line, going = self._lines[queue], deque[V]()
        while line and line[-1][0] >= rank:
            going.appendleft(line.pop()[2])
        for attempt in going:
            if not attempt.over:
                self._too_long(attempt)

    def ahead(self) -> Mapping[str, int]:
        """How many of each queue to claim ahead: as many as have ended since this was asked last, or a little less than
        then, whichever is more (jobs come in waves), and never more than there are slots.
        """
        emptied = {queue: n for queue, n in self._emptied.items() if n}
        self._emptied.update(dict.fromkeys(emptied, 0))
        self._ahead = {
            queue: n
            for queue in self._ahead.keys() | emptied.keys()
            if (n := min(max(emptied.get(queue, 0), int(self._ahead.get(queue, 0) * KEPT)), self._concurrency[queue]))
        }
        return self._ahead

    def _enter(self, queue: str, attempt: V) -> None:
        self._inside[queue] += 1
        attempt.inside = True
        self._begin(attempt)

    def _stand(self, queue: str, attempt: V, since: float) -> None:
        line, waiting = self._lines[queue], (attempt.rank, since, attempt)
        if line and line[-1][0] > waiting[0]:
            line.insert(bisect.bisect([rank for rank, _, _ in line], waiting[0]), waiting)
        else:
            line.append(waiting)

    def _let_in(self, queue: str) -> None:
        """Whoever waits, as far as there are slots."""
        line, slots = self._lines[queue], self._concurrency[queue]
        if self._confined:
            self._confined.pop(queue, None)
        while line and self._inside[queue] < slots:
            attempt = line[0][2]
            if attempt.over:
                line.popleft()
            elif not attempt.confined or self._fits(attempt):
                line.popleft()
                self._enter(queue, attempt)
            elif (index := self._next_that_fits(line, slots)) is not None:
                passing = line[index][2]
                del line[index]
                self._enter(queue, passing)
            else:
                self._confined[queue] = None
                return

    def _next_that_fits(self, line: deque[tuple[Rank, float, V]], slots: int) -> int | None:
        if slots > 1:
            for index, (_, _, attempt) in enumerate(line):
                if not attempt.over and (not attempt.confined or self._fits(attempt)):
                    return index
        return None

    def _try_the_confined(self) -> None:
        for queue in list(self._confined):
            self._let_in(queue)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        self._try_the_confined()
        since = loop.time() - AHEAD_SECONDS
        for queue, line in list(self._lines.items()):
            late = [rank for rank, came, attempt in line if came <= since and not attempt.over]
            if late:
                self.send_back(queue, late[0])
        if any(self._lines.values()):
            self._timer = loop.call_later(AHEAD_SECONDS / 2, self._sweep)
