"""The running attempts of a worker: how many may begin, when each has to stop, and what is made of its end.

Everything that stops an attempt (its time limit, somebody's cancel, the shutdown, a lost lease) cancels its asyncio
task and notes why; the executor carries that to where the function runs. What the task returns all the same, counts.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any

import msgspec

from chancy.current import CurrentJob
from chancy.errors import ChancyError, TimeLimitExceeded
from chancy.model import Progress
from chancy.options.limits import Limit, LimitType, Place, tightest
from chancy.states import State
from chancy.task import BaseTask
from chancy_worker.attempts.attempt import Attempt, Executor, Middleware, perform
from chancy_worker.attempts.logs import Book, Keeper
from chancy_worker.attempts.verdict import Claimed, Completion, Owner, cancelled, judged, released, since_now

from .bursts import Bursts
from .room import Room, Shares
from .turnstile import Rank, Turnstile

log = logging.getLogger("chancy.worker")

INSIST_SECONDS = 5.0
"""How often a coroutine that swallows its cancellation is cancelled again, and complained of."""

Key = tuple[int, int]
"""A claim: the job's id and its fence."""


class UnreadableLimits(ChancyError):
    """A job's limits are none that this version knows. They are not kept, so it does not run here."""

    def __init__(self, given: bytes, error: Exception) -> None:
        said = given[:200].decode("utf-8", "replace")
        super().__init__(
            f"its limits cannot be read by this worker, and so not be kept: {error} in {said}. If a newer version of "
            f"Chancy has submitted it, start workers of that version; else submit it again with limits=[Limit…]"
        )


class Stop(Enum):
    """Why an attempt has to stop."""

    TIME = "its time limit is over"
    CANCEL = "it was cancelled"
    LEASE = "its worker's lease was lost"
    SHUTDOWN = "its worker stops"
    WAITED = "it was claimed ahead, and no slot was free"


class Running(msgspec.Struct, eq=False):
    """One attempt, from its claim to its verdict."""

    job: Claimed
    task: BaseTask[..., Any]
    limits: dict[str, float]
    place: Place
    confined: bool = False
    """Where it runs there is room for so many, and so much memory."""
    memory: int = 0
    """Its limit in bytes, which counts against the budget."""
    attempt: Attempt | None = None
    """From its first step on."""
    carrier: asyncio.Task[None] | None = None
    began: float = 0.0
    timer: asyncio.TimerHandle | None = None
    stop: Stop | None = None
    book: Book | None = None
    """What keeps its log records."""
    inside: bool = False
    """It has a slot of its queue, and did not only wait for one."""
    over: bool = False
    """Its verdict is given: what its function still does changes nothing."""

    @property
    def can_be_stopped(self) -> bool:
        """Whether it has not begun, or runs where it can be ended."""
        return self.carrier is None or self.place is not Place.THREAD

    @property
    def rank(self) -> Rank:
        """Its place in the order of its queue."""
        return -self.job.priority, self.job.run_at, self.job.id


