"""What a handler sees, and says."""

from __future__ import annotations

from typing import Any

import pytest

import chancy
from chancy import InvalidConnection, State, current_job, submit_many
from conformance.arguments import gives
from conformance.attempts import attempts_of
from conformance.cases import case, is_async, seen
from conformance.grounds import Ground, Steps
from conformance.tasks import (
    cancel_me,
    cancel_me_async,
    complete,
    complete_async,
    local,
    own_loop,
    parent,
    parent_async,
    progress,
    set_local,
    who,
    who_async,
    wrong_in_a_process,
    wrong_in_a_thread,
    wrong_on_the_loop,
)


@case
def a_handler_knows_its_job(g: Ground) -> Steps:
    job = yield who.submit(g.conn)
    yield g.perform()
    assert seen == [(job.id, who.name, "q", 1, 4, False, False)]


@case
def a_handler_works_in_the_schema_of_its_job(g: Ground) -> Steps:
    job = yield who.submit(g.conn)
    yield g.perform()
    assert (yield job.result(g.conn)) == chancy.schema_in_use()


@case
def a_coroutine_knows_its_job_and_so_do_tasks_that_it_begins(g: Ground) -> Steps:
    job = yield who_async.submit(g.conn)
    yield g.perform()
    assert (yield job.result(g.conn)) == job.id


@case
def what_a_handler_sets_in_its_context_stays_there(g: Ground) -> Steps:
    first, second = yield submit_many(g.conn, [set_local.bind(), set_local.bind()])
    yield g.perform()
    assert (yield first.result(g.conn)) == (yield second.result(g.conn))
    assert local.get() == "nothing"
    with pytest.raises(chancy.ChancyError, match="no job is running"):
        current_job()


@case
def a_plain_function_may_run_a_loop_of_its_own(g: Ground) -> Steps:
    yield from gives(own_loop, "ran")(g)


@case
def progress_is_a_fraction(g: Ground) -> Steps:
    row = yield from attempts_of(g, progress.using(max_attempts=1), 2.0)
    assert (row.state, row.errors[0].kind) == (State.FAILED, "InvalidOption")
    row = yield from attempts_of(g, progress, 0.5)
    assert (row.state, row.progress) == (State.SUCCEEDED, None)


@case
def a_handler_that_says_something_wrong_about_itself_is_told_what(g: Ground) -> Steps:
    no_connection = "InvalidConnection: the first argument is your connection: expected one of psycopg"
    for wrong in (wrong_in_a_thread, wrong_on_the_loop, wrong_in_a_process):
        job = yield wrong.submit(g.conn)
        yield g.perform()
        assert (yield job.result(g.conn)) == [
            *["InvalidOption: fraction: expected a fraction from 0 to 1"] * 9,
            *["InvalidOption: note: expected a text"] * 5,
            *[no_connection] * 4,
        ]


@case
def a_job_submitted_by_a_handler_runs_after_it(g: Ground) -> Steps:
    row = yield from attempts_of(g, parent_async if is_async(g) else parent)
    assert row.state is State.SUCCEEDED
    assert seen == ["parent begins", "parent ends", "child"]


@case
def a_job_submitted_by_a_handler_that_fails_afterwards_is_there(g: Ground) -> Steps:
    row = yield from attempts_of(g, parent_async if is_async(g) else parent, True)
    assert row.state is State.FAILED
    assert seen == ["parent begins", "parent ends", "child"]


def completed(g: Ground, value: int, then: str) -> Any:
    """The row of a job that completes itself."""
    row = yield from attempts_of(g, complete_async if is_async(g) else complete, value, then)
    return row


@case
def a_job_completed_in_the_handlers_transaction_has_that_result(g: Ground) -> Steps:
    row = yield from completed(g, 5, "return")
    assert (row.state, row.result, seen) == (State.SUCCEEDED, b"5", [1])


@case
def an_error_after_the_job_was_completed_changes_nothing(g: Ground) -> Steps:
    row = yield from completed(g, 5, "raise")
    assert (row.state, row.result, row.errors, seen) == (State.SUCCEEDED, b"5", (), [1])


@case
def a_completion_that_is_rolled_back_never_was(g: Ground) -> Steps:
    row = yield from completed(g, 5, "roll back")
    assert (row.state, row.result, seen) == (State.SUCCEEDED, b"-1", [1])


@case
def a_job_cannot_be_completed_in_autocommit(g: Ground) -> Steps:
    row = yield from completed(g, 5, "autocommit")
    assert (row.state, row.errors[-1].kind, seen) == (State.FAILED, InvalidConnection.__name__, [1, 2])


@case
def a_handler_that_asks_for_its_own_end_and_succeeds_has_succeeded(g: Ground) -> Steps:
    row = yield from attempts_of(g, cancel_me_async if is_async(g) else cancel_me, "return")
    assert (row.state, row.result, seen) == (State.SUCCEEDED, b'"done"', [True])


@case
def a_handler_that_asks_for_its_own_end_and_fails_is_cancelled(g: Ground) -> Steps:
    row = yield from attempts_of(g, cancel_me_async if is_async(g) else cancel_me, "raise")
    assert (row.state, row.attempt, seen) == (State.CANCELLED, 1, [True])
    assert [error.kind for error in row.errors] == ["ValueError"]
