"""The rounds: while one is in flight verdicts gather, and when it returns they go out with a claim for every free slot.

So the loop sets its own pace, without a timer. An idle worker sleeps until the doorbell, a verdict, the next
scheduled job or the fallback look. What is held is known in the wing `held`; what to claim, in `demand`; what an answer
means for jobs, in `acceptance`; what follows a round that failed, in `mending`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

import psycopg

from chancy.app import Queue
from chancy.model import Statement
from chancy.states import State
from chancy_worker.attempts.refusals import Refusals
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.claims.answer import Answer
from chancy_worker.claims.forms import WAYS
from chancy_worker.claims.portions import Portion
from chancy_worker.claims.settling import settle
from chancy_worker.claims.sifting import LOCKED
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.config import Timing
from chancy_worker.connection.link import Ended, Link
from chancy_worker.demand.demand import Demand
from chancy_worker.demand.reaching import Reaching
from chancy_worker.doorbell.wakeups import Wakeups
from chancy_worker.held.holdings import Holdings, Key
from chancy_worker.held.leases import Leases
from chancy_worker.held.outbox import Outbox
from chancy_worker.held.unheard import Unheard

from .acceptance import Acceptance, Ends, Slots
from .meanwhile import before_each_wait
from .mending import Mending
from .questions import Questions
from .told import Batches, Flows

_LAST_ROUND = 2.0
"""Seconds that a round without verdicts gets whose worker stops."""

T = TypeVar("T")


class Lease(Protocol):
    """In whose name to claim."""

    @property
    def id(self) -> int:
        """That of now; it is another one when this worker was declared dead."""


class Claimer:
    """One worker's rounds."""

    def __init__(
        self,
        *,
        link: Link,
        lease: Lease,
        queues: Sequence[Queue],
        timing: Timing,
        wakeups: Wakeups,
        slots: Slots,
        refusals: Refusals,
        ends: Ends,
        batches: Batches,
        flows: Flows,
    ) -> None:
        self._link = link
        self._lease = lease
        self._timing = timing
        self._wakeups = wakeups
        self._slots = slots
        self._flows = flows
        self._ends = ends
        self.changed = asyncio.Event()
        self.stopping = False
        self.turned_at = time.monotonic()
        portion = Portion()
        self.outbox = Outbox(portion.held)
        self._holdings, self._leases = Holdings([queue.name for queue in queues]), Leases()
        self.held = self._holdings.jobs
        """The jobs that are ours until the database has confirmed their verdict, by (id, fence)."""
        self._unheard = Unheard(self._holdings, self._leases, self.outbox)
        self._demand = Demand(
            queues, timing, self._holdings, self.outbox, portion, refusals, self.changed.set,
            wakeups.leaves_it_to_others,
        )  # fmt: skip
        self._appetite = self._demand.appetite
        self._acceptance = Acceptance(self, self._holdings, self._leases, self._demand, slots, refusals, ends, batches)
        self._mending = Mending(self, link, self._holdings, self._leases, self.outbox, self._unheard, self._demand)
        self._questions = Questions(
            link, self._mending, self._demand, refusals,
            Reaching(self._demand.concurrency, self._holdings, self._appetite, self._demand.gates),
        )  # fmt: skip
        self._patient = False

    def wake(self, queues: Collection[str] | None = None) -> None:
        """There may be work in these queues, or in any: look from the start."""
        self._appetite.wake(queues)
        self.changed.set()

    def rescued(self) -> None:
        """Jobs of the dead are ready again, or still."""
        self._demand.suspects.ask()
        self.wake()

    def stop(self) -> None:
        """Claim no more; `work` returns when the last verdict is written. Where there is none, a round that is on its
        way is waited for no longer than a moment: what it may have claimed goes back with the lease.
        """
        self.stopping = True
        if self.is_over:
            self._link.hurry(_LAST_ROUND)
        self.changed.set()

    def complete(self, job: Claimed, verdict: Completion) -> None:
        """The attempt is over: its slot is free, its verdict goes out with the next round."""
        self._holdings.ends(job)
        if verdict.state is not State.SUCCEEDED or job.parked is not None or job.crashes or self._appetite.at_limit:
            self._demand.ended(job, verdict)
            if verdict.state is State.BLOCKED:
                return self._flows.becomes(job, verdict)
        return self.write(verdict)

    def write(self, verdict: Completion) -> None:
        """With the next round."""
        self.outbox.add(verdict)
        self.changed.set()

    def became(self, verdict: Completion) -> None:
        """Its job waits for another one, which is written."""
        self._acceptance.confirm([verdict], {})
        self.changed.set()

    def postpone(self, seconds: float, verdict: Completion) -> None:
        """Write this one after a pause."""
        self.outbox.postpone(seconds, verdict, self._comes_back)

    def _comes_back(self) -> None:
        self._demand.gated_ends = True  # perhaps
        self.changed.set()

    def give_back(self, claims: Collection[Key]) -> None:
        """Jobs that were claimed in our name, and are not among the held: by a round whose answer was lost, if it is
        not that of the round that is on its way.
        """
        self._unheard.seen(claims, self._lease.id)
        self.changed.set()

    async def work(self) -> None:
        """Play rounds until stopped and empty."""
        await before_each_wait(self._rounds(), self._acceptance.begin)

    async def _rounds(self) -> None:
        while not self.is_over:
            self.changed.clear()
            self.turned_at = time.monotonic()
            await self._listen()
            if not self.stopping:
                await self._questions.ask()
            # Read once: what is over between the decision and the sleep would be slept through.
            now = time.monotonic()
            wanted = self._wanted(now)
            if quiet := self._appetite.quiet():
                self._wakeups.idle(quiet)
            self._wakeups.offers(self._demand.left_out)
            rests_for = self._appetite.rests_until - now
            if wanted.free or (self.outbox and (rests_for <= 0 or self.stopping)):
                await self._turn(wanted)
            else:
                await self._sleep(now, rests_for)

    @property
    def is_connected(self) -> bool:
        """Whether a verdict could be written now, as far as is known."""
        return self._link.conn is not None

    @property
    def is_over(self) -> bool:
        """Whether it stops, and has nothing to write down."""
        return self.stopping and not self.held and not self.outbox

    def has_room(self, queue: str) -> bool:
        """Whether more jobs of this queue could begin here."""
        return bool(self._demand.free([queue], {}))

    def _wanted(self, now: float) -> Wanted:
        """What the next round should claim: nothing unless there may be something."""
        doubts = self._mending.doubts
        if self.stopping or self.outbox.is_searching or doubts.rest_until > now or self._appetite.rests(now):
            return Wanted()
        return self._demand.wanted(now, self._slots.room())

    async def _listen(self) -> None:
        """To what is to be heard by now."""
        try:
            await self._wakeups.attend()
        except psycopg.Error as error:
            await self._mending.recover(error)

    async def _turn(self, wanted: Wanted) -> None:
        if self._mending.doubts.any and wanted.free:
            return await self._sift(wanted)
        if wanted.free:
            wanted = await self._questions.reach(wanted, self._lease.id)
            if not wanted.free and not self.outbox:
                return None
        verdicts, others, under = self._leases.of_one(self.outbox.take())
        self.outbox.put_back(others)
        self._ends.flush()  # no verdict is in the database whose line is not in the log
        lease, weighs = self._lease.id, self._demand.portion.weighs
        wanted = self._demand.portion.of(wanted, self._holdings.running)
        wanted = self._demand.within_limits(wanted, verdicts, lease)
        self._appetite.asked()
        began = time.monotonic()
        try:
            answer = await self._play(
                play_round(lease, verdicts, wanted, under=under, text=WAYS[self._patient, weighs])
            )
        except LOCKED:
            self.outbox.put_back(verdicts)
            self._patient = True
        except asyncio.CancelledError:
            self.outbox.put_back(verdicts)  # rounds go on once more where a whole loop is cancelled
            self._holdings.unsure_of = lease
            raise
        except Exception as error:  # an answer that Python cannot read, too
            self._holdings.unsure_of = lease
            await self._mending.failed(error, verdicts, wanted, lease)
        else:
            # Before anything else is awaited: what the database has under our name has to be among the held.
            self._mending.over()
            self._demand.answered(answer, wanted, len(verdicts), time.monotonic() - began)
            backlog = self._take(answer, wanted, lease)
            if answer.needed:
                self._flows.ended(answer.needed)
            await self._confirm(verdicts, under, answer)
            if not backlog:
                await asyncio.sleep(0)  # what was claimed begins before the next round is made
        self._unheard.heard(self._lease.id)
        return None

    async def _play(self, statement: Statement[Answer]) -> Answer:
        self._unheard.asking = True
        try:
            return await self._link.send(statement)
        finally:
            self._unheard.asking = False

    def _take(self, answer: Answer, wanted: Wanted, under: int) -> bool:
        """Start what was claimed under this lease; whether there is a backlog."""
        if answer.claimed:
            self._mending.doubts.bore_fruit()
        got = self._acceptance.take(answer, wanted, under, self._lease.id)
        if got and answer.holding:
            self._wakeups.busy(got.keys())
        return self._demand.learn(answer, wanted, got)

    async def _confirm(self, verdicts: Sequence[Completion], under: int, answer: Answer) -> None:
        """Let go of what is written; ask what became of verdicts whose row was not found or was locked."""
        fates: dict[Key, str] = {}
        if answer.settled < len(verdicts):
            try:
                fates = await self._link.send(settle(under, verdicts, self.held))
            except psycopg.Error as error:
                self.outbox.put_back(verdicts)
                await self._mending.recover(error)
                return
            except asyncio.CancelledError:
                self.outbox.put_back(verdicts)
                raise
            self._flows.may_have_ended([verdict.id for verdict in verdicts])
        self._patient = "busy" in fates.values()
        self._acceptance.confirm(verdicts, fates)

    async def _sift(self, wanted: Wanted) -> None:
        """Claim one by one, after a claim that failed."""
        lease = self._lease.id
        self._leases.claimed_under(lease, self.held)

        def accept(job: Claimed) -> None:
            self._demand.portion.came([job])
            self._holdings.take([job])
            self._acceptance.accept(job)

        await self._mending.sift(self._demand.within_limits(wanted, (), lease), lease, accept)
        await asyncio.sleep(0)

    async def _sleep(self, now: float, rests_for: float) -> None:
        """Until something changes, a queue is to be asked, or it is time for a round or an admission."""
        until = min(self._demand.gates.next_at(now), now + self._timing.look)
        if not self.stopping:
            until = min(until, self._appetite.sleeps_until())
            if (rest_until := self._mending.doubts.rest_until) > now:
                until = min(until, rest_until)
        pause = min(until - now, rests_for) if rests_for > 0 else until - now
        timer = asyncio.get_running_loop().call_later(max(pause, 0.001), self.changed.set)
        try:
            await self._link.wait(self.changed)
        except Ended as error:
            await self._mending.recover(error)
        finally:
            timer.cancel()
