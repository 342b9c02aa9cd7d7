"""Counting: how jobs came out, how long they had waited, and how long they ran. In plain numbers, asking nobody.

A job is counted when its verdict is written, so what is counted is what the rows say. All of a round are counted
together, in C, as succeeded, and the others one by one as what they are. How long it has waited and run is measured
when its attempt is over: of each while there are at most five hundred a second, and else of every n-th, for n.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TypeAlias

import msgspec

from chancy.tally.tally import Tallied, bucket_of
from chancy_worker.attempts.verdict import Claimed, Completion

MOST_MEASURED = 500
"""So many attempts a second are measured one by one."""
MOST_NAMES = 1000
"""So many tasks, each in its queue, have a name here: those of jobs that nobody knows may be without number."""
OTHERS = "(others)"

Key: TypeAlias = tuple[str, str, str]
"""Queue, task, outcome."""

_NAME, _TASK = attrgetter("queue", "task"), attrgetter("task")


class Cell(msgspec.Struct):
    """What came out so, of one task in one queue."""

    jobs: int = 0
    waited: float = 0.0
    """Seconds, of those that were measured."""
    ran: float = 0.0
    waits: dict[int, int] = {}
    """How many waited for so long, by bucket (`chancy.tally`)."""
    runs: dict[int, int] = {}

    def add(self, other: Cell) -> None:
        """That, too."""
        self.jobs += other.jobs
        self.waited += other.waited
        self.ran += other.ran
        for mine, others in ((self.waits, other.waits), (self.runs, other.runs)):
            for bucket, n in others.items():
                mine[bucket] = mine.get(bucket, 0) + n


Cells: TypeAlias = dict[Key, Cell]


def outcome_of(verdict: Completion, fate: str = "done") -> str:
    """What a verdict comes to that has met this fate (`claims.settling`)."""
    if fate == "lost":
        return Tallied.LOST
    if fate == "completed":
        return Tallied.SUCCEEDED
    if fate == "became":
        return Tallied.BLOCKED
    outcome = verdict.outcome
    return Tallied.SNOOZED if verdict.snooze and outcome == Tallied.RELEASED else outcome


class Tally:
    """Of one worker, since it began."""

    def __init__(self) -> None:
        self.left = 0
        """So many attempts end before the next one is measured: whoever ends one counts down, and calls `measure`."""
        self.ahead = 0.0
        """Seconds by which this worker's clock is ahead of the database's."""
        self._written: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Of each queue its tasks."""
        self._others: Counter[Key] = Counter()
        self._cells: Cells = {}
        self._unsaid: Cells = {}
        self._totals: Cells = {}
        self._names: set[tuple[str, str]] = set()
        self._every = 1
        """One in so many is measured."""
        self._since = time.monotonic()
        """Of the second in which so many were measured, which stand for so many."""
        self._measured = self._stood_for = 0

    def written(self, jobs: Sequence[Claimed], queues: Collection[str]) -> None:
        """The verdicts of these are written, which are of these queues. Those that have not succeeded are told of by
        `came_out`, too.
        """
        if len(queues) == 1:
            (queue,) = queues
            self._written[queue].update(map(_TASK, jobs))
        else:
            for (queue, task), n in Counter(map(_NAME, jobs)).items():
                self._written[queue][task] += n
        if any(len(self._written[queue]) > MOST_NAMES for queue in queues):
            self._gather()

    def came_out(self, job: Claimed, outcome: str) -> None:
        """One of them has ended otherwise."""
        if outcome != Tallied.SUCCEEDED:
            self._written[job.queue][job.task] -= 1
            self._others[job.queue, job.task, outcome] += 1

    def came_out_unasked(self, counts: Iterable[tuple[str, str, str, int]]) -> None:
        """Jobs that waited for others have ended with these, without an attempt: of which queue and task, how, and how
        many.
        """
        for queue, task, outcome, n in counts:
            self._others[queue, task, outcome] += n

    def measure(self, job: Claimed, verdict: Completion, seconds: float) -> None:
        """An attempt is over that ran so long."""
        if not seconds:  # it has not begun
            return
        weight = self._every
        wait = max(time.time() - self.ahead - seconds - job.run_at.timestamp(), 0.0)
        key = job.queue, job.task, outcome_of(verdict)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell()
        cell.waited += weight * wait
        cell.ran += weight * seconds
        bucket = bucket_of(wait)
        cell.waits[bucket] = cell.waits.get(bucket, 0) + weight
        bucket = bucket_of(seconds)
        cell.runs[bucket] = cell.runs.get(bucket, 0) + weight
        self._measured += 1
        self._stood_for += weight
        self._pace()
        self.left = self._every - 1

    def _pace(self) -> None:
        now = time.monotonic()
        if (passed := now - self._since) >= 1.0:
            self._every = max(math.ceil(self._stood_for / passed / MOST_MEASURED), 1)
        elif self._measured >= MOST_MEASURED:
            self._every *= 2
        else:
            return
        self._since, self._measured, self._stood_for = now, 0, 0

    def taken_back(self, attempts: Iterable[tuple[str, str, str, int]]) -> None:
        """Attempts of dead workers have come out so: of which queue and task, how, and how many. They are told to the
        database already.
        """
        for queue, task, outcome, n in attempts:
            self._totals.setdefault(self._named(queue, task, outcome), Cell()).jobs += n

    def take(self) -> Cells:
        """What has come since this was asked last."""
        self._gather()
        unsaid, self._unsaid = self._unsaid, {}
        return unsaid

    @property
    def totals(self) -> Mapping[Key, Cell]:
        """All since it began."""
        self._gather()
        return self._totals

    def _gather(self) -> None:
        news, self._cells = self._cells, {}
        for queue, tasks in self._written.items():
            for task, n in tasks.items():
                if n:
                    news.setdefault((queue, task, Tallied.SUCCEEDED), Cell()).jobs += n
        for key, n in self._others.items():
            news.setdefault(key, Cell()).jobs += n
        self._written.clear()
        self._others.clear()
        for (queue, task, outcome), cell in news.items():
            key = self._named(queue, task, outcome)
            for cells in (self._unsaid, self._totals):
                cells.setdefault(key, Cell()).add(cell)

    def _named(self, queue: str, task: str, outcome: str) -> Key:
        if len(self._names) < MOST_NAMES:
            self._names.add((queue, task))
        return queue, task if (queue, task) in self._names else OTHERS, str(outcome)
