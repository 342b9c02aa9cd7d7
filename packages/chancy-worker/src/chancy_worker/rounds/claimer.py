"""The rounds: while one is in flight verdicts gather, and when it returns they go out with a claim for every free slot.

So the loop sets its own pace, without a timer. An idle worker sleeps until the doorbell, a verdict, the next
scheduled job or the fallback look. What is known of the queues belongs to each of them (`appetite`, `marks`,
`returns`); the round is one for all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from chancy.app import Queue
from chancy.history.moving import make_partitions
from chancy.model import Statement
from chancy.states import State
from chancy_worker.attempts.refusals import Refusals
from chancy_worker.attempts.verdict import Claimed, Completion, released
from chancy_worker.claims.gates import Gatekeeper, reach
from chancy_worker.claims.marks import Marks
from chancy_worker.claims.portions import Portion
from chancy_worker.claims.sifting import LOCKED, Sieve, claimed_by, end, is_of_a_row, is_unread
from chancy_worker.claims.statement import (
    PATIENT_ROUND,
    PATIENT_WEIGHED_ROUND,
    ROUND,
    WEIGHED_ROUND,
    Answer,
    Circle,
    Flow,
    Held,
    Wanted,
    play_round,
    settle,
)
from chancy_worker.config import Timing
from chancy_worker.connection.link import Ended, Link, one_line
from chancy_worker.life.suspects import Suspects
from chancy_worker.slots.room import Room, shared

from .appetite import Appetite
from .outbox import Outbox
from .returns import Returns

log = logging.getLogger("chancy.worker")

_BUSY_PAUSE = 0.05
_LONGEST_PAUSE, _LONGEST_PAUSE_OF_CLAIMS = 5.0, 30.0
"""After a round that failed, and failed again: seconds, up to which pauses grow. Without claims verdicts go on."""

_LAST_ROUND = 2.0
"""Seconds that a round without verdicts gets whose worker stops."""

TEXTS = {
    (False, False): ROUND,
    (True, False): PATIENT_ROUND,
    (False, True): WEIGHED_ROUND,
    (True, True): PATIENT_WEIGHED_ROUND,
}
"""By whether it passes locked rows by, and whether it weighs."""


async def _nothing() -> None:
    """Where nobody listens."""


class Claimer:
    """One worker's rounds, and what it holds."""

    def __init__(
        self,
        *,
        link: Link,
        lease: Callable[[], int],
        queues: Sequence[Queue],
        timing: Timing,
        idle: Callable[[Collection[str]], None],
        busy: Callable[[Collection[str]], None],
        room: Callable[[], Room],
        knows: Callable[[str], bool],
        strange: Callable[[Claimed], None],
        refusals: Refusals,
        start: Callable[[Claimed], None],
        settled: Callable[[Completion, str], None],
        left_batch: Callable[[int], None],
        offers: Callable[[frozenset[str]], None] = lambda without: None,
        attend: Callable[[], Awaitable[None]] = _nothing,
        leaves_it_to_others: Callable[[str], bool] = lambda queue: False,
    ) -> None:
        self._link = link
        self._lease = lease
        self._concurrency = {queue.name: queue.concurrency for queue in queues}
        self._timing = timing
        self._idle = idle
        self._busy = busy
        self._room = room
        self._knows = knows
        self._strange = strange
        self._refusals = refusals
        self._start = start
        self._settled = settled
        self._left_batch = left_batch
        self._offers = offers
        self._attend = attend
        self._portion = Portion()
        self.outbox = Outbox(self._portion.held)
        self.held: dict[tuple[int, int], Claimed] = {}
        """The jobs that are ours until the database has confirmed their verdict, by (id, fence)."""
        self._under = 0
        """The lease of the last claim that brought anything, and so of all that is held but for the `_former`."""
        self._former: dict[tuple[int, int], int] = {}
        self._sieve = Sieve()
        self._doubtful = False
        """The last claim failed, or its answer could not be read: the next goes one by one."""
        self._failures = self._fruitless = 0
        """Rounds in a row that failed, and claims."""
        self._claims_from = 0.0
        self.turned_at = time.monotonic()
        self._running: Counter[str] = Counter()
        self._holding: Counter[str] = Counter()
        """How many of the held are of each queue: those that run, and those whose verdicts are not written."""
        self._running_in: Counter[str] = Counter()
        self._holding_in: Counter[str] = Counter()
        """The same of those that run in a share of a limit, by its key."""
        self._unsure_of: int | None = None
        """A lease under which more may have been claimed, by a round whose answer was lost."""
        self._locked = 0
        """Verdicts that will be sent again after a pause, as when somebody had locked their rows."""
        self._gated_ends = False
        """Verdicts of jobs with gates wait to be written: their places can be handed on."""
        self._marks = Marks()
        self._appetite = Appetite(list(self._concurrency), self._marks, timing.look, leaves_it_to_others)
        self._returns = Returns()
        self._gates = Gatekeeper()
        self._patient = False
        self._changed = asyncio.Event()
        self._suspects = Suspects(timing.harmless, self._suspects_changed)
        self._left_out: frozenset[str] = frozenset()
        """The tasks that the last claim left out: unknown ones, and those that had no room."""
        self._ahead: Mapping[str, int] = {}
        self._asking = False
        """A round is on its way: what it claims is not among the held yet."""
        self._unmatched: list[tuple[int, int]] = []
        """Claims in our name that were not among the held while a round was on its way."""
        self.stopping = False

    def wake(self, queues: Collection[str] | None = None) -> None:
        """There may be work in these queues, or in any: look from the start."""
        self._appetite.wake(queues)
        self._changed.set()

    def rescued(self) -> None:
        """Jobs of the dead are ready again, or still."""
        self._suspects.ask()
        self.wake()

    def _suspects_changed(self) -> None:
        self._gates.opened()
        self._changed.set()

    def stop(self) -> None:
        """Claim no more; `work` returns when the last verdict is written. Where there is none, a round that is on its
        way is waited for no longer than a moment: what it may have claimed goes back with the lease.
        """
        self.stopping = True
        if self._is_over:
            self._link.hurry(_LAST_ROUND)
        self._changed.set()

    def complete(self, job: Claimed, verdict: Completion) -> None:
        """The attempt is over: its slot is free, its verdict goes out with the next round."""
        self._running[job.queue] -= 1
        if job.share is not None:
            self._running_in[job.share] -= 1
        if job.parked is not None:
            self._gated_ends = True
        if job.queue in self._appetite.at_limit:
            self._appetite.look_again([job.queue])  # the round that writes the verdict may claim another one
        if job.crashes:
            self._suspects.ended(job, verdict)
        if verdict.state is State.READY and verdict.delay is None:
            self._returns.add((job.id, job.fence), job.queue)
        self._send(verdict)

    def give_back(self, claim: tuple[int, int]) -> None:
        """A job that was claimed in our name, and is not among the held: by a round whose answer was lost, if it is
        not that of the round that is on its way.
        """
        if self._asking:
            self._unmatched.append(claim)
            return
        id_, fence = claim
        log.warning("job %d was claimed by a round whose answer was lost; giving it back", id_)
        self._give_back(id_, fence)

    def _give_back(self, id_: int, fence: int) -> None:
        if (lease := self._lease()) != self._under:
            self._former[id_, fence] = lease
        self._send(Completion(id_, fence, State.READY, refund=True, note="claimed unheard"))

    async def work(self) -> None:
        """Play rounds until stopped and empty."""
        while not self._is_over:
            self._changed.clear()
            self.turned_at = time.monotonic()
            await self._listen()
            await self._choose_suspects()
            await self._ask_who_else_is_there()
            # Read once: what is over between the decision and the sleep would be slept through.
            now = time.monotonic()
            wanted = self._wanted(now)
            if quiet := self._appetite.quiet():
                self._idle(quiet)
            self._offers(self._left_out)
            rests_for = self._appetite.rests_until - now
            if wanted.free or (self.outbox and (rests_for <= 0 or self.stopping)):
                await self._turn(wanted)
            else:
                await self._sleep(now, rests_for)

    @property
    def is_connected(self) -> bool:
        """Whether a verdict could be written now, as far as is known."""
        return self._link.conn is not None

    def has_room(self, queue: str) -> bool:
        """Whether more jobs of this queue could begin here."""
        return bool(self._free([queue], {}))

    @property
    def _is_over(self) -> bool:
        return self.stopping and not self.held and not self.outbox

    def _send_later(self, seconds: float, verdict: Completion) -> None:
        self._locked += 1
        asyncio.get_running_loop().call_later(seconds, self._send_again, verdict)

    def _send_again(self, verdict: Completion) -> None:
        self._locked -= 1
        self._gated_ends = True  # perhaps
        self._send(verdict)

    def _send(self, verdict: Completion) -> None:
        self.outbox.add(verdict)
        self._changed.set()

    def _wanted(self, now: float) -> Wanted:
        """What the next round should claim: nothing unless there may be something."""
        if self.stopping or self.outbox.is_searching or self._claims_from > now or self._appetite.rests(now):
            return Wanted()
        room = self._room()
        unknown = self._refusals.left_out()
        full = frozenset(room.without).difference(unknown)
        self._left_out, self._ahead = full.union(unknown), room.ahead
        if self._appetite.at_limit:
            self._appetite.look_again(self._leaving_limits())
        hungry = self._appetite.ask(now, self._left_out)
        suspects = self._suspects.chosen
        asked = self._concurrency if suspects else {**dict.fromkeys(hungry), **dict.fromkeys(self._gated(now))}
        free = self._free(asked, room.ahead)
        in_line = frozenset(queue for queue in free if self._concurrency[queue] == 1) if full else frozenset()
        free |= dict.fromkeys(in_line, 1)
        if room.bounds:
            free = shared(free, room.bounds)
        looking = self._marks.due(free if suspects else [queue for queue in free if self._has_to_look(queue, now)], now)
        lanes = self._marks.lanes(free.keys() - set(looking) if looking else free)
        return Wanted(free, lanes, looking, tuple(sorted(unknown)), suspects, tuple(sorted(full)), in_line)

    def _gated(self, now: float) -> Iterable[str]:
        """Queues in which parked jobs may run now, and those of jobs with slots that end: they are handed on."""
        due = self._gates.due(now)
        if self._gated_ends:
            due += {job.queue for verdict in self.outbox if (job := self._parked_of(verdict)) is not None}
        return due

    def _leaving_limits(self) -> set[str]:
        """Of queues at their limits those of which jobs have ended. Whatever was found meanwhile by a round that did
        not see that, the one that writes their verdicts may claim others in their place.
        """
        jobs = [self.held.get((verdict.id, verdict.fence)) for verdict in self.outbox]
        return self._appetite.at_limit.intersection(job.queue for job in jobs if job is not None)

    def _has_to_look(self, queue: str, now: float) -> bool:
        """A queue of which what waits for a limit fills all the room is looked at when that has been so for a while.
        With a look a round goes through all that wait, which is dear, and workers that are full ring for others.
        """
        return self._appetite.is_hungry(queue) and not self._gates.flows(queue, now)

    def _parked_of(self, verdict: Completion) -> Claimed | None:
        """The job whose verdict this is, if it has slots."""
        job = self.held.get((verdict.id, verdict.fence))
        return None if job is None or job.parked is None else job

    def _within_limits(self, wanted: Wanted, verdicts: Sequence[Completion]) -> Wanted:
        """What this round has to do with limits and turns, and with what ends now of those."""
        ending: dict[str, set[str]] = {}
        if self._gated_ends:
            for verdict in verdicts:
                if (job := self._parked_of(verdict)) is not None and job.parked is not None:
                    ending.setdefault(job.queue, set()).add(job.parked)
        if not wanted.free:
            return replace(wanted, gated=self._gates.wish((), ending)) if ending else wanted
        flow = None
        if not (wanted.looking or wanted.suspects):
            flow = self._gates.flow(wanted.free.keys() - wanted.in_line, ending)
        gated: Mapping[str, Circle] = {}
        if flow is None:
            suspects = {} if wanted.suspects else self._suspects.may_come(self._gates.due_of(wanted.free))
            gated = self._gates.wish(wanted.free, ending, suspects, wanted.in_line.intersection(wanted.looking))
        holds = self._holds(wanted.free, flow)
        return replace(wanted, holds=holds, pressing=self._appetite.at_limit, gated=gated, flow=flow)

    def _holds(self, queues: Iterable[str], flow: Flow | None) -> Mapping[Held, tuple[int, int]] | None:
        """How many of each of these queues, and of the limit of the flow, this worker has at most: before the verdicts
        of this round, and after that. None where there may be more than it knows of.
        """
        if self._unsure_of == self._lease():
            return None
        all_end = not (self._locked or self.outbox)  # of those whose verdicts are not in this round, nothing does
        holds: dict[Held, tuple[int, int]] = {}
        for queue in queues:
            if n := self._holding[queue]:
                holds["queue", queue] = n, self._running[queue] if all_end else n
        if flow is not None and (n := self._holding_in[flow.key]):
            holds["gate", flow.key] = n, self._running_in[flow.key] if all_end else n
        return holds

    def _free(self, queues: Iterable[str], ahead: Mapping[str, int]) -> dict[str, int]:
        """How many more jobs of each of these queues there is room for."""
        return {
            queue: n
            for queue in queues
            if (n := self._concurrency[queue] + ahead.get(queue, 0) - self._running[queue]) > 0
            and queue not in self._returns
        }

    async def _listen(self) -> None:
        """To what is to be heard by now."""
        try:
            await self._attend()
        except psycopg.Error as error:
            await self._recover(error, [])

    async def _choose_suspects(self) -> None:
        """Find out which suspects the next round claims, when some wait and may begin."""
        if self.stopping:
            return
        free = self._free(self._concurrency, self._ahead) if self._suspects.asks else {}
        if (statement := self._suspects.wish(free, tuple(self._left_out))) is None:
            return
        try:
            self._suspects.learn(await self._link.send(statement))
        except psycopg.Error as error:
            await self._recover(error, [])

    async def _ask_who_else_is_there(self) -> None:
        """Of what was refused: whether there is another worker that might take it."""
        if self.stopping or (statement := self._refusals.wish()) is None:
            return
        try:
            self._refusals.learn(await self._link.send(statement))
        except psycopg.Error as error:
            await self._recover(error, [])

    async def _turn(self, wanted: Wanted) -> None:
        if self._doubtful and wanted.free:
            return await self._sift(wanted)
        if wanted.free:
            wanted = await self._reach(wanted)
            if not wanted.free and not self.outbox:
                return None
        verdicts, under = self._of_one_lease(self.outbox.take())
        wanted = self._within_limits(self._portion.of(wanted, self._running), verdicts)
        weighs = self._portion.weighs
        text = TEXTS[self._patient, weighs]
        self._appetite.asked()
        began, lease = time.monotonic(), self._lease()
        try:
            answer = await self._play(play_round(lease, verdicts, wanted, under=under, text=text))
        except LOCKED:
            self.outbox.put_back(verdicts)
            self._patient = True
        except asyncio.CancelledError:
            self.outbox.put_back(verdicts)  # rounds go on once more where a whole loop is cancelled
            self._unsure_of = lease
            raise
        except Exception as error:  # an answer that Python cannot read, too
            self._unsure_of = lease
            await self._failed(error, verdicts, wanted)
        else:
            self._link.recovery.over()
            self._failures = 0
            # Before anything else is awaited: what the database has under our name has to be among the held.
            self.outbox.accepted()
            if answer.claimed:
                self._fruitless = 0
                self._portion.grow()
                self._claimed_under(lease)
                if weighs:
                    self._portion.came(answer.claimed)
                elif wanted.gated:  # what is admitted is weighed always
                    self._portion.came(job for job in answer.claimed if not job.is_withheld)
            self._gated_ends = self._gated_ends and bool(self.outbox)
            took = time.monotonic() - began
            self._marks.learn(answer, wanted.looking, took)
            self._learn_of_gates(answer, wanted, took)
            if wanted.gated and answer.settled < len(verdicts):
                self._gates.opened()  # a handler has written its own verdict, and handed on nothing
            self._take(answer, lease, wanted)
            backlog = self._learn(answer, wanted)
            await self._confirm(verdicts, under, answer)
            if not backlog:
                await asyncio.sleep(0)  # what was claimed begins before the next round is made
        unmatched, self._unmatched = self._unmatched, []
        for claim in unmatched:
            if claim not in self.held:
                self.give_back(claim)
        return None

    async def _reach(self, wanted: Wanted) -> Wanted:
        """Get larger shares of limits, where those were too small. Of a queue that has none nothing is claimed now,
        unless some of its jobs end with this round.
        """
        limits: dict[Held, tuple[int, str | None]] = {}
        gates: dict[Held, str] = {}
        if self._appetite.thirsty:
            for queue in self._appetite.thirsty.intersection(wanted.free):
                if self._holding[queue] == self._running[queue]:
                    limits["queue", queue] = self._concurrency[queue], None
        for queue in self._gates.queues & wanted.free.keys():
            if (limit := self._gates.reaching(queue)) is not None:
                limits["gate", limit[0]] = self._concurrency[queue], limit[1]
                gates["gate", limit[0]] = queue
        if not limits:
            return wanted
        try:
            free = await self._link.send(reach(self._lease(), limits))
        except LOCKED:
            return wanted
        except psycopg.Error as error:
            if self._link.is_broken(error):
                await self._recover(error, [])
            return wanted
        without = set[str]()
        for (kind, name), n in free.items():
            if kind == "gate":
                self._gates.reached(gates[kind, name], n)
            else:
                self._appetite.thirsty.discard(name)
                if not n and self._holding[name] == self._running[name]:  # no job of it has ended meanwhile
                    self._appetite.at_limit_still(name, time.monotonic())
                    self._appetite.thirsty.add(name)
                    without.add(name)
        if not without:
            return wanted
        return replace(wanted, free={queue: n for queue, n in wanted.free.items() if queue not in without})

    async def _play(self, statement: Statement[Answer]) -> Answer:
        self._asking = True
        try:
            return await self._link.send(statement)
        finally:
            self._asking = False

    def _learn_of_gates(self, answer: Answer, wanted: Wanted, took: float) -> None:
        if wanted.flow is not None:
            self._gates.flowed(wanted.flow, wanted.free, answer)
        if wanted.gated:
            self._gates.learn(wanted.gated, wanted.free, answer, took)

    def _learn(self, answer: Answer, wanted: Wanted) -> bool:
        """See whether there may be more, and where; whether there is a backlog."""
        if not wanted.free:
            return False
        if not answer.holding:
            self._appetite.lost_lease(wanted.free)
            return False
        if wanted.looking:
            self._gates.looked(wanted.looking, answer.parked)
        got = Counter(job.queue for job in answer.claimed)
        if got:
            self._busy(got.keys())
        return self._appetite.learn(wanted, answer, got, time.monotonic())

    def _claimed_under(self, lease: int) -> None:
        """What is held already was claimed under another one, if this is new."""
        if lease != self._under:
            self._former.update({key: job.lease for key, job in self.held.items()})
            self._under = lease

    def _of_one_lease(self, verdicts: list[Completion]) -> tuple[list[Completion], int]:
        """A round writes the verdicts of claims under one lease: all, unless this worker has had to take a new one."""
        if not self._former or not verdicts:
            return verdicts, self._under
        leases = [self._former.get((verdict.id, verdict.fence), self._under) for verdict in verdicts]
        under = leases[0]
        self.outbox.put_back(verdict for verdict, lease in zip(verdicts, leases, strict=True) if lease != under)
        return [verdict for verdict, lease in zip(verdicts, leases, strict=True) if lease == under], under

    def _take(self, answer: Answer, lease: int, wanted: Wanted) -> None:
        """Start what was claimed under this lease."""
        self._suspects.claimed(answer.claimed, wanted.free)
        claimed = {(job.id, job.fence): job for job in answer.claimed}
        twice = () if self.held.keys().isdisjoint(claimed) else claimed.keys() & self.held.keys()
        self.held.update(claimed)
        if twice:
            self._unsure_of = lease
        late = {job.queue for job in answer.claimed if job.queue in self._returns} if self._returns else ()
        lost = lease != self._lease()
        for job in answer.claimed:
            self._running[job.queue] += 1
            self._holding[job.queue] += 1
            if job.share is not None:
                self._running_in[job.share] += 1
                self._holding_in[job.share] += 1
            if twice and (job.id, job.fence) in twice:
                self._claimed_twice(job)
            elif lost:
                self.complete(job, released(job, "its worker's lease was lost before it began"))
            elif self.stopping:
                self.complete(job, released(job, "its worker was told to stop while it was claimed"))
            elif late and job.queue in late:
                self.complete(job, released(job, "jobs of its queue that come before it are going back"))
            else:
                self._accept(job)

    def _claimed_twice(self, job: Claimed) -> None:
        """The one before is nobody's any more, and its verdict will find no row."""
        self._former.pop((job.id, job.fence), None)
        log.error(
            "job %d was claimed twice under one fence: the database has lost what it had committed, as after a "
            "failover; what is running here as this job is another one, which is lost",
            job.id,
        )
        self.complete(job, released(job, "claimed a second time"))

    def _accept(self, job: Claimed) -> None:
        if job.is_withheld:
            self._portion.weigh()
            self.complete(job, released(job, "large: claimed again by its weight"))
        elif not self._knows(job.task):
            self._strange(job)
        else:
            if job.crashes:
                self._suspects.begins(job)
            self._start(job)

    async def _confirm(self, verdicts: list[Completion], under: int, answer: Answer) -> None:
        """Let go of what is written; ask what became of verdicts whose row was not found or was locked."""
        fates: dict[tuple[int, int], str] = {}
        if answer.settled < len(verdicts):
            try:
                fates = await self._link.send(settle(under, verdicts, self.held))
            except psycopg.Error as error:
                await self._recover(error, verdicts)
                return
            except asyncio.CancelledError:
                self.outbox.put_back(verdicts)
                raise
        self._patient = "busy" in fates.values()
        for verdict in verdicts:
            key = verdict.id, verdict.fence
            if fates and (fate := fates.get(key, "done")) != "done":
                if fate == "busy":
                    self._send_later(_BUSY_PAUSE, verdict)
                    continue
                self._settled(verdict, fate)
            if (job := self.held.pop(key, None)) is None:
                self._appetite.look_again()  # it was claimed unheard, and is back at its place, wherever that is
                continue
            self._holding[job.queue] -= 1
            if fates and job.queue in self._appetite.at_limit:
                self._appetite.look_again([job.queue])  # a round of which not all are settled counts none as ended
            if job.share is not None:
                self._holding_in[job.share] -= 1
            if job.batch is not None:
                self._left_batch(job.batch)
            if self._portion.held and self._portion.let_go(key):
                self.wake()
            if self._former:
                self._former.pop(key, None)
            if verdict.state is not State.SUCCEEDED:
                self._went_back(job, verdict)

    def _went_back(self, job: Claimed, verdict: Completion) -> None:
        """To its place, or to another one in its queue; or it has ended instead."""
        key = job.id, job.fence
        if (queue := self._returns.arrived(key)) is not None:
            self._appetite.look_again([queue])
        if verdict.state is State.READY and verdict.delay is not None:
            self._appetite.put_off(job.queue, time.monotonic() + verdict.delay.total_seconds())

    async def _failed(self, error: Exception, verdicts: list[Completion], wanted: Wanted) -> None:
        """After a round that raised. Its claim never costs the verdicts anything: they go alone first, and what fails
        then is theirs; the next claim goes one by one.
        """
        reason = one_line(error)
        if isinstance(error, psycopg.Error) and self._link.is_broken(error):
            # The round may have committed: then the verdicts are found in history under their fence.
            self.outbox.cut(verdicts, reason)
            self._portion.cut(wanted)
            await self._recover(error, [])
        elif isinstance(error, psycopg.errors.QueryCanceled):
            self.outbox.cut(verdicts, reason)
            self._portion.cut(wanted)
            await self._pause(f"a round took too long, and is halved: {reason}")
        elif isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name is None:
            self.outbox.put_back(verdicts)
            await self._make_partitions(reason)
        elif wanted.gated and not wanted.free:
            self._gated_ends = False  # their slots are looked for
            self.outbox.put_back(verdicts)
            await self._pause(f"the places of jobs that have ended could not be handed on: {reason}")
        elif wanted.free:
            log.error("a round failed: %s; its verdicts go alone, and then its claim one by one", reason)
            self._doubtful = True
            self.outbox.alone(verdicts)
            if is_unread(error):
                await self._give_back_unheard()
        elif not is_of_a_row(error) and len(verdicts) == 1:
            self._send_later(_LONGEST_PAUSE, verdicts[0])
            await self._pause(f"the verdict of job {verdicts[0].id} could not be written, and is sent again: {reason}")
        elif (beyond := self.outbox.refused(verdicts, reason)) is not None:
            await self._end(beyond, reason)

    async def _sift(self, wanted: Wanted) -> None:
        """Claim one by one, after a claim that failed: whichever row was to blame ends, and the others begin."""
        self._doubtful = False
        lease = self._lease()
        self._claimed_under(lease)

        wanted = self._within_limits(wanted, ())

        def accept(job: Claimed) -> None:
            self._portion.came([job])
            self.held[job.id, job.fence] = job
            self._running[job.queue] += 1
            self._holding[job.queue] += 1
            self._accept(job)

        try:
            ended = await self._sieve.sift(self._link, lease, wanted, accept, lambda: self.stopping)
        except LOCKED:
            self._doubtful = True
            self._rest_from_claims()
        except psycopg.Error as error:
            if self._link.is_broken(error):
                self._doubtful = True
                await self._recover(error, [])
            else:
                log.error("nothing can be claimed, not even one by one: %s", one_line(error))
                self._rest_from_claims()
        else:
            if not ended:
                self._rest_from_claims()
        self._appetite.look_again()
        await asyncio.sleep(0)

    def _rest_from_claims(self) -> None:
        self._fruitless += 1
        self._claims_from = time.monotonic() + min(0.25 * 2**self._fruitless, _LONGEST_PAUSE_OF_CLAIMS)

    async def _give_back_unheard(self) -> None:
        """A claim has been committed, and what it brought could not be read: not by this worker's heartbeat alone."""
        try:
            for id_, fence in await self._link.send(claimed_by(self._lease())):
                if (id_, fence) not in self.held:
                    self._give_back(id_, fence)
        except psycopg.Error as error:
            await self._recover(error, [])

    async def _end(self, verdict: Completion, reason: str) -> None:
        """A verdict that is refused even bare: the row cannot be moved as it is."""
        job = self.held.get((verdict.id, verdict.fence))
        lease = self._under if job is None else job.lease
        try:
            await end(self._link, lease, verdict.id, verdict.fence, reason, claimed=True)
        except psycopg.Error as error:
            self._send_later(_LONGEST_PAUSE_OF_CLAIMS, verdict)
            await self._recover(error, [])
        else:
            self.outbox.add(verdict)  # whose row is found in history by now

    async def _make_partitions(self, reason: str) -> None:
        try:
            await self._link.send(make_partitions(1))
        except psycopg.Error as error:
            await self._recover(error, [])
        else:
            await self._pause(f"a round found no partition of the history, and is sent again: {reason}")

    async def _recover(self, error: psycopg.Error, verdicts: list[Completion]) -> None:
        """After an error that is no verdict's and no row's: these are sent again."""
        self.outbox.put_back(verdicts)
        await self._unless_over(self._link.reconnect(error))
        self.wake()

    async def _pause(self, words: str) -> None:
        """Say it, and wait; longer each time until a round succeeds."""
        log.error("%s", words)
        self._failures += 1
        await asyncio.sleep(min(0.05 * 2**self._failures, _LONGEST_PAUSE))

    async def _unless_over(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this, but leave it when the worker stops and has nothing to write down."""
        doing = asyncio.create_task(work)
        doing.add_done_callback(lambda _: self._changed.set())
        try:
            while not (doing.done() or self._is_over):
                self._changed.clear()
                await self._changed.wait()
        finally:
            doing.cancel()
            await asyncio.wait([doing])
        if not doing.cancelled():
            doing.result()

    async def _sleep(self, now: float, rests_for: float) -> None:
        """Until something changes, a queue is to be asked, or it is time for a round or an admission."""
        until = min(self._gates.next_at(now), now + self._timing.look)
        if not self.stopping:
            until = min(until, self._appetite.sleeps_until())
            if self._claims_from > now:
                until = min(until, self._claims_from)
        pause = min(until - now, rests_for) if rests_for > 0 else until - now
        timer = asyncio.get_running_loop().call_later(max(pause, 0.001), self._changed.set)
        try:
            await self._link.wait(self._changed)
        except Ended as error:
            await self._recover(error, [])
        finally:
            timer.cancel()
