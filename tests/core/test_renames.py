"""A task stands for all its names: a rename with `aliases` leaves its jobs, pauses, limits and keys whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

import chancy
import chancy_ops
from chancy import InvalidTask, Limit, State, SubmitOutcome, Unique, submit_many, task
from chancy.keys.gates import Passes
from chancy.registry import registered
from chancy.schedules.schedule import job_of
from chancy_ops import JobFilter
from chancy_testing import assert_submitted, drain, eager, submitted

ran: list[Any] = []
OPTIONS: dict[str, Any] = {"unique": Unique(key=lambda order: order), "limits": [Limit.concurrency(1)]}


@task(name="till.charge", aliases=["till.invoice", "till.bill"])
def charge(order: int) -> None:
    ran.append(order)


@task(name="till.ship", aliases=["till.send"], **OPTIONS)
def ship(order: int) -> int:
    return order


def named(made, name):
    """A job of the time when the task was called so."""
    return msgspec.structs.replace(made, task=name)


@pytest.fixture
def three(database):
    """One job under each of its names."""
    new = charge.bind(1)
    return submit_many(database.conn, [named(new, "till.invoice"), named(new, "till.bill"), new])


async def test_every_filter_that_is_given_a_task_means_all_its_names_and_a_name_only_itself(caller, database, three):
    conn = await caller.connect(autocommit=True)
    of_task, of_name = JobFilter(task=charge), JobFilter(task="till.bill")
    assert [row.id for row in await caller.now(chancy.jobs(conn, task=charge))] == [job.id for job in reversed(three)]
    assert [row.id for row in await caller.now(chancy.jobs(conn, task="till.bill"))] == [three[1].id]
    assert await caller.now(chancy_ops.count(conn, of_task)) == {State.READY: 3}
    assert await caller.now(chancy_ops.count(conn, of_name)) == {State.READY: 1}
    assert (await caller.now(chancy_ops.cancel_many(conn, of_name))).changed == 1
    assert (await caller.now(chancy_ops.cancel_many(conn, of_task))).changed == 2
    assert (await caller.now(chancy_ops.requeue_many(conn, JobFilter(task=charge, state=State.CANCELLED)))).changed == 3
    assert (await caller.now(chancy_ops.delete_many(conn, of_task))).changed == 3


async def test_a_paused_task_is_paused_by_all_its_names_and_resumed_by_all(caller, database, three):
    conn = await caller.connect(autocommit=True)
    ran.clear()
    await caller.now(chancy_ops.pause(conn, task=charge))
    drain(database.conn)
    assert ran == []
    for job in three:
        assert (await caller.now(chancy_ops.why(conn, job.id))).reason == "task_paused"
    await caller.now(chancy_ops.pause(conn, task=charge, until=timedelta(hours=1)))  # again, with another end
    assert await caller.now(chancy_ops.resume(conn, task=charge)) is True
    assert await caller.now(chancy_ops.resume(conn, task=charge)) is False
    drain(database.conn)
    assert ran == [1, 1, 1]


async def test_a_name_is_paused_alone(caller, database, three):
    conn = await caller.connect(autocommit=True)
    ran.clear()
    await caller.now(chancy_ops.pause(conn, task="till.bill"))
    drain(database.conn)
    assert len(ran) == 2
    assert await caller.now(chancy_ops.resume(conn, task=charge)) is True


def test_asserts_of_tests_see_jobs_of_all_names(database, three):
    assert {job.id for job in submitted(database.conn, charge)} == {job.id for job in three}
    with eager("collect") as backend:
        submit_many(backend.conn, [named(charge.bind(7), "till.invoice")])
        assert_submitted(backend.conn, charge, order=7)


# Unique keys


async def test_a_key_that_is_held_under_an_older_name_is_held(caller, database):
    conn = await caller.connect(autocommit=True)
    (old,) = await caller.now(submit_many(conn, [named(ship.bind(1), "till.send")]))
    again = await caller.now(ship.submit(conn, 1))
    assert (again.id, again.outcome) == (old.id, SubmitOutcome.EXISTING)
    many = await caller.now(submit_many(conn, [ship.bind(1), ship.bind(2), ship.bind(1)]))
    assert [job.outcome for job in many] == ["existing", "inserted", "existing"]
    assert dict(database.rows("SELECT unique_key, task FROM {}.job")) == {"1": "till.send", "2": "till.ship"}
    with pytest.raises(chancy.DuplicateJob, match=f"belongs to job {old.id}"):
        await caller.now(ship.using(unique=Unique(key="1", on_conflict="raise")).submit(conn, 1))
    replaced = await caller.now(ship.using(priority=9, unique=Unique(key="1", on_conflict="replace")).submit(conn, 1))
    assert (replaced.id, replaced.outcome) == (old.id, SubmitOutcome.REPLACED)


async def test_a_key_that_was_given_back_under_its_older_name_is_taken_under_the_new_one(caller, database):
    conn = await caller.connect(autocommit=True)
    (old,) = await caller.now(submit_many(conn, [named(ship.bind(1), "till.send")]))
    database.finish(old.id)
    new = await caller.now(ship.submit(conn, 1))
    assert new.outcome is SubmitOutcome.INSERTED
    assert (await caller.now(new.refresh(conn))).task == "till.ship"


async def test_a_time_that_began_under_an_older_name_goes_on(caller, database):
    conn = await caller.connect(autocommit=True)
    hourly = ship.using(unique=Unique(key="hourly", within=3600))
    (old,) = await caller.now(submit_many(conn, [named(hourly.bind(1), "till.send")]))
    database.finish(old.id)
    again = await caller.now(hourly.submit(conn, 1))
    assert (again.id, again.outcome) == (old.id, SubmitOutcome.EXISTING)
    plain = await caller.now(ship.using(unique=Unique(key="hourly")).submit(conn, 1))
    assert plain.outcome is SubmitOutcome.INSERTED


def test_a_new_name_that_is_known_before_it_is_used_is_looked_at_from_both_sides(database):
    """The first of two deploys: the old name, with the new one as an alias."""
    before = task(name="till.send", aliases=["till.ship"], **OPTIONS)
    try:
        registered_before = dict(chancy.registry.tasks)
        old = before(ship.function)
        new_job = ship.submit(database.conn, 1)
        assert old.submit(database.conn, 1).id == new_job.id
    finally:
        chancy.registry.tasks.clear()
        chancy.registry.tasks.update(registered_before)
    assert registered()["till.ship"] is ship


def test_a_schedule_that_was_made_before_a_rename_has_jobs_that_know_all_names(database):
    made = ship.using(unique=Unique(key="one")).bind(1)
    chancy.schedule(database.conn, "a", msgspec.structs.replace(made, task="till.send"), chancy.every(hours=1))
    (changes,) = database.rows("SELECT changes::text FROM {}.schedule")[0]
    job = job_of(ship, made.arguments, changes.encode(), datetime(2031, 1, 1, tzinfo=UTC))
    assert (job.task, job.unique.text, job.unique.others) == ("till.ship", "one", ("till.send",))


# Limits and turns


def passes(job):
    return msgspec.json.decode(job.gates, type=Passes).key


def test_limits_are_named_after_the_oldest_name_so_that_old_and_new_jobs_share_them():
    def function(order: int) -> None: ...

    keyed = {"limits": [Limit.concurrency(1), Limit.rate(2, per=1, key=lambda order: order)]}
    registry = chancy.registry.tasks
    before = dict(registry)
    try:
        keys = []
        for options in (
            {"name": "c", "aliases": ["a", "b"]},
            {"name": "b", "aliases": ["a"]},
            {"name": "a"},
        ):
            registry.clear()
            made = task(**options, **keyed)(function)
            with eager("collect"):
                keys.append(passes(made.bind(1)))
                keys.append(
                    passes(made.using(limits=keyed["limits"][:1], group="g").bind(1)).replace("\x1fgroup(g)", "")
                )
        assert set(keys) == {"concurrency(a)\x1frate/1s(a order=1)", "concurrency(a)"}
    finally:
        registry.clear()
        registry.update(before)


# At decoration


def test_an_alias_that_is_its_own_name_or_named_twice_is_one():
    def function() -> None: ...

    made = task(name="twice", aliases=["twice", "older", "older"])(function)
    assert made.names == ("twice", "older")
    assert made.root == "older"


def test_aliases_are_a_list_and_not_the_letters_of_a_text():
    with pytest.raises(InvalidTask, match=r"aliases: expected a list of names, got 'old'"):
        task(name="new", aliases="old")(charge.function)
    assert not {"o", "l", "d", "new"} & registered().keys()


def test_what_an_operator_sees_of_a_row_is_the_name_that_it_was_submitted_under(database, three):
    with psycopg.connect(database.dsn) as conn:
        assert [row.task for row in chancy.jobs(conn, task=charge)] == ["till.charge", "till.bill", "till.invoice"]
