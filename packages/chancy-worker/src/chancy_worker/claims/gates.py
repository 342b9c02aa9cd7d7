"""When to let parked jobs in: when their limits have room, and groups one after the other.

A look says in which queues jobs are parked. The next round goes through them, and claims as many as may run and this
worker has room for. A job that ends hands its places to those that wait for the same, in the round that writes its
verdict. So in the long run nobody has to go through them, except for what opens with time, or was not handed on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, KeysView, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from chancy.keys.gates import SEPARATOR
from chancy.model import Statement
from chancy.states import State
from chancy.wires.literals import of_numbers, of_texts
from chancy_worker.attempts.verdict import Claimed

from .answer import Answer
from .wanted import Circle, Flow, Held, Mark

PAUSE_SECONDS = 0.02
"""Between two times that a queue is gone through, where the first has found nothing, or might find the same again."""

BARREN_SHARE = 10
"""So many times as long as it has taken a worker waits that has gone through a queue and found nobody but those to whom
its own jobs left their slots: so that takes a tenth of the time at most.
"""

LEAST_MEMORY_SECONDS = 0.05
"""How long the marks are good for, or twenty times as long as the look without them has taken."""

SWEEP_SLOTS = "SELECT {schema}.sweep_slots(1000)"


def sweep_slots() -> Statement[bool]:
    """Delete 1,000 slots or more that are nobody's; whether there may be more. Who wants a slot passes those by."""
    return Statement(SWEEP_SLOTS, {}, lambda rows: rows[0][0] >= 1000)


# In a transaction of its own, which is short, and holds nothing that another could wait for but these locks, in order.
# So it waits for its turn, as long as the connection's lock_timeout lets it. In a round the lock is only tried for, and
# who gets nothing counts slots, which is dear where many workers do that at the same time.
REACH = """
    WITH alone AS MATERIALIZED (
        SELECT count(pg_advisory_xact_lock('{schema}'::regnamespace::oid::integer, lock.key)) AS locks
        FROM (
            SELECT DISTINCT CASE want.kind WHEN 'queue' THEN -3 ELSE {schema}.gate_key(want.name) END AS key
            FROM unnest(%(kinds)s::text[], %(names)s::text[]) AS want (kind, name)
            ORDER BY key
        ) AS lock
    )
    SELECT want.kind, want.name,
        CASE want.kind
            WHEN 'queue' THEN {schema}.allowance(want.name, want.free, %(worker)s::bigint, NULL, true)
            ELSE {schema}.part_of('gate', want.name, (want.gates::json->'gates'->0->>'most')::integer, '0', want.free,
                %(worker)s::bigint, NULL, true)
        END
    FROM alone
    CROSS JOIN unnest(%(kinds)s::text[], %(names)s::text[], %(free)s::integer[], %(gates)s::text[])
        AS want (kind, name, free, gates)
    WHERE alone.locks > 0
"""


def reach(worker: int, wanted: Mapping[Held, tuple[int, str | None]]) -> Statement[dict[Held, int]]:
    """Take shares of these limits that are good for so many more jobs, if there are that many left; how many each is
    good for now. Of a limit of a task its gates are given, as they are stored.
    """
    params = {
        "worker": worker,
        "kinds": of_texts(kind for kind, _ in wanted),
        "names": of_texts(name for _, name in wanted),
        "free": of_numbers(free for free, _ in wanted.values()),
        "gates": of_texts(gates for _, gates in wanted.values()),
    }
    return Statement(REACH, params, lambda rows: {(kind, name): free for kind, name, free in rows})


MOST_FLOWING = 4
"""Keys: with more, each is asked in turn."""
MOST_MARKS = 64
"""Of a queue: with more keys there are few dead entries under each."""


class Ending(NamedTuple):
    """The jobs with slots, of one queue, that end with a round."""

    keys: Collection[str] = ()
    """What they were parked under."""
    jobs: int = 0
    simple: bool = False
    """Each was of one limit of concurrency alone, and none goes back, to its place before those that wait behind it."""


def endings_of(leaving: Iterable[tuple[Claimed, State]]) -> dict[str, Ending]:
    """By queue, of these jobs with slots and the states of their verdicts."""
    by_queue: dict[str, list[tuple[str, State]]] = {}
    for job, state in leaving:
        by_queue.setdefault(job.queue, []).append((job.parked or "", state))
    return {queue: ending_of(jobs) for queue, jobs in by_queue.items()}


def ending_of(jobs: Collection[tuple[str, State]]) -> Ending:
    """Of what each was parked under, and the state of its verdict."""
    keys = {key for key, _ in jobs}
    are_limits = all(key.startswith("concurrency(") and SEPARATOR not in key for key in keys)
    return Ending(keys, len(jobs), are_limits and State.READY not in {state for _, state in jobs})


