"""Of which job a record of `logging` is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from chancy.current import running_attempt

OURS = frozenset({"chancy.worker", "chancy.job"})
"""The worker's own loggers. What they say of a job names it; in whose context they say it means nothing."""


def job_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """`job`, `task`, `attempt` and `queue` of a record that is being handled; empty where it is of no job."""
    if record.name in OURS:
        told: Mapping[str, Any] = record.__dict__.get("chancy", {})
        return told
    if (current := running_attempt.get(None)) is None:
        return {}
    return {"job": current.id, "task": current.task, "attempt": current.attempt, "queue": current.queue}


class Of(Protocol):
    """A job that was claimed, or an attempt seen from inside."""

    @property
    def id(self) -> int:
        """Its number."""

    @property
    def task(self) -> str:
        """The name of its task."""

    @property
    def attempt(self) -> int:
        """Counted from 1."""

    @property
    def queue(self) -> str:
        """The name of its queue."""


def about(job: Of) -> dict[str, dict[str, Any]]:
    """The `extra` of a record of our own that is about this job: what `job_of` finds there."""
    return {"chancy": {"job": job.id, "task": job.task, "attempt": job.attempt, "queue": job.queue}}


class WithJob(logging.Filter):
    """For handlers of your own: gives each record the `job`, `task`, `attempt` and `queue` in which it was made.

    A record that has something of such a name already, from `extra`, keeps it. One that was made in no attempt gets
    `otherwise`, so that a format with `%(job)s` holds for all.
    """

    def __init__(self, otherwise: object = "-") -> None:
        super().__init__()
        self._otherwise = otherwise

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
        said = job_of(record)
        for name in ("job", "task", "attempt", "queue"):
            if name not in record.__dict__:
                record.__dict__[name] = said.get(name, self._otherwise)
        return True
