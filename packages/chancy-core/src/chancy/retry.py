"""How long to wait before the next attempt: plain arithmetic, no clock and no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import msgspec


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential delays: `base * factor ** (attempt - 1)`, at most `maximum`, spread by `jitter`.

    `jitter` is a fraction: 0.25 moves each delay by up to a quarter either way, so that jobs which failed
    together do not come back together.
    """

    base: timedelta = timedelta(seconds=5)
    factor: float = 3.0
    maximum: timedelta = timedelta(hours=1)
    jitter: float = 0.25

    def __post_init__(self) -> None:
        if self.base < timedelta(0) or self.maximum < timedelta(0):
            raise ValueError("a backoff cannot be negative")
        if self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError("a backoff needs factor >= 1 and 0 <= jitter <= 1")

    def delay(self, attempt: int, spread: Callable[[float, float], float] = random.uniform) -> timedelta:
        """The delay after failed attempt number `attempt`, counted from 1."""
        # The exponent is capped because a float overflows long before a job has had that many attempts.
        growth = self.factor ** min(attempt - 1, 64)
        seconds = min(self.base.total_seconds() * growth, self.maximum.total_seconds())
        return timedelta(seconds=seconds * (1 + spread(-self.jitter, self.jitter)))


RetryFunction = Callable[[int, BaseException], timedelta | None]
"""Gets the attempt's number and its exception; returns the delay, or None for "give up"."""

DEFAULT_BACKOFF = Backoff()
