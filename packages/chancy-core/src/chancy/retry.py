"""How long to wait before the next attempt: plain arithmetic, no clock and no I/O."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable
from datetime import timedelta
from numbers import Real
from typing import TYPE_CHECKING, TypeAlias

import msgspec

Delay: TypeAlias = timedelta | float
"""A number is seconds."""


def delay_of(given: object) -> timedelta:
    """What somebody has given as a delay: a timedelta, or a number of seconds. One that no timedelta can say, infinity
    too, is the longest or the shortest that it can. Raises `TypeError` for anything else, `ValueError` for NaN.
    """
    if isinstance(given, timedelta):
        return timedelta(given.days, given.seconds, given.microseconds)  # pandas has a kind of its own
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(f"expected a timedelta or a number of seconds, got {given!r}")
    try:
        return timedelta(seconds=float(given))
    except OverflowError:
        return timedelta.max if given == abs(given) else timedelta.min


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential delays: `base * factor ** (attempt - 1)`, at most `maximum`, spread by `jitter`.

    `base` and `maximum` are timedeltas or seconds. `jitter` is a fraction: 0.25 moves each delay by up to a quarter
    either way, so that jobs which failed together do not come back together.
    """

    base: timedelta = timedelta(seconds=5)
    factor: float = 3.0
    maximum: timedelta = timedelta(hours=1)
    jitter: float = 0.25

    if TYPE_CHECKING:

        def __init__(
            self, *, base: Delay = ..., factor: float = ..., maximum: Delay = ..., jitter: float = ...
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("base", "maximum"):
            msgspec.structs.force_setattr(self, name, delay_of(getattr(self, name)))
        if self.base < timedelta(0) or self.maximum < timedelta(0):
            raise ValueError("a backoff cannot be negative")
        if not (1 <= self.factor < math.inf and 0 <= self.jitter <= 1):
            raise ValueError("a backoff needs a finite factor >= 1 and 0 <= jitter <= 1")

    def delay(self, attempt: int, spread: Callable[[float, float], float] = random.uniform) -> timedelta:
        """The delay after failed attempt number `attempt`, counted from 1."""
        if not self.base:
            return self.base
        try:
            # The exponent is capped because a float overflows long before a job has had that many attempts.
            growth = float(self.factor) ** min(attempt - 1, 64)
        except OverflowError:
            growth = math.inf
        seconds = min(self.base.total_seconds() * growth, self.maximum.total_seconds())
        return delay_of(seconds * (1 + spread(-self.jitter, self.jitter)))


RetryFunction: TypeAlias = Callable[[int, BaseException], Delay | None]
"""Gets the attempt's number and its exception; returns the delay, or None for "give up"."""

DEFAULT_BACKOFF = Backoff()


def problem_of(function: object) -> str | None:
    """Why this cannot be a retry function, if so, with the right spelling where that can be guessed."""
    expected = "expected a Backoff, or a function of attempt and exception"
    if isinstance(function, bool):
        return f"{expected}, got {function}: max_attempts=1 is how to say that there is one attempt only"
    if isinstance(function, (int, float)):
        return (
            f"{expected}, got {function}: how often is max_attempts={function}, how long after is "
            f"Backoff(base={function}, factor=1)"
        )
    if isinstance(function, timedelta):
        return f"{expected}, got {function!r}: always after the same delay is Backoff(base={function!r}, factor=1)"
    if isinstance(function, type) or not callable(function):
        return f"{expected}, got {function!r}"
    if inspect.iscoroutinefunction(function):
        return f"{expected} that is no coroutine: it is called where nothing can be awaited"
    try:
        inspect.signature(function).bind(1, Exception())
    except TypeError:
        return f"{expected}: {function!r} does not take these two"
    except ValueError:  # one of C, which says nothing about itself
        return None
    return None
