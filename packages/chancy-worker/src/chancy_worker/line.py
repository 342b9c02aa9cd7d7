"""The worker's end of the line to one child process: orders out, answers in, and the child's death as the line's end.

A child performs its orders one after the other. So the first one that is unanswered is the one that runs, and dies
with the child; those behind it have not begun, and go to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from chancy.current import CurrentJob, running_attempt
from chancy.errors import AttemptStopped
from chancy.limits import LimitType

from .attempt import Attempt
from .frames import Done, Logged, Order, Ready, Recall, Recalled, Said, Splitter, Told, decode_answer, framed
from .verdict import Completion


class NoVerdict(Enum):
    """What else may become of an order."""

    DIED = "the child died over it"
    UNBEGUN = "it was not begun"


class Sent:
    """An order on its way."""

    __slots__ = ("answer", "attempt", "limit", "revoked")

    def __init__(self, attempt: Attempt, answer: asyncio.Future[Completion | NoVerdict]) -> None:
        self.attempt = attempt
        self.answer = answer
        limit = attempt.limits.get(LimitType.MEMORY) if attempt.limits else None
        self.limit = None if limit is None else int(limit)
        self.revoked = False


class Line(asyncio.Protocol):
    """One child, as its worker sees it. `changed` is called when it has more room, or none any more."""

    def __init__(self, process: Any, changed: Callable[[Line], None]) -> None:
        self.process = process
        self.pid: int = process.pid
        self.performed = 0
        self.seconds = 0.0
        """That its last job took."""
        self.is_ready = False
        """Whether it has ever been able to take an order."""
        self.flight: deque[Sent] = deque()
        self.began_at = 0.0
        """When the first of them began, by `time.monotonic`."""
        self.idle_since = time.monotonic()
        self.leaving = False
        """It takes no more orders."""
        self.killed_for: AttemptStopped | None = None
        self.gone = asyncio.Event()
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        """Its exit code, as soon as there is one."""
        self._changed = changed
        self._transport: asyncio.Transport | None = None
        self._splitter = Splitter()
        self._unsent: list[bytes] = []
        self._recalling = self._last = False

    @property
    def is_open(self) -> bool:
        """Whether it takes orders."""
        return self.is_ready and not self.leaving and not self._recalling

    @property
    def limit(self) -> int | None:
        """Bytes of memory that it may have now."""
        return self.flight[0].limit if self.flight else None

    @property
    def busy_for(self) -> float:
        """Seconds since the job that runs there began."""
        return time.monotonic() - self.began_at if self.flight else 0.0

    @property
    def idle_for(self) -> float:
        """Seconds since it had nothing more to do."""
        return time.monotonic() - self.idle_since if self.is_ready and not self.flight else 0.0

    async def perform(self, attempt: Attempt) -> Completion | NoVerdict:
        """Order the job and wait for its verdict. Cancelled, it kills the child, or keeps it from beginning."""
        sent = Sent(attempt, asyncio.get_running_loop().create_future())
        if self.gone.is_set():
            return NoVerdict.UNBEGUN
        self._say(Order(attempt.job, attempt.since, attempt.current.schema, sent.limit))
        self.flight.append(sent)
        if len(self.flight) == 1:
            self._begin(sent)
        try:
            return await sent.answer
        except asyncio.CancelledError:
            sent.revoked = True
            if sent in self.flight:
                if self.flight[0] is sent:
                    self.kill()
                else:
                    self.recall()
            raise

    def recall(self) -> None:
        """Take back what has not begun; each of those gets `UNBEGUN` for an answer, unless it begins before."""
        if not self._recalling and len(self.flight) > 1:
            self._recalling = True
            self._say(Recall())

    def kill(self, why: AttemptStopped | None = None) -> None:
        """End the child and what it has started, at once."""
        self.killed_for = self.killed_for or why
        self.leaving = True
        if not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let an idle child end by itself."""
        self.leaving = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """The child is dead, or was let go."""
        self.leaving = True
        self.gone.set()
        for index, sent in enumerate(self.flight):
            _settle(sent.answer, NoVerdict.DIED if index == 0 and not self._last else NoVerdict.UNBEGUN)
        self.flight.clear()
        self._changed(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        for body in self._splitter.split(data):
            match decode_answer(body):
                case Done() as done:
                    self._done(done)
                    self._changed(self)
                case Told(progress):
                    if self.flight:
                        current = self.flight[0].attempt.current
                        current.report(current, progress)
                case Logged() as said:
                    with contextlib.suppress(BaseException):  # of the application's handlers; it would break the line
                        _log_again(said, self.pid, self._attempt_of(said.claim))
                case Recalled(count):
                    self._recalling = False
                    for _ in range(count):
                        _settle(self.flight.pop().answer, NoVerdict.UNBEGUN)
                    self._changed(self)
                case Ready():
                    self.is_ready = True
                    self._changed(self)

    def _attempt_of(self, claim: tuple[int, int] | None) -> CurrentJob | None:
        """The attempt of this claim if it runs there now. What it has left behind may go on to speak for it."""
        current = self.flight[0].attempt.current if self.flight else None
        return current if current is not None and claim == (current.id, current.fence) else None

    def _say(self, said: Said) -> None:
        """With all else that is said in this turn of the loop, in one packet."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent.append(framed(said))

    def _send(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self._transport is not None and not self.gone.is_set():
            self._transport.write(data)

    def _begin(self, sent: Sent) -> None:
        self.began_at = time.monotonic()
        self.performed += 1
        if sent.revoked:
            self.kill()
        else:
            sent.attempt.began()

    def _done(self, done: Done) -> None:
        self.seconds = done.seconds
        _settle(self.flight.popleft().answer, done.completion)
        if done.last:
            self.leaving = self._last = True
        elif self.flight:
            self._begin(self.flight[0])
        else:
            self.idle_since = time.monotonic()


def _log_again(said: Logged, pid: int, current: CurrentJob | None) -> None:
    """As if it had been logged here by that attempt."""
    logger = logging.getLogger(said.name)
    if not logger.isEnabledFor(said.level):
        return
    record = logger.makeRecord(said.name, said.level, "", 0, said.message, (), None)
    record.exc_text = said.traceback or None
    record.created, record.process, record.processName = said.created, pid, "chancy child"
    context = contextvars.Context()  # and not this one, of the job for which the child was started
    if current is not None:
        context.run(running_attempt.set, current)
    context.run(logger.handle, record)


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
