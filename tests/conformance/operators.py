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
