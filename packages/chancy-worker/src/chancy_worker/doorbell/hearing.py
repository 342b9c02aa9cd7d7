"""Whether notifications reach this worker. Where something between it and Postgres swallows them nothing fails: jobs
begin late, when the fallback look finds them.
"""

from __future__ import annotations

import logging
import math
import secrets
import time

import psycopg
from psycopg import Notify

from chancy.model import Statement
from chancy_worker.connection.link import Link, one_line
from chancy_worker.connection.recovery import Recovery

from .ear import Ear

log = logging.getLogger("chancy.worker")

CALL_SECONDS = 60.0
"""Between two calls of a worker that hears. Each is a commit, and every worker that listens there reads it."""
MOST_UNHEARD = 2
"""Calls in a row that may get lost: a busy event loop hears late, too."""
SILENT_SECONDS = 5.0
"""That the doorbell's own connection may fail before it is told."""

_SWALLOWED = (
    "the doorbell is not heard, because something between this worker and Postgres swallows notifications: jobs begin, "
    "and running ones are cancelled, up to 5 s late; point it at Postgres itself with --dsn, or say --pooler "
    "transaction"
)

CALL = "SELECT pg_notify(%(channel)s::text, %(word)s::text)"


def call(channel: str, word: str) -> Statement[None]:
    """Say it to all workers that listen there."""
    return Statement(CALL, {"channel": channel, "word": word}, lambda rows: None)


class Hearing:
    """A worker calls itself over another connection than it hears on: once on each new one, then now and then, and with
    each heartbeat while it hears nothing. One that need not listen does not call, either.
    """

    def __init__(self, hears: Link, bell: Recovery, ear: Ear) -> None:
        """`bell` is what became of the doorbell's own connection."""
        self._hears = hears
        self._bell = bell
        self._ear = ear
        self._word = f"echo {secrets.token_hex(8)}"
        self._called_at = -math.inf
        self._unheard = 0
        """Calls since it heard one."""
        self._told = False

    @property
    def problem(self) -> str | None:
        """Why jobs, and cancels of running ones, may come late, if so."""
        if (lasts := self._bell.lasts) > SILENT_SECONDS:
            return f"the doorbell has had no connection for {lasts:.0f} s: jobs may begin up to 5 s late"
        return _SWALLOWED if self._is_deaf else None

    @property
    def _is_deaf(self) -> bool:
        return self._unheard > MOST_UNHEARD  # the last one has only just been made

    def heard(self, notify: Notify) -> bool:
        """Whether this was a call of its own."""
        if notify.payload != self._word:
            return False
        self._unheard = 0
        return True

    async def test(self, link: Link) -> None:
        """Call over this link, if it is time for that. To be asked with each heartbeat."""
        now = time.monotonic()
        if self._hears.conn is None or self._hears.connected_at > self._called_at:
            self._unheard, self._called_at = 0, -math.inf
        channel = None if self._hears.conn is None else self._ear.channel
        if channel is not None and (self._unheard or now - self._called_at >= CALL_SECONDS):
            self._called_at = now
            self._unheard += 1
            try:
                await link.send(call(channel, self._word))
            except psycopg.Error as error:
                if link.is_broken(error):
                    raise
                log.warning("this worker could not call itself: %s", one_line(error))
        self._tell()

    def _tell(self) -> None:
        """A connection that is lost is told of by `Outage`."""
        if self._is_deaf and not self._told:
            log.warning("%s", _SWALLOWED)
        elif self._told and not self._is_deaf:
            log.warning("the doorbell is heard again")
        self._told = self._is_deaf
