"""What a job may use, and so where it has to run, and what all jobs together may. A limit that cannot be enforced is
refused, never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias

import msgspec


class LimitType(StrEnum):
    """What is limited."""

    TIME = "time"
    MEMORY = "memory"


_Types: TypeAlias = type[LimitType]  # inside `Limit`, `type` is a field


KeyFunction: TypeAlias = Callable[..., object]
"""Takes some of the task's arguments, by their names: `lambda customer_id: customer_id`."""


@dataclass(frozen=True, slots=True)
class SharedLimit:
    """What jobs may do together, over all workers: so many run at a time, or begin in any window of time."""

    most: int
    per: timedelta | None
    """The window of a rate; None is a limit of concurrency."""
    key: KeyFunction | str | None
    """What shares the limit: all jobs of the task, those with the same key, or all that name this text."""

    def __post_init__(self) -> None:
        if type(self.most) is not int or not 1 <= self.most <= 100_000:
            raise ValueError(f"a limit of jobs must be from 1 to 100000, got {self.most!r}")
        if self.per is not None and not timedelta(milliseconds=1) <= self.per <= timedelta(days=366):
            raise ValueError(f"the window of a rate must be from a millisecond to 366 days, got {self.per}")
        if isinstance(self.key, str) and (not self.key or "\0" in self.key):
            raise ValueError(f"a limit that tasks share needs a name without NUL, got {self.key!r}")


class Limit(msgspec.Struct, frozen=True):
    """One limit of a job: seconds of wall time, or bytes of memory."""

    type: LimitType
    value: float

    Type: ClassVar[_Types] = LimitType

    def __post_init__(self) -> None:
        if not 0 < self.value < float("inf"):
            raise ValueError(f"a {self.type} limit must be positive and finite, got {self.value}")

    @staticmethod
    def time(limit: float | timedelta) -> Limit:
        """Wall time of one attempt, in seconds."""
        return Limit(LimitType.TIME, limit.total_seconds() if isinstance(limit, timedelta) else limit)

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
    def rate(most: int, *, per: timedelta, key: KeyFunction | str | None = None) -> SharedLimit:
        """At most so many attempts are claimed in any window of `per`, over all workers; `key` as for `concurrency`."""
        return SharedLimit(most, per, key)


def divided(limits: Iterable[Limit | SharedLimit]) -> tuple[tuple[Limit, ...], tuple[SharedLimit, ...]]:
    """Those of one attempt, and those over all workers. Raises `TypeError` for what is no limit."""
    own: list[Limit] = []
    shared: list[SharedLimit] = []
    for limit in limits:
        if isinstance(limit, SharedLimit):
            shared.append(limit)
        elif isinstance(limit, Limit):
            own.append(limit)
        else:
            raise TypeError(f"expected a list of Limit, got {limit!r}")
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


def place_of(asynchronous: bool, wish: PlaceWish | None, limits: Iterable[Limit]) -> Place:
    """Where a function with these limits runs: where `wish` says, or the cheapest place that keeps them.

    Raises `ValueError` when the wish and the limits do not go together.
    """
    asked = {limit.type for limit in limits}
    if wish not in (None, "thread", "process"):
        raise ValueError(f'executor is "thread" or "process", got {wish!r}')
    if wish == "thread" and asynchronous:
        raise ValueError("an async function runs on the event loop, or in a process; a thread is for plain functions")
    usual = Place.LOOP if asynchronous else Place.THREAD
    place = Place(wish) if wish else usual if asked <= ENFORCED[usual] else Place.PROCESS
    if missing := asked - ENFORCED[place]:
        raise ValueError(
            f"a {place} cannot keep a limit of {' and '.join(sorted(missing))}, because its function cannot be stopped "
            f'there; leave executor out, or say executor="process"'
        )
    return place
