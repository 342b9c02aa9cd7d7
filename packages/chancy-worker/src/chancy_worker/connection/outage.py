"""One voice for all connections of a worker: what the log says while its database is away.

A worker has several connections, and each of those who use them finds out for itself. Who reads the log wants to know
when the database went, that it still is away, and when it was back: one line each, and one a minute.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time

log = logging.getLogger("chancy.worker")

SAID_SECONDS = 60.0
"""Trouble that goes on, or comes again and again, is told so often."""


class Outage:
    """Who has lost the database, and what was said of that. It is over when all have been answered again."""

    def __init__(self) -> None:
        self._lost: dict[str, None] = {}
        """In the order in which they have lost it."""
        self._since = 0.0
        self._why = ""
        self._said_at = -math.inf
        self._is_told = False
        """Of this outage."""

    def goes_on(self, purpose: str, why: str, since: float, *, is_idle: bool) -> None:
        """Whoever has this purpose has no connection, since then by `time.monotonic`.

        One that was lost while it was idle may be there again with the next attempt, and is told of then.
        """
        if not self._lost:
            self._since = since
        self._lost[purpose] = None
        self._why = why
        if not is_idle and (now := time.monotonic()) - self._said_at >= SAID_SECONDS:
            lasts = f" for {now - self._since:.0f} s" if self._is_told else ""
            self._said_at, self._is_told = now, True
            say(logging.WARNING, f"lost the database{lasts} ({self._named}: {why}); trying again")

    def over(self, purpose: str) -> None:
        """Whoever has this purpose was answered."""
        if purpose not in self._lost:
            return
        named = self._named
        del self._lost[purpose]
        if self._lost:
            return
        if self._is_told:
            say(logging.WARNING, f"the database is back, after {time.monotonic() - self._since:.1f} s")
        else:
            say(logging.INFO, f"connected again: a connection was lost ({named}: {self._why})")
        self._is_told = False

    @property
    def _named(self) -> str:
        return ", ".join(self._lost)


def say(level: int, text: str) -> None:
    """What a handler of the log raises is no reason to give up."""
    with contextlib.suppress(Exception):
        log.log(level, "%s", text)
