"""Looking for work by the clock: what an idle worker does where it can neither hold the doorbell nor listen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from .link import Link

FIRST_SECONDS, LONGEST_SECONDS = 0.05, 1.0


class Poll:
    """Wakes an idle worker after pauses that double from 50 ms to 1 s, and start anew when there was work.

    Has the interface of `wakeups.Doorbell`. Somebody's cancel of a running job arrives with the next heartbeat.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._pause = FIRST_SECONDS
        self._idle = asyncio.Event()
        self._worked = asyncio.Event()

    def idle(self) -> None:
        """A look has found nothing: look again in a while."""
        self._worked.clear()
        self._idle.set()

    def busy(self) -> None:
        """There was work, so more may come soon."""
        self._pause = FIRST_SECONDS
        self._idle.clear()
        self._worked.set()

    async def serve(self) -> None:
        """Wake whoever is idle, for ever."""
        while True:
            await self._idle.wait()
            try:
                async with asyncio.timeout(self._pause * random.uniform(0.75, 1.0)):
                    await self._worked.wait()
            except TimeoutError:
                self._pause = min(2 * self._pause, LONGEST_SECONDS)
                self._idle.clear()
                self._wake()

    def hear_on(self, link: Link) -> None:
        """Nothing can be heard."""

    async def close(self) -> None:
        """There is no connection of its own."""
