"""How fast jobs come of late: above some pace it is cheaper for all to look every 4 ms than to be rung up for each.

(The idea is that of Linux' NAPI: a network card that is busy is polled, and interrupts nobody.) While a worker polls,
it does not hold the doorbell's key, so a submit finds nobody to notify, and commits need not queue for that.
"""

from __future__ import annotations

import math
import time

MEMORY_SECONDS = 0.05
BRISK_JOBS = 64
"""So many within the memory, which is 1,280 a second. At half of that each job still is rung up, and starts at once."""
REST_SECONDS = 0.004
"""What a verdict may have to wait for the next round."""


class Pace:
    """The jobs of the last moments; older ones count for less and less."""

    def __init__(self) -> None:
        self._jobs = 0.0
        self._at = 0.0

    def came(self, jobs: int) -> None:
        """So many have been claimed just now."""
        now = time.monotonic()
        self._jobs, self._at = self._left(now) + jobs, now

    @property
    def is_brisk(self) -> bool:
        """Whether the next job is to be expected at once."""
        return self._left(time.monotonic()) >= BRISK_JOBS

    def _left(self, now: float) -> float:
        return self._jobs * math.exp((self._at - now) / MEMORY_SECONDS)
