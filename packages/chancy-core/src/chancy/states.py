"""The states of a job.

A live job is a row of `job`; a finished one is a row of `history`. `scheduled` is not stored: it is a ready job whose
`run_at` lies ahead.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a job is doing, or how it ended."""

    BLOCKED = "blocked"
    READY = "ready"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


LIVE = frozenset({State.BLOCKED, State.READY, State.SCHEDULED, State.RUNNING})
FINISHED = frozenset(State) - LIVE
