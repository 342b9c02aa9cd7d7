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

from .claims import PATIENT_ROUND, ROUND, START, Answer, Mark, Wanted, play_round, settle
from .config import Timing
from .gatekeeper import Gatekeeper
from .link import Link, one_line
from .outbox import Outbox
from .pace import REST_SECONDS, Pace
from .refusals import Refusals
from .slots import Room
from .suspects import Suspects
from .verdict import Claimed, Completion, released

log = logging.getLogger("chancy.worker")

_LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_BAD_DATA = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
_BUSY_PAUSE = 0.05
LIMIT_SECONDS = 0.25
"""How soon a worker looks again at a queue whose limit other workers have used up: nobody tells it."""


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
        strange: Callable[[Claimed], None],
        refusals: Refusals,
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
        self._strange = strange
        self._refusals = refusals
        self._start = start
        self._settled = settled
        self._left_batch = left_batch
        self.outbox = Outbox()
        self.held: dict[tuple[int, int], Claimed] = {}
        """The jobs that are ours until the database has confirmed their verdict, by (id, fence)."""
        self.turned_at = time.monotonic()
        self._running: Counter[str] = Counter()
        self._marks = Marks()
        self._without: tuple[str, ...] = ()
        self._ahead: Mapping[str, int] = {}
        self._barren: frozenset[str] = frozenset()
        """With these tasks left out, the last look found nothing."""
        self._empty: set[str] = set()
        """Queues in which the looks since the last wakeup or job have found nothing: a look may be for a few only."""
        self._gates = Gatekeeper()
        self._at_limit: frozenset[str] = frozenset()
        """Queues that were at their limit in the last claim."""
        self._patient = False
        self._changed = asyncio.Event()
        self._suspects = Suspects(timing.harmless, self._changed.set)
        self._claims_under = 0
        """The lease under which the last round claimed."""
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

    def rescued(self) -> None:
        """Jobs of the dead are ready again, or still."""
        self._suspects.ask()
        self.wake()

    def stop(self) -> None:
        """Claim no more; `work` returns when the last verdict is written."""
        self.stopping = True
        self._changed.set()

    def complete(self, job: Claimed, verdict: Completion) -> None:
        """The attempt is over: its slot is free, its verdict goes out with the next round."""
        self._running[job.queue] -= 1
        if job.suspect:
            self._suspects.ended(job, verdict)
        self._send(verdict)

    def give_back(self, claim: tuple[int, int]) -> None:
        """A job that was claimed in our name by a round whose answer was lost."""
        id_, fence = claim
        log.warning("job %d was claimed by a round whose answer was lost; giving it back", id_)
        self._send(Completion(id_, fence, State.READY, refund=True, note="claimed unheard"))

    async def work(self) -> None:
        """Play rounds until stopped and empty."""
        while not (self.stopping and not self.held and not self.outbox):
            self._changed.clear()
            self.turned_at = time.monotonic()
            admits_in = await self._admit()
            await self._choose_suspects()
            await self._ask_who_else_is_there()
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
        if self.stopping or self.outbox.is_searching or rests_for > 0:
            return Wanted()
        room = self._room()
        without = tuple(sorted(self._refusals.left_out().union(room.without)))
        if set(self._without) - set(without):
            # There is room again for what was left out.
            self._look_again()
        self._without = without
        suspects = self._suspects.chosen
        if not suspects and (not self._hungry or (self._is_barren and self._marks.next_look_in > 0)):
            return Wanted()
        self._ahead = room.ahead
        free = self._free(room.ahead)
        looking = tuple(free) if self._marks.next_look_in <= 0 else ()
        if room.most is not None:
            free = _shared({queue: n for queue, n in free.items() if queue not in self._empty} or free, room.most)
        return Wanted(free, {} if looking else self._marks.lanes(free), looking, without, suspects)

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
        if self.stopping or (statement := self._gates.wish(self._free({}))) is None:
            return math.inf
        try:
            answers = await self._link.send(statement)
        except _LOCKED:
            self._gates.try_again()
        except psycopg.Error as error:
            await self._recover(error, [])
        else:
            if self._gates.learn(answers):
                self._look_again()
        return self._gates.due_in

    async def _choose_suspects(self) -> None:
        """Find out which suspects the next round claims, when some wait and may begin."""
        if self.stopping or (statement := self._suspects.wish(self._free(self._ahead), self._without)) is None:
            return
        try:
            self._suspects.learn(await self._link.send(statement))
        except psycopg.Error as error:
            await self._recover(error, [])
        else:
            if self._suspects.chosen:
                self._empty.clear()

    async def _ask_who_else_is_there(self) -> None:
        """Of what was refused: whether there is another worker that might take it."""
        if self.stopping or (statement := self._refusals.wish()) is None:
            return
        try:
            self._refusals.learn(await self._link.send(statement))
        except psycopg.Error as error:
            await self._recover(error, [])

    @property
    def _is_barren(self) -> bool:
        """Whether all that waits, as far as is known, is for executors that are full: looking past it is not free."""
        return bool(self._barren) and self._barren <= set(self._without)

    async def _turn(self, wanted: Wanted) -> None:
        verdicts = self.outbox.take()
        text = PATIENT_ROUND if self._patient else ROUND
        self._woken = False
        self._claims_under = self._lease()
        began = time.monotonic()
        try:
            answer = await self._link.send(play_round(self._claims_under, verdicts, wanted, text=text))
        except psycopg.errors.CheckViolation:
            self.outbox.put_back(verdicts)
            await self._make_partitions()
        except _LOCKED:
            self.outbox.put_back(verdicts)
            self._patient = True
        except psycopg.Error as error:
            await self._recover(error, verdicts)
        else:
            self.outbox.accepted()
            await self._confirm(verdicts, answer)
            self._marks.learn(answer, wanted.looking, time.monotonic() - began)
            if not self._take(answer, wanted):
                await asyncio.sleep(0)  # what was claimed begins before the next round is made

    def _take(self, answer: Answer, wanted: Wanted) -> bool:
        """Start what was claimed, and see whether there may be more; whether there is a backlog."""
        per_queue = Counter(job.queue for job in answer.claimed)
        full = any(per_queue[queue] == n for queue, n in wanted.free.items())
        self._suspects.claimed(answer.claimed, full)
        ours = self._claims_under == self._lease()
        for job in answer.claimed:
            self._accept(job, ours)
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
        if full:
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

    def _accept(self, job: Claimed, ours: bool) -> None:
        key = job.id, job.fence
        self.held[key] = job
        self._running[job.queue] += 1
        if not self._knows(job.task):
            self._strange(job)
        elif not ours:
            self.complete(job, released(job, "its worker's lease was lost before it began"))
        else:
            if job.suspect:
                self._suspects.begins(job)
            self._start(job)

    async def _confirm(self, verdicts: list[Completion], answer: Answer) -> None:
        """Let go of what is written; ask what became of verdicts whose row was not found or was locked."""
        fates: dict[tuple[int, int], str] = {}
        if answer.settled < len(verdicts):
            try:
                fates = await self._link.send(settle(verdicts, self.held))
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
                if job.queue in self._at_limit:
                    self.wake()

    async def _make_partitions(self) -> None:
        try:
            await self._link.send(make_partitions(1))
        except psycopg.Error as error:
            await self._recover(error, [])

    async def _recover(self, error: psycopg.Error, verdicts: list[Completion]) -> None:
        if self._link.is_broken(error):
            # The round may have committed: then the verdicts are found in history under their fence.
            self.outbox.put_back(verdicts)
            log.warning("lost the database (%s); %d jobs go on running", one_line(error), len(self.held))
            await self._link.reconnect()
            self.wake()
        elif verdicts and isinstance(error, _BAD_DATA):
            self.outbox.refused(verdicts, one_line(error))
        else:
            self.outbox.put_back(verdicts)
            log.error("a round failed: %s", one_line(error))
            await asyncio.sleep(1)

    async def _sleep(self, rests_for: float, admits_in: float) -> None:
        """Until something changes, the next scheduled job is due, or it is time for a look, a round or an admission."""
        pause = min(self._timing.look * random.uniform(0.75, 1.25), max(admits_in, 0.001))
        if not self._hungry and self._due_at is not None:
            pause = min(pause, max(self._due_at - time.monotonic(), 0.001))
        if rests_for > 0:
            pause = min(pause, rests_for)
        if self._hungry and self._is_barren:
            pause = min(pause, max(self._marks.next_look_in, 0.001))
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
