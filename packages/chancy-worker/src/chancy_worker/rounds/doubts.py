"""When a claim goes one by one, and when none is made for a while: after claims that failed."""

from __future__ import annotations

import time

_LONGEST_PAUSE = 30.0
"""Seconds, up to which pauses grow. Verdicts go on meanwhile."""


class Doubts:
    """What the last claims have left. Instants are of `time.monotonic`."""

    def __init__(self) -> None:
        self.any = False
        """The last claim failed, or its answer could not be read: the next goes one by one."""
        self._fruitless = 0
        """Claims in a row."""
        self.rest_until = 0.0

    def bore_fruit(self) -> None:
        """A claim has brought something."""
        self._fruitless = 0

    def rest(self) -> None:
        """Claim nothing for a while, longer each time until a claim bears fruit."""
        self._fruitless += 1
        self.rest_until = time.monotonic() + min(0.25 * 2**self._fruitless, _LONGEST_PAUSE)
