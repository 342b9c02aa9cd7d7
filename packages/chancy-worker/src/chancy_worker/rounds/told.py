"""Who is told of what rounds have ended, and looks after it beside them: parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chancy_worker.attempts.verdict import Claimed, Completion


class Batches(Protocol):
    """Who watches over batches."""

    def left(self, batch: int, /) -> None:
        """A job of this one is over, or waits again."""


class Flows(Protocol):
    """Who looks after jobs that need others."""

    def becomes(self, job: Claimed, verdict: Completion, /) -> None:
        """Its function has returned what another one will come to: have it wait for that."""

    def ended(self, ids: Sequence[int], /) -> None:
        """These are over, and needed."""

    def may_have_ended(self, ids: Sequence[int], /) -> None:
        """These perhaps."""
