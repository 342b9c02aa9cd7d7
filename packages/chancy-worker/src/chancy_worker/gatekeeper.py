"""Lets parked jobs in: when their limits have room, and groups one after the other.

A look says in which queues jobs are parked; then, and whenever a job with gates has ended, as many are admitted as this
worker has slots for. What is admitted is claimed like any other job, by whoever comes first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from chancy.literals import of_numbers, of_texts
from chancy.model import Rows, Statement

ADMIT = """
    SELECT want.queue, answer.admitted, answer.stopped_at, answer.next_in, answer.more
    FROM unnest(%(queues)s::text[], %(free)s::integer[], %(spots)s::text[]) AS want (queue, free, spot)
    CROSS JOIN LATERAL {schema}.admit(want.queue, want.free, want.spot, ARRAY(
        SELECT gone.key FROM unnest(%(ended_queues)s::text[], %(ended_keys)s::text[]) AS gone (queue, key)
        WHERE gone.queue = want.queue
    )) AS answer
    WHERE want.queue <> ALL (ARRAY(
        SELECT name FROM {schema}.pause WHERE kind = 'queue' AND until > {schema}.clock()))
"""
PAUSE_SECONDS = 0.02
"""Between two admissions that look at a part of what is parked and find nothing."""
SOON_SECONDS = 0.001
"""An instant that the database has named may be over when it is heard of."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What was done for one queue."""

    queue: str
    admitted: int
    stopped_at: str | None
    """Where the circle goes on; None if there was one to admit for each job that has ended, so that it was not gone."""
    next_in: float | None
    """Seconds until time alone may open a gate, or a parked job is due."""
    more: bool
    """Not all were looked at."""


def admit(
    free: Mapping[str, int], spots: Mapping[str, str], ended: Sequence[tuple[str, str]] = ()
) -> Statement[list[Admission]]:
    """Admit up to so many parked jobs of each queue, going on at these spots; of a paused one none, and there is no
    answer about it. One round trip.

    `ended` are the queue and the key of jobs that have ended, whose places are likely to be free. One admission at a
    time in a schema: waits for another one as long as the connection's lock_timeout lets it.
    """
    params = {
        "queues": of_texts(free),
        "free": of_numbers(free.values()),
        "spots": of_texts(spots.get(queue, "") for queue in free),
        "ended_queues": of_texts(queue for queue, _ in ended),
        "ended_keys": of_texts(key for _, key in ended),
    }
    return Statement(ADMIT, params, _parse)


def _parse(rows: Rows) -> list[Admission]:
    return [Admission(*row) for row in rows]


SWEEP_SLOTS = "SELECT {schema}.sweep_slots(1000)"


def sweep_slots() -> Statement[bool]:
    """Delete up to 1,000 slots that are nobody's; whether there may be more. Admissions wait meanwhile."""
    return Statement(SWEEP_SLOTS, {}, lambda rows: rows[0][0] == 1000)


@dataclass(slots=True)
class _Circle:
    """Where a queue's circle was left; and since the last one who could be admitted, or the last gate that opened,
    where it began and when time alone may open a gate.
    """

    spot: str = ""
    origin: str | None = None
    due_at: float = math.inf
    try_at: float = 0.0
    """When it is worth a try, if its queue has room then."""

    def open(self) -> None:
        """There may be room for anybody."""
        self.origin, self.due_at, self.try_at = None, math.inf, 0.0

    def turn(self, to: str) -> bool:
        """Go on; whether it has come round."""
        before, self.spot = self.spot, to
        if self.origin is None:
            self.origin = before
            return False
        forward = before < self.origin <= to
        return forward if before < to else before < self.origin or self.origin <= to


class Gatekeeper:
    """When to admit to which queue, and where each queue's circle was left. Instants are of `time.monotonic`."""

    def __init__(self) -> None:
        self._circles: dict[str, _Circle] = {}
        """Of the queues with parked jobs."""
        self._ended: list[tuple[str, str]] = []
        self._any_ended = False
        """A gate may be shared by queues, so the end of a job may open one for any."""
        self._tried: list[str] = []

    def looked(self, queues: Iterable[str], parked: Collection[str]) -> None:
        """What a look into these queues has found."""
        if self._circles:
            for queue in queues:
                if queue not in parked:
                    self._circles.pop(queue, None)
        for queue in parked:
            self._circles.setdefault(queue, _Circle()).open()

    def ended(self, queue: str, key: str) -> None:
        """A job with gates has ended, or gone back: there may be room for another one."""
        if queue in self._circles:
            self._ended.append((queue, key))
        self._any_ended = bool(self._circles)

    def opened(self) -> None:
        """There may be room for anybody."""
        for circle in self._circles.values():
            circle.open()

    def due(self, now: float) -> list[str]:
        """The queues for which it is worth a try, as soon as they have room."""
        if not self._circles:
            return []
        if self._any_ended:
            self._any_ended = False
            for circle in self._circles.values():
                circle.try_at = 0.0
        return [queue for queue, circle in self._circles.items() if circle.try_at <= now]

    def next_at(self, now: float) -> float:
        """When the next queue is due, after those that are due already and wait for room."""
        return min((circle.try_at for circle in self._circles.values() if circle.try_at > now), default=math.inf)

    @property
    def due_in(self) -> float:
        """Seconds until it is worth a try anywhere; 0 or less is now, infinity is not before something happens."""
        return min((circle.try_at for circle in self._circles.values()), default=math.inf) - time.monotonic()

    def try_again(self) -> None:
        """Somebody else was at it."""
        for queue in self._tried:
            if queue in self._circles:
                self._circles[queue].try_at = time.monotonic() + PAUSE_SECONDS

    def wish(self, free: Mapping[str, int]) -> Statement[list[Admission]] | None:
        """The admission for a worker with so many free slots a queue, if any. Those tried are not due any more."""
        wanted = {queue: n for queue, n in free.items() if queue in self._circles}
        if not wanted:
            return None
        self._tried = list(wanted)
        for queue in wanted:
            self._circles[queue].try_at = math.inf
        ended = [(queue, key) for queue, key in self._ended if queue in wanted]
        self._ended = [(queue, key) for queue, key in self._ended if queue not in wanted]
        return admit(wanted, {queue: self._circles[queue].spot for queue in wanted}, ended)

    def learn(self, answers: Collection[Admission]) -> list[str]:
        """Take over what was done; the queues to which any were admitted."""
        now = time.monotonic()
        for answer in answers:
            circle = self._circles[answer.queue]
            if answer.stopped_at is None:
                circle.try_at = max(circle.due_at, now + SOON_SECONDS)
                continue
            if circle.origin is None:
                circle.due_at = math.inf
            circle.due_at = min(circle.due_at, math.inf if answer.next_in is None else now + answer.next_in)
            round_ = circle.turn(answer.stopped_at) or not answer.more
            if answer.admitted or round_:
                circle.origin = None
            circle.try_at = max(circle.due_at, now + SOON_SECONDS) if answer.admitted or round_ else now + PAUSE_SECONDS
        return [answer.queue for answer in answers if answer.admitted]