@dataclass(slots=True)
class _Place:
    """What is known of a queue: where its circle was left, and when to go on. And since the last one who could be
    admitted, or the last gate that opened: where the circle began, and when time alone may open a gate.
    """

    spot: str = ""
    next_at: float = math.inf
    origin: str | None = None
    opens_at: float = math.inf
    marks: dict[tuple[int, str], Mark] = field(default_factory=dict)
    flows: bool = False
    """The last round that asked has been given as many as it had room for, of a few keys."""
    limit: tuple[str, str] | None = None
    """If they were of one limit alone: its key, and the gates as they are stored. It may be far from full."""
    reaches: bool = True
    """The share of it is too small, or there is none yet."""
    counts_until: float = 0.0
    counts_for: float = 0.0
    """A share of it was not to be had: until then its slots are counted."""
    held_up: bool = False
    """The next one had no room where it runs, and must not be passed by: each round asks for it first."""
    hands_on: bool = False
    """When slots were left of late, all found somebody, without a circle."""
    forgets_at: float = 0.0
    """Then all are looked at from the start: something may have appeared behind the marks, or under another key."""

    def turn(self, to: str) -> bool:
        """Go on; whether it has come round."""
        before, self.spot = self.spot, to
        if self.origin is None:
            self.origin = before
            return False
        forward = before < self.origin <= to
        return forward if before < to else before < self.origin or self.origin <= to

    def learn(self, marks: Mapping[tuple[int, str], Mark]) -> None:
        """Go on behind these; those of the highest priority come first."""
        if marks.keys() <= self.marks.keys():
            self.marks.update(marks)
        elif len(self.marks.keys() | marks.keys()) <= MOST_MARKS:
            self.marks = dict(sorted({**self.marks, **marks}.items(), key=lambda mark: -mark[0][0]))
        else:
            self.forget()

    def forget(self) -> None:
        """Look from the start."""
        self.marks = {}
        self.flows, self.limit = False, None


def _takes_turns(key: str) -> bool:
    """Whether a group is among what jobs wait for under this key: see `chancy.keys.gates`."""
    return any(part.startswith("group(") for part in key.split(SEPARATOR))


