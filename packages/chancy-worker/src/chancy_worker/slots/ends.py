"""What is done when an attempt is over: its verdict goes to the rounds, and a line of it to the log.

Verdict first, log afterwards: whatever a handler of the log does, the slot is free and the verdict is on its way.
"""

from __future__ import annotations

from typing import Protocol

from chancy_worker.attempts.refusals import Refusals
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.logs.job_lines import JobLines, job_log


class Rounds(Protocol):
    """Who writes verdicts."""

    def complete(self, job: Claimed, verdict: Completion, /) -> None:
        """Free its slot, and write this."""


class Ends:
    """Of one worker's attempts. `rounds` is set before any begins."""

    rounds: Rounds

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._lines = JobLines()

    def ended(self, job: Claimed, verdict: Completion, seconds: float) -> None:
        """An attempt is over that took so long."""
        if verdict.refusal:
            verdict = self._refusals.decided(job, verdict)
        self.rounds.complete(job, verdict)
        self._lines.tell(job, verdict, seconds)

    def flush(self) -> None:
        """What was told until now is in the log from here on."""
        self._lines.flush()

    def settled(self, verdict: Completion, fate: str) -> None:
        """A verdict has changed nothing, for this reason: see `claims.settle`."""
        if fate == "lost":
            job_log.warning(
                "job %d: the verdict of this attempt (%s) came too late and changed nothing: another claim has the job",
                verdict.id,
                verdict.state,
                extra={"chancy": {"job": verdict.id}},
            )
        elif fate == "completed":
            job_log.warning(
                "job %d: succeeded in its handler's own transaction; what came after that changes nothing (%s)",
                verdict.id,
                verdict.note or verdict.state,
                extra={"chancy": {"job": verdict.id}},
            )
