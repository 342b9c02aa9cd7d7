"""What a handler may raise that is not an error.

They derive from `Decision` and not from `ChancyError`, so that `except ChancyError` in a handler lets them pass.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from .retry import Delay, delay_of


class Decision(Exception):
    """What a handler has decided about its attempt."""


class Retry(Decision):
    """Try again. The attempt counts, and after `max_attempts` the job has failed.

    `after` is the delay from now by the database's clock, a timedelta or seconds; None leaves it to the task's own
    backoff. One below zero is none, and the longest is a hundred years. Raises `TypeError` for what is no duration.
    """

    def __init__(self, after: Delay | None = None, reason: str = "") -> None:
        self.after: timedelta | None = None if after is None else delay_of(after)
        self.reason = reason
        super().__init__(reason or "retry asked for by the handler")

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.after, self.reason)  # it may have to leave a process pool


class Snooze(Decision):
    """Not now: run again after `delay`, a timedelta or seconds. The attempt does not count, so a job may snooze for
    ever. Raises `TypeError` for what is no duration.
    """

    def __init__(self, delay: Delay) -> None:
        self.delay: timedelta = delay_of(delay)
        super().__init__(f"snoozed for {self.delay}")

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.delay,)


class Suspended(Snooze):
    """Raised by `current_job().sleep` and `.wait`, to end the attempt: let it pass. The next attempt comes there again,
    by way of the steps that are done.
    """

    def __init__(self, delay: Delay, note: str) -> None:
        super().__init__(delay)
        self.note = note
        self.args = (note,)

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.delay, self.note)


class Discard(Decision):
    """Never again: the job is finished as discarded, whatever attempts are left."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "discarded by the handler")

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.reason,)
