"""Waiting for a result: looks at a job, each a round trip, with pauses between them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from chancy.errors import JobCancelled, JobFailed, NotCommitted, ResultExpired, UnknownJob
from chancy.model import AskStanding, AttemptError, LetGo, Pause, Rows, Statement, Steps
from chancy.statements import parse_errors
from chancy.states import State
from chancy.wires.wire import Standing

if TYPE_CHECKING:
    from chancy.job import Job

R = TypeVar("R")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.010, 0.250
_ONE_SNAPSHOT = ("repeatable read", "serializable")


SELECT_OUTCOME = """
    SELECT job.state::text, job.task, job.attempt,
        convert_to(job.result::text, 'UTF8'), convert_to(job.errors::text, 'UTF8'),
        pg_current_xact_id_if_assigned()::text, current_setting('transaction_isolation')
    FROM (SELECT) AS always
    LEFT JOIN {schema}.any_job AS job ON job.id = %(id)s::bigint
"""


# Of a live job the same, without a look into the history, whose days would stay locked until the transaction ends.
SELECT_LIVE_OUTCOME = """
    SELECT CASE WHEN job.state = 'ready' AND job.run_at > {schema}.clock() THEN 'scheduled' ELSE job.state END::text,
        job.task, job.attempt, NULL, NULL,
        pg_current_xact_id_if_assigned()::text, current_setting('transaction_isolation')
    FROM (SELECT) AS always
    LEFT JOIN {schema}.job AS job ON job.id = %(id)s::bigint
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How far a job is, and whether this transaction could ever see it finish."""

    state: State | None
    task: str
    attempt: int
    result: bytes | None
    errors: tuple[AttemptError, ...]
    transaction: str | None
    isolation: str


def select_outcome(job_id: int) -> Statement[Outlook]:
    """How far the job is: always one row."""
    return Statement(SELECT_OUTCOME, {"id": job_id}, _parse_outcome, name="select_outcome")


def select_live_outcome(job_id: int) -> Statement[Outlook]:
    """How far the job is while it is live; without a state once it is not."""
    return Statement(SELECT_LIVE_OUTCOME, {"id": job_id}, _parse_outcome, name="select_live_outcome")


def _parse_outcome(rows: Rows) -> Outlook:
    state, task, attempt, result, errors, transaction, isolation = rows[0]
    return Outlook(state and State(state), task, attempt, result, parse_errors(errors), transaction, isolation)


def wait_for(job: Job[R], timeout: float | None) -> Steps[R]:
    """Until it is finished; see `Job.result`."""
    standing: Standing = yield AskStanding()
    in_block, alone = standing is not Standing.AUTOCOMMIT, standing is Standing.FRESH
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        seen: Outlook | None = None
        if in_block and not alone:
            seen = yield select_live_outcome(job.id)
        if seen is None or seen.state is None:
            seen = yield select_outcome(job.id)
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
