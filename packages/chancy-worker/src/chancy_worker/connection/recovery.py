"""When one that has failed may try again, and what the log says of it: the one mechanism of all loops of a worker."""

from __future__ import annotations

import logging
import math
import random
import time
from enum import Enum

from .outage import SAID_SECONDS, Outage, say

FIRST_SECONDS, LONGEST_SECONDS = 0.05, 5.0
"""Between the begins of two attempts."""


class Trouble(Enum):
    """What an error is a sign of."""

    IDLE = "the connection was lost while nothing was asked of it"
    LOST = "the connection was lost"
    REFUSED = "the database has answered that this cannot be done"


class Recovery:
    """Attempts are as far apart as the pause. That doubles with each failure, and starts anew when one was of use.

    To have connected is of no use yet: a server that takes no writes lets everybody in. Who has worked for long may
    try again at once.
    """

    def __init__(self, purpose: str, outage: Outage | None = None) -> None:
        """`outage` speaks for all connections of a worker."""
        self._purpose = purpose
        self.outage = outage or Outage()
        self._pause = FIRST_SECONDS
        self._tried_at = -math.inf
        self._since: float | None = None
        self._said_at = -math.inf
        self._complained = False

    @property
    def lasts(self) -> float:
        """Seconds since the first of the failures that nothing of use has followed; 0 if there are none."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def failed(self, trouble: Trouble, why: str, since: float | None = None) -> float:
        """Tell it, at most once a minute. Seconds until the next attempt, which begins then.

        `since` is when the attempt began, if that was not now.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now if since is None else since
        wait = max(0.0, self._tried_at + self._pause * random.uniform(0.75, 1.25) - now)
        self._tried_at = now + wait
        self._pause = min(2 * self._pause, LONGEST_SECONDS)
        if trouble is not Trouble.REFUSED:
            self.outage.goes_on(self._purpose, why, self._since, is_idle=trouble is Trouble.IDLE)
        elif now - self._said_at >= SAID_SECONDS:
            self._said_at, self._complained = now, True
            say(logging.ERROR, f"{self._purpose}: {why}; trying again")
        return wait

    def over(self) -> None:
        """The last attempt was of use."""
        if self._since is None:
            return
        complained, lasted = self._complained, self.lasts
        self._pause, self._since, self._complained = FIRST_SECONDS, None, False
        self.outage.over(self._purpose)
        if complained:
            say(logging.WARNING, f"{self._purpose}: works again, after {lasted:.1f} s")
