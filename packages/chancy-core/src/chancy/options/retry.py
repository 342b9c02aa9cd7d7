"""How long to wait before the next attempt: plain arithmetic, no clock and no I/O."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable
from datetime import timedelta
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec

from chancy.errors import InvalidOption

from .plain import Duration, amount, duration, shown
from .spelling import Spelled

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


class Backoff(msgspec.Struct, frozen=True, kw_only=True, metaclass=Spelled):
    """Exponential delays: `base * factor ** (attempt - 1)`, at most `maximum`, spread by `jitter`.

    `jitter` is a fraction: 0.25 moves each delay by up to a quarter either way, so that jobs which failed
    together do not come back together. `base` and `maximum` may be given in seconds.
    """

    base: timedelta = timedelta(seconds=5)
    factor: float = 3.0
    maximum: timedelta = timedelta(hours=1)
    jitter: float = 0.25

    SPELLING: ClassVar[str] = (
        "its parts by name, as in Backoff(base=5, factor=3, maximum=3600, jitter=0.25): the first delay and the "
        "longest in seconds, or as a timedelta; how often is max_attempts="
    )

    if TYPE_CHECKING:

        def __init__(
            self, *, base: Duration = ..., factor: float = ..., maximum: Duration = ..., jitter: float = ...
        ) -> None: ...

    def __post_init__(self) -> None:
        base, maximum = (duration(name, getattr(self, name), timedelta(0)) for name in ("base", "maximum"))
        factor, jitter = _ratio("factor", self.factor, 1, 1_000_000), _ratio("jitter", self.jitter, 0, 1)
        for name, value in (("base", base), ("maximum", maximum), ("factor", factor), ("jitter", jitter)):
            msgspec.structs.force_setattr(self, name, value)

    def delay(self, attempt: int, spread: Callable[[float, float], float] = random.uniform) -> timedelta:
        """The delay after failed attempt number `attempt`, counted from 1."""
        if not self.base:
            return self.base
        try:
            # The exponent is capped because a float overflows long before a job has had that many attempts.
            growth = self.factor ** min(attempt - 1, 64)
        except OverflowError:
            growth = math.inf
        seconds = min(self.base.total_seconds() * growth, self.maximum.total_seconds())
        return delay_of(seconds * (1 + spread(-self.jitter, self.jitter)))


def _ratio(name: str, value: object, least: float, most: float) -> float:
    plain = amount(name, value)
    if not least <= plain <= most:
        raise InvalidOption(name, f"expected {least:g} to {most:g}, got {shown(value)}")
    return float(plain)


RetryFunction: TypeAlias = Callable[[int, BaseException], Delay | None]
"""Gets the attempt's number and its exception; returns the delay, or None for "give up"."""

DEFAULT_BACKOFF = Backoff()

_THE_RIGHT_WAY = (
    "give Backoff(base=5, factor=3), or a function of the attempt's number and its exception that returns a delay, or "
    "None to give up; how often is max_attempts="
)


def checked_retry(retry: object) -> Backoff | RetryFunction | None:
    """The same, if it can say how long to wait. Raises `InvalidOption` with the right spelling."""
    if retry is None or isinstance(retry, Backoff):
        return retry
    if callable(retry) and not isinstance(retry, type) and not inspect.iscoroutinefunction(retry) and _takes_two(retry):
        return retry
    raise InvalidOption("retry", f"{_THE_RIGHT_WAY}, got {shown(retry)}")


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(1, None)
    except TypeError:
        return False
    except ValueError:  # written in C, and silent about it
        return True
    return True
