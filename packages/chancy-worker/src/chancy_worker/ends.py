"""What follows from the end of an attempt: its verdict goes out with the next round, and the log has a line of it."""

from __future__ import annotations

import logging
from typing import Protocol

from chancy.states import State

from .attempts.refusals import Refusals
from .attempts.verdict import Claimed, Completion
from .log_format import unfailing

log = unfailing("chancy.job")


class Rounds(Protocol):
    """Who writes verdicts: the claimer."""

    def complete(self, job: Claimed, verdict: Completion) -> None:
        """The attempt is over."""

    def wake(self) -> None:
        """There may be work in any queue."""


class Ends:
    """Tells the rounds what happens in the slots and in the places where jobs run, which are there before them."""

    def __init__(self, refusals: Refusals) -> None:
        self.rounds: Rounds
        """Set as soon as there are any; before that no attempt begins."""
        self._refusals = refusals

    def ended(self, job: Claimed, verdict: Completion, seconds: float) -> None:
        """An attempt is over, after so long."""
        if verdict.refusal:
            verdict = self._refusals.decided(job, verdict)
        self.rounds.complete(job, verdict)
        log_end(job, verdict, seconds)

    def strange(self, job: Claimed) -> None:
        """A job was claimed whose task is not known here."""
        self.ended(job, self._refusals.unknown(job), 0.0)

    def recovered(self) -> None:
        """There is room again where there was none."""
        self.rounds.wake()


def log_end(job: Claimed, verdict: Completion, seconds: float) -> None:
    """The job's own line."""
    level = logging.INFO if verdict.state is State.SUCCEEDED or verdict.refund else logging.WARNING
    if not log.isEnabledFor(level):
        return
    note = " ".join(verdict.note.replace("\0", "\\0").split())[:500]
    state = verdict.state if verdict.state is not State.READY else "released" if verdict.refund else "retried"
    log.log(
        level,
        "job %d %s %s attempt %d/%d %.3fs%s",
        job.id, job.task, state, job.attempt, job.max_attempts, seconds, f" {note}" if note else "",
        extra={"chancy": {
            "job": job.id, "task": job.task, "queue": job.queue, "state": str(state), "attempt": job.attempt,
            "max_attempts": job.max_attempts, "seconds": round(seconds, 6), "note": note,
        }},
    )  # fmt: skip


def log_fate(verdict: Completion, fate: str) -> None:
    """What became of a verdict, where that is not what was meant by it."""
    if fate == "lost":
        log.warning(
            "job %d: the verdict of this attempt (%s) came too late and changed nothing: another claim has the job",
            verdict.id,
            verdict.state,
        )
    elif fate == "completed":
        log.warning(
            "job %d: succeeded in its handler's own transaction; what came after that changes nothing (%s)",
            verdict.id,
            verdict.note or verdict.state,
        )
