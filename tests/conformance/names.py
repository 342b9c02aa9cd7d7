"""A task with older names stands for all of them."""

from __future__ import annotations

import msgspec

import chancy
import chancy_ops
from chancy import State, Unique, submit_many
from conformance.cases import block, case, seen
from conformance.grounds import Ground, Steps
from conformance.tasks import renamed


@case
def a_task_stands_for_all_its_names(g: Ground) -> Steps:
    jobs = yield submit_many(
        g.conn, [msgspec.structs.replace(renamed.bind("a"), task="conformance.older"), renamed.bind("b")]
    )
    yield g.perform()
    ids = {job.id for job in jobs}
    assert {row.id for row in (yield chancy.jobs(g.conn, task=renamed))} == ids
    assert {row.id for row in (yield chancy.jobs(g.conn, task="conformance.older"))} == {jobs[0].id}
    assert (yield chancy_ops.count(g.conn, chancy_ops.JobFilter(task=renamed))) == {State.SUCCEEDED: 2}
    again = yield chancy_ops.requeue_many(g.conn, chancy_ops.JobFilter(task=renamed, state=State.SUCCEEDED))
    assert again.changed == 2
    yield g.perform()
    assert (yield chancy_ops.delete_many(g.conn, chancy_ops.JobFilter(task=renamed))).changed == 2


@case
def a_key_that_is_held_under_an_older_name_is_held(g: Ground) -> Steps:
    older = msgspec.structs.replace(renamed.bind("a"), task="conformance.older")
    (one,), two = yield block(g, lambda: submit_many(g.conn, [older]), lambda: renamed.submit(g.conn, "a"))
    assert (two.id, two.outcome) == (one.id, "existing")
    yield g.perform()
    three = yield renamed.submit(g.conn, "a")
    yield g.perform()
    assert (three.outcome, (yield three.refresh(g.conn)).task) == ("inserted", renamed.name)
    assert seen == ["a", "a"]


@case
def a_time_of_a_key_that_began_under_an_older_name_goes_on(g: Ground) -> Steps:
    hourly = renamed.using(unique=Unique(key="k", within=3600))
    (one,) = yield submit_many(g.conn, [msgspec.structs.replace(hourly.bind("a"), task="conformance.older")])
    yield g.perform()
    two = yield hourly.submit(g.conn, "a")
    assert (two.id, two.outcome) == (one.id, "existing")
