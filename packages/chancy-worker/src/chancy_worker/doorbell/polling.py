"""Looking for work by the clock: what an idle worker does where it can neither hold the doorbell nor listen."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Iterable

from chancy_worker.connection.link import Link

from .wakeups import Rounds

FIRST_SECONDS, LONGEST_SECONDS = 0.05, 1.0


class Poll:
    """Wakes idle queues after pauses that double from 50 ms to 1 s, and start anew when there was work.

    Somebody's cancel of a running job arrives with the next heartbeat.
    """

    def __init__(self) -> None:
        self._rounds: Rounds
        self._pause = FIRST_SECONDS
        self._idle: set[str] = set()
        self._at = math.inf
        """When the idle queues are woken."""
        self._changed = asyncio.Event()

    def wakes(self, rounds: Rounds) -> None:
        """See `Wakeups`, here and below."""
        self._rounds = rounds

    def idle(self, queues: Iterable[str]) -> None:
        """A look has found nothing there: look again in a while."""
        self._idle.update(queues)
        self._not_after(self._pause * random.uniform(0.75, 1.0))

    def busy(self, queues: Iterable[str]) -> None:
        """There was work, so more may come soon, and to the idle queues, too."""
        self._idle.difference_update(queues)
        self._pause = FIRST_SECONDS
        if self._idle:
            self._not_after(FIRST_SECONDS)
        else:
            self._at = math.inf

    def offers(self, without: frozenset[str]) -> None:
        """Nobody leaves anything to this worker."""

    def leaves_it_to_others(self, queue: str) -> bool:
        """Each worker looks for itself."""
        return False

    def stop(self) -> None:
        """Nobody has left anything to this worker."""

    async def attend(self) -> None:
        """Nothing can be heard."""

    async def serve(self) -> None:
        """Wake whatever is idle, for ever."""
        while True:
            self._changed.clear()
            if (pause := self._at - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if pause == math.inf else pause):
                        await self._changed.wait()
                continue
            idle, self._idle, self._at = self._idle, set(), math.inf
            self._pause = min(2 * self._pause, LONGEST_SECONDS)
            self._rounds.wake(idle)

    def _not_after(self, seconds: float) -> None:
        if (at := time.monotonic() + seconds) < self._at:
            self._at = at
            self._changed.set()

    async def test(self, link: Link) -> None:
        """Nothing is to be heard."""

    @property
    def problem(self) -> str | None:
        """It looks for itself."""
        return None
