"""Snooze and discard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chancy import JobCancelled, State
from conformance.attempts import attempts_of
from conformance.cases import case, seen
from conformance.grounds import Ground, Steps
from conformance.tasks import discard, snooze


@case
def a_job_that_snoozes_waits_and_has_used_no_attempt(g: Ground) -> Steps:
    row = yield from attempts_of(g, snooze, 1)
    assert (row.state, row.attempt, row.errors, row.worker, seen) == (State.SCHEDULED, 0, (), None, [1])
    assert timedelta(minutes=59) < row.run_at - datetime.now(UTC) < timedelta(minutes=61)


@case
def a_job_may_snooze_more_often_than_it_has_attempts(g: Ground) -> Steps:
    job = yield snooze.using(max_attempts=1).submit(g.conn, 3)
    yield g.perform()
    for _ in range(3):
        yield g.perform_snoozed(job)
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 1, b"4", [1, 1, 1, 1])


@case
def a_snoozed_job_can_be_cancelled(g: Ground) -> Steps:
    job = yield snooze.submit(g.conn, 1)
    yield g.perform()
    assert (yield job.cancel(g.conn)) is True
    assert (yield job.refresh(g.conn)).state is State.CANCELLED
    with pytest.raises(JobCancelled):
        yield job.result(g.conn)


@case
def a_discarded_job_is_over_whatever_attempts_are_left(g: Ground) -> Steps:
    row = yield from attempts_of(g, discard, 1)
    assert (row.state, row.attempt, seen) == (State.DISCARDED, 2, [1, 2])
    assert [error.kind for error in row.errors] == ["ValueError", "Discard"]
