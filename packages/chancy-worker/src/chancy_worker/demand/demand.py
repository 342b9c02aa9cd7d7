"""What the next round may claim, and what the answers teach.

What is known of queues, limits, suspects and large jobs has values of its own (`appetite`, `marks`, `gates`,
`suspects`, `portions`, `returns`); here they are asked together, since a round is one for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from chancy.app import Queue
from chancy.model import Statement
from chancy.states import State
from chancy_worker.attempts.refusals import Refusals
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.claims.answer import Answer
from chancy_worker.claims.gates import Gatekeeper, endings_of
from chancy_worker.claims.portions import Portion
from chancy_worker.claims.wanted import Circle, Flow, Wanted
from chancy_worker.config import Timing
from chancy_worker.demand.marks import Marks
from chancy_worker.held.holdings import Holdings, Key
from chancy_worker.held.outbox import Outbox
from chancy_worker.held.returns import Returns
from chancy_worker.life.suspects import Suspects
from chancy_worker.slots.room import Room, shared

from .appetite import Appetite


class Demand:
    """One worker's. Instants are of `time.monotonic`; `changed` is called when suspects may be claimed."""

    def __init__(
        self,
        queues: Sequence[Queue],
        timing: Timing,
        holdings: Holdings,
        outbox: Outbox,
        portion: Portion,
        refusals: Refusals,
        changed: Callable[[], None],
        leaves_it_to_others: Callable[[str], bool],
    ) -> None:
        self.concurrency = {queue.name: queue.concurrency for queue in queues}
        self._holdings = holdings
        self._outbox = outbox
        self.portion = portion
        self._refusals = refusals
        self._changed = changed
        self._marks = Marks()
        self.appetite = Appetite(list(self.concurrency), self._marks, timing.look, leaves_it_to_others)
        self.gates = Gatekeeper()
        self.returns = Returns()
        self.suspects = Suspects(timing.harmless, self._suspects_changed)
        self.left_out: frozenset[str] = frozenset()
        """The tasks that the last claim left out: unknown ones, and those that had no room."""
        self._ahead: Mapping[str, int] = {}
        self.gated_ends = False
        """Verdicts of jobs with gates wait to be written: their places can be handed on."""

    def _suspects_changed(self) -> None:
        self.gates.opened()
        self._changed()

    def wanted(self, now: float, room: Room) -> Wanted:
        """What to claim by all that is known: nothing unless there may be something."""
        unknown = self._refusals.left_out()
        full = frozenset(room.without).difference(unknown)
        self.left_out, self._ahead = full.union(unknown), room.ahead
        if self.appetite.at_limit:
            self.appetite.look_again(self._leaving_limits())
        hungry = self.appetite.ask(now, self.left_out)
        suspects = self.suspects.chosen
        asked: Collection[str] = self.concurrency
        if not suspects:
            asked = dict.fromkeys([*hungry, *self._gated(now)]) if self.gates.queues or self.gated_ends else hungry
        free = self.free(asked, room.ahead)
        in_line = frozenset(queue for queue in free if self.concurrency[queue] == 1) if full else frozenset()
        free |= dict.fromkeys(in_line, 1)
        if room.bounds:
            free = shared(free, room.bounds)
        looking = self._marks.due(free if suspects else [queue for queue in free if self._has_to_look(queue, now)], now)
        lanes = self._marks.lanes(free.keys() - set(looking) if looking else free)
        return Wanted(free, lanes, looking, tuple(sorted(unknown)), suspects, tuple(sorted(full)), in_line)

    def _gated(self, now: float) -> Iterable[str]:
        """Queues in which parked jobs may run now, and those of jobs with slots that end: they are handed on."""
        due = self.gates.due(now)
        if self.gated_ends:
            due += [job.queue for job, _ in self._leaving(self._outbox)]
        return due

    def _leaving_limits(self) -> set[str]:
        """Of queues at their limits those of which jobs have ended: whatever a round has found meanwhile that did not
        see that, the one that writes their verdicts may claim others in their place.
        """
        jobs = [self._holdings.jobs.get((verdict.id, verdict.fence)) for verdict in self._outbox]
        return self.appetite.at_limit.intersection(job.queue for job in jobs if job is not None)

    def _has_to_look(self, queue: str, now: float) -> bool:
        """A queue of which what waits for a limit fills all the room is looked at when that has been so for a while.
        With a look a round goes through all that wait, which is dear, and workers that are full ring for others.
        """
        return self.appetite.is_hungry(queue) and not self.gates.flows(queue, now)

    def _leaving(self, verdicts: Iterable[Completion]) -> list[tuple[Claimed, State]]:
        """The jobs with slots whose verdicts these are, and how they end."""
        jobs = [(self._holdings.jobs.get((verdict.id, verdict.fence)), verdict.state) for verdict in verdicts]
        return [(job, state) for job, state in jobs if job is not None and job.parked is not None]

    def within_limits(self, wanted: Wanted, verdicts: Sequence[Completion], lease: int) -> Wanted:
        """What this round has to do with limits and turns, and with what ends now of those."""
        leaving = self._leaving(verdicts) if self.gated_ends else []
        ending = endings_of(leaving)
        if not wanted.free:
            return replace(wanted, gated=self.gates.wish((), ending)) if ending else wanted
        flow: Flow | None = None
        gated: Mapping[str, Circle] = {}
        if self.gates.queues or ending or wanted.in_line:
            if not (wanted.looking or wanted.suspects):
                flow = self.gates.flow(wanted.free.keys() - wanted.in_line, ending)
            if flow is None:
                suspects = {} if wanted.suspects else self.suspects.may_come(self.gates.due_of(wanted.free))
                gated = self.gates.wish(wanted.free, ending, suspects, wanted.in_line.intersection(wanted.looking))
        # Of those whose verdicts are not in this round, nothing ends.
        all_end = not (self._outbox or self._outbox.postponed)
        holds = self._holdings.of(lease, wanted.free, None if flow is None else flow.key, all_end=all_end)
        places = {job.id: job.slot_at for job, _ in leaving if job.slot_at is not None}
        return replace(wanted, holds=holds, pressing=self.appetite.at_limit, gated=gated, flow=flow, places=places)

    def free(self, queues: Iterable[str], ahead: Mapping[str, int]) -> dict[str, int]:
        """How many more jobs of each of these queues there is room for."""
        running = self._holdings.running
        return {
            queue: n
            for queue in queues
            if (n := self.concurrency[queue] + ahead.get(queue, 0) - running[queue]) > 0 and queue not in self.returns
        }

    def wish_for_suspects(self) -> Statement[list[Key]] | None:
        """What has to be asked before the next round, when some wait and may begin."""
        if not self.suspects.asks:
            return None
        return self.suspects.wish(self.free(self.concurrency, self._ahead), tuple(self.left_out))

    def answered(self, answer: Answer, wanted: Wanted, verdicts: int, took: float) -> None:
        """Take over what a round with so many verdicts has found, `took` seconds long; before its jobs begin."""
        if answer.claimed:
            self.portion.grow()
            if wanted.large:
                self.portion.came(answer.claimed)
            elif wanted.gated:  # what is admitted is weighed always
                self.portion.came(job for job in answer.claimed if not job.is_withheld)
        self.gated_ends = self.gated_ends and bool(self._outbox)
        self._marks.learn(answer, wanted.looking, took)
        if wanted.flow is not None:
            self.gates.flowed(wanted.flow, wanted.free, answer)
        if wanted.gated:
            self.gates.learn(wanted.gated, wanted.free, answer, took)
            if answer.settled < verdicts:
                self.gates.opened()  # a handler has written its own verdict, and handed on nothing

    def learn(self, answer: Answer, wanted: Wanted, got: Mapping[str, int]) -> bool:
        """See whether there may be more, and where; whether there is a backlog."""
        if not wanted.free:
            return False
        if not answer.holding:
            self.appetite.lost_lease(wanted.free)
            return False
        if wanted.looking:
            self.gates.looked(wanted.looking, answer.parked)
        return self.appetite.learn(wanted, answer, got, time.monotonic())

    def ended(self, job: Claimed, verdict: Completion) -> None:
        """An attempt is over. Nobody needs be told of one that succeeded, of a plain job of a queue below its limit."""
        if job.parked is not None:
            self.gated_ends = True
        if job.queue in self.appetite.at_limit:
            self.appetite.look_again([job.queue])  # the round that writes the verdict may claim another one
        if job.crashes:
            self.suspects.ended(job, verdict)
        if verdict.state is State.READY and verdict.delay is None:
            self.returns.add((job.id, job.fence), job.queue)

    def went_back(self, job: Claimed, verdict: Completion) -> None:
        """To its place, or to another one in its queue; or it has ended instead."""
        if (queue := self.returns.arrived((job.id, job.fence))) is not None:
            self.appetite.look_again([queue])
        if verdict.state is State.READY and verdict.delay is not None:
            self.appetite.put_off(job.queue, time.monotonic() + verdict.delay.total_seconds())
