"""Waiting for the result of a job: a look, a pause, and the next look."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from chancy import statements
from chancy.errors import JobCancelled, JobFailed, NotCommitted, ResultExpired, UnknownJob
from chancy.model import AskStanding, LetGo, Pause, Steps
from chancy.states import State
from chancy.wires.wire import Standing

if TYPE_CHECKING:
    from chancy.job import Job

R = TypeVar("R")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.010, 0.250
_ONE_SNAPSHOT = ("repeatable read", "serializable")


def wait_for(job: Job[R], timeout: float | None) -> Steps[R]:
    """What `Job.result` sends until the job is finished, which it tells; `timeout` in seconds."""
    standing: Standing = yield AskStanding()
    in_block, alone = standing is not Standing.AUTOCOMMIT, standing is Standing.FRESH
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        seen: statements.Outlook | None = None
        if in_block and not alone:
            seen = yield statements.select_live_outcome(job.id)
        if seen is None or seen.state is None:
            seen = yield statements.select_outcome(job.id)
        match seen.state:
            case State.SUCCEEDED:
                if seen.result is None:
                    raise ResultExpired(job.id, job.task)
                return job.decode_result(seen.result)
            case State.FAILED | State.DISCARDED:
                last = seen.errors[-1] if seen.errors else None
                kind, message, traceback = (last.kind, last.message, last.traceback) if last else ("", "", "")
                raise JobFailed(job.id, job.task, seen.state, seen.attempt, kind, message, traceback)
            case State.CANCELLED:
                raise JobCancelled(job.id, job.task)
            case None if not (in_block and seen.isolation in _ONE_SNAPSHOT):
                raise UnknownJob(job.id, job.schema)
        if in_block and job.transaction is not None and job.transaction == seen.transaction:
            raise NotCommitted(job.id, "this transaction submitted it, so no worker can see it yet: commit first")
        if in_block and seen.isolation in _ONE_SNAPSHOT:
            raise NotCommitted(
                job.id,
                f"a {seen.isolation} transaction never sees what others commit: wait in autocommit or read committed",
            )
        if deadline is not None and time.monotonic() + pause > deadline:
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError(f"job {job.id} ({job.task}) was still {seen.state} after {timeout:g} s")
            pause = left
        if alone:
            yield LetGo()
        yield Pause(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
