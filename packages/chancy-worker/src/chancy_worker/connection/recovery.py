"""When one that has failed may try again, and what the log says of it: the one mechanism of all loops of a worker."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time

log = logging.getLogger("chancy.worker")

FIRST_SECONDS, LONGEST_SECONDS = 0.05, 5.0
"""Between the begins of two attempts."""
SAID_SECONDS = 60.0
"""Trouble that goes on, or comes again and again, is told so often."""


class Recovery:
    """Attempts are as far apart as the pause. That doubles with each failure, and starts anew when one was of use.

    To have connected is of no use yet: a server that takes no writes lets everybody in. Who has worked for long may
    try again at once.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        self._pause = FIRST_SECONDS
        self._tried_at = -math.inf
        self._since: float | None = None
        self._said_at: dict[int, float] = {}
        self._complained = False

    @property
    def lasts(self) -> float:
        """Seconds since the first of the failures that nothing of use has followed; 0 if there are none."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def failed(self, level: int, text: str, since: float | None = None) -> float:
        """Tell it, at most once a minute a level. Seconds until the next attempt, which begins then.

        `since` is when the attempt began, if that was not now.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now if since is None else since
        wait = max(0.0, self._tried_at + self._pause * random.uniform(0.75, 1.25) - now)
        self._tried_at = now + wait
        self._pause = min(2 * self._pause, LONGEST_SECONDS)
        if now - self._said_at.get(level, -math.inf) >= SAID_SECONDS:
            self._said_at[level] = now
            self._complained |= level >= logging.WARNING
            self._say(level, text)
        return wait

    def over(self) -> None:
        """The last attempt was of use."""
        if self._since is None:
            return
        complained, lasted = self._complained, self.lasts
        self._pause, self._since, self._complained = FIRST_SECONDS, None, False
        if complained:
            self._say(logging.WARNING, f"works again, after {lasted:.1f} s")

    def _say(self, level: int, text: str) -> None:
        with contextlib.suppress(Exception):  # what a handler of the log raises is no reason to give up
            log.log(level, "%s: %s", self._purpose, text)
