"""What is done when an attempt is over: its verdict goes to the rounds, and a line of it to the log.

Verdict first, log afterwards: whatever a handler of the log does, the slot is free and the verdict is on its way.
"""

from __future__ import annotations

import logging
from typing import Protocol

from chancy.states import State
from chancy_worker.attempts.refusals import Refusals
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.log_format import unfailing

job_log = unfailing("chancy.job")


class Rounds(Protocol):
    """Who writes verdicts."""

    def complete(self, job: Claimed, verdict: Completion, /) -> None:
        """Free its slot, and write this."""


class Ends:
    """Of one worker's attempts. `rounds` is set before any begins."""

    rounds: Rounds

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals

    def ended(self, job: Claimed, verdict: Completion, seconds: float) -> None:
        """An attempt is over that took so long."""
        if verdict.refusal:
            verdict = self._refusals.decided(job, verdict)
        self.rounds.complete(job, verdict)
        _tell(job, verdict, seconds)

    def settled(self, verdict: Completion, fate: str) -> None:
        """A verdict has changed nothing, for this reason: see `claims.settle`."""
        if fate == "lost":
            job_log.warning(
                "job %d: the verdict of this attempt (%s) came too late and changed nothing: another claim has the job",
                verdict.id,
                verdict.state,
            )
        elif fate == "completed":
            job_log.warning(
                "job %d: succeeded in its handler's own transaction; what came after that changes nothing (%s)",
                verdict.id,
                verdict.note or verdict.state,
            )


def _tell(job: Claimed, verdict: Completion, seconds: float) -> None:
    level = logging.INFO if verdict.state in (State.SUCCEEDED, State.BLOCKED) or verdict.refund else logging.WARNING
    if not job_log.isEnabledFor(level):
        return
    note = " ".join(verdict.note.replace("\0", "\\0").split())[:500]
    state = verdict.state if verdict.state is not State.READY else "released" if verdict.refund else "retried"
    job_log.log(
        level,
        "job %d %s %s attempt %d/%d %.3fs%s",
        job.id, job.task, state, job.attempt, job.max_attempts, seconds, f" {note}" if note else "",
        extra={"chancy": {
            "job": job.id, "task": job.task, "queue": job.queue, "state": str(state), "attempt": job.attempt,
            "max_attempts": job.max_attempts, "seconds": round(seconds, 6), "note": note,
        }},
    )  # fmt: skip
