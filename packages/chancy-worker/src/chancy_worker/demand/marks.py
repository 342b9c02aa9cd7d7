"""Where to claim from: a high-water mark for each lane, so that dead index entries are read once.

A lane is a priority of a queue. A look starts from the beginning of a queue and learns which lanes it has; whatever
has appeared behind a mark, or in a new lane, is found by the next look.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from chancy_worker.claims.answer import Answer
from chancy_worker.claims.wanted import START, Mark

LOOK_SECONDS = 1.0
"""A look at a queue is due so long after the last one, or later where looks are dear."""
LOOK_SHARE = 20
"""So many times as long as the last one took: looks take no more than a twentieth of the time."""


class Marks:
    """The lanes of a worker's queues, and when each queue has to be looked at. Instants are of `time.monotonic`."""

    def __init__(self) -> None:
        self._lanes: dict[str, dict[int, Mark]] = {}
        self._look_at: dict[str, float] = {}
        """Only of queues in which a look has found lanes: into the others a look is always due."""

    def look_at(self, queue: str) -> float:
        """From when on a claim of this queue has to look."""
        return self._look_at.get(queue, 0.0)

    def due(self, queues: Iterable[str], now: float) -> tuple[str, ...]:
        """Those of the queues into which a look is due."""
        return tuple(queue for queue in queues if self._look_at.get(queue, 0.0) <= now)

    def forget(self, queues: Iterable[str]) -> None:
        """The next claims of these queues look: something may have appeared behind their marks."""
        for queue in queues:
            self._look_at.pop(queue, None)

    def lanes(self, queues: Iterable[str]) -> dict[tuple[str, int], Mark]:
        """The marked lanes of these queues, best first within each."""
        return {(queue, priority): mark for queue in queues for priority, mark in self._lanes.get(queue, {}).items()}

    def learn(self, answer: Answer, looked: Sequence[str], took: float) -> None:
        """Take over what a round has found, `took` seconds long."""
        for queue in looked:
            self._lanes.pop(queue, None)
            self._look_at.pop(queue, None)
        if answer.lanes:
            look_at = time.monotonic() + max(LOOK_SECONDS, LOOK_SHARE * took)
            for queue, priority in answer.lanes:
                self._lanes.setdefault(queue, {})[priority] = START
                self._look_at[queue] = look_at
        for (queue, priority), mark in answer.marks.items():
            lanes = self._lanes.setdefault(queue, {})
            lanes[priority] = max(lanes.get(priority, START), mark)
