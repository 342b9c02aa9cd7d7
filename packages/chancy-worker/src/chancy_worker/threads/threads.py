"""Plain functions in threads of the worker's own process, short ones several in a row in the same thread.

To hand an order to a thread, and its verdict back, costs more than a short function: two changes of threads, each of
which waits for the interpreter's lock. So a thread that has performed an order takes the next one, and the loop is told
of their ends together. No thread is woken for an order that one which is awake will reach in a moment.

An order belongs to nobody before it begins, so what takes long holds nothing up: a thread that is to perform a function
which is not known to be short tells first what has ended, and wakes another thread for what waits. Where a function
that was short takes long, the loop sees within some milliseconds that nothing has begun, and wakes one, too.

While functions are short more may be ordered than there are threads, as many as are done before a round is over. What
waits in vain, since all threads have got something long, goes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from chancy_worker.attempts.attempt import Attempt, as_it_is, call
from chancy_worker.attempts.surround import Surround
from chancy_worker.attempts.verdict import Claimed, Completion, judged, released

log = logging.getLogger("chancy.worker")

PAUSE_SECONDS = 5.0
"""After no thread could be started, until the next attempt."""
SHORT_SECONDS = 0.0002
"""A function that takes less, of late and on average, is short."""
LONG_SECONDS = 0.0008
"""What counts of one that takes longer: the interpreter's lock may have been the reason, and once is no habit."""
WEIGHT = 0.2
"""Of the last time that a function ran, in that average."""
TELL_SECONDS = 0.001
"""So long a verdict waits at most for those of the next ones."""
AHEAD_SECONDS = 0.01
"""How much work may wait for one thread."""
COST_SECONDS = 0.00005
"""Of a job beside its function."""
PATIENCE_SECONDS = 0.05
"""How long an order waits while all threads are busy, before it goes back."""
CAREFUL_SECONDS = 10.0
"""So long not more is ordered than there are threads, after some have waited in vain."""
LOOK_SECONDS = 0.002
"""How often the loop looks whether what waits for a thread begins."""


class _Order:
    """An attempt on its way into a thread, and its verdict on the way back."""

    __slots__ = ("answer", "attempt", "context", "is_stranded", "since", "verdict")

    def __init__(self, attempt: Attempt, answer: asyncio.Future[Completion], since: float) -> None:
        self.attempt = attempt
        self.since = since
        self.context = contextvars.copy_context()
        self.answer = answer
        self.verdict: Completion | None = None
        self.is_stranded = False

    @property
    def job(self) -> Claimed:
        return self.attempt.job


