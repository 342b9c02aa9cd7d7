"""What a job may use, and so where it has to run. A limit that cannot be enforced is refused, never ignored."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias

import msgspec


class LimitType(StrEnum):
    """What is limited."""

    TIME = "time"
    MEMORY = "memory"


_Types: TypeAlias = type[LimitType]  # inside `Limit`, `type` is a field


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
