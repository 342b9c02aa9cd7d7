"""What the second in line does with what it hears: should the first be dead to the world, it looks in its place. So
does who leaves a job to the one behind.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable

LATE_SECONDS = 0.25
"""How long the second in line leaves a job to the first."""
DOUBTS, MOST_DOUBTS = 2, 4
"""A look of the second that finds what the first should have taken is one more, and one that finds nothing is one less.
With so many it looks at once when it hears of work."""


class Second:
    """The looks of a second in line, and its doubts in the first. `wake` looks at queues."""

    def __init__(self, wake: Callable[[Collection[str]], None]) -> None:
        self._wake = wake
        self.late: set[str] = set()
        """The queues that it looks at a moment later."""
        self._timer: asyncio.TimerHandle | None = None
        self._doubts = 0
        self._has_found = False
        """Whether there was anything to claim since its last look."""

    def begins(self, queues: Iterable[str]) -> None:
        """It has become the second, and is idle in these queues: of another first, of whom it knows no harm."""
        self._doubts = 0
        self.look_late(queues)

    def heard(self, queues: Collection[str]) -> None:
        """Somebody has rung there."""
        if self._doubts < DOUBTS:
            self.look_late(queues)
        else:
            self.look_now(queues)

    def listens(self, queues: Iterable[str]) -> None:
        """It is idle in these queues, and listens from now on. If it came to its place because the one before it has
        work, there may be more: so a burst wakes workers two by two.
        """
        self.late.update(queues)
        if self.late:
            self.look_now()

    def found(self) -> None:
        """There was something to claim."""
        self._has_found = True

    def look_late(self, queues: Iterable[str]) -> None:
        """In a moment."""
        self.late.update(queues)
        if self.late and self._timer is None:
            pause = LATE_SECONDS * random.uniform(0.75, 1.25)
            self._timer = asyncio.get_running_loop().call_later(pause, self.look_now)

    def look_now(self, queues: Iterable[str] = ()) -> None:
        """At these, and at all that waits for a look."""
        self.late.update(queues)
        if self._timer is not None:
            self._timer.cancel()
        self._doubts = min(self._doubts + 1, MOST_DOUBTS) if self._has_found else max(self._doubts - 1, 0)
        self._has_found = False
        late, self.late, self._timer = self.late, set(), None
        self._wake(late)
