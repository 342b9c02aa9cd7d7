"""The line of idle workers: in which of them one stands, which locks that means, and what it has to do for them next.
No loop and no database.

A lock is a number: the key of a queue, or a place in a line. Of two that are alike the first in line holds its place
and the keys of its idle queues, and hears; the second holds the place behind; all others wait for that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


def line_of(alike: object, queues: Collection[str], without: Collection[str]) -> int:
    """The lock for the first place in the line of those that are alike, idle in these queues, and without room for
    these tasks; that for the second place is the number below it. Others of this schema are -16 and above.
    """
    said = repr((alike, sorted(queues), sorted(without))).encode("utf-8", "backslashreplace")
    return -17 - 2 * (int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big") % 2**29)


@dataclass(frozen=True, slots=True)
class Step:
    """Towards what a worker should hold: these locks it gives up, and these it takes."""

    given_up: list[int]
    missing: list[int]
    others: list[int]
    """Keys that it takes, too, if they are free when it gets a place: who leaves one gives up all at once."""
    keeps: bool
    """Whether it holds any other."""


class Standing:
    """One worker's standing: the queues that it is idle in, what it cannot take, and the locks that it holds.

    `alike` is equal for workers that know the same tasks. Instants are of any one clock, in seconds.
    """

    def __init__(self, alike: object, queues: int) -> None:
        """Of so many queues."""
        self._alike = alike
        self._queues = queues
        self._idle: set[str] = set()
        self._leaving: dict[str, float] = {}
        """Queues that have work again, and until when their keys are kept."""
        self._full: set[str] = set()
        """Of the first in line: queues that have no room since a lone job came. It stays until somebody rings."""
        self._unsure: set[str] = set()
        """Of those: queues in which there may be more than it could claim."""
        self._without: frozenset[str] = frozenset()
        self._known: tuple[frozenset[str], frozenset[str], int] = frozenset(), frozenset(), 0
        """Of which queues and without which tasks a line was worked out last."""
        self.held: set[int] = set()
        """Keys, and places in lines."""
        self.line: int | None = None
        """The line in which it stands, if it is idle in any queue."""

    @property
    def idle(self) -> Collection[str]:
        """The queues in which it has nothing to do."""
        return self._idle

    @property
    def is_idle_everywhere(self) -> bool:
        """One that has work in other queues could take no other key while it waits for one."""
        return len(self._idle) == self._queues

    @property
    def is_first(self) -> bool:
        """It is rung up."""
        return self.line in self.held

    @property
    def is_second(self) -> bool:
        """It hears, too, and looks a moment later."""
        return self.line is not None and self.line - 1 in self.held and not self.is_first

    def falls_idle(self, queues: Iterable[str]) -> None:
        """Nothing is left there."""
        for queue in queues:
            self._idle.add(queue)
            self._leaving.pop(queue, None)
            self._full.discard(queue)

    def leaves(self, queue: str, until: float) -> bool:
        """It has work there, and keeps the key until then; whether that is news."""
        if queue not in self._idle:
            return False
        self._idle.remove(queue)
        self._leaving[queue] = until
        return True

    def leaves_at_once(self, queue: str) -> None:
        """It has no more room there."""
        self._idle.discard(queue)
        self._leaving.pop(queue, None)
        self._full.discard(queue)
        self._unsure.discard(queue)

    def stays_full(self, queue: str) -> None:
        """It has no more room there, either, but is the first, and with one job: it stays if it was near."""
        near = queue in self._idle or queue in self._leaving
        self.leaves_at_once(queue)
        if near:
            self._full.add(queue)
            self._unsure.add(queue)

    @property
    def full(self) -> AbstractSet[str]:
        """The queues in which it stays, and has no room."""
        return self._full

    def unsure(self) -> Collection[str]:
        """Of those: the queues of which nobody has asked since whether there is more. Now somebody does."""
        unsure, self._unsure = self._unsure, set()
        return unsure

    def leaves_all(self) -> None:
        """At once."""
        self._idle.clear()
        self._leaving.clear()
        self._full.clear()
        self._unsure.clear()

    def offers(self, without: frozenset[str]) -> bool:
        """Which tasks it cannot take: those that can stand in another line. Whether that is news."""
        news, self._without = without != self._without, without
        return news

    def at(self, now: float) -> float:
        """Go to the line in which it belongs now; when the next key has to be given up."""
        self._leaving = {queue: until for queue, until in self._leaving.items() if until > now}
        self.line = self.belongs_to()
        if self._full and not self.is_first:  # it has lost the place meanwhile, or belongs in another line
            self._full.clear()
            self.line = self.belongs_to()
        return min(self._leaving.values(), default=math.inf)

    def belongs_to(self) -> int | None:
        """The line in which it should stand."""
        near = self._idle.union(self._leaving, self._full)
        if not near:
            return None
        queues, without, line = self._known
        if queues != near or without != self._without:
            line = line_of(self._alike, near, self._without)
            self._known = frozenset(near), self._without, line
        return line

    def step(self, keys: Mapping[str, int]) -> Step:
        """What is to be done about its locks; what is given up counts as not held from here on."""
        others = list[int]()
        if self.line is None:
            kept, missing = set[int](), list[int]()
        elif self.is_first:
            wanted = {keys[queue] for queue in self._idle}
            kept = {self.line, *wanted, *(keys[queue] for queue in (*self._leaving, *self._full))}
            missing = sorted(wanted - self.held)
        elif self.is_second:
            kept, missing = {self.line - 1}, [self.line]
            others = sorted({keys[queue] for queue in self._idle})
        else:
            kept, missing = set(), [self.line - 1]
        given_up = sorted(self.held - kept)
        self.held &= kept
        return Step(given_up, missing, others, bool(kept))
