"""The worker's end of the line to one child process: orders out, answers in.

A child performs its orders one after the other. So the first one that is unanswered is the one that runs, and dies
with the child; those behind it have not begun, and go to another. That a child is dead its fork server says; the end
of the line says only that nothing more is heard of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from chancy.current import CurrentJob, running_attempt
from chancy.errors import AttemptStopped
from chancy.options.limits import LimitType
from chancy_worker.attempts.attempt import Attempt
from chancy_worker.attempts.verdict import Completion
from chancy_worker.child.frames import (
    Claim,
    Done,
    Ended,
    Grown,
    Logged,
    Order,
    Ready,
    Recall,
    Recalled,
    Said,
    Splitter,
    Told,
    Unready,
    decode_answer,
    framed,
)

LAST_WORDS_SECONDS = 1.0
"""That the line of a dead child may stay open: another process holds it."""
LAST_STEPS_SECONDS = 0.5
"""That a child may live on when its line is closed over a job."""
INSIST_SECONDS = 1.0
"""How often a child that is to be killed is, until it is dead."""


class NoVerdict(Enum):
    """What else may become of an order."""

    DIED = "the child died over it"
    UNBEGUN = "it was not begun"


class Sent:
    """An order on its way."""

    __slots__ = ("answer", "attempt", "grown", "limit", "revoked")

    def __init__(self, attempt: Attempt, answer: asyncio.Future[Completion | NoVerdict]) -> None:
        self.attempt = attempt
        self.answer = answer
        limit = attempt.limits.get(LimitType.MEMORY) if attempt.limits else None
        self.limit = None if limit is None else int(limit)
        self.grown: int | None = None
        """Bytes that are in the child already, and not this job's; unknown until the child says so, as it begins."""
        self.revoked = False


