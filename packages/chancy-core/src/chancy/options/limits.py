"""What a job may use, and so where it has to run, and what all jobs together may. A limit that cannot be enforced is
refused, never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import msgspec

from chancy.errors import InvalidOption

from .plain import LONGEST_DELAY, Duration, duration, number, one_of, several, shown, text, word
from .spelling import Spelled

SHORTEST, LONGEST_WINDOW = timedelta(milliseconds=1), timedelta(days=366)
LARGEST_MEMORY = 2**63 - 1


class LimitType(StrEnum):
    """What is limited."""

    TIME = "time"
    MEMORY = "memory"


_Types: TypeAlias = type[LimitType]  # inside `Limit`, `type` is a field


KeyFunction: TypeAlias = Callable[..., object]
"""Takes some of the task's arguments, by their names: `lambda customer_id: customer_id`."""


class SharedLimit(msgspec.Struct, frozen=True):
    """What jobs may do together, over all workers: so many run at a time, or begin in any window of time."""

    most: int
    """How many."""
    per: timedelta | None
    """The window of a rate, from a millisecond to a day or more; None is a limit of concurrency."""
    key: KeyFunction | str | None
    """What shares the limit: all jobs of the task, those with the same key, or all that name this text."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "most", number("most", self.most, 1, 100_000))
        if self.per is not None:
            msgspec.structs.force_setattr(self, "per", duration("per", self.per, SHORTEST, LONGEST_WINDOW))
        msgspec.structs.force_setattr(self, "key", checked_key("key", self.key))


def checked_key(option: str, key: object) -> Any:
    """What jobs share something by: a function of their arguments, a text, or None for all of them."""
    if isinstance(key, str):
        if plain := text(option, key):
            return plain
        raise InvalidOption(option, "expected a text that is not empty")
    if not (key is None or callable(key)):
        raise InvalidOption(option, f"expected a function of the task's arguments, or a text, got {shown(key)}")
    return key


class Limit(msgspec.Struct, frozen=True, metaclass=Spelled):
    """One limit of a job: seconds of wall time, or bytes of memory."""

    type: LimitType
    value: float

    Type: ClassVar[_Types] = LimitType
    SPELLING: ClassVar[str] = (
        "what it limits: Limit.time(60) in seconds, Limit.memory(1024**3) in bytes, Limit.concurrency(5) or "
        "Limit.rate(10, per=60)"
    )

    def __post_init__(self) -> None:
        type_ = one_of("type", self.type, LimitType)
        plain = _time(self.value) if type_ is LimitType.TIME else _memory(self.value)
        if type_ is not self.type or type(plain) is not type(self.value):
            msgspec.structs.force_setattr(self, "type", type_)
            msgspec.structs.force_setattr(self, "value", plain)

    @staticmethod
    def time(limit: Duration) -> Limit:
        """Wall time of one attempt, in seconds or as a `timedelta`."""
        return Limit(LimitType.TIME, _time(limit))

    @staticmethod
    def memory(limit: int) -> Limit:
        """Memory of one attempt, in bytes."""
        return Limit(LimitType.MEMORY, limit)

    @staticmethod
    def concurrency(most: int, *, key: KeyFunction | str | None = None) -> SharedLimit:
        """At most so many jobs of the task run at a time, over all workers; with a `key` function, so many of each key.

        `key=lambda customer_id: customer_id` takes arguments of the task by their names. A text names a limit that all
        tasks share which name it. Those above the limit wait, and keep nobody else waiting.
        """
        return SharedLimit(most, None, key)

    @staticmethod
    def rate(most: int, *, per: Duration, key: KeyFunction | str | None = None) -> SharedLimit:
        """At most so many attempts are claimed in any window of `per`, over all workers; `key` as for `concurrency`.

        `per` is a `timedelta`, or seconds.
        """
        return SharedLimit(most, duration("per", per, SHORTEST, LONGEST_WINDOW), key)


def _time(value: object) -> float:
    if type(value) in (int, float) and 0 < value <= _LONGEST_SECONDS:  # type: ignore[operator]
        return value  # type: ignore[return-value]
    return duration("time limit", value, timedelta(microseconds=1)).total_seconds()


def _memory(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return number("memory limit", value, 1, LARGEST_MEMORY, why=" bytes")


_LONGEST_SECONDS = LONGEST_DELAY.total_seconds()


def divided(limits: Iterable[Limit | SharedLimit]) -> tuple[tuple[Limit, ...], tuple[SharedLimit, ...]]:
    """Those of one attempt, and those over all workers. Raises `InvalidOption` for what is no limit."""
    own: list[Limit] = []
    shared: list[SharedLimit] = []
    for limit in several("limits", limits, "Limit"):
        if isinstance(limit, SharedLimit):
            shared.append(limit)
        elif isinstance(limit, Limit):
            own.append(limit)
        else:
            raise InvalidOption("limits", f"expected a list of Limit, got {shown(limit)} in it")
    return tuple(own), tuple(shared)


def tightest(limits: Iterable[Limit]) -> dict[str, float]:
    """The smallest of each type: seconds of `time`, bytes of `memory`."""
    found: dict[str, float] = {}
    for limit in limits:
        found[limit.type] = min(limit.value, found.get(limit.type, math.inf))
    return found


class Place(StrEnum):
    """Where a function runs."""

    LOOP = "loop"
    THREAD = "thread"
    PROCESS = "process"


ENFORCED: dict[Place, frozenset[LimitType]] = {
    Place.LOOP: frozenset({LimitType.TIME}),
    Place.THREAD: frozenset(),
    Place.PROCESS: frozenset(LimitType),
}
"""What can be enforced where: a coroutine can be cancelled, a thread can not be stopped, a process can be killed."""

PlaceWish: TypeAlias = Literal["thread", "process"]


def wish_of(value: object) -> PlaceWish | None:
    """Where a function is wanted to run, if anywhere. Raises `InvalidOption`."""
    if value is None:
        return None
    wish: PlaceWish = word("executor", value, get_args(PlaceWish))
    return wish


def place_of(asynchronous: bool, wish: PlaceWish | None, limits: Iterable[Limit]) -> Place:
    """Where a function with these limits runs: where `wish` says, or the cheapest place that keeps them.

    Raises `InvalidOption` when the wish and the limits do not go together.
    """
    asked = {limit.type for limit in limits}
    wish = wish_of(wish)
    if wish == "thread" and asynchronous:
        raise InvalidOption(
            "executor", "an async function runs on the event loop, or in a process; a thread is for plain functions"
        )
    usual = Place.LOOP if asynchronous else Place.THREAD
    place = Place(wish) if wish else usual if asked <= ENFORCED[usual] else Place.PROCESS
    if missing := asked - ENFORCED[place]:
        raise InvalidOption(
            "executor" if wish else "limits",
            f"a {place} cannot keep a limit of {' and '.join(sorted(missing))}, because its function cannot be stopped "
            f'there; leave executor out, or say executor="process"',
        )
    return place
