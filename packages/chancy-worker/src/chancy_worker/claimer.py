"""The rounds: while one is in flight verdicts gather, and when it returns they go out with a claim for every free slot.

So the loop sets its own pace, without a timer. An idle worker sleeps until the doorbell, a verdict, the next
scheduled job or the fallback look.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import psycopg

from chancy.model import Queue
from chancy.run import AsyncConn
from chancy.statements import make_partitions
from chancy.states import State

from .claims import (
    PATIENT_ROUND,
    PATIENT_WEIGHED_ROUND,
    ROUND,
    START,
    WEIGHED_ROUND,
    Answer,
    Mark,
    Wanted,
    play_round,
    settle,
)
from .config import Timing
from .gatekeeper import Admission, Gatekeeper
from .link import Link, one_line
from .outbox import Outbox
from .pace import REST_SECONDS, Pace
from .portions import Portion
from .sifting import LOCKED, Sieve, claimed_by, end, is_of_a_row, is_unread
from .slots import Room
from .verdict import Claimed, Completion, released

log = logging.getLogger("chancy.worker")

_BUSY_PAUSE = 0.05
_LONGEST_PAUSE, _LONGEST_PAUSE_OF_CLAIMS = 5.0, 30.0
"""After a round that failed, and failed again: seconds, up to which pauses grow. Without claims verdicts go on."""
LIMIT_SECONDS = 0.25
"""How soon a worker looks again at a queue whose limit other workers have used up: nobody tells it."""


TEXTS = {
    (False, False): ROUND,
    (True, False): PATIENT_ROUND,
    (False, True): WEIGHED_ROUND,
    (True, True): PATIENT_WEIGHED_ROUND,
}
"""By whether it passes locked rows by, and whether it weighs."""


class Marks:
    """Where to claim from: a high-water mark for each (queue, priority), so that dead index entries are read once.

    A look starts from the beginning and learns which priorities are in use. It is due every second, or after 20
    times what the last one took.
    """

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, int], Mark] = {}
        self._next_look = 0.0

    @property
    def next_look_in(self) -> float:
        """Seconds until a round has to look from the start; 0 or less is now."""
        return self._next_look - time.monotonic() if self._lanes else 0.0

    def forget(self) -> None:
        """The next round looks: something may have appeared behind the marks."""
        self._next_look = 0.0

    def lanes(self, queues: Mapping[str, int]) -> dict[tuple[str, int], Mark]:
        """The marked lanes of these queues, best first."""
        return {lane: mark for lane, mark in self._lanes.items() if lane[0] in queues}

    def learn(self, answer: Answer, looked: Sequence[str], took: float) -> None:
        """Take over what a round has found, `took` seconds long."""
        if looked:
            kept = {lane: mark for lane, mark in self._lanes.items() if lane[0] not in looked}
            self._lanes = kept | dict.fromkeys(answer.lanes, START)
            self._next_look = time.monotonic() + max(1.0, 20 * took)
        for lane, mark in answer.marks.items():
            self._lanes[lane] = max(self._lanes.get(lane, START), mark)


class Claimer:
    """One worker's rounds, and what it holds."""

    def __init__(
        self,
        *,
        link: Link,
        lease: Callable[[], int],
        queues: Sequence[Queue],
        timing: Timing,
        idle: Callable[[], None],
        busy: Callable[[], None],
        hearing: Callable[[AsyncConn], AbstractContextManager[None]],
        room: Callable[[], Room],
        knows: Callable[[str], bool],
        start: Callable[[Claimed], None],
        settled: Callable[[Completion, str], None],
        left_batch: Callable[[int], None],
    ) -> None:
        self._link = link
        self._lease = lease
        self._concurrency = {queue.name: queue.concurrency for queue in queues}
        self._timing = timing
        self._idle = idle
        self._busy = busy
        self._hearing = hearing
        self._room = room
        self._knows = knows
        self._start = start
        self._settled = settled
        self._left_batch = left_batch
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
        self._unknown: dict[str, None] = {}
        self._suspect: tuple[int, int] | None = None
        self._next_suspect: tuple[Claimed, int] | None = None
        """It and the lease under which it was claimed: it begins when those that were claimed with it are back."""
        self._going_back: set[tuple[int, int]] = set()
        self._marks = Marks()
        self._without: tuple[str, ...] = ()
        self._shunned = False
        """The last claim left suspects out, because one was running."""
        self._barren: frozenset[str] = frozenset()
        """With these tasks left out, the last look found nothing."""
        self._empty: set[str] = set()
        """Queues in which the looks since the last wakeup or job have found nothing: a look may be for a few only."""
        self._gates = Gatekeeper()
        self._at_limit: frozenset[str] = frozenset()
        """Queues that were at their limit in the last claim."""
        self._patient = False
        self._changed = asyncio.Event()
        self._hungry = self._woken = True
        self._due_at: float | None = None
        self._pace = Pace()
        self._rests_until = 0.0
        """Until then jobs and verdicts gather for one round, while they come briskly but leave no backlog."""
        self.stopping = False

    def wake(self) -> None:
        """There may be work: look from the start."""
        self._woken = True
        self._barren = frozenset()
        self._look_again()
        self._changed.set()

    def stop(self) -> None:
        """Claim no more; `work` returns when the last verdict is written."""
        self.stopping = True
        self._changed.set()

    def complete(self, job: Claimed, verdict: Completion) -> None:
        """The attempt is over: its slot is free, its verdict goes out with the next round."""
        self._running[job.queue] -= 1
        if self._suspect == (job.id, job.fence):
            self._suspect = None
        self._send(verdict)

    def give_back(self, claim: tuple[int, int]) -> None:
        """A job that was claimed in our name by a round whose answer was lost."""
        id_, fence = claim
        log.warning("job %d was claimed by a round whose answer was lost; giving it back", id_)
        self._give_back(id_, fence)

    def _give_back(self, id_: int, fence: int) -> None:
        if (lease := self._lease()) != self._under:
            self._former[id_, fence] = lease
        self._send(Completion(id_, fence, State.READY, refund=True, note="claimed unheard"))

    async def work(self) -> None:
        """Play rounds until stopped and empty."""
        while not (self.stopping and not self.held and not self.outbox):
            self._changed.clear()
            self.turned_at = time.monotonic()
            admits_in = await self._admit()
            # Read once: what is over between the decision and the sleep would be slept through.
            rests_for = self._rests_until - time.monotonic()
            wanted = self._wanted(rests_for)
            if wanted.free or (self.outbox and (rests_for <= 0 or self.stopping)):
                await self._turn(wanted)
            else:
                await self._sleep(rests_for, admits_in)

    def _send(self, verdict: Completion) -> None:
        self.outbox.add(verdict)
        self._changed.set()

    def _wanted(self, rests_for: float) -> Wanted:
        """What the next round should claim: nothing unless there may be something."""
        if self.stopping or self.outbox.is_searching or rests_for > 0 or self._claims_from > time.monotonic():
            return Wanted()
        room = self._room()
        without = tuple(sorted({*self._unknown, *room.without}))
        shunned = self._suspect is not None
        if set(self._without) - set(without) or (self._shunned and not shunned):
            # There is room again for what was left out.
            self._look_again()
        self._without, self._shunned = without, shunned
        if not self._hungry or (self._is_barren and self._marks.next_look_in > 0):
            return Wanted()
        free = self._free(room.ahead)
        looking = tuple(free) if self._marks.next_look_in <= 0 else ()
        if room.most is not None:
            free = _shared({queue: n for queue, n in free.items() if queue not in self._empty} or free, room.most)
        return Wanted(free, {} if looking else self._marks.lanes(free), looking, without, not shunned)

    def _look_again(self) -> None:
        """The next round looks, also where the last ones have found nothing."""
        self._hungry = True
        self._empty.clear()
        self._marks.forget()

    def _free(self, ahead: Mapping[str, int]) -> dict[str, int]:
        """How many more jobs of each queue there is room for."""
        return {
            queue: n
            for queue, slots in self._concurrency.items()
            if (n := slots + ahead.get(queue, 0) - self._running[queue]) > 0
        }

    async def _admit(self) -> float:
        """Admit parked jobs for the free slots, when there may be some that can be. Seconds until the next time; what
        is due and could not be done waits for a change.
        """
        if (due_in := self._gates.due_in) > 0:
            return due_in
        if self.stopping:
            return math.inf
        try:
            answers = await self._admitted(self._free({}))
        except LOCKED:
            self._gates.try_again()
        except psycopg.Error as error:
            await self._recover(error, [])
        else:
            if self._gates.learn(answers):
                self._look_again()
        return self._gates.due_in

    async def _admitted(self, free: dict[str, int]) -> list[Admission]:
        """What came of one admission for all queues; where that fails, of one for each: no queue holds up another."""
        if (statement := self._gates.wish(free)) is None:
            return []
        try:
            return await self._link.send(statement)
        except psycopg.Error as error:
            if isinstance(error, LOCKED) or self._link.is_broken(error):
                raise
        answers: list[Admission] = []
        for queue, n in free.items():
            try:
                if (statement := self._gates.wish({queue: n})) is not None:
                    answers += await self._link.send(statement)
            except psycopg.Error as error:
                if isinstance(error, LOCKED) or self._link.is_broken(error):
                    raise
                log.error("jobs of queue %r that wait for limits or turns cannot be let in: %s", queue, one_line(error))
        return answers

    @property
    def _is_barren(self) -> bool:
        """Whether all that waits, as far as is known, is for executors that are full: looking past it is not free."""
        return bool(self._barren) and self._barren <= set(self._without)

    async def _turn(self, wanted: Wanted) -> None:
        if self._doubtful and wanted.free:
            return await self._sift(wanted)
        verdicts, under = self._of_one_lease(self.outbox.take())
        wanted = self._portion.of(wanted, self._running)
        weighs = self._portion.weighs
        text = TEXTS[self._patient, weighs]
        self._woken = False
        began = time.monotonic()
        try:
            answer = await self._link.send(play_round(self._lease(), verdicts, wanted, under=under, text=text))
        except LOCKED:
            self.outbox.put_back(verdicts)
            self._patient = True
        except Exception as error:  # an answer that Python cannot read, too
            await self._failed(error, verdicts, wanted)
        else:
            self._failures = 0
            self.outbox.accepted()
            if answer.claimed:
                self._fruitless = 0
                self._portion.grow()
                self._claimed_under(answer.claimed[0].lease)
                if weighs:
                    self._portion.came(answer.claimed)
            await self._confirm(verdicts, answer)
            self._marks.learn(answer, wanted.looking, time.monotonic() - began)
            if not self._take(answer, wanted):
                await asyncio.sleep(0)  # what was claimed begins before the next round is made

    def _take(self, answer: Answer, wanted: Wanted) -> bool:
        """Start what was claimed, and see whether there may be more; whether there is a backlog."""
        for job in answer.claimed:
            self._accept(job)
        self._begin_suspect()
        if not answer.holding:
            self._hungry = False  # until the next look: by then there is a new lease
        if not wanted.free or not answer.holding:
            return False
        if wanted.looking:
            self._gates.looked(wanted.looking, answer.parked)
            self._due_at = None if answer.next_in is None else time.monotonic() + answer.next_in
        self._at_limit = frozenset(answer.at_limit)
        if self._at_limit:
            look = time.monotonic() + LIMIT_SECONDS * random.uniform(0.75, 1.25)
            self._due_at = look if self._due_at is None else min(self._due_at, look)
        if answer.claimed:
            self._empty.clear()
            self._busy()
            self._pace.came(len(answer.claimed))
        elif wanted.looking and not self._woken:
            self._empty.update(wanted.free)
        per_queue = Counter(job.queue for job in answer.claimed)
        if any(per_queue[queue] == n for queue, n in wanted.free.items()):
            return True
        if self._pace.is_brisk and not wanted.without:
            self._rests_until = time.monotonic() + REST_SECONDS
            self._marks.forget()
        elif wanted.looking and self._empty.issuperset(wanted.looking):
            self._hungry = False
            self._barren = frozenset(wanted.without)
            self._idle()
        else:
            self._marks.forget()
        return False

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

    def _accept(self, job: Claimed) -> None:
        key = job.id, job.fence
        again = key in self.held
        self.held[key] = job
        self._running[job.queue] += 1
        if again:  # the one before is nobody's any more, and its verdict will find no row
            self._former.pop(key, None)
            log.error(
                "job %d was claimed twice under one fence: the database has lost what it had committed, as after a "
                "failover; what is running here as this job is another one, which is lost",
                job.id,
            )
            self.complete(job, released(job, "claimed a second time"))
        elif job.is_withheld:
            self._portion.weigh()
            self.complete(job, released(job, "large: claimed again by its weight"))
        elif not self._knows(job.task):
            if job.task not in self._unknown:
                self._unknown[job.task] = None
                log.warning(
                    "task %r of job %d is unknown to this worker, which leaves such jobs to others; "
                    "if it should know it, name the task's module on the command line",
                    job.task,
                    job.id,
                )
            self.complete(job, released(job, "unknown task"))
        elif not job.suspect:
            self._start(job)
        elif self._suspect is None:
            self._suspect = key
            self._next_suspect = job, self._lease()
        else:
            self._going_back.add(key)
            self.complete(job, released(job, "one suspect at a time"))

    def _begin_suspect(self) -> None:
        """A job that kills its worker must not take along the suspects that were released to let it run alone."""
        if self._next_suspect is None or self._going_back:
            return
        (job, lease), self._next_suspect = self._next_suspect, None
        if self.stopping or lease != self._lease():
            self.complete(job, released(job, "interrupted before it began"))
        else:
            self._start(job)

    async def _confirm(self, verdicts: list[Completion], answer: Answer) -> None:
        """Let go of what is written; ask what became of verdicts whose row was not found or was locked."""
        fates: dict[tuple[int, int], str] = {}
        if answer.settled < len(verdicts):
            try:
                fates = await self._link.send(settle(self._under, verdicts, self.held))
            except psycopg.Error as error:
                await self._recover(error, verdicts)
                return
        self._patient = "busy" in fates.values()
        for verdict in verdicts:
            key = verdict.id, verdict.fence
            if fates and (fate := fates.get(key, "done")) != "done":
                if fate == "busy":
                    asyncio.get_running_loop().call_later(_BUSY_PAUSE, self._send, verdict)
                    continue
                self._settled(verdict, fate)
            if (job := self.held.pop(key, None)) is not None:
                if job.parked is not None:
                    self._gates.ended(job.queue, job.parked)
                if job.batch is not None:
                    self._left_batch(job.batch)
                if job.queue in self._at_limit or (self._portion.held and self._portion.let_go(key)):
                    self.wake()
            if self._former:
                self._former.pop(key, None)
            self._going_back.discard(key)
        self._begin_suspect()

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
        elif wanted.free:
            log.error("a round failed: %s; its verdicts go alone, and then its claim one by one", reason)
            self._doubtful = True
            self.outbox.alone(verdicts)
            if is_unread(error):
                await self._give_back_unheard()
        elif not is_of_a_row(error) and len(verdicts) == 1:
            asyncio.get_running_loop().call_later(_LONGEST_PAUSE, self._send, verdicts[0])
            await self._pause(f"the verdict of job {verdicts[0].id} could not be written, and is sent again: {reason}")
        elif (beyond := self.outbox.refused(verdicts, reason)) is not None:
            await self._end(beyond, reason)

    async def _sift(self, wanted: Wanted) -> None:
        """Claim one by one, after a claim that failed: whichever row was to blame ends, and the others begin."""
        self._doubtful = False
        lease = self._lease()
        self._claimed_under(lease)

        def accept(job: Claimed) -> None:
            self._portion.came([job])
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
        self._begin_suspect()
        self._look_again()
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
        key = verdict.id, verdict.fence
        job = self.held.get(key)
        try:
            await end(
                self._link, self._under if job is None else job.lease, verdict.id, verdict.fence, reason, claimed=True
            )
        except psycopg.Error as error:
            asyncio.get_running_loop().call_later(_LONGEST_PAUSE_OF_CLAIMS, self._send, verdict)
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
        if self._link.is_broken(error):
            log.warning("lost the database (%s); %d jobs go on running", one_line(error), len(self.held))
            await self._link.reconnect()
            self.wake()
        else:
            await self._pause(f"a round failed: {one_line(error)}")

    async def _pause(self, words: str) -> None:
        """Say it, and wait; longer each time until a round succeeds."""
        log.error("%s", words)
        self._failures += 1
        await asyncio.sleep(min(0.05 * 2**self._failures, _LONGEST_PAUSE))

    async def _sleep(self, rests_for: float, admits_in: float) -> None:
        """Until something changes, the next scheduled job is due, or it is time for a look, a round or an admission."""
        pause = min(self._timing.look * random.uniform(0.75, 1.25), max(admits_in, 0.001))
        if not self._hungry and self._due_at is not None:
            pause = min(pause, max(self._due_at - time.monotonic(), 0.001))
        if rests_for > 0:
            pause = min(pause, rests_for)
        if self._hungry and self._is_barren:
            pause = min(pause, max(self._marks.next_look_in, 0.001))
        if (until_claims := self._claims_from - time.monotonic()) > 0:
            pause = min(pause, until_claims)
        conn = self._link.conn
        if conn is None:
            await self._link.reconnect()
            self.wake()
            return
        timer = asyncio.get_running_loop().call_later(pause, self.wake)
        try:
            with self._hearing(conn):
                await self._changed.wait()
        finally:
            timer.cancel()


def _shared(free: dict[str, int], most: int) -> dict[str, int]:
    """At most `most` in all: equal shares, in an order that changes so that no queue is always the last."""
    queues = random.sample(sorted(free), len(free))
    shared: dict[str, int] = {}
    for left, queue in zip(range(len(queues), 0, -1), queues, strict=True):
        share = min(free[queue], -(-most // left))
        most -= share
        if share:
            shared[queue] = share
    return shared
