"""How much may be claimed where the places in which functions run have room for a few only.

One claim is for all places and all queues. Which share of a queue's jobs runs where is learned from those that it gave
of late; from each queue as many are claimed as will fill its part of the room by that.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from chancy.options.limits import Place

LEAST_SHARE = 0.01
"""Of whom less runs in a place, that queue is not bounded by it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A place has room for so many more jobs; which share of each queue's runs there, and of one that is unknown."""

    free: int
    shares: Mapping[str, float]
    usual: float = 1.0

    def share(self, queue: str) -> float:
        """From 0 to 1."""
        return self.shares.get(queue, self.usual)


@dataclass(frozen=True, slots=True)
class Room:
    """What may be claimed: within these bounds, with these tasks left out, of each queue so many ahead of its slots."""

    bounds: Sequence[Bound] = ()
    without: Collection[str] = ()
    ahead: Mapping[str, int] = field(default_factory=dict)


def _nothing() -> dict[Place, int]:
    return dict.fromkeys(Place, 0)


class Shares:
    """Which share of each queue's jobs runs in which place, and which of all."""

    def __init__(self) -> None:
        self._began: defaultdict[str, dict[Place, int]] = defaultdict(_nothing)
        self._shares: dict[Place, dict[str, float]] = {place: {} for place in Place}
        self._usual = dict.fromkeys(Place, 1.0)

    def began(self, queue: str, place: Place) -> None:
        """A job of this queue was claimed that runs there."""
        self._began[queue][place] += 1

    def learn(self, places: Collection[Place]) -> None:
        """Take over what was claimed since the last time. Of other places nothing is learned: they were left out."""
        if not self._began:
            return
        usual: Counter[Place] = Counter()
        for queue, began in self._began.items():
            usual.update(began)
            total = sum(began.values())
            for place in places:
                before = self._shares[place].get(queue, self._usual[place])
                self._shares[place][queue] = before + 0.5 * (began[place] / total - before)
        for place in places:
            self._usual[place] += 0.5 * (usual[place] / usual.total() - self._usual[place])
        self._began.clear()

    def bound(self, place: Place, free: int) -> Bound:
        """What a place with so much room means for claims."""
        return Bound(free, self._shares[place], self._usual[place])


def shared(free: Mapping[str, int], bounds: Sequence[Bound]) -> dict[str, int]:
    """How many to claim of each queue that has so many free slots.

    Of each place's room all queues get equal parts, but none more than it needs; who is the last changes.
    """
    shares = dict(free)
    for bound in bounds:
        needs = [(n * share, queue) for queue, n in shares.items() if (share := bound.share(queue)) >= LEAST_SHARE]
        if sum(need for need, _ in needs) <= bound.free:
            continue
        random.shuffle(needs)
        needs.sort(key=lambda each: each[0])
        left = float(bound.free)
        for others, (need, queue) in zip(range(len(needs), 0, -1), needs, strict=True):
            part = math.ceil(left / others)
            if need > part:
                shares[queue] = min(shares[queue], math.ceil(part / bound.share(queue)))
            left = max(left - min(need, part), 0.0)
    return {queue: n for queue, n in shares.items() if n}
