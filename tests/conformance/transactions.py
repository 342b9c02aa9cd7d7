"""Everything is the caller's transaction's."""

from __future__ import annotations

from typing import Any

import pytest

import chancy
from chancy import Job, NotCommitted, State, UnknownJob
from conformance.cases import block, case, seen
from conformance.grounds import Ground, Steps
from conformance.tasks import note, snooze


@case
def a_job_whose_transaction_is_rolled_back_never_was(g: Ground) -> Steps:
    (job,) = yield block(g, lambda: note.submit(g.conn, "ghost"), roll_back=True)
    yield g.perform()
    assert seen == []
    with pytest.raises(UnknownJob):
        yield chancy.get(g.conn, job.id)


@case
def jobs_run_when_their_transaction_has_committed(g: Ground) -> Steps:
    def look() -> Any:
        seen.append("last word of the transaction")
        return note.submit(g.conn, 2)

    yield block(g, lambda: note.submit(g.conn, 1), look)
    yield g.perform()
    assert seen == ["last word of the transaction", 1, 2]


@case
def a_job_is_seen_by_its_own_transaction_before_the_commit(g: Ground) -> Steps:
    _, rows = yield block(g, lambda: note.submit(g.conn, 1), lambda: chancy.jobs(g.conn))
    assert [row.state for row in rows] == [State.READY]


@case
def waiting_for_a_job_of_ones_own_transaction_is_an_error(g: Ground) -> Steps:
    made: list[Any] = []

    def wait() -> Any:
        job: Job[Any] = Job(made[0], note.name, "default", chancy.schema_in_use(), transaction=made[1])
        return job.result(g.conn)

    def submit() -> Any:
        return noted(note.submit(g.conn, 1), made)

    with pytest.raises(NotCommitted, match="commit first"):
        yield block(g, submit, wait)


def noted(job: Any, made: list[Any]) -> Any:
    """Keep the id and transaction of a job, now or when it is awaited."""
    if isinstance(job, Job):
        made += [job.id, job.transaction]
        return job

    async def awaited() -> Any:
        return noted(await job, made)

    return awaited()


@case
def a_cancel_that_is_rolled_back_never_was(g: Ground) -> Steps:
    job = yield snooze.submit(g.conn, 1)
    yield g.perform()
    assert (yield block(g, lambda: chancy.cancel(g.conn, job.id), roll_back=True)) == [True]
    assert (yield job.refresh(g.conn)).state is State.SCHEDULED
