"""Looks whether batches are over: at once when a job of one has ended here, and now and then at all of them.

A job may also end by a cancel, by a rescue, or with a worker that dies before it has looked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time

import psycopg

from chancy.batches.statements import Ends, finish_batches, finish_unfinished
from chancy_worker.config import Timing
from chancy_worker.connection.link import Link

log = logging.getLogger("chancy.worker")

PAUSE_SECONDS = 0.05
"""Between two looks: many jobs that end in it cost one."""


class Batches:
    """Which batches to look at, and the loop that does."""

    def __init__(self, link: Link, timing: Timing) -> None:
        self.link = link
        """Opened when there is something to look at."""
        self._timing = timing
        self._left: set[int] = set()
        self._told = asyncio.Event()
        self._look_at = math.inf
        """When to look at all; not while none is known to be unfinished."""

    def left(self, batch: int) -> None:
        """A job of this batch has ended here, or has gone back."""
        self._left.add(batch)
        self._told.set()

    def found(self) -> None:
        """There are unfinished batches."""
        if self._look_at == math.inf:
            self._look_at = 0.0
            self._told.set()

    async def serve(self) -> None:
        """Look for ever."""
        await self.link.forever(self._turn, self._told, first=math.inf)

    async def _turn(self) -> float:
        if self._left or self._look_at <= time.monotonic():
            await self.link.open()
            await self._look()
            await asyncio.sleep(PAUSE_SECONDS)
        return max(self._look_at - time.monotonic(), 0.0)

    async def _look(self) -> None:
        left, self._left = self._left, set()
        try:
            if left:
                _tell(await self.link.send(finish_batches(left)))
        except psycopg.Error:
            self._left |= left
            raise
        if time.monotonic() < self._look_at:
            return
        last, ends = await self.link.send(finish_unfinished(0))
        _tell(ends)
        self._look_at = math.inf if last is None else time.monotonic() + self._pause
        while last is not None:
            last, ends = await self.link.send(finish_unfinished(last))
            _tell(ends)

    @property
    def _pause(self) -> float:
        return self._timing.look * random.uniform(0.75, 1.25)


def _tell(ends: Ends) -> None:
    for trouble in ends.troubles:
        log.error("%s", " ".join(trouble.split()))
