"""Attempts that begin one after another in one asyncio task, for as long as none of them waits.

A job that returns without ever waiting has cost no task of its own; one that waits keeps the task it is in, alone, and
the rest go on in another. (asyncio's eager tasks, of Python 3.12, save the wait for the loop and not the task.) Each
runs in a context of its own, and `asyncio.current_task()` is one that nobody else uses while it runs.

Whose function runs elsewhere, in a thread or a process, needs no task: on the loop it waits for a future, and nobody's
code asks for a task there. So all that begin in one turn of the loop are ordered together, and their ends cost no task.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Protocol, TypeVar

from chancy_worker import forks

TURN_JOBS = 100
"""So many may begin before the loop gets a turn: as many as a queue has slots by default. Their verdicts go out, and
more is claimed, while what was claimed ahead runs; in smaller pieces the rounds cost more than the overlap saves."""
TURN_SECONDS = 0.005
"""The same where they take longer: heartbeats and other jobs wait meanwhile."""


class Carrier(Protocol):
    """What an attempt is in, on the loop."""

    def cancel(self) -> object:
        """Have `CancelledError` raised where it waits."""


class Carried(Protocol):
    """What a burst has to know of an attempt."""

    carrier: Carrier | None
    """The asyncio task that it is in, or what stands for one, from its first step on."""
    over: bool
    """It came to its end before it began."""


C = TypeVar("C", bound=Carried)
R = TypeVar("R")


class Bursts(Generic[C, R]):
    """Begins what is added, in order; `ended` is told what each returned, or None of one that was cancelled.

    Neither `perform` nor `ended` should raise; what they raise all the same is told to `failed`, so that the attempt
    comes to an end, and is raised in an asyncio task where there is none. Of one that is `elsewhere` nothing runs
    on the loop but code of ours, which waits for futures.
    """

    def __init__(
        self,
        perform: Callable[[C], Coroutine[Any, Any, R]],
        ended: Callable[[C, R | None], None],
        failed: Callable[[C, BaseException], None] | None = None,
        elsewhere: Callable[[C], bool] = lambda _: False,
    ) -> None:
        self._perform = perform
        self._ended = ended
        self._failed = failed or _raised
        self._elsewhere = elsewhere
        self._waiting: deque[C] = deque()
        self._carrier: asyncio.Task[None] | None = None

    def add(self, attempt: C) -> None:
        """Begin this one soon."""
        self._waiting.append(attempt)
        if self._carrier is None:
            self._hand_on()

    def _hand_on(self) -> None:
        """From here on another task begins what waits."""
        # By no factory of tasks: an eager one would run it here and now, before it is known to be the carrier.
        loop = asyncio.get_running_loop()
        self._carrier = asyncio.Task(self._carry(), loop=loop) if self._waiting else None

    async def _carry(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        begun, since = 0, time.perf_counter()
        try:
            while self._carrier is me and self._waiting:
                attempt = self._waiting.popleft()
                if attempt.over:
                    continue
                if forks.is_fork:
                    forks.leave()
                attempt.carrier = me
                holders = sys.getrefcount(me)
                try:
                    step = contextvars.copy_context().run
                    work = step(self._perform, attempt)
                    try:
                        waits_for = step(work.send, None)
                    except StopIteration as end:
                        self._ended(attempt, end.value)
                    except asyncio.CancelledError:
                        self._ended(attempt, None)
                    else:
                        if self._elsewhere(attempt):
                            attempt.carrier = _Elsewhere(attempt, work, step, waits_for, self._ended, self._failed)
                        else:
                            self._hand_on()
                            self._ended(attempt, await _rest(work, step, waits_for))
                except GeneratorExit:
                    raise
                except BaseException as error:
                    self._failed(attempt, error)
                begun += 1
                if me.cancelling() or me._must_cancel:  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else tells
                    break  # it has cancelled its own task, and returned before that could reach it
                if sys.getrefcount(me) > holders:
                    break  # it has left its task to somebody, who may cancel it later: it must be nobody else's then
                if begun >= TURN_JOBS or time.perf_counter() - since > TURN_SECONDS:
                    await asyncio.sleep(0)
                    begun, since = 0, time.perf_counter()
        finally:
            if self._carrier is me:
                self._hand_on()


class _Elsewhere(Generic[C, R]):
    """An attempt that waits for a future, and goes on from there in no task, each step in its context."""

    def __init__(
        self,
        attempt: C,
        work: Coroutine[Any, Any, R],
        step: Callable[..., Any],
        waits_for: asyncio.Future[Any],
        ended: Callable[[C, R | None], None],
        failed: Callable[[C, BaseException], None],
    ) -> None:
        self._attempt = attempt
        self._work = work
        self._step = step
        self._ended = ended
        self._failed = failed
        self._wait_for(waits_for)

    def cancel(self) -> None:
        """What its future has been given already counts all the same."""
        self._waits_for.cancel()

    def _wait_for(self, future: asyncio.Future[Any]) -> None:
        self._waits_for = future
        future._asyncio_future_blocking = False  # noqa: SLF001 - who awaits a future says that so
        future.add_done_callback(self._go_on)

    def _go_on(self, _: asyncio.Future[Any]) -> None:
        if forks.is_fork:
            forks.leave()
        try:
            try:
                waits_for = self._step(self._work.send, None)
            except StopIteration as end:
                self._ended(self._attempt, end.value)
            except asyncio.CancelledError:
                self._ended(self._attempt, None)
            else:
                self._wait_for(waits_for)
        except BaseException as error:
            self._failed(self._attempt, error)


def _raised(attempt: Carried, error: BaseException) -> None:
    raise error


@types.coroutine
def _rest(work: Coroutine[Any, Any, R], step: Callable[..., Any], waits_for: object) -> Generator[Any, Any, R | None]:
    """Await what has begun already, each step in its context."""
    try:
        while True:
            try:
                given = yield waits_for
                if forks.is_fork:
                    forks.leave()
            except GeneratorExit:  # the loop is gone, and this task with it
                step(work.close)
                raise
            except BaseException as error:
                waits_for = step(work.throw, error)
            else:
                waits_for = step(work.send, given)
    except StopIteration as end:
        result: R = end.value
        return result
    except asyncio.CancelledError:
        return None
