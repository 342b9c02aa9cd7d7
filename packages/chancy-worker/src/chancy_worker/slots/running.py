"""One running attempt as its worker knows it, from its claim to its verdict; and why it may have to stop."""

from __future__ import annotations

import asyncio
import time
from enum import Enum
from typing import Any, TypeAlias

import msgspec

from chancy.errors import TIME_IS_OVER, TimeLimitExceeded
from chancy.options.limits import LimitType, Place
from chancy.states import State
from chancy.task import BaseTask
from chancy_worker.attempts.attempt import Attempt
from chancy_worker.attempts.logs import Book
from chancy_worker.attempts.verdict import Claimed, Completion, cancelled, judged, released

from .bursts import Carrier
from .turnstile import Rank

Key: TypeAlias = tuple[int, int]
"""A claim: the job's id and its fence."""


class Stop(Enum):
    """Why an attempt has to stop."""

    TIME = TIME_IS_OVER
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
    memory: int = 0
    """Its limit in bytes, which counts against the budget."""
    confined: bool = False
    """Where it runs there is room for so many, and so much memory."""
    attempt: Attempt | None = None
    """From its first step on."""
    carrier: Carrier | None = None
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

    def of_what_comes_back(self, verdict: Completion) -> Completion:
        """The same; but one that was asked to stop comes back no more, as its row says, whatever its function has."""
        if self.attempt is None or not self.attempt.current.cancelled:
            return verdict
        return msgspec.structs.replace(verdict, state=State.CANCELLED, delay=None, refund=False, refusal=False)

    def verdict_of_stopped(self) -> Completion:
        """What is made of it where its function has returned no verdict."""
        match self.stop:
            case Stop.CANCEL:
                return cancelled(self.job)
            case Stop.LEASE | Stop.SHUTDOWN as why:
                return released(self.job, f"interrupted: {why.value}")
            case Stop.WAITED as why:
                return released(self.job, why.value)
        assert self.attempt is not None
        error: BaseException = asyncio.CancelledError("the function cancelled itself")
        if self.stop is Stop.TIME:
            error = TimeLimitExceeded(self.limits[LimitType.TIME], time.perf_counter() - self.began)
        return judged(self.job, error, self.attempt.since, self.task.retry_delay)
