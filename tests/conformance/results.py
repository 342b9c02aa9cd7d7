"""Results come back as the function's type."""

from __future__ import annotations

from typing import Any

import pytest

import chancy
from chancy import Job, JobFailed, JobRow, State, UnknownJob
from conformance.arguments import gives
from conformance.cases import case
from conformance.grounds import Ground, Steps
from conformance.tasks import (
    Point,
    discard,
    fail,
    liar,
    note_async,
    point_of,
    progress,
    returns_nan,
    returns_object,
    takes_point,
)


@case
def a_result_of_which_a_part_would_be_lost_fails_the_job_at_once(g: Ground) -> Steps:
    job = yield takes_point.submit(g.conn, Point(0))
    yield g.perform()
    row: JobRow = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.errors[0].kind) == (State.FAILED, 1, "InvalidResult")
    assert "a Point3 would arrive as a Point" in row.errors[0].message


@case
def a_result_has_the_type_that_the_function_promises(g: Ground) -> Steps:
    yield from gives(point_of, Point(5), 5)(g)


@case
def a_function_that_returns_nothing_has_none_as_its_result(g: Ground) -> Steps:
    job = yield progress.submit(g.conn, 1.0)
    yield g.perform()
    assert (yield job.result(g.conn)) is None
    assert (yield job.refresh(g.conn)).result == b"null"


@case
def a_coroutine_has_a_result_too(g: Ground) -> Steps:
    job = yield note_async.submit(g.conn, "x")
    yield g.perform()
    assert (yield job.result(g.conn)) == "x"


@case
def a_result_of_another_type_than_promised_fails_the_job_at_once(g: Ground) -> Steps:
    yield from result_is_invalid(g, liar, "Expected `int`, got `str`")


@case
def a_result_that_cannot_be_encoded_fails_the_job_at_once(g: Ground) -> Steps:
    yield from result_is_invalid(g, returns_object, "object")


@case
def a_result_that_is_not_a_number_fails_the_job_at_once(g: Ground) -> Steps:
    yield from result_is_invalid(g, returns_nan, "")


def result_is_invalid(g: Ground, function: Any, message: str) -> Steps:
    """No retry: the effects are there."""
    job = yield function.submit(g.conn)
    yield g.perform()
    row: JobRow = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.result) == (State.FAILED, 1, None)
    assert [error.kind for error in row.errors] == ["InvalidResult"]
    assert message in row.errors[0].message


@case
def the_result_of_a_failed_job_is_an_error_that_says_what_happened(g: Ground) -> Steps:
    job = yield fail.submit(g.conn, 9, "the reason")
    yield g.perform()
    with pytest.raises(JobFailed) as failed:
        yield job.result(g.conn)
    error = failed.value
    assert (error.job_id, error.task, error.state, error.attempt) == (job.id, fail.name, "failed", 3)
    assert (error.kind, error.message) == ("ValueError", "the reason")
    assert "in fail" in error.traceback
    assert "attempts.py" not in error.traceback


@case
def the_result_of_a_discarded_job_is_an_error(g: Ground) -> Steps:
    job = yield discard.submit(g.conn)
    yield g.perform()
    with pytest.raises(JobFailed, match="discarded in attempt 1: Discard: not worth it"):
        yield job.result(g.conn)


@case
def the_result_of_a_job_that_never_was_is_an_error(g: Ground) -> Steps:
    job: Job[Any] = Job(123_456, "conformance.note", "default", chancy.schema_in_use())
    with pytest.raises(UnknownJob, match="123456"):
        yield job.result(g.conn)
