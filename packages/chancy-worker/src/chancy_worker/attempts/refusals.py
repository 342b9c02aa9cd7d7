"""Jobs that this worker cannot take and another one perhaps can: of a task that it does not know, or with arguments
that its version of the task does not take.

They go back, attempt refunded: in a rolling deploy, forward or back, the other version takes them. A task that is not
known is left out of the claims from then on. Of one that is, only the job goes back, for some seconds, so that the
others behind it come up. Only when nobody could take a job for an hour does it fail: it was refused again and again in
that hour, and no worker is alive that has another version of its task.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from chancy.arguments.codec import encode_json
from chancy.errors import InvalidArguments
from chancy.logs.records import about
from chancy.model import AttemptError, Statement
from chancy.states import State
from chancy.task import BaseTask
from chancy_worker.fingerprint import fingerprint
from chancy_worker.mistakes import KEPT_ERRORS
from chancy_worker.versions import Orphans, has_the_right_names, orphans
from chancy_worker.words import MAX_MESSAGE_BYTES, safe

from .verdict import Claimed, Completion, Since, released, since_now

log = logging.getLogger("chancy.worker")

PATIENCE_SECONDS = 3600.0
"""So long a job is left to others before it fails."""
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 30.0
"""A job with arguments that do not fit is offered again after that; the longer, the longer it has been refused."""
ASK_SECONDS = 60.0
"""How often a worker that has refused jobs asks who else is there, and tries those of tasks that nobody knows."""
TRY_SECONDS = 2.0
"""For so long then."""
MOST_LEFT_OUT = 1_000
"""Names in each claim. Jobs of still more unknown tasks go back one by one."""


def unfit(job: Claimed, task: BaseTask[..., Any], error: InvalidArguments, since: Since) -> Completion:
    """The job's arguments do not fit this worker's version of its task."""
    names = ", ".join(task.signature.struct.__struct_fields__) or "none"
    seconds = min(max((job.refused_for or 0.0) / 2, SHORTEST_SECONDS), LONGEST_SECONDS)
    return _refused(job, error, f"{error}; as this worker has the task, its arguments are: {names}", since, seconds)


def _refused(job: Claimed, error: object, message: str, since: Since, seconds: float) -> Completion:
    kind = error if isinstance(error, str) else type(error).__qualname__
    entry = AttemptError(
        attempt=job.attempt,
        kind=kind,
        message=safe(message, MAX_MESSAGE_BYTES),
        worker=since.worker,
        started_at=datetime.fromtimestamp(since.at, UTC),
        fingerprint=fingerprint(kind, job.task, message),
    )
    return Completion(
        job.id,
        job.fence,
        State.READY,
        errors=encode_json([*_errors_before(job), entry]),
        delay=timedelta(seconds=seconds * random.uniform(0.75, 1.25)),
        refund=True,
        note=f"left to others: {entry.message}",
        refusal=True,
    )


def _errors_before(job: Claimed) -> Sequence[msgspec.Raw]:
    """Those of other attempts: of this one there is at most what the last refusal said, which is said anew."""
    try:
        kept = msgspec.json.decode(job.errors or b"[]", type=list[msgspec.Raw])
        if kept and msgspec.json.decode(kept[-1], type=AttemptError).attempt == job.attempt:
            kept.pop()
    except msgspec.DecodeError:  # no worker wrote that
        return []
    return kept[1 - KEPT_ERRORS :]


def given_up(verdict: Completion, reason: str) -> Completion:
    """Of a job that was refused: it fails, since there is nobody who could take it."""
    *before, last = msgspec.json.decode(verdict.errors or b"[]", type=list[msgspec.Raw])
    said = msgspec.json.decode(last, type=AttemptError)
    message = f"{reason}; {said.worker} refused it last: {said.message}"
    entry = msgspec.structs.replace(said, message=safe(message, MAX_MESSAGE_BYTES))
    return Completion(
        verdict.id,
        verdict.fence,
        State.FAILED,
        errors=encode_json([*before, entry]),
        note=f"{entry.kind}: {entry.message}",
    )


class Refusals:
    """What one worker has refused, and what it leaves out of its claims for that."""

    def __init__(self, worker: str, queues: Iterable[str], signatures: Mapping[str, str]) -> None:
        self._worker = worker
        self._queues = list(queues)
        self._signatures = signatures
        """Of the tasks that it knows."""
        self._refused: dict[str, str] = {}
        """The tasks of what it has refused, and its own version of them."""
        self._unknown: set[str] = set()
        self._orphans = Orphans()
        self._misfits: set[int] = set()
        """Jobs with the right arguments, of which one is not what it has to be, since this was asked last."""
        self._ask_at = math.inf
        self._tries_until = 0.0

    def left_out(self) -> set[str]:
        """The tasks to leave out of the next claim."""
        if self._orphans.tasks and time.monotonic() < self._tries_until:
            return self._unknown - self._orphans.tasks
        return self._unknown

    def unknown(self, job: Claimed) -> Completion:
        """The verdict of a job whose task is not known here."""
        message = f"worker {self._worker} does not know task {job.task!r}"
        if job.task not in self._unknown and len(self._unknown) < MOST_LEFT_OUT:
            self._unknown.add(job.task)
            self._note(job.task, "")
            log.warning(
                "task %r of job %d is unknown to this worker, which leaves such jobs to others; "
                "if it should know it, name the task's module on the command line",
                job.task,
                job.id,
                extra=about(job),
            )
        if job.task in self._unknown and job.task not in self._orphans.tasks:
            return released(job, "unknown task")
        return _refused(job, "UnknownTask", message, since_now(self._worker), ASK_SECONDS)

    def decided(self, job: Claimed, verdict: Completion) -> Completion:
        """The verdict of a job that was refused: the same, or that it has failed."""
        if job.task in self._signatures and job.task not in self._refused:
            self._note(job.task, self._signatures[job.task])
            log.warning(
                "job %d (%s) has arguments that this worker's version of the task does not take: it is %s",
                job.id, job.task, verdict.note, extra=about(job),
            )  # fmt: skip
        if job.task in self._orphans.tasks:
            if (job.refused_for or 0.0) >= PATIENCE_SECONDS:
                return given_up(verdict, "for an hour no worker could take it")
            if job.id in self._orphans.given:
                return given_up(verdict, "no worker takes what it was given by the jobs that it needs")
        if len(self._misfits) < MOST_LEFT_OUT and has_the_right_names(job.task, job.arguments):
            self._misfits.add(job.id)
        return verdict

    def _note(self, task: str, signature: str) -> None:
        if task not in self._refused and len(self._refused) < MOST_LEFT_OUT:
            self._refused[task] = signature
            self._ask_at = min(self._ask_at, time.monotonic() + ASK_SECONDS)

    def wish(self) -> Statement[Orphans] | None:
        """What has to be asked now, if anything."""
        if time.monotonic() < self._ask_at:
            return None
        self._ask_at = time.monotonic() + ASK_SECONDS * random.uniform(0.75, 1.25)
        return orphans(self._refused, self._queues, self._misfits)

    def learn(self, found: Orphans) -> None:
        """The answer to that. Jobs of unknown tasks among them are tried for a moment: they are refused one by one."""
        self._orphans = found
        self._misfits = set()
        self._tries_until = time.monotonic() + TRY_SECONDS
