"""What is done when an attempt is over: its verdict goes to the rounds, and a line of it to the log.

Verdict first, log afterwards: whatever a handler of the log does, the slot is free and the verdict is on its way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from chancy_worker.attempts.refusals import Refusals
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.logs.job_lines import JobLines, job_log
from chancy_worker.tally.tally import Tally, outcome_of


class Rounds(Protocol):
    """Who writes verdicts."""

    def complete(self, job: Claimed, verdict: Completion, /) -> None:
        """Free its slot, and write this."""


class Ends:
    """Of one worker's attempts. `rounds` is set before any begins."""

    rounds: Rounds

    def __init__(self, refusals: Refusals, tally: Tally) -> None:
        self._refusals = refusals
        self._tally = tally
        self._lines = JobLines()

    def ended(self, job: Claimed, verdict: Completion, seconds: float) -> None:
        """An attempt is over that took so long."""
        if verdict.refusal:
            verdict = self._refusals.decided(job, verdict)
        self.rounds.complete(job, verdict)
        tally = self._tally
        tally.left = left = tally.left - 1
        if left < 0:
            tally.measure(job, verdict, seconds)
        self._lines.tell(job, verdict, seconds)

    def flush(self) -> None:
        """What was told until now is in the log from here on."""
        self._lines.flush()

    def written(self, jobs: Sequence[Claimed], queues: Collection[str]) -> None:
        """The verdicts of these are written, which are of these queues."""
        self._tally.written(jobs, queues)

    def came_out(self, job: Claimed, verdict: Completion, fates: Mapping[tuple[int, int], str]) -> None:
        """One of them that may not have succeeded: by what it says, and what has become of it."""
        self._tally.came_out(job, outcome_of(verdict, fates.get((verdict.id, verdict.fence), "done")))

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
