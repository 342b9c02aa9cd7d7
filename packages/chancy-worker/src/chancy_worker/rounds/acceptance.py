"""What a round's answer means for jobs: those that it brings begin, those whose verdicts it has written are let go.

Nothing here waits for anything: what the database has under this worker's name is held before anybody can ask.
What is seldom is looked for once an answer, and not once a job. Plain jobs are begun when the rounds wait next, and so
while the database has the next round already: nobody gets a turn of the loop in between.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Mapping, Sequence
from operator import attrgetter
from typing import Protocol

from chancy.states import State
from chancy_worker.attempts.refusals import Refusals
from chancy_worker.attempts.verdict import Claimed, Completion, released
from chancy_worker.claims.answer import Answer
from chancy_worker.claims.wanted import Wanted
from chancy_worker.demand.demand import Demand
from chancy_worker.held.holdings import Holdings, Key
from chancy_worker.held.leases import Leases
from chancy_worker.slots.room import Room

from .told import Batches

log = logging.getLogger("chancy.worker")

BUSY_PAUSE = 0.05
"""Seconds, after which a verdict is sent again whose row somebody had locked."""

_KEY = attrgetter("id", "fence")
_STATE = attrgetter("state")
_ARGUMENTS, _CRASHES, _TASK, _BATCH = map(attrgetter, ("arguments", "crashes", "task", "batch"))


class Rounds(Protocol):
    """The loop, as far as it is asked here."""

    stopping: bool

    def complete(self, job: Claimed, verdict: Completion, /) -> None:
        """Its attempt is over, or never began: write this."""

    def postpone(self, seconds: float, verdict: Completion, /) -> None:
        """Write this after a pause."""

    def wake(self) -> None:
        """There may be work in any queue."""


class Slots(Protocol):
    """Where jobs run."""

    @property
    def tasks(self) -> Container[str]:
        """The names of those that are known here."""

    def room(self) -> Room:
        """What there is room for; to be asked once before each claim."""

    @property
    def is_bounded(self) -> bool:
        """Whether what `room` says changes with each job that begins."""

    def begin(self, job: Claimed, /) -> None:
        """Start it as soon as there is room. Its end is told by `Ends.ended`."""


class Ends(Protocol):
    """Who is told of ends."""

    def ended(self, job: Claimed, verdict: Completion, seconds: float, /) -> None:
        """An attempt is over that took so long."""

    def flush(self) -> None:
        """What was said of them until now is to be in the log."""

    def written(self, jobs: Sequence[Claimed], queues: Collection[str], /) -> None:
        """The verdicts of these are written, which are of these queues."""

    def came_out(self, job: Claimed, verdict: Completion, fates: Mapping[Key, str], /) -> None:
        """One of them that may not have succeeded."""

    def settled(self, verdict: Completion, fate: str, /) -> None:
        """A verdict has changed nothing, for this reason: see `settle`."""


class Acceptance:
    """Of one worker."""

    def __init__(
        self,
        rounds: Rounds,
        holdings: Holdings,
        leases: Leases,
        demand: Demand,
        slots: Slots,
        refusals: Refusals,
        ends: Ends,
        batches: Batches,
    ) -> None:
        self._rounds = rounds
        self._holdings = holdings
        self._leases = leases
        self._demand = demand
        self._slots = slots
        self._refusals = refusals
        self._ends = ends
        self._batches = batches
        self._put_off: Sequence[Claimed] = ()

    def take(self, answer: Answer, wanted: Wanted, under: int, lease: int) -> Mapping[str, int]:
        """Start what was claimed under that lease, while the worker has this one; how many came of each queue."""
        jobs = answer.claimed
        self._demand.suspects.claimed(jobs, wanted.free)
        if not jobs:
            return {}
        self._leases.claimed_under(under, self._holdings.jobs)
        got, twice = self._holdings.take(jobs)
        why = ""
        if under != lease:
            why = "its worker's lease was lost before it began"
        elif self._rounds.stopping:
            why = "its worker was told to stop while it was claimed"
        late = [queue for queue in got if queue in self._demand.returns]
        if twice:
            self._holdings.unsure_of = under
        if twice or why or late:
            self._turn_back(jobs, twice, why, late)
        elif self._slots.is_bounded or not self._are_plain(jobs):
            for job in jobs:
                self.accept(job)
        else:
            self.begin()  # what an answer has brought for which nobody had to wait
            self._put_off = jobs
        return got

    def begin(self) -> None:
        """Start what was taken and put off."""
        if self._put_off:
            jobs, self._put_off = self._put_off, ()
            begin = self._slots.begin
            for job in jobs:
                begin(job)

    def _are_plain(self, jobs: Sequence[Claimed]) -> bool:
        """Whether nothing of them changes what the next round asks for."""
        tasks = self._slots.tasks
        return (
            all(map(_ARGUMENTS, jobs))
            and not any(map(_CRASHES, jobs))
            and all(task in tasks for task in set(map(_TASK, jobs)))
        )

    def _turn_back(self, jobs: Sequence[Claimed], twice: Collection[Key], why: str, late: Collection[str]) -> None:
        """Some of these go back unbegun."""
        for job in jobs:
            if (job.id, job.fence) in twice:
                self._claimed_twice(job)
            elif why:
                self._rounds.complete(job, released(job, why))
            elif job.queue in late:
                self._rounds.complete(job, released(job, "jobs of its queue that come before it are going back"))
            else:
                self.accept(job)

    def accept(self, job: Claimed) -> None:
        """Start a job that is among the held."""
        if not job.arguments:  # `is_withheld`
            self._demand.portion.weigh()
            self._rounds.complete(job, released(job, "large: claimed again by its weight"))
        elif job.task not in self._slots.tasks:
            self._ends.ended(job, self._refusals.unknown(job), 0.0)
        else:
            if job.crashes:
                self._demand.suspects.begins(job)
            self._slots.begin(job)

    def _claimed_twice(self, job: Claimed) -> None:
        """The one before is nobody's any more, and its verdict will find no row."""
        self._leases.forget([(job.id, job.fence)])
        log.error(
            "job %d was claimed twice under one fence: the database has lost what it had committed, as after a "
            "failover; what is running here as this job is another one, which is lost",
            job.id,
        )
        self._rounds.complete(job, released(job, "claimed a second time"))

    def confirm(self, verdicts: Sequence[Completion], fates: Mapping[Key, str]) -> None:
        """Let go of what is written, or can be written no more. A verdict is `done` whose fate is not told."""
        if fates:
            verdicts = [verdict for verdict in verdicts if self._is_settled(verdict, fates)]
        keys = list(map(_KEY, verdicts))
        gone = self._holdings.let_go(keys)
        if fates and self._demand.appetite.at_limit:  # a round of which not all are settled counts none as ended
            self._demand.appetite.look_again(self._demand.appetite.at_limit & gone.queues.keys())
        self._leases.forget(keys)
        if self._demand.portion.let_go(keys):
            self._rounds.wake()
        self._ends.written(gone.jobs, gone.queues)
        if not fates and len(gone.jobs) == len(verdicts) and _went_well(verdicts) and not any(map(_BATCH, gone.jobs)):
            return
        for verdict, job in zip(verdicts, gone.claims, strict=True):
            if job is None:
                self._demand.appetite.look_again()  # it was claimed unheard, and is back at its place, wherever that is
                continue
            if job.batch is not None:
                self._batches.left(job.batch)
            if verdict.state is not State.SUCCEEDED:
                self._demand.went_back(job, verdict)
            if fates or verdict.state is not State.SUCCEEDED:
                self._ends.came_out(job, verdict, fates)

    def _is_settled(self, verdict: Completion, fates: Mapping[Key, str]) -> bool:
        """Whether it needs not be sent again."""
        fate = fates.get((verdict.id, verdict.fence), "done")
        if fate == "busy":
            self._rounds.postpone(BUSY_PAUSE, verdict)
        elif fate != "done":
            self._ends.settled(verdict, fate)
        return fate != "busy"


def _went_well(verdicts: Sequence[Completion]) -> bool:
    return [*map(_STATE, verdicts)].count(State.SUCCEEDED) == len(verdicts)
