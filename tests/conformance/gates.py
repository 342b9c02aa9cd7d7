"""Limits over all workers, and turns."""

from __future__ import annotations

from datetime import timedelta

import pytest

import chancy
from chancy import InvalidArguments, Limit, State, submit_many, task
from conformance.cases import case, seen
from conformance.grounds import Ground, Steps


@task(
    name="conformance.shared",
    limits=[Limit.concurrency(1), Limit.rate(1000, per=timedelta(seconds=1), key=lambda who: who), Limit.time(5)],
    group=lambda who: who,
    max_attempts=2,
)
def shared(who: str, fail: bool = False) -> str:
    """Has one of each."""
    seen.append(who)
    if fail:
        raise ValueError(who)
    return who


@case
def jobs_with_limits_over_all_workers_are_all_performed(g: Ground) -> Steps:
    jobs = yield submit_many(g.conn, [shared.bind(who) for who in "aabab"])
    yield g.perform()
    for job, who in zip(jobs, "aabab", strict=True):
        assert (yield job.result(g.conn)) == who
    assert sorted(seen) == list("aaabb")


@case
def a_retry_passes_its_limits_again(g: Ground) -> Steps:
    job = yield shared.submit(g.conn, "x", fail=True)
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, seen) == (State.FAILED, 2, ["x", "x"])


@case
def one_submit_may_name_another_group_and_a_limit_that_tasks_share(g: Ground) -> Steps:
    job = yield shared.using(group="g", limits=[Limit.concurrency(3, key="k")]).submit(g.conn, "y")
    yield g.perform()
    assert (yield job.result(g.conn)) == "y"


@case
def a_key_function_for_one_submit_is_refused(g: Ground) -> Steps:
    with pytest.raises(InvalidArguments, match="what goes into a row is data"):
        shared.using(limits=[Limit.concurrency(1, key=len)])
    assert (yield chancy.jobs(g.conn)) == []


@case
def a_requeued_job_passes_its_limits_again(g: Ground) -> Steps:
    job = yield shared.submit(g.conn, "z")
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id))
    yield g.perform()
    assert ((yield job.result(g.conn)), seen) == ("z", ["z", "z"])
