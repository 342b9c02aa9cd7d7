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
from types import FrameType, TracebackType
from typing import Self

import psycopg

from chancy.run import send

from .attempt import call_async
from .leases import Lease, extend
from .link import one_line

log = logging.getLogger("chancy.worker")

BEAT_SECONDS = 0.25
LATE_SECONDS = 1.0
"""From here on the loop is called blocked."""
MOST_SECONDS = 60.0
"""A loop that is blocked for longer is as good as dead: its lease may run out."""


class Watchdog:
    """Runs inside a `with`, on the loop's own thread."""

    def __init__(self, conninfo: str, schema: str, lease: Lease) -> None:
        self._conninfo = conninfo
        self._schema = schema
        self._lease = lease
        self._over = threading.Event()
        self._beat_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
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
        self._thread.join()

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)

    def _watch(self) -> None:
        complained, looked = False, time.monotonic()
        while not self._over.wait(BEAT_SECONDS):
            before, looked = looked, time.monotonic()
            blocked = looked - self._beat_at
            # Where this thread has waited too long itself, the whole process stood still, and nobody blocks the loop.
            if blocked < LATE_SECONDS or looked - before > LATE_SECONDS:
                complained = False
                continue
            if not complained:
                complained = True
                log.error("the event loop is blocked: %s", self._culprit())
            if blocked < MOST_SECONDS and time.monotonic() - self._lease.extended_at > self._lease.timing.extend:
                self._extend()

    def _extend(self) -> None:
        lease = self._lease
        try:
            # One transaction, committed at the end of the block: behind a pooler a session's setting would stay.
            with psycopg.connect(self._conninfo, prepare_threshold=None, connect_timeout=5) as conn:
                conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
                conn.execute("SET LOCAL statement_timeout = '5s'")
                # A worker that is frozen here would keep its lease: who looks for the dead passes locked rows by.
                conn.execute("SET LOCAL idle_in_transaction_session_timeout = '5s'")
                answer = send(conn, extend(lease.id, lease.timing.lease, None, lease.timing.unheard), self._schema)
            if answer.holding:
                lease.extended_at = time.monotonic()
        except psycopg.Error as error:
            log.warning("the lease could not be extended beside the blocked loop: %s", one_line(error))

    def _culprit(self) -> str:
        """What the loop's thread is doing, and for which job."""
        frame: FrameType | None = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented so
        if frame is None:
            return "and its thread is gone"
        where = f"in {frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        while frame is not None:
            if frame.f_code is call_async.__code__:
                with contextlib.suppress(KeyError):
                    job = frame.f_locals["job"]
                    return (
                        f"job {job.id} ({job.task}) has held it for more than {LATE_SECONDS:.0f} s, {where}; all other "
                        f"async jobs of this worker wait. Await what it waits for, or make its function a plain one"
                    )
            frame = frame.f_back
        return f"for more than {LATE_SECONDS:.0f} s, {where}"
