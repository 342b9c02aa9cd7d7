"""What is kept of a job's steps: plain data, and its bounds."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

MAX_RESULT_BYTES = 1024**2
"""Of the result of one step, and of one signal, as JSON."""
MOST_STEPS = 1_000
"""Of one job: each attempt but the first reads them all."""


class StepKind(StrEnum):
    """What a row of a job's steps says."""

    STEP = "step"
    """A function has returned."""
    SLEEP = "sleep"
    """The job sleeps, or has slept."""
    WAIT = "wait"
    """The job waits for a signal, or has waited."""
    SIGNAL = "signal"
    """Somebody has told it something."""
    TIMEOUT = "timeout"
    """It has waited long enough: a signal of this name comes too late."""


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a job has done of itself, or that it was told. Instants are UTC, by the database's clock."""

    name: str
    kind: StepKind
    at: datetime
    """When it was done, or began."""
    attempt: int
    """In which attempt; 0 for what somebody else has said."""
    until: datetime | None
    """When a sleep ends, or a wait that has an end."""
    result: bytes | None
    """JSON: what the function returned, or what the job was told."""
