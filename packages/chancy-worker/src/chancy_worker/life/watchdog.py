"""A thread beside the event loop: it names what blocks the loop, and keeps the lease alive meanwhile.

An `async def` that blocks would otherwise cost its neighbours their lease, and each of them would run twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from chancy_worker.attempts.attempt import call_async
from chancy_worker.connection.link import Link, one_line
from chancy_worker.connection.recovery import Recovery, Trouble
from chancy_worker.connection.sessions import LentSession

from .lease import Lease, extend

log = logging.getLogger("chancy.worker")

BEAT_SECONDS = 0.25
LATE_SECONDS = 1.0
"""From here on the loop is called blocked."""
MOST_SECONDS = 60.0
"""A loop that is blocked for longer is as good as dead: its lease may run out."""
TO_EXTEND_SECONDS = 5.0
"""That one extension may take; twice as much with its connection."""
TO_END_SECONDS = 1.0
"""That the thread is waited for. One that is just talking to the database ends after that."""


class Watchdog:
    """Runs inside a `with`, on the loop's own thread."""

    def __init__(self, conninfo: str | Callable[[], str], schema: str, lease: Lease) -> None:
        self._conninfo = conninfo
        self._schema = schema
        self._lease = lease
        self._over = threading.Event()
        self._beat_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._complained = False
        self._recovery = Recovery("watchdog")
        self._extend_at = 0.0
        self._thread = threading.Thread(target=self._watch, name="chancy watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join(TO_END_SECONDS)  # this is the loop that it watches

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(BEAT_SECONDS):
            before, looked = looked, time.monotonic()
            # Where this thread has waited too long itself, the whole process stood still, and nobody blocks the loop.
            with contextlib.suppress(Exception):  # nor may a handler of the log that raises end the watch
                self._look(looked - self._beat_at if looked - before <= LATE_SECONDS else 0.0)
            looked = time.monotonic()

    def _look(self, blocked: float) -> None:
        """The loop has been blocked for so many seconds."""
        if blocked < LATE_SECONDS:
            self._complained = False
            return
        if not self._complained:
            self._complained = True
            level, culprit = self._culprit()
            log.log(level, "the event loop is blocked: %s", culprit)
        now = time.monotonic()
        if (
            blocked < MOST_SECONDS
            and now - self._lease.extended_at > self._lease.timing.extend
            and now >= self._extend_at
        ):
            self._extend()

    def _extend(self) -> None:
        """On an event loop of this thread's own, so that all that a link promises holds here, too."""
        try:
            asyncio.run(self._extend_once())
        except Exception as error:
            why = f"the lease could not be extended beside the blocked loop: {one_line(error)}"
            self._extend_at = time.monotonic() + self._recovery.failed(Trouble.LOST, why)
        else:
            self._recovery.over()

    async def _extend_once(self) -> None:
        lease = self._lease
        # Lent: a transaction that is never open while this process may be frozen. With the row locked it would keep
        # its lease for ever, since who looks for the dead passes locked rows by.
        link = Link(
            self._conninfo, self._schema, "watchdog",
            deadline=TO_EXTEND_SECONDS, lock_timeout="1s", session=LentSession,
        )  # fmt: skip
        try:
            async with asyncio.timeout(2 * TO_EXTEND_SECONDS):
                await link.connect()
                answer = await link.send(extend(lease.id, lease.timing.lease, None, lease.timing.unheard))
        finally:
            await link.close()
        if answer.holding:
            lease.extended_at = time.monotonic()

    def _culprit(self) -> tuple[int, str]:
        """What the loop's thread is doing, and for which job. An error is a job that holds it: one can do something
        about that. A busy machine may hold up the worker's own steps, too.
        """
        frame: FrameType | None = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented so
        if frame is None:
            return logging.ERROR, "and its thread is gone"
        where = f"in {frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        while frame is not None:
            if frame.f_code is call_async.__code__:
                with contextlib.suppress(KeyError):
                    job = frame.f_locals["job"]
                    return logging.ERROR, (
                        f"job {job.id} ({job.task}) has held it for more than {LATE_SECONDS:.0f} s, {where}; all other "
                        f"async jobs of this worker wait. Await what it waits for, or make its function a plain one"
                    )
            frame = frame.f_back
        return logging.WARNING, f"for more than {LATE_SECONDS:.0f} s, {where}"