class Gatekeeper:
    """When to go through which queue, and where each queue's circle was left."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        """Of the queues with parked jobs."""
        self._rests_until = 0.0

    def looked(self, queues: Collection[str], parked: Collection[str]) -> None:
        """What a look into these queues has found."""
        found = {queue: self._places.get(queue) or _Place() for queue in parked}
        self._places = {queue: place for queue, place in self._places.items() if queue not in queues} | found
        if parked:
            self.opened()

    def opened(self) -> None:
        """There may be room for anybody. To go through all that wait is not free, so it happens every now and then."""
        for place in self._places.values():
            place.next_at = min(place.next_at, max(time.monotonic(), self._rests_until))
            place.origin, place.opens_at = None, math.inf

    def due(self, now: float) -> list[str]:
        """The queues for which it is worth a try, as soon as they have room."""
        return [queue for queue, place in self._places.items() if place.next_at <= now]

    def due_of(self, queues: Collection[str]) -> list[str]:
        """Those of these queues that are due."""
        now = time.monotonic()
        return [queue for queue in queues if queue in self._places and self._places[queue].next_at <= now]

    def next_at(self, now: float) -> float:
        """When the next queue is due, after those that are due already and wait for room."""
        return min((place.next_at for place in self._places.values() if place.next_at > now), default=math.inf)

    @property
    def queues(self) -> KeysView[str]:
        """Those in which jobs are parked."""
        return self._places.keys()

    def flows(self, queue: str, now: float) -> bool:
        """Whether a look would find nothing new: what waits has filled all room, and it was looked just now."""
        place = self._places.get(queue)
        return place is not None and place.flows and now < place.forgets_at

    def flow(self, free: Collection[str], ending: Mapping[str, Ending]) -> Flow | None:
        """A limit that a round may claim from by a share of it, if there is one. `ending` are the jobs with slots that
        end now, by queue: those of any other limit have to be handed on.
        """
        now = time.monotonic()
        for queue in free:
            place = self._places.get(queue)
            if place is None or place.limit is None or not place.counts_until <= now < place.forgets_at:
                continue
            key, gates = place.limit
            if all(set(end.keys) == {key} and of == queue for of, end in ending.items()):
                return Flow(queue, key, gates, {lane: mark for (lane, _), mark in place.marks.items()})
        return None

    def flowed(self, flow: Flow, free: Mapping[str, int], answer: Answer) -> None:
        """Take over what a round of it has claimed."""
        place, now = self._places[flow.queue], time.monotonic()
        place.learn(answer.gate_marks.get(flow.queue, {}))
        place.next_at = place.forgets_at
        wanted = free[flow.queue]
        if sum(job.queue == flow.queue for job in answer.claimed) >= wanted:
            place.counts_for = 0.0
        elif answer.flow_free is not None and answer.flow_free >= wanted:
            place.forget()  # nobody is left behind the marks: look before them, and under other keys
            place.next_at = now
        else:
            place.reaches = True
            place.next_at = now

    def reaching(self, queue: str) -> tuple[str, str] | None:
        """The key and the gates of a limit of which a larger share is needed, if so."""
        place, now = self._places.get(queue), time.monotonic()
        if place is None or not place.reaches or not place.counts_until <= now < place.forgets_at:
            return None
        return place.limit

    def reached(self, queue: str, free: int) -> None:
        """A share is good for so many jobs more; with none its limit is too full, and slots are counted."""
        place, now = self._places[queue], time.monotonic()
        place.reaches = False
        if not free:
            place.forget()
            place.next_at = now
            place.counts_for = min(max(2 * place.counts_for, PAUSE_SECONDS), 1.0)
            place.counts_until = now + place.counts_for

    def wish(
        self,
        free: Collection[str],
        ending: Mapping[str, Ending],
        suspects: Mapping[str, int] = MappingProxyType({}),
        in_line: Collection[str] = (),
    ) -> Mapping[str, Circle]:
        """What a round has to do with gates that claims from these queues, from some of them a suspect, too; and in
        which of them jobs with slots end. Queues `in_line` are looked at from the start, and nobody is passed by there,
        whoever it is.
        """
        now = time.monotonic()
        due = set(in_line).union(
            queue
            for queue in free
            if (place := self._places.get(queue)) is not None and (place.next_at <= now or place.held_up)
        )
        wish: dict[str, Circle] = {}
        for queue in sorted(due.union(ending)):
            place = self._places.setdefault(queue, _Place())
            if place.forgets_at <= now:
                place.forget()
            end, is_due = ending.get(queue, Ending()), queue in due
            hands_on = end.simple and place.hands_on and not is_due
            marks = place.marks
            if hands_on:
                marks = {lane: mark for lane, mark in marks.items() if lane[1] in end.keys}
            flows, suspect = is_due and place.flows, suspects.get(queue, 0)
            wish[queue] = Circle(is_due, place.spot, marks, flows, suspect, hands_on, end.jobs)
        return wish

    def learn(self, wish: Mapping[str, Circle], free: Mapping[str, int], answer: Answer, took: float) -> None:
        """Take over what a round has done, `took` seconds long. Of a paused queue there is nothing to tell."""
        now = time.monotonic()
        for queue, circle in wish.items():
            if circle.goes_round:
                self._places[queue].next_at = math.inf
        for done in answer.admissions:
            place = self._places[done.queue]
            place.held_up = done.held_up
            if leaving := wish[done.queue].leaving:
                place.hands_on = done.admitted >= leaving and (place.hands_on or done.stopped_at is None)
            if not place.marks:
                place.forgets_at = now + max(LEAST_MEMORY_SECONDS, 20 * took)
            place.learn(answer.gate_marks.get(done.queue, {}))
            if done.again:
                place.next_at = min(place.next_at, now + PAUSE_SECONDS)
            if done.stopped_at is None:
                if done.more:
                    place.next_at = now
            else:
                found = done.admitted > wish[done.queue].leaving
                self._rests_until = now + max(PAUSE_SECONDS, (2 if found else BARREN_SHARE) * took)
                if place.origin is None:
                    place.opens_at = math.inf
                place.opens_at = min(place.opens_at, math.inf if done.next_in is None else now + done.next_in)
                place.next_at = min(place.next_at, place.opens_at)
                is_round = place.turn(done.stopped_at) or not done.more
                if done.more and (done.admitted or not is_round):
                    place.next_at = min(place.next_at, now if done.admitted else now + PAUSE_SECONDS)
                if is_round or done.admitted:
                    place.origin = None
            keys = {key for _, key in place.marks}
            is_filled = 0 < free.get(done.queue, 0) <= done.admitted
            place.flows = is_filled and 0 < len(keys) <= MOST_FLOWING and not any(map(_takes_turns, keys))
            place.limit = None
            if place.flows and len(keys) == 1 and done.gates is not None:
                place.limit = min(keys), done.gates
