"""The forms that a round has, and who is told of what a plain one has nothing to do with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.claims.statement import PATIENT_ROUND, PATIENT_WEIGHED_ROUND, ROUND, WEIGHED_ROUND

TEXTS = {
    (False, False): ROUND,
    (True, False): PATIENT_ROUND,
    (False, True): WEIGHED_ROUND,
    (True, True): PATIENT_WEIGHED_ROUND,
}
"""By whether it passes locked rows by, and whether it weighs."""


class Flows(Protocol):
    """Who looks after jobs that need others."""

    def becomes(self, job: Claimed, verdict: Completion, /) -> None:
        """Its function has returned what another one will come to: have it wait for that."""

    def ended(self, ids: Sequence[int], /) -> None:
        """These are over, and needed."""

    def may_have_ended(self, ids: Sequence[int], /) -> None:
        """These perhaps."""
