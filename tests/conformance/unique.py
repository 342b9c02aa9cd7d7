"""Unique jobs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

import chancy
import chancy_ops
from chancy import DuplicateJob, InvalidArguments, Job, NotCommitted, State, Unique, submit_many
from conformance.cases import block, case, seen
from conformance.grounds import Ground, Steps
from conformance.tasks import at_of, note, once, renamed, until_started
from conformance.transactions import noted


@case
def what_is_equal_has_one_key_and_what_is_not_has_two(g: Ground) -> Steps:
    at = datetime(2031, 7, 1, 10, tzinfo=UTC)
    instants, values = at_of.using(unique=Unique()), note.using(unique=Unique())
    one, two, three, four, five, six = yield block(
        g,
        lambda: instants.submit(g.conn, at),
        lambda: instants.submit(g.conn, at.astimezone(timezone(timedelta(hours=2)))),
        lambda: values.submit(g.conn, 1),
        lambda: values.submit(g.conn, "1"),
        lambda: values.submit(g.conn, None),
        lambda: values.submit(g.conn, "null"),
    )
    assert (two.id, two.outcome) == (one.id, "existing")
    assert [job.outcome for job in (three, four, five, six)] == ["inserted"] * 4


REPLACING = once.using(unique=Unique(key="k", on_conflict="replace"))
RAISING = once.using(unique=Unique(key="k", on_conflict="raise"))
BRIEF = timedelta(milliseconds=50)
"""Short enough to be waited for. Nothing has to happen within it."""


@case
def of_two_submits_with_one_key_the_second_gives_the_job_of_the_first(g: Ground) -> Steps:
    one, two = yield block(g, lambda: once.submit(g.conn, "k", 1), lambda: once.submit(g.conn, "k", 2))
    assert (one.outcome, two.outcome, two.id) == ("inserted", "existing", one.id)
    yield g.perform()
    assert seen == [1]
    assert (yield two.result(g.conn)) == 1


@case
def a_job_shows_its_key(g: Ground) -> Steps:
    job, plain = yield block(g, lambda: once.submit(g.conn, "k"), lambda: note.submit(g.conn, 1))
    assert (yield job.refresh(g.conn)).unique_key == "k"
    assert (yield plain.refresh(g.conn)).unique_key is None


@case
def jobs_with_other_keys_and_of_other_tasks_are_other_jobs(g: Ground) -> Steps:
    made = yield block(
        g,
        lambda: once.submit(g.conn, "a"),
        lambda: once.submit(g.conn, "b"),
        lambda: until_started.submit(g.conn, "a"),
        lambda: once.using(unique=None).submit(g.conn, "a"),
    )
    assert [job.outcome for job in made] == ["inserted"] * 4
    assert len({job.id for job in made}) == 4


@case
def without_a_key_function_all_arguments_are_the_key(g: Ground) -> Steps:
    every = once.using(unique=Unique())
    one, two, three = yield block(
        g,
        lambda: every.submit(g.conn, "k"),
        lambda: every.submit(g.conn, key="k", value=0),
        lambda: every.submit(g.conn, "k", 1),
    )
    assert (two.id, two.outcome, three.outcome) == (one.id, "existing", "inserted")


@case
def a_key_is_free_again_when_its_job_has_finished(g: Ground) -> Steps:
    one = yield once.submit(g.conn, "k", 1)
    yield g.perform()
    two = yield once.submit(g.conn, "k", 2)
    yield g.perform()
    assert (two.outcome, two.id != one.id, seen) == ("inserted", True, [1, 2])


@case
def a_key_is_held_while_its_job_has_begun_and_is_not_finished(g: Ground) -> Steps:
    one = yield once.submit(g.conn, "k", 1, snoozes=True)
    yield g.perform()
    two = yield once.submit(g.conn, "k", 2)
    assert (two.id, two.outcome, seen) == (one.id, "existing", [1])


@case
def a_key_that_is_held_until_the_start_is_free_from_the_first_attempt_on(g: Ground) -> Steps:
    one = yield until_started.submit(g.conn, "k", 1)
    yield g.perform()
    assert (yield one.refresh(g.conn)).state is State.SCHEDULED
    two, three = yield block(
        g, lambda: until_started.submit(g.conn, "k", 2), lambda: until_started.submit(g.conn, "k", 3)
    )
    assert (two.outcome, three.outcome, three.id) == ("inserted", "existing", two.id)
    yield g.perform()
    assert seen == [1, 2]
    yield g.perform_snoozed(one)
    assert seen == [1, 2, 1]


@case
def a_job_that_waits_can_be_replaced(g: Ground) -> Steps:
    late = REPLACING.using(delay=timedelta(hours=1))
    one, two = yield block(
        g,
        lambda: late.submit(g.conn, "k", 1),
        lambda: REPLACING.using(priority=3, max_attempts=7).submit(g.conn, "k", 2),
    )
    assert (two.id, two.outcome) == (one.id, "replaced")
    row = yield two.refresh(g.conn)
    assert (row.arguments, row.priority, row.max_attempts) == (b'{"key":"k","value":2}', 3, 7)
    assert abs(row.run_at - row.submitted_at - timedelta(hours=1)) < timedelta(seconds=5)
    yield g.perform()
    assert seen == [2]


@case
def a_replacing_submit_that_names_a_time_moves_the_job(g: Ground) -> Steps:
    at = datetime(2040, 1, 1, tzinfo=UTC)
    _, two = yield block(
        g, lambda: REPLACING.submit(g.conn, "k", 1), lambda: REPLACING.using(run_at=at).submit(g.conn, "k", 2)
    )
    assert (yield two.refresh(g.conn)).run_at == at


@case
def a_job_that_has_snoozed_can_be_replaced(g: Ground) -> Steps:
    one = yield REPLACING.submit(g.conn, "k", 1, snoozes=True)
    yield g.perform()
    two = yield REPLACING.submit(g.conn, "k", 2)
    assert (two.id, two.outcome) == (one.id, "replaced")
    yield g.perform_snoozed(two)
    assert seen == [1, 2]


@case
def a_submit_that_must_not_find_its_key_held_raises_and_adds_nothing(g: Ground) -> Steps:
    one = yield RAISING.submit(g.conn, "k", 1, snoozes=True)
    yield g.perform()
    with pytest.raises(DuplicateJob) as error:
        yield RAISING.submit(g.conn, "k", 2)
    assert (error.value.task, error.value.key, error.value.job_id) == (once.name, "k", one.id)
    assert [row.id for row in (yield chancy.jobs(g.conn))] == [one.id]


@case
def many_come_back_in_the_order_given_as_if_submitted_one_by_one(g: Ground) -> Steps:
    jobs = [once.bind("b", 1), note.bind(2), once.bind("a", 3), once.bind("b", 4), REPLACING.bind("k", 5),
            REPLACING.bind("k", 6)]  # fmt: skip
    made: list[Job[Any]] = yield submit_many(g.conn, jobs)
    assert [job.outcome for job in made] == ["inserted"] * 3 + ["existing", "inserted", "replaced"]
    assert (made[3].id, made[5].id) == (made[0].id, made[4].id)
    yield g.perform()
    assert seen == [1, 2, 3, 6]


@case
def many_of_which_one_raises_are_none(g: Ground) -> Steps:
    one = yield REPLACING.submit(g.conn, "k", 1, snoozes=True)
    yield g.perform()
    jobs = [REPLACING.bind("k", 2), once.bind("a"), note.bind(1), RAISING.bind("k", 3)]
    with pytest.raises(DuplicateJob) as error:
        yield submit_many(g.conn, jobs)
    assert error.value.job_id == one.id
    (row,) = yield chancy.jobs(g.conn)
    assert row.arguments == b'{"key":"k","value":1,"snoozes":true}'


@case
def of_one_call_two_that_must_not_meet_name_no_job(g: Ground) -> Steps:
    with pytest.raises(DuplicateJob, match="twice in this call") as error:
        yield submit_many(g.conn, [RAISING.bind("k", 1), RAISING.bind("k", 2)])
    assert error.value.job_id is None
    assert (yield chancy.jobs(g.conn)) == []


@case
def within_the_time_there_is_no_second_though_the_first_has_finished(g: Ground) -> Steps:
    one = yield once.using(unique=Unique(key="k", within=timedelta(hours=1))).submit(g.conn, "k", 1)
    yield g.perform()
    two = yield once.using(unique=Unique(key="k", within=BRIEF)).submit(g.conn, "k", 2)
    yield g.perform()
    assert (two.id, two.outcome, seen) == (one.id, "existing", [1])


@case
def behind_the_time_there_is_a_second_whatever_time_it_asks_for(g: Ground) -> Steps:
    yield once.using(unique=Unique(key="k", within=BRIEF)).submit(g.conn, "k", 1)
    yield g.perform()
    time.sleep(BRIEF.total_seconds() * 1.1)
    two = yield once.using(unique=Unique(key="k", within=timedelta(hours=1))).submit(g.conn, "k", 2)
    yield g.perform()
    assert (two.outcome, seen) == ("inserted", [1, 2])


@case
def within_the_time_a_finished_job_is_not_replaced_and_raises(g: Ground) -> Steps:
    hour = timedelta(hours=1)
    one = yield once.using(unique=Unique(key="k", within=hour)).submit(g.conn, "k", 1)
    yield g.perform()
    two = yield once.using(unique=Unique(key="k", within=hour, on_conflict="replace")).submit(g.conn, "k", 2)
    assert (two.id, two.outcome) == (one.id, "existing")
    with pytest.raises(DuplicateJob):
        yield once.using(unique=Unique(key="k", within=hour, on_conflict="raise")).submit(g.conn, "k", 2)


@case
def a_submit_that_is_rolled_back_holds_neither_key_nor_time(g: Ground) -> Steps:
    hourly = once.using(unique=Unique(key="k", within=timedelta(hours=1)))
    yield once.submit(g.conn, "another", 0)
    yield block(g, lambda: hourly.submit(g.conn, "k", 1), roll_back=True)
    job = yield hourly.submit(g.conn, "k", 2)
    yield g.perform()
    assert (job.outcome, seen) == ("inserted", [0, 2])


@case
def a_submit_without_a_time_does_not_ask_for_that_of_another(g: Ground) -> Steps:
    yield once.using(unique=Unique(key="k", within=timedelta(hours=1))).submit(g.conn, "k", 1)
    yield g.perform()
    assert (yield once.submit(g.conn, "k", 2)).outcome == "inserted"


@case
def a_job_whose_key_is_live_again_is_not_requeued(g: Ground) -> Steps:
    one = yield once.submit(g.conn, "k", 1)
    yield g.perform()
    seen.clear()
    two = yield once.submit(g.conn, "k", 2, snoozes=True)
    yield g.perform()
    with pytest.raises(DuplicateJob) as error:
        yield chancy.requeue(g.conn, one.id)
    assert (error.value.key, error.value.job_id) == ("k", two.id)
    assert (yield one.refresh(g.conn)).state is State.SUCCEEDED
    yield g.perform_snoozed(two)
    assert (yield chancy.requeue(g.conn, one.id)) is True


@case
def a_job_whose_key_is_live_under_another_name_is_not_requeued(g: Ground) -> Steps:
    older = msgspec.structs.replace(renamed.bind("a"), task="conformance.older")
    (one,) = yield submit_many(g.conn, [older])
    yield g.perform()
    two = yield renamed.submit(g.conn, "a", snoozes=True)
    yield g.perform()
    with pytest.raises(DuplicateJob) as error:
        yield chancy.requeue(g.conn, one.id)
    assert (error.value.key, error.value.job_id) == ("a", two.id)
    which = chancy_ops.JobFilter(task=renamed, state=State.SUCCEEDED)
    assert (yield chancy_ops.requeue_many(g.conn, which)) == chancy_ops.Swept(0, 1)
    yield chancy.cancel(g.conn, two.id)
    assert (yield chancy.requeue(g.conn, one.id)) is True


@case
def of_finished_jobs_with_one_key_under_two_names_one_is_requeued(g: Ground) -> Steps:
    older = msgspec.structs.replace(renamed.bind("a"), task="conformance.older")
    for job in (older, renamed.bind("a"), renamed.bind("b")):
        yield submit_many(g.conn, [job])
        yield g.perform()
    which = chancy_ops.JobFilter(task=renamed, state=State.SUCCEEDED)
    assert (yield chancy_ops.requeue_many(g.conn, which)) == chancy_ops.Swept(2, 1)
    yield g.perform()
    assert sorted(row.attempt for row in (yield chancy.jobs(g.conn))) == [1, 2, 2]


@case
def a_key_function_belongs_to_the_task(g: Ground) -> Steps:
    with pytest.raises(InvalidArguments, match="a function belongs to @task"):
        yield once.using(unique=Unique(key=lambda key: key)).submit(g.conn, "k")


@case
def waiting_for_a_job_that_ones_own_transaction_has_found_is_an_error(g: Ground) -> Steps:
    found: list[Any] = []

    def wait() -> Any:
        job: Job[Any] = Job(found[0], once.name, "default", chancy.schema_in_use(), transaction=found[1])
        return job.result(g.conn)

    with pytest.raises(NotCommitted, match="commit first"):
        yield block(g, lambda: once.submit(g.conn, "k"), lambda: noted(once.submit(g.conn, "k"), found), wait)
