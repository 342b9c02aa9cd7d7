"""What is asked of jobs, and done to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import chancy
import chancy_ops
from chancy import Job, JobRow, State, UnknownJob, submit_many
from conformance.cases import case, seen
from conformance.grounds import Ground, Steps
from conformance.tasks import add, fail, note, snooze, who


@case
def a_finished_job_is_shown_whole(g: Ground) -> Steps:
    job = yield who.using(priority=-3).submit(g.conn, 1)
    yield g.perform()
    row: JobRow = yield chancy.get(g.conn, job.id)
    assert (row.id, row.task, row.queue, row.state) == (job.id, who.name, "q", State.SUCCEEDED)
    assert (row.priority, row.attempt, row.max_attempts, row.crashes) == (-3, 1, 4, 0)
    assert (row.arguments, row.errors, row.cancel_at, row.progress) == (b'{"value":1}', (), None, None)
    assert row.worker is not None
    assert row.started_at is not None
    assert row.finished_at is not None
    assert row.submitted_at <= row.run_at <= row.started_at <= row.finished_at
    assert {at.tzinfo for at in (row.submitted_at, row.run_at, row.started_at, row.finished_at)} == {UTC}


@case
def the_instant_for_which_a_job_was_scheduled_is_kept_until_it_runs(g: Ground) -> Steps:
    at = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
    job, later = (yield note.using(run_at=at).submit(g.conn)), (yield note.using(delay=timedelta(1)).submit(g.conn))
    first, second = (yield job.refresh(g.conn)), (yield later.refresh(g.conn))
    assert first.run_at == at
    assert abs(second.run_at - second.submitted_at - timedelta(days=1)) < timedelta(seconds=1)


@case
def jobs_are_listed_newest_first_and_by_pages(g: Ground) -> Steps:
    made = yield submit_many(g.conn, [note.bind(number) for number in range(5)])
    ids = [job.id for job in made]
    first = yield chancy.jobs(g.conn, limit=3)
    assert [row.id for row in first] == ids[:1:-1]
    second = yield chancy.jobs(g.conn, limit=3, before=first[-1].id)
    assert [row.id for row in second] == ids[1::-1]
    assert (yield chancy.jobs(g.conn, limit=0)) == []


@case
def jobs_are_listed_by_queue_task_and_state(g: Ground) -> Steps:
    one = yield note.using(queue="a").submit(g.conn, 1)
    two = yield who.submit(g.conn)
    three = yield fail.submit(g.conn, 99)
    yield g.perform()
    for filters, expected in (({"queue": "a"}, one), ({"task": who.name}, two), ({"state": State.FAILED}, three)):
        rows = yield chancy.jobs(g.conn, **filters)
        assert [row.id for row in rows] == [expected.id]
    assert (yield chancy.jobs(g.conn, queue="a", state=State.FAILED)) == []


@case
def a_list_of_fewer_than_none_is_refused(g: Ground) -> Steps:
    with pytest.raises(ValueError, match="0 or more"):
        yield chancy.jobs(g.conn, limit=-1)


@case
def an_unknown_job_is_an_error_of_every_verb(g: Ground) -> Steps:
    for verb in (chancy.get, chancy.cancel, chancy.requeue):
        with pytest.raises(UnknownJob, match="987"):
            yield verb(g.conn, 987)


@case
def a_finished_job_cannot_be_cancelled(g: Ground) -> Steps:
    job = yield note.submit(g.conn, 1)
    yield g.perform()
    assert (yield chancy.cancel(g.conn, job.id)) is False
    assert (yield job.refresh(g.conn)).state is State.SUCCEEDED


@case
def a_requeued_job_runs_again_under_its_old_id(g: Ground) -> Steps:
    job = yield note.submit(g.conn, "again")
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id)) is True
    yield g.perform()
    assert seen == ["again", "again"]
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt) == (State.SUCCEEDED, 2)


@case
def a_requeued_job_keeps_its_errors_and_gets_more_attempts(g: Ground) -> Steps:
    job = yield fail.submit(g.conn, 4)
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id, attempts=2)) is True
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.max_attempts, seen) == (State.SUCCEEDED, 5, 5, [1, 2, 3, 4, 5])
    assert [error.attempt for error in row.errors] == [1, 2, 3, 4]


@case
def a_requeued_job_gets_the_attempts_that_its_task_declares(g: Ground) -> Steps:
    job = yield fail.using(max_attempts=1).submit(g.conn, 9)
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id)) is True
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.max_attempts) == (State.FAILED, 1 + fail.options.max_attempts)
    yield chancy_ops.requeue_many(g.conn, chancy_ops.JobFilter(task=fail, state=State.FAILED))
    assert (yield job.refresh(g.conn)).max_attempts == 1 + 2 * fail.options.max_attempts


@case
def a_job_that_waits_cannot_be_requeued(g: Ground) -> Steps:
    job = yield snooze.submit(g.conn, 1)
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id)) is False


@case
def a_requeue_with_no_attempts_is_refused(g: Ground) -> Steps:
    with pytest.raises(ValueError, match="attempts"):
        yield chancy.requeue(g.conn, 1, attempts=0)


@case
def many_jobs_are_submitted_in_their_order(g: Ground) -> Steps:
    made = yield submit_many(g.conn, [note.bind(number) for number in range(50)])
    assert [job.id for job in made] == sorted(job.id for job in made)
    yield g.perform()
    assert seen == list(range(50))
    for number, job in enumerate(made[:3]):
        assert (yield job.result(g.conn)) == number


@case
def many_may_be_none(g: Ground) -> Steps:
    assert (yield submit_many(g.conn, [])) == []


@case
def many_jobs_may_be_of_different_tasks_and_options(g: Ground) -> Steps:
    jobs: list[Any] = [note.using(queue="a", priority=5).bind(1), who.bind(), add.using(max_attempts=9).bind(1)]
    yield submit_many(g.conn, jobs)
    rows = yield chancy.jobs(g.conn)
    assert [(row.task, row.queue, row.priority, row.max_attempts) for row in reversed(rows)] == [
        (note.name, "a", 5, 3), (who.name, "q", 7, 4), (add.name, "default", 0, 9),
    ]  # fmt: skip


@case
def a_job_is_told_by_its_id_and_schema(g: Ground) -> Steps:
    job = yield note.submit(g.conn, 1)
    assert (job.task, job.queue, job.schema) == (note.name, "default", chancy.schema_in_use())
    assert job == Job(job.id, "other", "other", job.schema)
    assert job != Job(job.id + 1, job.task, job.queue, job.schema)
    assert len({job, Job(job.id, "other", "other", job.schema)}) == 1
