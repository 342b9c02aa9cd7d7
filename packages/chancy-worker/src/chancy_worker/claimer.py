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
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from chancy.model import Queue, Statement
from chancy.statements import make_partitions
from chancy.states import State

from .appetite import Appetite
from .claims import PATIENT_ROUND, ROUND, Answer, Wanted, play_round, settle
from .config import Timing
from .gatekeeper import Gatekeeper
from .link import Ended, Link, one_line
from .marks import Marks
from .outbox import Outbox
from .refusals import Refusals
from .returns import Returns
from .room import Room, shared
from .suspects import Suspects
from .verdict import Claimed, Completion, released

log = logging.getLogger("chancy.worker")

_LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_BAD_DATA = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
_BUSY_PAUSE = 0.05


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
        self.outbox = Outbox()
        self.held: dict[tuple[int, int], Claimed] = {}
        """The jobs that are ours until the database has confirmed their verdict, by (id, fence)."""
        self.turned_at = time.monotonic()
        self._running: Counter[str] = Counter()
        self._marks = Marks()
        self._appetite = Appetite(list(self._concurrency), self._marks, timing.look)
        self._returns = Returns()
        self._gates = Gatekeeper()
        self._patient = False
        self._changed = asyncio.Event()
        self._suspects = Suspects(timing.harmless, self._changed.set)
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

    def stop(self) -> None:
        """Claim no more; `work` returns when the last verdict is written."""
        self.stopping = True
        self._changed.set()

    def complete(self, job: Claimed, verdict: Completion) -> None:
        """The attempt is over: its slot is free, its verdict goes out with the next round."""
        self._running[job.queue] -= 1
        if job.suspect:
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
        self._send(Completion(id_, fence, State.READY, refund=True, note="claimed unheard"))

    async def work(self) -> None:
        """Play rounds until stopped and empty."""
        while not self._is_over:
            self._changed.clear()
            self.turned_at = time.monotonic()
            admits_at = await self._admit()
            await self._choose_suspects()
            await self._ask_who_else_is_there()
            # Read once: what is over between the decision and the sleep would be slept through.
            now = time.monotonic()
            wanted = self._wanted(now)
            if quiet := self._appetite.quiet():
                self._idle(quiet)
            rests_for = self._appetite.rests_until - now
            if wanted.free or (self.outbox and (rests_for <= 0 or self.stopping)):
                await self._turn(wanted)
            else:
                await self._sleep(now, rests_for, admits_at)

    @property
    def is_connected(self) -> bool:
        """Whether a verdict could be written now, as far as is known."""
        return self._link.conn is not None

    @property
    def _is_over(self) -> bool:
        return self.stopping and not self.held and not self.outbox

    def _send(self, verdict: Completion) -> None:
        self.outbox.add(verdict)
        self._changed.set()

    def _wanted(self, now: float) -> Wanted:
        """What the next round should claim: nothing unless there may be something."""
        if self.stopping or self.outbox.is_searching or self._appetite.rests(now):
            return Wanted()
        room = self._room()
        unknown = self._refusals.left_out()
        full = frozenset(room.without).difference(unknown)
        self._left_out, self._ahead = full.union(unknown), room.ahead
        hungry = self._appetite.ask(now, self._left_out)
        suspects = self._suspects.chosen
        free = self._free(self._concurrency if suspects else hungry, room.ahead)
        in_line = frozenset(queue for queue in free if self._concurrency[queue] == 1) if full else frozenset()
        free |= dict.fromkeys(in_line, 1)
        if room.bounds:
            free = shared(free, room.bounds)
        looking = self._marks.due(free, now)
        lanes = self._marks.lanes(free.keys() - set(looking) if looking else free)
        return Wanted(free, lanes, looking, tuple(sorted(unknown)), suspects, tuple(sorted(full)), in_line)

    def _free(self, queues: Iterable[str], ahead: Mapping[str, int]) -> dict[str, int]:
        """How many more jobs of each of these queues there is room for."""
        return {
            queue: n
            for queue in queues
            if (n := self._concurrency[queue] + ahead.get(queue, 0) - self._running[queue]) > 0
            and queue not in self._returns
        }

    async def _admit(self) -> float:
        """Admit parked jobs for the free slots, where there may be some that can be. When the next time is; a queue
        without room waits for a change.
        """
        now = time.monotonic()
        due = () if self.stopping else self._gates.due(now)
        if not due or (statement := self._gates.wish(self._free(due, {}))) is None:
            return self._gates.next_at(now)
        try:
            answers = await self._link.send(statement)
        except _LOCKED:
            self._gates.try_again()
        except psycopg.Error as error:
            self._gates.try_again()
            await self._recover(error, [])
        else:
            if admitted := self._gates.learn(answers):
                self._appetite.look_again(admitted)
        return self._gates.next_at(now)

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
        verdicts = self.outbox.take()
        text = PATIENT_ROUND if self._patient else ROUND
        self._appetite.asked()
        began, lease = time.monotonic(), self._lease()
        try:
            answer = await self._play(play_round(lease, verdicts, wanted, text=text))
        except psycopg.errors.CheckViolation:
            self.outbox.put_back(verdicts)
            await self._make_partitions()
        except _LOCKED:
            self.outbox.put_back(verdicts)
            self._patient = True
        except psycopg.Error as error:
            await self._recover(error, verdicts)
        except asyncio.CancelledError:
            self.outbox.put_back(verdicts)  # rounds go on once more where a whole loop is cancelled
            raise
        else:
            self._link.recovery.over()
            # Before anything else is awaited: what the database has under our name has to be among the held.
            self.outbox.accepted()
            self._marks.learn(answer, wanted.looking, time.monotonic() - began)
            self._take(answer, lease, wanted)
            backlog = self._learn(answer, wanted)
            await self._confirm(verdicts, answer)
            if not backlog:
                await asyncio.sleep(0)  # what was claimed begins before the next round is made
        unmatched, self._unmatched = self._unmatched, []
        for claim in unmatched:
            if claim not in self.held:
                self.give_back(claim)

    async def _play(self, statement: Statement[Answer]) -> Answer:
        self._asking = True
        try:
            return await self._link.send(statement)
        finally:
            self._asking = False

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

    def _take(self, answer: Answer, lease: int, wanted: Wanted) -> None:
        """Start what was claimed under this lease."""
        self._suspects.claimed(answer.claimed, wanted.free)
        self.held.update({(job.id, job.fence): job for job in answer.claimed})
        late = {job.queue for job in answer.claimed if job.queue in self._returns} if self._returns else ()
        lost = lease != self._lease()
        for job in answer.claimed:
            self._running[job.queue] += 1
            if lost:
                self.complete(job, released(job, "its worker's lease was lost before it began"))
            elif late and job.queue in late:
                self.complete(job, released(job, "jobs of its queue that come before it are going back"))
            else:
                self._accept(job)

    def _accept(self, job: Claimed) -> None:
        if not self._knows(job.task):
            self._strange(job)
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
            except asyncio.CancelledError:
                self.outbox.put_back(verdicts)
                raise
        self._patient = "busy" in fates.values()
        for verdict in verdicts:
            key = verdict.id, verdict.fence
            if fates and (fate := fates.get(key, "done")) != "done":
                if fate == "busy":
                    asyncio.get_running_loop().call_later(_BUSY_PAUSE, self._send, verdict)
                    continue
                self._settled(verdict, fate)
            if (job := self.held.pop(key, None)) is None:
                self._appetite.look_again()  # it was claimed unheard, and is back at its place, wherever that is
                continue
            if job.parked is not None:
                self._gates.ended(job.queue, job.parked)
            if job.batch is not None:
                self._left_batch(job.batch)
            if job.queue in self._appetite.at_limit:
                self.wake([job.queue])
            if verdict.state is not State.SUCCEEDED:
                self._went_back(job, verdict)

    def _went_back(self, job: Claimed, verdict: Completion) -> None:
        """To its place, or to another one in its queue; or it has ended instead."""
        key = job.id, job.fence
        if (queue := self._returns.arrived(key)) is not None:
            self._appetite.look_again([queue])
        if verdict.state is State.READY and verdict.delay is not None:
            self._appetite.put_off(job.queue, time.monotonic() + verdict.delay.total_seconds())

    async def _make_partitions(self) -> None:
        try:
            await self._link.send(make_partitions(1))
        except psycopg.Error as error:
            await self._recover(error, [])

    async def _recover(self, error: psycopg.Error, verdicts: list[Completion]) -> None:
        if verdicts and isinstance(error, _BAD_DATA) and not self._link.is_broken(error):
            self.outbox.refused(verdicts, one_line(error))
            return
        # The round may have committed: then the verdicts are found in history under their fence.
        self.outbox.put_back(verdicts)
        await self._unless_over(self._link.reconnect(error))
        self.wake()

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

    async def _sleep(self, now: float, rests_for: float, admits_at: float) -> None:
        """Until something changes, a queue is to be asked, or it is time for a round or an admission."""
        until = min(admits_at, now + self._timing.look)
        if not self.stopping:
            until = min(until, self._appetite.sleeps_until())
        pause = min(until - now, rests_for) if rests_for > 0 else until - now
        timer = asyncio.get_running_loop().call_later(max(pause, 0.001), self._changed.set)
        try:
            await self._link.wait(self._changed)
        except Ended as error:
            await self._recover(error, [])
        finally:
            timer.cancel()
