"""The verbs of chancy-ops that eager mode answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import chancy
import chancy_ops
from chancy import State, UnknownJob, submit_many
from conformance.cases import case
from conformance.grounds import Ground, Steps
from conformance.tasks import fail, note, snooze


@case
def a_limit_of_a_queue_can_be_set_and_lifted(g: Ground) -> Steps:
    yield chancy_ops.limit(g.conn, "default", concurrency=1)
    jobs = yield submit_many(g.conn, [note.bind(n) for n in range(3)])
    yield g.perform()
    yield chancy_ops.limit(g.conn, "default", concurrency=None)
    assert (yield jobs[2].refresh(g.conn)).state is State.SUCCEEDED
    with pytest.raises(ValueError, match="concurrency: expected 0 or more"):
        chancy_ops.limit(g.conn, "default", concurrency=-1)


@case
def a_waiting_job_can_be_edited_and_a_finished_one_cannot(g: Ground) -> Steps:
    job = yield snooze.submit(g.conn, 1)
    yield g.perform()
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    assert (yield chancy_ops.edit(g.conn, job.id, priority=7, run_at=later))
    row = yield job.refresh(g.conn)
    assert (row.priority, row.run_at, row.state) == (7, later, State.SCHEDULED)
    yield chancy.cancel(g.conn, job.id)
    assert not (yield chancy_ops.edit(g.conn, job.id, priority=8))
    with pytest.raises(UnknownJob):
        yield chancy_ops.edit(g.conn, 999_999, priority=1)


@case
def a_finished_job_can_be_deleted(g: Ground) -> Steps:
    job = yield note.submit(g.conn, 1)
    yield g.perform()
    assert (yield chancy_ops.delete(g.conn, job.id))
    assert (yield chancy.jobs(g.conn)) == []
    with pytest.raises(UnknownJob):
        yield chancy_ops.delete(g.conn, job.id)


@case
def jobs_are_counted_requeued_and_deleted_by_what_they_have_in_common(g: Ground) -> Steps:
    yield submit_many(g.conn, [note.bind(n) for n in range(4)])
    yield submit_many(g.conn, [note.using(queue="other").bind(n) for n in range(2)])
    yield g.perform()
    which = chancy_ops.JobFilter(queue="default", task=note, state=State.SUCCEEDED)
    assert (yield chancy_ops.count(g.conn, which)) == {State.SUCCEEDED: 4}
    told: list[int] = []
    swept = yield chancy_ops.requeue_many(g.conn, which, batch=3, told=told.append)
    assert ((swept.changed, swept.left), told) == ((4, 0), [3, 4])
    yield g.perform()
    assert (yield chancy_ops.count(g.conn)) == {State.SUCCEEDED: 6}
    swept = yield chancy_ops.delete_many(g.conn, chancy_ops.JobFilter(queue="other"))
    assert (swept.changed, (yield chancy_ops.count(g.conn))) == (2, {State.SUCCEEDED: 4})


@case
def failures_are_told_apart_by_what_went_wrong_and_requeued_together(g: Ground) -> Steps:
    broken = fail.using(max_attempts=1)
    yield submit_many(g.conn, [broken.bind(9, f"order {n} of 'ann' is gone") for n in range(3)])
    yield submit_many(g.conn, [broken.using(queue="other").bind(9, "no disk"), note.bind(1)])
    yield g.perform()
    gone, disk = yield chancy_ops.failures(g.conn)
    assert (gone.kind, gone.count, gone.tasks) == ("ValueError", 3, (fail.name,))
    assert (gone.message, gone.first_at <= gone.last_at) == ("order 2 of 'ann' is gone", True)
    assert (disk.count, disk.message, disk.fingerprint != gone.fingerprint) == (1, "no disk", True)
    row = yield chancy.get(g.conn, gone.job)
    assert row.errors[-1].fingerprint == gone.fingerprint
    assert [each.message for each in (yield chancy_ops.failures(g.conn, queue="other"))] == ["no disk"]
    assert (yield chancy_ops.failures(g.conn, task=note)) == []
    which = chancy_ops.JobFilter(fingerprint=gone.fingerprint)
    assert (yield chancy_ops.count(g.conn, which)) == {State.FAILED: 3}
    swept = yield chancy_ops.requeue_many(g.conn, which)
    yield g.perform()
    assert (swept.changed, (yield chancy_ops.count(g.conn, which))) == (3, {State.FAILED: 3})
    assert (yield chancy_ops.cancel_many(g.conn, which)).changed == 0
    assert (yield chancy_ops.delete_many(g.conn, which)).changed == 3
    assert (yield chancy_ops.count(g.conn)) == {State.FAILED: 1, State.SUCCEEDED: 1}


@case
def jobs_are_searched_by_what_they_have_in_common_and_by_words(g: Ground) -> Steps:
    broken = fail.using(max_attempts=1)
    yield submit_many(g.conn, [note.bind("needle"), note.bind("hay"), broken.bind(9, "lost needle")])
    yield g.perform()
    late = yield note.using(delay=timedelta(hours=1)).submit(g.conn, "hay")
    found = yield chancy_ops.search(g.conn)
    assert [line.id for line in found] == [row.id for row in (yield chancy.jobs(g.conn))]
    assert (found[0].id, found[0].arguments) == (late.id, '{"value":"hay"}')
    assert (found.looked_to, found.looked_back_to) == (None, None)
    failed, succeeded = yield chancy_ops.search(g.conn, words="needle")
    assert (failed.error, failed.message, len(failed.fingerprint)) == ("ValueError", "lost needle", 12)
    assert (succeeded.state, succeeded.error, succeeded.message) == (State.SUCCEEDED, "", "")
    of_state = chancy_ops.JobFilter(state=State.SUCCEEDED)
    assert [line.task for line in (yield chancy_ops.search(g.conn, of_state, words="lost"))] == []
    page = yield chancy_ops.search(g.conn, limit=2)
    rest = yield chancy_ops.search(g.conn, before=page[-1].id)
    assert [line.id for line in page + rest] == [line.id for line in found]
    assert [row.id for row in (yield chancy.jobs(g.conn, state=State.FAILED, before=failed.id))] == []
    assert [line.id for line in (yield chancy_ops.search(g.conn, chancy_ops.JobFilter(error="ValueError")))] == [
        failed.id
    ]


@case
def what_failed_is_listed_by_when_that_was(g: Ground) -> Steps:
    broken = fail.using(max_attempts=1)
    early, late = yield submit_many(g.conn, [broken.bind(9), broken.bind(9)])
    yield g.perform()
    failed = chancy_ops.JobFilter(state=State.FAILED)
    yield chancy.requeue(g.conn, early.id, attempts=1)
    yield g.perform()
    assert [line.id for line in (yield chancy_ops.search(g.conn, failed))] == [early.id, late.id]
    assert [line.id for line in (yield chancy_ops.search(g.conn, failed, before=early.id))] == [late.id]
    assert [line.id for line in (yield chancy_ops.search(g.conn, failed, before=late.id))] == []
    assert [row.id for row in (yield chancy.jobs(g.conn))] == [late.id, early.id]
