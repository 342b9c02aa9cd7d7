"""The attempt that is running: what a handler may ask about itself."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from .errors import ChancyError


@dataclass(slots=True)
class CurrentJob:
    """One attempt, seen from inside its handler."""

    id: int
    task: str
    queue: str
    attempt: int
    """Counted from 1, at the claim."""
    max_attempts: int
    lease_lost: bool = False
    """The worker's lease ran out: another worker may run this job now, and nothing that this attempt says counts."""


running_attempt: ContextVar[CurrentJob] = ContextVar("chancy_running_attempt")
"""Set by worker, eager and drain around the handler; threads get a copy."""


def current_job() -> CurrentJob:
    """The job whose handler is calling. Raises `ChancyError` outside of a handler."""
    try:
        return running_attempt.get()
    except LookupError:
        raise ChancyError("no job is running here: current_job() works inside a task's function only") from None
