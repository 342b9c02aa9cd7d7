"""Lets parked jobs in: when their limits have room, and groups one after the other.

A look says in which queues jobs are parked; then, and whenever a job with gates has ended, as many are admitted as this
worker has slots for. What is admitted is claimed like any other job, by whoever comes first.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from chancy.literals import of_numbers, of_texts
from chancy.model import Rows, Statement

ADMIT = """
    SELECT want.queue, answer.admitted, answer.stopped_at, answer.next_in, answer.more
    FROM unnest(%(queues)s::text[], %(free)s::integer[], %(spots)s::text[]) AS want (queue, free, spot)
    CROSS JOIN LATERAL {schema}.admit(want.queue, want.free, want.spot) AS answer
"""
PAUSE_SECONDS = 0.02
"""Between two admissions that look at a part of what is parked and find nothing."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What was done for one queue."""

    queue: str
    admitted: int
    stopped_at: str
    """Where the next one goes on."""
    next_in: float | None
    """Seconds until time alone may open a gate, or a parked job is due."""
    more: bool
    """Not all were looked at."""


def admit(free: Mapping[str, int], spots: Mapping[str, str]) -> Statement[list[Admission]]:
    """Admit up to so many parked jobs of each queue, going on at these spots. One round trip.

    One admission at a time in a schema: waits for another one as long as the connection's lock_timeout lets it.
    """
    params = {
        "queues": of_texts(free),
        "free": of_numbers(free.values()),
        "spots": of_texts(spots.get(queue, "") for queue in free),
    }
    return Statement(ADMIT, params, _parse)


def _parse(rows: Rows) -> list[Admission]:
    return [Admission(*row) for row in rows]


SWEEP_SLOTS = "SELECT {schema}.sweep_slots(1000)"


def sweep_slots() -> Statement[bool]:
    """Delete up to 1,000 slots that are nobody's; whether there may be more. Admissions wait meanwhile."""
    return Statement(SWEEP_SLOTS, {}, lambda rows: rows[0][0] == 1000)


class Gatekeeper:
    """When to admit, and where each queue's circle was left."""

    def __init__(self) -> None:
        self._spots: dict[str, str] = {}
        """The queues with parked jobs."""
        self._due_at: float | None = None

    def looked(self, queues: Collection[str], parked: Collection[str]) -> None:
        """What a look into these queues has found."""
        found = {queue: self._spots.get(queue, "") for queue in parked}
        self._spots = {queue: spot for queue, spot in self._spots.items() if queue not in queues} | found
        if parked:
            self.opened()

    def opened(self) -> None:
        """There may be room for somebody."""
        self._due_at = 0.0

    @property
    def due_in(self) -> float | None:
        """Seconds until it is worth a try; 0 or less is now, None is not before something happens."""
        return self._due_at - time.monotonic() if self._spots and self._due_at is not None else None

    def try_again(self) -> None:
        """Somebody else was at it."""
        self._due_at = time.monotonic() + PAUSE_SECONDS

    def wish(self, free: Mapping[str, int]) -> Statement[list[Admission]] | None:
        """The admission for a worker with so many free slots a queue, if any."""
        wanted = {queue: n for queue, n in free.items() if queue in self._spots}
        return admit(wanted, self._spots) if wanted else None

    def learn(self, answers: Collection[Admission]) -> bool:
        """Take over what was done; whether anybody was admitted."""
        now = time.monotonic()
        times = [now + answer.next_in for answer in answers if answer.next_in is not None]
        times += [now + PAUSE_SECONDS for answer in answers if answer.more and not answer.admitted]
        self._due_at = min(times, default=None)
        self._spots |= {answer.queue: answer.stopped_at for answer in answers}
        return any(answer.admitted for answer in answers)
