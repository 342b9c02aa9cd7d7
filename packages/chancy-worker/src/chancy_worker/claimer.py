"""The rounds: while one is in flight verdicts gather, and when it returns they go out with a claim for every free slot.

So the loop sets its own pace, without a timer. An idle worker sleeps until the doorbell, a verdict, the next
scheduled job or the fallback look.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

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
from .slots import Room
from .verdict import Claimed, Completion, released

log = logging.getLogger("chancy.worker")

_LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_BAD_DATA = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
_BUSY_PAUSE = 0.05
FIRST_LIMIT_SECONDS, LIMIT_SECONDS = 0.015, 0.25
"""How soon a worker looks again at a queue whose limit other workers have used up: nobody tells it. It doubles."""


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
        self.outbox = Outbox()
        self.held: dict[tuple[int, int], Claimed] = {}
        """The jobs that are ours until the database has confirmed their verdict, by (id, fence)."""
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
        self._holding: Counter[str] = Counter()
        """The held by queue."""
        self._unsure_of: int | None = None
        """A lease under which more may have been claimed, by a round whose answer was lost."""
        self._locked = 0
        """Verdicts that will be sent again: somebody had locked their rows."""
        self._gated_ends = False
        """Verdicts of jobs with gates wait to be written: their places can be handed on."""
        self._at_limit: frozenset[str] = frozenset()
        """Queues that were at their limit in the last claim."""
        self._limit_pause = FIRST_LIMIT_SECONDS
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
        self._gates.opened()
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
        if job.share is not None:
            self._running[job.share] -= 1
        if job.parked is not None:
            self._gated_ends = True
        if job.queue in self._at_limit:
            self._look_again()  # the round that writes the verdict may claim another one
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
            # Read once: what is over between the decision and the sleep would be slept through.
            rests_for = self._rests_until - time.monotonic()
            wanted = self._wanted(rests_for)
            if wanted.free or (self.outbox and (rests_for <= 0 or self.stopping)):
                await self._turn(wanted)
            else:
                await self._sleep(rests_for)

    def _send(self, verdict: Completion) -> None:
        self.outbox.add(verdict)
        self._changed.set()

    def _send_again(self, verdict: Completion) -> None:
        self._locked -= 1
        self._gated_ends = True  # perhaps
        self._send(verdict)

    def _wanted(self, rests_for: float) -> Wanted:
        """What the next round should claim: nothing unless there may be something."""
        if self.stopping or self.outbox.is_searching or rests_for > 0:
            return Wanted()
        room = self._room()
        without = tuple(sorted({*self._unknown, *room.without}))
        shunned = self._suspect is not None
        if set(self._without) - set(without) or (self._shunned and not shunned):
            # There is room again for what was left out.
            self._look_again()
        self._without, self._shunned = without, shunned
        free = self._free(room.ahead)
        barren = not self._hungry or (self._is_barren and self._marks.next_look_in > 0)
        if barren and not self._gated_ends and self._gates.due_in(free) > 0:
            return Wanted()
        looks = self._marks.next_look_in <= 0 and not barren and (self._woken or not self._gates.flows)
        looking = tuple(free) if looks else ()
        if room.most is not None:
            hopeful = {q: n for q, n in free.items() if q not in self._empty or self._gates.waits(q)}
            free = _shared(hopeful or free, room.most)
        lanes = {} if looking or barren else self._marks.lanes(free)
        return Wanted(free, lanes, looking, without, not shunned, self._holds(), self._at_limit)

    def _holds(self) -> Mapping[str, tuple[int, int]] | None:
        """How many of each queue, and of each limit of which it has a share, this worker has at most: before the
        verdicts that wait are written, and after that. None where there may be more than it knows of.
        """
        if self._unsure_of == self._lease():
            return None
        return {name: (held, held if self._locked else self._running[name]) for name, held in self._holding.items()}

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

    @property
    def _is_barren(self) -> bool:
        """Whether all that waits, as far as is known, is for executors that are full: looking past it is not free."""
        return bool(self._barren) and self._barren <= set(self._without)

    async def _turn(self, wanted: Wanted) -> None:
        verdicts = self.outbox.take()
        text = PATIENT_ROUND if self._patient else ROUND
        wanted = self._with_gates(wanted, verdicts)
        self._woken = False
        began = time.monotonic()
        try:
            answer = await self._link.send(play_round(self._lease(), verdicts, wanted, text=text))
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
            self._gated_ends = self._gated_ends and bool(self.outbox)
            took = time.monotonic() - began
            await self._confirm(verdicts, answer)
            self._marks.learn(answer, wanted.looking, took)
            if wanted.flow is not None:
                self._gates.flowed(wanted.flow, wanted.free, answer)
            self._gates.learn(wanted.gated, wanted.free, answer, took)
            if wanted.gated and answer.settled < len(verdicts):
                self._gates.opened()  # a handler has written its own verdict, and handed on nothing
            if not self._take(answer, wanted):
                await asyncio.sleep(0)  # what was claimed begins before the next round is made

    def _with_gates(self, wanted: Wanted, verdicts: Sequence[Completion]) -> Wanted:
        """What this round has to do with limits: those of queues, those of tasks, and what ends now of either."""
        ending: dict[str, set[str]] = {}
        if self._gated_ends:
            for verdict in verdicts:
                job = self.held.get((verdict.id, verdict.fence))
                if job is not None and job.parked is not None:
                    ending.setdefault(job.queue, set()).add(job.parked)
        if not wanted.looking and (flow := self._gates.flow(wanted.free, ending)) is not None:
            return replace(wanted, flow=flow)
        return replace(wanted, gated=gated) if (gated := self._gates.wish(wanted.free, ending)) else wanted

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
            look = time.monotonic() + self._limit_pause * random.uniform(0.75, 1.25)
            self._due_at = look if self._due_at is None else min(self._due_at, look)
            self._limit_pause = min(2 * self._limit_pause, LIMIT_SECONDS)
        if answer.claimed:
            self._hungry = True
            self._limit_pause = FIRST_LIMIT_SECONDS
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

    def _accept(self, job: Claimed) -> None:
        key = job.id, job.fence
        self.held[key] = job
        for name in (job.queue,) if job.share is None else (job.queue, job.share):
            self._holding[name] += 1
            self._running[name] += 1
        if not self._knows(job.task):
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
                fates = await self._link.send(settle(verdicts, self.held))
            except psycopg.Error as error:
                await self._recover(error, verdicts)
                return
        self._patient = "busy" in fates.values()
        for verdict in verdicts:
            key = verdict.id, verdict.fence
            if fates and (fate := fates.get(key, "done")) != "done":
                if fate == "busy":
                    self._locked += 1
                    asyncio.get_running_loop().call_later(_BUSY_PAUSE, self._send_again, verdict)
                    continue
                self._settled(verdict, fate)
            if (job := self.held.pop(key, None)) is not None:
                self._holding[job.queue] -= 1
                if job.share is not None:
                    self._holding[job.share] -= 1
                if job.batch is not None:
                    self._left_batch(job.batch)
            self._going_back.discard(key)
        self._begin_suspect()

    async def _make_partitions(self) -> None:
        try:
            await self._link.send(make_partitions(1))
        except psycopg.Error as error:
            await self._recover(error, [])

    async def _recover(self, error: psycopg.Error, verdicts: list[Completion]) -> None:
        if self._link.is_broken(error):
            # The round may have committed: then the verdicts are found in history under their fence.
            self.outbox.put_back(verdicts)
            self._unsure_of = self._lease()
            log.warning("lost the database (%s); %d jobs go on running", one_line(error), len(self.held))
            await self._link.reconnect()
            self.wake()
        elif verdicts and isinstance(error, _BAD_DATA):
            self.outbox.refused(verdicts, one_line(error))
        else:
            self.outbox.put_back(verdicts)
            log.error("a round failed: %s", one_line(error))
            await asyncio.sleep(1)

    async def _sleep(self, rests_for: float) -> None:
        """Until something changes, the next scheduled job is due, or it is time for a look, a round or an admission.
        One that is due and could not be had waits for a change.
        """
        pause = self._timing.look * random.uniform(0.75, 1.25)
        if (admits_in := self._gates.due_in(self._free({}))) > 0:
            pause = min(pause, admits_in)
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
