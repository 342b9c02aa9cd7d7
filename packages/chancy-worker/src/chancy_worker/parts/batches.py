"""Looks whether batches are over: at once when a job of one has ended here, and now and then at all of them.

A job may also end by a cancel, by a rescue, or with a worker that dies before it has looked.
"""

from __future__ import annotations

import logging
import math
import random
import time

import psycopg

from chancy.batches.statements import Ends, finish_batches, finish_unfinished
from chancy_worker.config import Timing
from chancy_worker.connection.link import Link
from chancy_worker.connection.turns import NextTurn
from chancy_worker.life.lease import Extension

from .part import Part

log = logging.getLogger("chancy.worker")

PAUSE_SECONDS = 0.05
"""Between two looks: many jobs that end in it cost one."""


class Batches(Part):
    """Which batches to look at, and the look."""

    def __init__(self, timing: Timing) -> None:
        self.due = NextTurn("batches", math.inf)
        self._timing = timing
        self._left: set[int] = set()
        self._looked_at = -math.inf
        self._look_at = math.inf
        """When to look at all; not while none is known to be unfinished."""
        self._after = 0
        """Those up to this one have been looked at then."""

    def left(self, batch: int) -> None:
        """A job of this batch has ended here, or has gone back."""
        self._left.add(batch)
        self.due.now()

    def heard(self, news: Extension) -> None:
        """Whether there are unfinished batches."""
        if news.batches and self._look_at == math.inf:
            self._look_at = 0.0
            self.due.now()

    async def turn(self, link: Link) -> float:
        """Look at those that jobs have left, and, when it is time for that, at the next 500 of all."""
        now = time.monotonic()
        if (early := self._looked_at + PAUSE_SECONDS - now) > 0:
            return early
        if self._left or self._look_at <= now:
            await link.open()
            await self._look(link)
            self._looked_at = time.monotonic()
        return max(self._look_at - time.monotonic(), 0.0)

    async def _look(self, link: Link) -> None:
        left, self._left = self._left, set()
        try:
            if left:
                _tell(await link.send(finish_batches(left)))
        except psycopg.Error:
            self._left |= left
            raise
        if time.monotonic() < self._look_at:
            return
        last, ends = await link.send(finish_unfinished(self._after))
        _tell(ends)
        if last is None:
            rest = self._timing.look * random.uniform(0.75, 1.25) if self._after else math.inf
            self._look_at = time.monotonic() + rest
        self._after = last or 0


def _tell(ends: Ends) -> None:
    for trouble in ends.troubles:
        log.error("%s", " ".join(trouble.split()))
