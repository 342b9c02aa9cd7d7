"""Getting larger shares of limits, before a round, where those that this worker has are too small."""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec.structs import replace

from chancy.model import Statement
from chancy_worker.claims.gates import Gatekeeper, reach
from chancy_worker.claims.wanted import Held, Wanted
from chancy_worker.held.holdings import Holdings

from .appetite import Appetite


class Reaching:
    """Of which limits a larger share is needed, and what is claimed when it was not to be had."""

    def __init__(
        self, concurrency: Mapping[str, int], holdings: Holdings, appetite: Appetite, gates: Gatekeeper
    ) -> None:
        self._concurrency = concurrency
        self._holdings = holdings
        self._appetite = appetite
        self._gates = gates
        self._queues: dict[str, str] = {}
        """Of the limits of tasks that were asked for: by their keys."""

    def wish(self, wanted: Wanted, lease: int) -> Statement[dict[Held, int]] | None:
        """What has to be asked before this is claimed, if anything."""
        if not (self._appetite.thirsty or self._gates.queues):
            return None
        limits: dict[Held, tuple[int, str | None]] = {}
        if self._appetite.thirsty:
            for queue in self._appetite.thirsty.intersection(wanted.free):
                if self._holdings.all_run(queue):
                    limits["queue", queue] = self._concurrency[queue], None
        self._queues.clear()
        for queue in self._gates.queues & wanted.free.keys():
            if (limit := self._gates.reaching(queue)) is not None:
                key, gates = limit
                limits["gate", key] = self._concurrency[queue], gates
                self._queues[key] = queue
        return reach(lease, limits) if limits else None

    def learn(self, free: Mapping[Held, int], wanted: Wanted) -> Wanted:
        """The answer to that; what is left to claim. Of a queue that has no share nothing is claimed now, unless some
        of its jobs end with this round.
        """
        without = set[str]()
        for (kind, name), n in free.items():
            if kind == "gate":
                self._gates.reached(self._queues[name], n)
            else:
                self._appetite.thirsty.discard(name)
                if not n and self._holdings.all_run(name):  # no job of it has ended meanwhile
                    self._appetite.at_limit_still(name, time.monotonic())
                    self._appetite.thirsty.add(name)
                    without.add(name)
        if not without:
            return wanted
        return replace(wanted, free={queue: n for queue, n in wanted.free.items() if queue not in without})