class Line(asyncio.Protocol):
    """One child, as its worker sees it. `changed` is called when it has more room, or none any more."""

    def __init__(self, kill: Callable[[], None], changed: Callable[[Line], None]) -> None:
        self.pid = 0
        """0 as long as the fork server has not told it."""
        self.performed = 0
        self.seconds = 0.0
        """That its last job took."""
        self.made_at = time.monotonic()
        self.is_ready = False
        """Whether it has ever been able to take an order."""
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it is ready, or never will be."""
        self.unready = ""
        """Why it has not."""
        self.left: tuple[Attempt, str] | None = None
        """The job that has left something behind, and what."""
        self.flight: dict[Claim, Sent] = {}
        """In the order in which they are performed."""
        self.began_at = 0.0
        """When the first of them began, by `time.monotonic`."""
        self.idle_since = time.monotonic()
        self.leaving = False
        """It takes no more orders."""
        self.killed_for: AttemptStopped | None = None
        self.gone = asyncio.Event()
        """The line is closed."""
        self.ended: asyncio.Future[Ended | str] = asyncio.get_running_loop().create_future()
        """How the process has ended, as soon as it has; or why nobody knows."""
        self._kill = kill
        self._changed = changed
        self._transport: asyncio.Transport | None = None
        self._splitter = Splitter()
        self._unsent: list[bytes] = []
        self._kill_at = math.inf
        self._recalling = self._last = self._dismissed = False

    @property
    def is_open(self) -> bool:
        """Whether it takes orders."""
        return self.is_ready and not self.leaving and not self._recalling

    @property
    def running(self) -> Sent | None:
        """What it performs now."""
        return next(iter(self.flight.values()), None)

    @property
    def busy_for(self) -> float:
        """Seconds since the job that runs there began."""
        return time.monotonic() - self.began_at if self.flight else 0.0

    @property
    def idle_for(self) -> float:
        """Seconds since it had nothing more to do."""
        return time.monotonic() - self.idle_since if self.is_ready and not self.flight else 0.0

    @property
    def starting_for(self) -> float:
        """Seconds that it has needed to be ready, and is not."""
        return 0.0 if self.is_ready else time.monotonic() - self.made_at

    def kill_group(self) -> None:
        """Without the help of the fork server, which hangs or is dead."""
        if self.pid and not self.ended.done():
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    async def perform(self, attempt: Attempt) -> Completion | NoVerdict:
        """Order the job and wait for its verdict. Cancelled, it kills the child, or keeps it from beginning."""
        claim = attempt.job.id, attempt.job.fence
        sent = Sent(attempt, asyncio.get_running_loop().create_future())
        if self.leaving:
            return NoVerdict.UNBEGUN
        self._say(Order(attempt.job, attempt.since, attempt.current.schema, sent.limit))
        self.flight[claim] = sent
        if len(self.flight) == 1:
            self._begin(sent)
        try:
            return await sent.answer
        except asyncio.CancelledError:
            sent.revoked = True
            if self.running is sent:
                self.kill()
            elif claim in self.flight:
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
        self._kill_at = 0.0
        self.insist()

    def insist(self) -> None:
        """Kill it again, if it was to be killed a while ago and is still there: the fork server may not have heard."""
        if (now := time.monotonic()) >= self._kill_at and not self.ended.done():
            self._kill_at = now + INSIST_SECONDS
            self._kill()

    def dismiss(self, within: float) -> None:
        """Let an idle child end by itself within so many seconds, and kill it if it does not."""
        self.leaving = True
        if self._dismissed or self._transport is None:
            return
        self._dismissed = True
        asyncio.get_running_loop().call_later(within, self.kill)
        if not self._last and not self.gone.is_set():
            with contextlib.suppress(OSError):  # it is ending just now
                self._transport.write_eof()

    def end(self, how: Ended | str) -> None:
        """The process is dead. What it has said before arrives yet."""
        self.leaving = True
        _settle(self.started, None)
        _settle(self.ended, how)
        if not self.gone.is_set():
            asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._cut)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """The child is dead, or was let go, or has closed its files."""
        self.leaving = True
        if exc is not None:
            self._hear_out()
        self.gone.set()
        for index, sent in enumerate(self.flight.values()):
            _settle(sent.answer, NoVerdict.DIED if index == 0 and not self._last else NoVerdict.UNBEGUN)
        if self.flight and not self.ended.done():
            asyncio.get_running_loop().call_later(LAST_STEPS_SECONDS, self.kill)
        self.flight.clear()
        self._changed(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        for body in self._splitter.split(data):
            match decode_answer(body):
                case Done() as done:
                    self._done(done)
                    self._changed(self)
                case Told(claim, progress):
                    if (current := self._attempt_of(claim)) is not None:
                        current.report(current, progress)
                case Grown(claim, size):
                    if claim in self.flight:
                        self.flight[claim].grown = size
                case Logged() as said:
                    with contextlib.suppress(BaseException):  # of the application's handlers; it would break the line
                        _log_again(said, self.pid, self._attempt_of(said.claim))
                case Recalled(claims):
                    self._recalling = False
                    for claim in claims:
                        if (sent := self.flight.pop(claim, None)) is not None:
                            _settle(sent.answer, NoVerdict.UNBEGUN)
                    self._changed(self)
                case Ready():
                    self.is_ready = True
                    _settle(self.started, None)
                    self.idle_since = time.monotonic()
                    self._changed(self)
                case Unready(why):
                    self.unready = why

    def _hear_out(self) -> None:
        """What it has said before its end, where the line was lost over something that could not be sent to it: asyncio
        reads no more then.
        """
        if self._transport is None or (own := self._transport.get_extra_info("socket")) is None:
            return
        with contextlib.suppress(OSError):
            while data := os.read(own.fileno(), 1 << 16):
                self.data_received(data)

    def _attempt_of(self, claim: Claim | None) -> CurrentJob | None:
        """The attempt of this claim if it runs there now. What it has left behind may go on to speak for it."""
        current = sent.attempt.current if (sent := self.running) is not None else None
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

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _begin(self, sent: Sent) -> None:
        self.began_at = time.monotonic()
        self.performed += 1
        if sent.revoked:
            self.kill()
        else:
            sent.attempt.began()

    def _done(self, done: Done) -> None:
        verdict = done.completion
        if (sent := self.flight.pop((verdict.id, verdict.fence), None)) is None:
            return  # of nothing that was ordered here
        self.seconds = done.seconds
        _settle(sent.answer, verdict)
        if done.last is not None:
            self.leaving = self._last = True
            self.left = (sent.attempt, done.last) if done.last else None
        elif (following := self.running) is not None:
            self._begin(following)
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
    if said.extra:
        given: dict[str, Any] = msgspec.json.decode(said.extra)
        record.__dict__.update({name: value for name, value in given.items() if name not in record.__dict__})
    context = contextvars.Context()  # and not this one, of the job for which the child was started
    if current is not None:
        context.run(running_attempt.set, current)
    context.run(logger.handle, record)


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
