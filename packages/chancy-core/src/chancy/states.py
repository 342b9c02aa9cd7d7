"""The states of a job and the moves between them.

A live job is a row of `job`; a finished one is a row of `history`. `scheduled` is not stored: it is a ready
job whose `run_at` lies ahead. Every guarded UPDATE and DELETE in the SQL is one of the moves below, and a
state that is not in this table cannot be reached.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a job is doing, or how it ended."""

    READY = "ready"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


LIVE = frozenset({State.READY, State.SCHEDULED, State.RUNNING})
FINISHED = frozenset(State) - LIVE

MOVES: dict[State, frozenset[State]] = {
    State.SCHEDULED: frozenset({State.READY, State.CANCELLED}),
    State.READY: frozenset({State.RUNNING, State.CANCELLED}),
    # Ready and scheduled again: retry, snooze, release and rescue.
    State.RUNNING: frozenset(State) - {State.RUNNING},
    # Ready again: requeue, by a person.
    State.SUCCEEDED: frozenset({State.READY}),
    State.FAILED: frozenset({State.READY}),
    State.DISCARDED: frozenset({State.READY}),
    State.CANCELLED: frozenset({State.READY}),
}