class Threads:
    """`def` in a thread. A thread cannot be stopped: one that is cancelled goes on until its function returns.

    What is under `_changing` is changed by any thread, all else by the loop's.
    """

    def __init__(self, most: int, surround: Surround | None = None) -> None:
        self._most = most
        self._surround = surround
        self.problem: str | None = None
        """Why no thread can be started now."""
        self.stranded = 0
        """Threads that are inside a function whose attempt was given up."""
        self._busy = 0
        """Orders that wait or run."""
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="chancy")
        self._changing = threading.Lock()
        self._waiting: deque[_Order] = deque()
        """Those that have not begun, in order. (Under `_changing`.)"""
        self._turns: dict[object, str] = {}
        """A turn is one thread, from its waking until nothing waits: the task that it performs. (Under `_changing`.)"""
        self._free: set[object] = set()
        """The turns that will take the next order in a moment. (Under `_changing`.)"""
        self._begun = 0
        """How many orders, ever. (Under `_changing`.)"""
        self._seconds: dict[str, float] = {}
        """That a task takes. Of two threads that say it at once the last one is heard."""
        self._pace = AHEAD_SECONDS
        """Seconds that any function took of late."""
        self._careful_until = 0.0
        self._ended: deque[_Order] = deque()
        self._is_told = False
        """The loop will come for what has ended."""
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._seen = -1
        """How many had begun at the last look."""

    @property
    def size(self) -> int:
        """The threads that can be had, and as many more as one of them will perform in a moment."""
        if self.problem is not None:
            return self._busy
        threads = self._most - self.stranded
        if threads <= 0 or time.monotonic() < self._careful_until:
            return threads
        return max(threads, int(AHEAD_SECONDS / (self._pace + COST_SECONDS)))

    async def run(self, attempt: Attempt) -> Completion:
        """Run the function in a thread that sees the attempt's context variables."""
        attempt.began()
        self._loop = loop = asyncio.get_running_loop()
        order = _Order(attempt, loop.create_future(), loop.time())
        with self._changing:
            self._waiting.append(order)
            if not self._free:
                self._wake()
        self._busy += 1
        if self._timer is None:
            self._seen = -1
            self._timer = loop.call_later(LOOK_SECONDS, self._look)
        try:
            return await order.answer
        except asyncio.CancelledError:
            self._give_up(order)
            raise

    def _give_up(self, order: _Order) -> None:
        """Nobody waits for its verdict any more."""
        with self._changing, contextlib.suppress(ValueError):
            self._waiting.remove(order)
            self._busy -= 1
            return
        if order.verdict is None:
            order.is_stranded = True
            self.stranded += 1

    def _wake(self) -> RuntimeError | None:
        """Another thread for what waits, unless all have something to do; or why none can be had.

        Under `_changing`, from any thread. Only the loop looks at the answer: it sees soon that nothing begins.
        """
        if len(self._turns) >= self._most:
            return None
        turn = object()
        self._turns[turn] = ""
        self._free.add(turn)
        try:
            self._pool.submit(self._take_turn, turn)
        except RuntimeError as error:  # the pool keeps what it was given all the same
            del self._turns[turn]
            self._free.discard(turn)
            return error
        return None

    def _take_turn(self, turn: object) -> None:
        """In a thread: one order after the other, until none waits."""
        if turn not in self._turns:
            return
        try:
            self._perform_all(turn)
        finally:
            with self._changing:
                del self._turns[turn]
                self._free.discard(turn)
                if self._waiting and not self._free:  # it came after this one had looked
                    self._wake()
            self._tell()

    def _perform_all(self, turn: object) -> None:
        untold_since: float | None = None
        while (order := self._next(turn)) is not None:
            if untold_since is not None and turn not in self._free:
                self._tell()
                untold_since = None
            began = time.perf_counter()
            try:
                order.verdict = order.context.run(self._call, order.attempt)
            except BaseException as error:  # of another thread, which has put it into this one
                order.verdict = judged(order.job, error, order.attempt.since, order.attempt.task.retry_delay)
            now = time.perf_counter()
            self._learn(order.job.task, now - began)
            self._ended.append(order)
            if untold_since is None:
                untold_since = now
            elif now - untold_since > TELL_SECONDS:
                self._tell()
                untold_since = None

    def _call(self, attempt: Attempt) -> Completion:
        return call(attempt.job, attempt.task, attempt.since, as_it_is, self._surround)

    def _next(self, turn: object) -> _Order | None:
        """The next order, which begins herewith. If it is not known to be short, somebody else sees to what waits."""
        with self._changing:
            if not self._waiting:
                self._free.discard(turn)
                return None
            order = self._waiting.popleft()
            self._begun += 1
            self._turns[turn] = task = order.job.task
            if self._seconds.get(task, LONG_SECONDS) < SHORT_SECONDS:
                self._free.add(turn)
            else:
                self._free.discard(turn)
                if self._waiting and not self._free:
                    self._wake()
        return order

    def _learn(self, task: str, seconds: float) -> None:
        self._pace += WEIGHT * (min(seconds, AHEAD_SECONDS) - self._pace)
        before = self._seconds.get(task)
        seconds = min(seconds, LONG_SECONDS)
        self._seconds[task] = seconds if before is None else before + WEIGHT * (seconds - before)

    def _tell(self) -> None:
        """The loop of what has ended; from any thread."""
        if self._ended and not self._is_told:
            self._is_told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
                self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        """What has ended. Who ends from here on tells it again."""
        self._is_told = False
        while self._ended:
            order = self._ended.popleft()
            self._busy -= 1
            if order.is_stranded:
                self.stranded -= 1
            if not order.answer.done():
                assert order.verdict is not None
                order.answer.set_result(order.verdict)

    def _look(self) -> None:
        """Whether what waits begins; if it does not, it needs another thread, or goes back."""
        self._timer = None
        self._collect()
        error = None
        with self._changing:
            if not self._waiting:
                return
            waits = self._loop.time() - self._waiting[0].since
            if self._begun == self._seen:
                self._hold_for_long()
                if not self._free or waits > PATIENCE_SECONDS:
                    error = self._wake()
            is_in_vain = waits > PATIENCE_SECONDS and len(self._turns) >= self._most and not self._free
            self._seen = self._begun
        if error is not None:
            self._send_back(self._cannot_start(error), timedelta(seconds=PAUSE_SECONDS))
        elif is_in_vain:
            self._careful_until = time.monotonic() + CAREFUL_SECONDS
            self._send_back("no thread was free", None)
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _hold_for_long(self) -> None:
        """What these perform was short, and takes long now. Under `_changing`."""
        for turn in [turn for turn in self._free if self._turns[turn]]:
            self._seconds[self._turns[turn]] = LONG_SECONDS
            self._free.discard(turn)

    def _send_back(self, why: str, delay: timedelta | None) -> None:
        """What waits."""
        with self._changing:
            orders = list(self._waiting)
            self._waiting.clear()
        for order in orders:
            self._busy -= 1
            if not order.answer.done():
                order.answer.set_result(released(order.job, why, delay))

    def _cannot_start(self, error: RuntimeError) -> str:
        if self.problem is None:
            self.problem = f"no thread can be started: {error}"
            log.error("%s; until that is mended, jobs that need one go back unharmed", self.problem)
            self._loop.call_later(PAUSE_SECONDS, self._try_again)
        return self.problem

    def _try_again(self) -> None:
        self.problem = None

    async def close(self) -> None:
        """Take no more, and wait for nobody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._changing:
            self._waiting.clear()
        self._collect()
