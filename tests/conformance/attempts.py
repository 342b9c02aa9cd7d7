"""Attempts are counted, and fail one at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from chancy import Backoff, State
from conformance.cases import case, seen
from conformance.grounds import Ground, Steps
from conformance.tasks import cancel_own_task, choosy, fail, fail_async, leave, retry, speechless


def attempts_of(g: Ground, function: Any, *args: Any) -> Any:
    """Submit it and perform it to its end; its row."""
    job = yield function.submit(g.conn, *args)
    yield g.perform()
    row = yield job.refresh(g.conn)
    return row


@case
def a_job_that_fails_is_tried_again_until_it_succeeds(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail, 2)
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 3, b"3", [1, 2, 3])
    assert [(error.attempt, error.kind, error.message) for error in row.errors] == [
        (1, "ValueError", "not yet"),
        (2, "ValueError", "not yet"),
    ]


@case
def a_coroutine_that_fails_is_tried_again_until_it_succeeds(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail_async, 2)
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 3, b"3", [1, 2, 3])


@case
def after_max_attempts_the_job_has_failed(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail, 99)
    assert (row.state, row.attempt, row.result, seen) == (State.FAILED, 3, None, [1, 2, 3])
    assert row.finished_at >= row.started_at


@case
def a_job_with_one_attempt_fails_at_the_first_error(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=1), 99)
    assert (row.state, row.attempt, seen) == (State.FAILED, 1, [1])


@case
def the_attempts_of_one_submit_may_be_more_than_those_of_the_task(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=5), 4)
    assert (row.state, row.attempt) == (State.SUCCEEDED, 5)


@case
def a_retry_asked_for_counts_as_an_attempt(g: Ground) -> Steps:
    row = yield from attempts_of(g, retry, 3600)
    assert (row.state, seen) == (State.FAILED, [1, 2])
    assert [(error.kind, error.message, error.traceback) for error in row.errors] == [
        ("Retry", "later, please", "")
    ] * 2


@case
def a_retry_without_a_delay_is_made_by_the_tasks_backoff(g: Ground) -> Steps:
    row = yield from attempts_of(g, retry)
    assert (row.state, seen) == (State.FAILED, [1, 2])


@case
def a_retry_function_decides_when_to_give_up(g: Ground) -> Steps:
    row = yield from attempts_of(g, choosy, "why")
    assert (row.state, row.attempt) == (State.FAILED, 2)
    assert seen == [(1, "RuntimeError('why')"), (2, "RuntimeError('why')")]


@case
def a_broken_retry_function_fails_the_job_and_says_so(g: Ground) -> Steps:
    row = yield from attempts_of(g, choosy, "broken")
    assert (row.state, row.attempt, row.errors[0].kind) == (State.FAILED, 1, "LookupError")
    assert "RuntimeError: broken" in row.errors[0].traceback


@case
def a_backoff_of_one_submit_goes_before_the_tasks_retry_function(g: Ground) -> Steps:
    quick = Backoff(base=timedelta(seconds=1))
    row = yield from attempts_of(g, choosy.using(retry=quick, max_attempts=4), "why")
    assert (row.state, row.attempt, seen) == (State.FAILED, 4, [])


@case
def the_newest_ten_errors_are_kept(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=12), 99)
    assert [error.attempt for error in row.errors] == list(range(3, 13))


@case
def an_error_says_where_when_and_by_whom(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=1), 9)
    (error,) = row.errors
    assert error.worker
    assert error.started_at is not None
    assert abs((error.started_at - datetime.now(UTC)).total_seconds()) < 60
    assert error.duration >= 0
    assert "raise ValueError(message)" in error.traceback


@case
def a_system_exit_is_an_error_like_others(g: Ground) -> Steps:
    row = yield from attempts_of(g, leave)
    assert (row.state, row.attempt, seen) == (State.FAILED, 2, ["leave", "leave"])
    assert row.errors[-1].kind == "SystemExit"


@case
def a_coroutine_that_cancels_itself_has_failed(g: Ground) -> Steps:
    row = yield from attempts_of(g, cancel_own_task)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "CancelledError")


@case
def a_long_message_is_cut_in_the_middle(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=1), 9, "a" * 9_000 + "z")
    message = row.errors[0].message
    assert len(message.encode()) <= 4096
    assert (message[0], message[-1]) == ("a", "z")


@case
def a_message_that_is_no_text_is_kept_as_far_as_it_can_be(g: Ground) -> Steps:
    row = yield from attempts_of(g, speechless)
    assert (row.state, row.errors[0].kind) == (State.FAILED, "Speechless")


@case
def a_nul_in_a_message_is_kept(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=1), 9, "a\0b")
    assert row.errors[0].message == "a\0b"
