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
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from chancy.current import CurrentJob
from chancy.logs.records import about
from chancy.model import Progress
from chancy.options.limits import LimitType, Place
from chancy.states import State
from chancy.task import BaseTask
from chancy_worker.attempts.attempt import Attempt, Executor, perform
from chancy_worker.attempts.logs import Keeper
from chancy_worker.attempts.middleware import Middleware
from chancy_worker.attempts.verdict import Claimed, Completion, Owner, judged, released, since_now
from chancy_worker.slots.ends import Ends

from .bursts import Bursts
from .placing import Placing
from .room import Room
from .running import Key, Running, Stop
from .space import Space
from .turnstile import Turnstile

log = logging.getLogger("chancy.worker")

INSIST_SECONDS = 5.0
"""How often a coroutine that swallows its cancellation is cancelled again, and complained of."""


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
        ends: Ends,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.tasks = tasks
        self._executors = executors
        self._memory = memory
        self._worker = worker
        self._schema = schema
        self._middleware = middleware
        self._keeper = keeper
        self._ends = ends
        self._is_cancelled = is_cancelled
        """Whether the worker itself was cancelled, as by the end of its loop, which cancels all tasks at once."""
        self.running: dict[Key, Running] = {}
        self.progress: dict[Owner, Progress] = {}
        """What handlers have said since it was last written down."""
        self._placing = Placing(tasks)
        self._space = Space(executors, self._placing.names, self._placing.memory, memory)
        bursts = Bursts(self._perform, self._returned, self._breaks, self._is_elsewhere)
        self._turnstile = Turnstile(concurrency, self._space.enter, bursts.add, self._waited)

    def room(self) -> Room:
        """What may be claimed; to be asked once before each claim."""
        return self._space.room(self._turnstile.ahead())

    @property
    def is_bounded(self) -> bool:
        """Whether there is a place with room for a few only, to which tasks of this worker belong, or a job came."""
        return self._space.is_bounded

    def begin(self, job: Claimed) -> None:
        """Start a claimed job as soon as it has a slot and, where it runs, room; give it back if that takes long."""
        try:
            running = self._placing.place(job)
            is_enough = self._space.claim(running)
        except Exception as error:  # of what somebody has written into the row
            retry_delay = self.tasks[job.task].retry_delay
            return self._ends.ended(job, judged(job, error, since_now(self._worker), retry_delay), 0.0)
        if not is_enough:
            return self._ends.ended(job, self._above_budget(running), 0.0)
        self.running[job.id, job.fence] = running
        self._turnstile.arrive(job.queue, running)
        return None

    def _waited(self, running: Running) -> None:
        self._space.waited(running)
        self._stop(running, Stop.WAITED)

    def _perform(self, running: Running) -> Coroutine[Any, Any, Completion]:
        job, task, since = running.job, running.task, since_now(self._worker)
        current = CurrentJob(
            job.id, job.task, job.queue, job.attempt, job.max_attempts,
            False, False, job.fence, self._schema, task.signature.encode_result,
            self._told, None, job.lease, self._worker, job, since,
        )  # fmt: skip
        if task.keep_logs and self._keeper is not None:
            current.book = running.book = self._keeper.open(job)
        began = functools.partial(self._begins, running) if running.limits else _nothing
        attempt = running.attempt = Attempt(job, task, current, since, running.limits, began)
        return perform(attempt, self._executors[running.place], self._middleware, self._schema)

    def _is_elsewhere(self, running: Running) -> bool:
        return running.place is not Place.LOOP and not self._middleware

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
            self._returned(running, None)
        else:
            if running.attempt is not None:
                running.attempt.current.stopped = why.value
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
            job.id, job.task, waited, running.stop.value, job.queue, extra=about(job),
        )  # fmt: skip
        running.carrier.cancel()
        running.timer = asyncio.get_running_loop().call_later(
            INSIST_SECONDS, self._insist, running, waited + INSIST_SECONDS
        )

    def _returned(self, running: Running, verdict: Completion | None) -> None:
        if not running.over:
            self._finish(running, verdict or self._verdict_of_stopped(running))

    def _breaks(self, running: Running, error: BaseException) -> None:
        """Something was raised where nothing should be: the attempt has failed, and its slot is free."""
        job = running.job
        log.error("job %d (%s) ended in an error of its worker", job.id, job.task, exc_info=error, extra=about(job))
        if not running.over:
            since = since_now(self._worker) if running.attempt is None else running.attempt.since
            self._finish(running, judged(running.job, error, since, running.task.retry_delay))

    def _verdict_of_stopped(self, running: Running) -> Completion:
        if running.stop is None and self._is_cancelled():
            running.stop = Stop.SHUTDOWN
        return running.verdict_of_stopped()

    def _finish(self, running: Running, verdict: Completion) -> None:
        running.over = True
        if running.timer is not None:
            running.timer.cancel()
        if running.book is not None:
            running.book.close()
        job = running.job
        del self.running[job.id, job.fence]
        if self.progress:
            self.progress.pop(job.owner, None)
        if running.confined:
            self._space.leave(running)
        if verdict.state is State.READY:
            verdict = running.of_what_comes_back(verdict)
        if verdict.state is State.READY and verdict.delay is None:
            self._turnstile.send_back(job.queue, running.rank)
        self._turnstile.leave(job.queue, running)
        attempt = running.attempt
        self._ends.ended(job, verdict, 0.0 if attempt is None else time.perf_counter() - attempt.since.clock)

    def _above_budget(self, running: Running) -> Completion:
        job = running.job
        log.warning(
            "job %d (%s) has a memory limit of %d bytes, above this worker's whole budget of %d; it is left to others",
            job.id, job.task, running.memory, self._memory, extra=about(job),
        )  # fmt: skip
        return released(job, "its memory limit is above the budget", timedelta(seconds=random.uniform(20, 40)))


def _nothing() -> None:
    """No limit counts from here."""
