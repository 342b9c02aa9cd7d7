"""What a record says beside its message: of which job one of our own is, and what its author has given as `extra`."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from chancy.logs import OURS

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


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
    """The `extra` of a record of our own that is about this job: what `chancy.logs.job_of` finds there."""
    return {"chancy": {"job": job.id, "task": job.task, "attempt": job.attempt, "queue": job.queue}}


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """What its author has given beside the message. Records of our own have what `about` gives."""
    if record.name in OURS:
        return {}
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
