"""What a handler may raise that is not an error.

They derive from `Outcome` and not from `ChancyError`, so that `except ChancyError` in a handler lets them pass.
"""

from __future__ import annotations

from datetime import timedelta


class Outcome(Exception):
    """A handler's own word about its attempt."""


class Retry(Outcome):
    """Try again. The attempt counts, and after `max_attempts` the job has failed.

    `after` is the delay from now by the database's clock; None leaves it to the task's own backoff.
    """

    def __init__(self, after: timedelta | None = None, reason: str = "") -> None:
        self.after = after
        self.reason = reason
        super().__init__(reason or "retry asked for by the handler")


class Snooze(Outcome):
    """Not now: run again after `delay`. The attempt does not count, so a job may snooze for ever."""

    def __init__(self, delay: timedelta) -> None:
        self.delay = delay
        super().__init__(f"snoozed for {delay}")


class Discard(Outcome):
    """Never again: the job is finished as discarded, whatever attempts are left."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "discarded by the handler")
