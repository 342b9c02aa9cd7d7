"""Schedules as rows: made, replaced, listed, asked to tick, paused and forgotten, over a connection of the caller's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import pytest

import chancy
from chancy import (
    Backoff,
    InvalidArguments,
    Limit,
    SchedulePaused,
    Unique,
    UnknownSchedule,
    cron,
    every,
    task,
)
from chancy.model import WITHOUT_END
from chancy.run import send
from chancy.schedules.schedule import job_of, pause_schedule, resume_schedule

NOW = datetime(2026, 11, 25, 9, 0, 30, tzinfo=UTC)


@task(queue="reports", limits=[Limit.time(60), Limit.concurrency(2)], unique=Unique(key=lambda tenant: tenant))
async def report(tenant: str, full: bool = False) -> None: ...


@task
async def plain(number: int = 0) -> None: ...


async def test_a_schedule_is_there_when_the_callers_transaction_commits(caller, database):
    conn = await caller.connect()
    when = cron("0 9 * * *", timezone="Europe/Prague", missed="all")
    await caller.now(chancy.schedule(conn, "report-acme", report.bind("acmé"), when))
    assert database.rows("SELECT FROM {}.schedule") == []
    await caller.now(conn.commit())
    await caller.now(chancy.schedule(conn, "a", plain.bind(), every(minutes=5)))
    first, second = await caller.now(chancy.schedules(conn))
    assert (first.name, first.when, first.arguments) == ("a", every(minutes=5), b"{}")
    assert (second.name, second.task, second.when) == ("report-acme", report.name, when)
    assert msgspec.json.decode(second.arguments) == {"tenant": "acmé"}
    assert [getattr(second, name) for name in ("next_at", "last_at", "last_job", "note", "paused_until")] == [None] * 5
    assert not second.declared
    assert abs(second.read_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_the_next_ticks_are_those_after_it_was_read_or_after_its_pause(caller, chancy_clock):
    conn = await caller.connect(autocommit=True)
    chancy_clock.set(NOW)
    await caller.now(chancy.schedule(conn, "a", plain.bind(), every(hours=6)))
    (row,) = await caller.now(chancy.schedules(conn))
    assert [at.hour for at in row.upcoming(3)] == [12, 18, 0]
    paused = msgspec.structs.replace(row, paused_until=NOW + timedelta(hours=7))
    assert [at.hour for at in paused.upcoming(3)] == [18, 0, 6]
    assert msgspec.structs.replace(row, paused_until=WITHOUT_END).upcoming(3) == []


async def test_one_that_ticks_as_before_goes_on_where_it_was(caller, database):
    conn = await caller.connect(autocommit=True)
    await caller.now(chancy.schedule(conn, "a", plain.bind(), every(days=1)))
    database.conn.execute(f"UPDATE {database.schema}.schedule SET next_at = '2026-01-01', last_job = 7")
    await caller.now(chancy.schedule(conn, "a", report.bind("x"), every(days=1)))
    (row,) = await caller.now(chancy.schedules(conn))
    assert (row.task, row.next_at, row.last_job) == (report.name, datetime(2026, 1, 1, tzinfo=UTC), 7)
    await caller.now(chancy.schedule(conn, "a", report.bind("x"), every(days=2)))
    (row,) = await caller.now(chancy.schedules(conn))
    assert (row.when, row.next_at, row.last_job) == (every(days=2), None, 7)


async def test_a_schedule_is_forgotten_once(caller):
    conn = await caller.connect(autocommit=True)
    await caller.now(chancy.schedule(conn, "a", plain.bind(), every(days=1)))
    assert await caller.now(chancy.unschedule(conn, "a")) is True
    assert await caller.now(chancy.unschedule(conn, "a")) is False
    assert await caller.now(chancy.schedules(conn)) == []


async def test_run_now_makes_it_due_and_keeps_what_is_due_already(caller, chancy_clock):
    conn = await caller.connect(autocommit=True)
    chancy_clock.set(NOW)
    with pytest.raises(UnknownSchedule, match=r"schedule 'a' is not in schema .*chancy\.schedules"):
        await caller.now(chancy.run_now(conn, "a"))
    await caller.now(chancy.schedule(conn, "a", plain.bind(), every(days=1)))
    await caller.now(chancy.run_now(conn, "a"))
    chancy_clock.set(NOW + timedelta(seconds=1))
    await caller.now(chancy.run_now(conn, "a"))
    (row,) = await caller.now(chancy.schedules(conn))
    assert row.next_at == NOW


async def test_a_paused_schedule_says_so_when_it_is_to_run_now(caller, database, chancy_clock):
    conn = await caller.connect(autocommit=True)
    chancy_clock.set(NOW)
    await caller.now(chancy.schedule(conn, "a", plain.bind(), every(days=1)))
    assert send(database.conn, pause_schedule("b", None), database.schema) is False
    assert send(database.conn, pause_schedule("a", None), database.schema) is True
    with pytest.raises(SchedulePaused, match="'a' is paused: resume it first"):
        await caller.now(chancy.run_now(conn, "a"))
    assert (await caller.now(chancy.schedules(conn)))[0].paused_until == WITHOUT_END
    send(database.conn, pause_schedule("a", NOW + timedelta(hours=1)), database.schema)
    assert (await caller.now(chancy.schedules(conn)))[0].paused_until == NOW + timedelta(hours=1)
    assert send(database.conn, resume_schedule("b"), database.schema) is False
    assert send(database.conn, resume_schedule("a"), database.schema) is True
    await caller.now(chancy.run_now(conn, "a"))


def test_to_resume_what_is_not_paused_loses_no_tick(database):
    conn = database.connect(autocommit=True)
    chancy.schedule(conn, "a", plain.bind(), every(days=1))
    conn.execute(f"UPDATE {database.schema}.schedule SET next_at = '2026-01-01'")
    assert not send(conn, resume_schedule("a"), database.schema)
    assert chancy.schedules(conn)[0].next_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "when", "reason"),
    [
        ("", every(days=1), "needs a name"),
        ("a\0b", every(days=1), "name: expected a text without NUL"),
        ("a" * 201, every(days=1), "needs a name"),
        (7, every(days=1), "name: expected a text, got 7"),
        ("a", "0 9 * * *", "schedule 'a': expected cron"),
        ("a", chancy.Every(timedelta(0)), "interval: expected 1 s"),
    ],
)
def test_a_name_or_a_recurrence_that_does_not_do_is_refused_before_anything_is_sent(name, when, reason):
    with pytest.raises(ValueError, match=reason):
        chancy.schedule(psycopg.Connection.__new__(psycopg.Connection), name, plain.bind(), when)


@pytest.mark.parametrize("options", [{"delay": timedelta(1)}, {"run_at": NOW}])
def test_a_job_with_a_time_of_its_own_is_refused(options):
    with pytest.raises(InvalidArguments, match="a schedule says itself when its jobs run"):
        chancy.schedule(
            psycopg.Connection.__new__(psycopg.Connection), "a", plain.using(**options).bind(), every(days=1)
        )


@pytest.mark.parametrize(
    "changed",
    [
        report,
        report.using(queue="q", priority=7, max_attempts=1, retry=Backoff(factor=2)),
        report.using(limits=[Limit.memory(2**20)]),
        report.using(limits=[Limit.concurrency(5, key="shared")], group="g"),
        report.using(unique=Unique(key="text", within=timedelta(hours=1), on_conflict="replace")),
        report.using(unique=None),
        plain.using(group="g"),
    ],
)
def test_the_job_of_a_tick_is_what_was_bound_with_what_using_had_changed(changed, database):
    new = changed.bind("acme") if changed.name == report.name else changed.bind(3)
    chancy.schedule(database.conn, "a", new, every(days=1))
    ((arguments, changes),) = database.rows("SELECT arguments::text, changes::text FROM {}.schedule")
    task = report if changed.name == report.name else plain
    made = job_of(task, arguments.encode(), changes.encode(), NOW)
    assert made.options.run_at == NOW
    assert msgspec.structs.replace(made, options=new.options) == new
    assert (made.options.queue, made.options.limits) == (new.options.queue, new.options.limits)
    if changed is report:
        assert changes == "{}"  # what the task declares later goes for its schedules, too