class Slots:
    """Room for running jobs, in the places where they run."""

    def __init__(
        self,
        *,
        tasks: Mapping[str, BaseTask[..., Any]],
        executors: Mapping[Place, Executor],
        concurrency: Mapping[str, int],
        memory: int | None,
        worker: str,
        schema: str,
        middleware: Sequence[Middleware],
        keeper: Keeper | None,
        ended: Callable[[Claimed, Completion, float], None],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tasks = tasks
        self._executors = executors
        self._memory = memory
        self._worker = worker
        self._schema = schema
        self._middleware = middleware
        self._keeper = keeper
        self._ended = ended
        self._is_cancelled = is_cancelled
        """Whether the worker itself was cancelled, as by the end of its loop, which cancels all tasks at once."""
        self.running: dict[Key, Running] = {}
        self.progress: dict[Owner, Progress] = {}
        """What handlers have said since it was last written down."""
        self._limits = {name: tightest(task.options.limits or ()) for name, task in tasks.items()}
        self._places = {name: task.place() for name, task in tasks.items()}
        self._names = {place: tuple(n for n, p in self._places.items() if p is place) for place in Place}
        self._used: Counter[Place] = Counter()
        """By what was claimed."""
        self._inside: Counter[Place] = Counter()
        """Of the confined, by what has begun."""
        self._memory_used = self._memory_inside = 0
        bursts = Bursts(self._perform, self._ends, self._breaks)
        self._turnstile = Turnstile(concurrency, self._takes_room, bursts.add, self._waited)
        self._in_vain: dict[str, tuple[Place, int]] = {}
        """Tasks of which a job has waited for room where it runs, and the least memory that one was to have."""
        self._shares = Shares()
        self._bounded = [place for place in executors if executors[place].size is not None and self._names[place]]
        """Where tasks of this worker run, but not any number; others are added with the first job that runs there."""
        self._open: list[Place] = []
        """Those that had room at the last claim."""

    def room(self) -> Room:
        """What there is room for; to be asked once before each claim.

        A place that is full has its tasks left out. What is claimed for a place beyond its room waits for it a moment,
        and goes back then; its task is left out until there is room.
        """
        self._shares.learn(self._open)
        self._open.clear()
        self._in_vain = {task: need for task, need in self._in_vain.items() if not self._has_room(*need)}
        without, bounds = [*self._in_vain, *self._too_large()], []
        for place in self._bounded:
            size = self._executors[place].size
            assert size is not None
            if (free := size - self._used[place]) > 0:
                self._open.append(place)
                bounds.append(self._shares.bound(place, free))
            else:
                without += self._names[place]
        return Room(bounds, without, self._turnstile.ahead())

    def begin(self, job: Claimed) -> None:
        """Start a claimed job as soon as it has a slot and, where it runs, room; give it back if that takes long."""
        task = self._tasks[job.task]
        try:
            limits, place = self._placed(job, task)
            memory = int(limits.get(LimitType.MEMORY, 0)) if limits else 0
            is_confined = self._executors[place].size is not None
        except Exception as error:  # of what somebody has written into the row
            return self._ended(job, judged(job, error, since_now(self._worker), task.retry_delay), 0.0)
        if self._memory is not None and memory > self._memory:
            return self._ended(job, self._above_budget(job, memory), 0.0)
        running = Running(job, task, limits, place)
        if is_confined:
            running.confined, running.memory = True, memory
            self._memory_used += memory
            if place not in self._bounded:
                self._bounded.append(place)
        if self._bounded:
            self._shares.began(job.queue, place)
        self._used[place] += 1
        self.running[job.id, job.fence] = running
        self._turnstile.arrive(job.queue, running)
        return None

    def _takes_room(self, running: Running) -> bool:
        """Whether there is room where it runs; then that is its own."""
        size = self._executors[running.place].size
        if size is not None and self._inside[running.place] >= size:
            return False
        if self._memory is not None and self._memory_inside + running.memory > self._memory:
            return False
        self._inside[running.place] += 1
        self._memory_inside += running.memory
        return True

    def _has_room(self, place: Place, memory: int) -> bool:
        """Whether there would be room for one more claim."""
        size = self._executors[place].size
        return (size is None or self._used[place] < size) and (
            self._memory is None or self._memory_used + memory <= self._memory
        )

    def _waited(self, running: Running) -> None:
        need = running.place, running.memory
        if running.confined and not self._has_room(*need):
            task = running.job.task
            self._in_vain[task] = min(need, self._in_vain.get(task, need))
        self._stop(running, Stop.WAITED)

    def _perform(self, running: Running) -> Coroutine[Any, Any, Completion]:
        job, task = running.job, running.task
        current = CurrentJob(
            job.id, job.task, job.queue, job.attempt, job.max_attempts,
            False, False, job.fence, self._schema, task.signature.encode_result,
            self._told, None, job.lease, self._worker, job,
        )  # fmt: skip
        if task.keep_logs and self._keeper is not None:
            current.book = running.book = self._keeper.open(job)
        began = functools.partial(self._begins, running) if running.limits else _nothing
        attempt = running.attempt = Attempt(job, task, current, since_now(self._worker), running.limits, began)
        return perform(attempt, self._executors[running.place], self._middleware, self._schema)

    def _placed(self, job: Claimed, task: BaseTask[..., Any]) -> tuple[dict[str, float], Place]:
        if job.limits is None:
            return self._limits[job.task], self._places[job.task]
        try:
            given = msgspec.json.decode(job.limits, type=list[Limit])
        except (msgspec.DecodeError, ValueError) as error:
            raise UnreadableLimits(job.limits, error) from None
        try:
            return tightest(given), task.place(given)
        except ValueError:  # the task has been given another executor since this job was submitted
            return tightest(given), Place.PROCESS

    def cancel(self, ids: Iterable[int]) -> None:
        """Stop these jobs: somebody has asked for it."""
        wanted = set(ids)
        for running in list(self.running.values()):
            if running.job.id in wanted:
                if running.attempt is not None:
                    running.attempt.current.cancelled = True
                if running.can_be_stopped:
                    self._stop(running, Stop.CANCEL)

    def lose(self) -> None:
        """The lease is lost: whatever runs here may run elsewhere, too."""
        for running in list(self.running.values()):
            if running.attempt is not None:
                running.attempt.current.lease_lost = True
            if running.can_be_stopped:
                self._stop(running, Stop.LEASE)

    def turn_away(self) -> None:
        """Give back those that still wait for a slot."""
        for running in list(self.running.values()):
            if not running.inside:
                self._stop(running, Stop.SHUTDOWN)

    def interrupt(self) -> None:
        """Stop all: they go back, their attempts refunded. A thread is left to itself."""
        for running in list(self.running.values()):
            self._stop(running, Stop.SHUTDOWN)

    def give_up(self) -> int:
        """Give back the jobs that would not stop; how many."""
        left = list(self.running.values())
        for running in left:
            self._finish(running, self._verdict_of_stopped(running))
        return len(left)

    def _told(self, current: CurrentJob, progress: Progress) -> None:
        """From any thread."""
        self.progress[current.id, current.fence, current.lease] = progress

    def _begins(self, running: Running) -> None:
        if running.began or running.over:  # a middleware may proceed twice: it is one attempt all the same
            return
        running.began = time.perf_counter()
        if (limit := running.limits.get(LimitType.TIME)) is not None:
            loop = asyncio.get_running_loop()
            running.timer = loop.call_later(limit, self._stop, running, Stop.TIME)

    def _stop(self, running: Running, why: Stop) -> None:
        if running.stop is not None or running.over:
            return
        running.stop = why
        if running.carrier is None:  # it has not begun
            self._ends(running, None)
        else:
            running.carrier.cancel()
            if running.timer is not None:
                running.timer.cancel()
            running.timer = asyncio.get_running_loop().call_later(INSIST_SECONDS, self._insist, running, INSIST_SECONDS)

    def _insist(self, running: Running, waited: float) -> None:
        assert running.carrier is not None
        assert running.stop is not None
        job = running.job
        log.error(
            "job %d (%s) was told %.0f s ago to stop (%s) and goes on: its function swallows CancelledError, and holds "
            "a slot of queue %r until it returns; give it executor=\"process\" to have it killed",
            job.id, job.task, waited, running.stop.value, job.queue,
        )  # fmt: skip
        running.carrier.cancel()
        running.timer = asyncio.get_running_loop().call_later(
            INSIST_SECONDS, self._insist, running, waited + INSIST_SECONDS
        )

    def _ends(self, running: Running, verdict: Completion | None) -> None:
        if not running.over:
            self._finish(running, verdict or self._verdict_of_stopped(running))

    def _breaks(self, running: Running, error: BaseException) -> None:
        """Something was raised where nothing should be: the attempt has failed, and its slot is free."""
        log.error("job %d (%s) ended in an error of its worker", running.job.id, running.job.task, exc_info=error)
        if not running.over:
            since = since_now(self._worker) if running.attempt is None else running.attempt.since
            self._finish(running, judged(running.job, error, since, running.task.retry_delay))

    def _verdict_of_stopped(self, running: Running) -> Completion:
        if running.stop is None and self._is_cancelled():
            running.stop = Stop.SHUTDOWN
        return _verdict_of_stopped(running)

    def _finish(self, running: Running, verdict: Completion) -> None:
        running.over = True
        if running.timer is not None:
            running.timer.cancel()
        if running.book is not None:
            running.book.close()
        job = running.job
        key = job.id, job.fence
        del self.running[key]
        if self.progress:
            self.progress.pop(job.owner, None)
        self._used[running.place] -= 1
        if running.confined:
            self._memory_used -= running.memory
            if running.inside:
                self._inside[running.place] -= 1
                self._memory_inside -= running.memory
        if verdict.state is State.READY and verdict.delay is None:
            self._turnstile.send_back(job.queue, running.rank)
        self._turnstile.leave(job.queue, running)
        self._ended(job, verdict, 0.0 if running.attempt is None else running.attempt.since.elapsed)

    def _too_large(self) -> Iterable[str]:
        if self._memory is None:
            return
        free = self._memory - self._memory_used
        for name, limits in self._limits.items():
            if limits.get(LimitType.MEMORY, 0) > free:
                yield name

    def _above_budget(self, job: Claimed, memory: int) -> Completion:
        log.warning(
            "job %d (%s) has a memory limit of %d bytes, above this worker's whole budget of %d; it is left to others",
            job.id, job.task, memory, self._memory,
        )  # fmt: skip
        return released(job, "its memory limit is above the budget", timedelta(seconds=random.uniform(20, 40)))


def _verdict_of_stopped(running: Running) -> Completion:
    job = running.job
    match running.stop:
        case Stop.CANCEL:
            return cancelled(job)
        case Stop.LEASE | Stop.SHUTDOWN as why:
            return released(job, f"interrupted: {why.value}")
        case Stop.WAITED as why:
            return released(job, why.value)
    assert running.attempt is not None
    error: BaseException = asyncio.CancelledError("the function cancelled itself")
    if running.stop is Stop.TIME:
        error = TimeLimitExceeded(running.limits[LimitType.TIME], time.perf_counter() - running.began)
    return judged(job, error, running.attempt.since, running.task.retry_delay)


def _nothing() -> None:
    """No limit counts from here."""
