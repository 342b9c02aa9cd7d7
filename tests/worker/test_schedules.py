"""Ticks: who submits them and when, once each, across stops, crashes, outages and clocks that are wrong."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import psycopg
import pytest
import schedule_tasks as tasks
from worker_help import FAST, ONLY_WOKEN, Proxy, at_work, eventually

import chancy
import chancy_ops
from chancy import Queue, State, Unique, cron, every
from chancy.run import send
from chancy.schedules.schedule import pause_schedule, resume_schedule
from chancy_testing.clock import Clock
from chancy_worker import Worker, WorkerConfig
from chancy_worker.connection.turns import take_turns
from chancy_worker.parts import schedules as room
from chancy_worker.parts.declarations import declare_schedules
from chancy_worker.parts.schedules import Schedules, look_at_schedules

EVERY = [tasks.beat, tasks.yearly, tasks.of_tenant, tasks.once_a_day]
NINE = datetime(2026, 11, 25, 9, tzinfo=UTC)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def clock(site):
    clock = Clock(site.dsn, site.schema)
    yield clock
    clock.reset()
    clock.close()


@pytest.fixture
def ticker(site):
    """A scheduler's own connection, and looks at it one at a time, as often as there is something to do."""
    conn = psycopg.connect(site.dsn, autocommit=True)
    yield lambda *known, conn=conn: tick_all(conn, site, known or EVERY)
    conn.close()


class Sender:
    """As a link, but sync: nothing is cut, and nobody else comes in between."""

    purpose = "test"

    def __init__(self, conn, schema):
        self.conn, self.schema = conn, schema

    async def send(self, statement):
        return send(self.conn, statement, self.schema)

    def is_broken(self, error):
        return False


def tick_all(conn, site, known):
    async def look():
        link, aside = Sender(conn, site.schema), {}
        names = {task.name: task for task in known}
        for _ in range(20):
            seen = await link.send(look_at_schedules(names, aside))
            if not seen.due:
                return seen
            for due in seen.due:
                if await room._see_to(link, due, names[due.task], seen.at) is not None:
                    aside[due.revision] = 0.0
        raise AssertionError("it never comes to rest")

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(look())
    finally:
        loop.close()


@contextlib.asynccontextmanager
async def working(site, *known, dsn=None, timing=FAST, **config):
    app = site.app(dsn=dsn or site.dsn, queues=[Queue("default", 10)])
    worker = Worker(app, WorkerConfig(timing=timing, grace=1, **config))
    worker._tasks = {task.name: task for task in known or EVERY}
    async with at_work(worker):
        yield worker


def add(site, when, job=None, name="a"):
    chancy.schedule(site.conn, name, job or tasks.beat.bind(), when, schema=site.schema)


def row(site, name="a"):
    (found,) = [row for row in chancy.schedules(site.conn, schema=site.schema) if row.name == name]
    return found


def ran_at(site, task=tasks.beat):
    found = site.rows("SELECT run_at FROM {}.any_job WHERE task = %s ORDER BY run_at, id", task.name)
    return [at.astimezone(UTC) for (at,) in found]


def finish(site):
    """All jobs that wait, as if workers had done them."""
    site.conn.execute(f"DELETE FROM {site.schema}.job")


# Days and nights


def walk(clock, site, ticker, begin, end, step):
    now = begin
    while now <= end:
        clock.set(now)
        ticker()
        now += step
    return ran_at(site)


@pytest.mark.parametrize(
    ("expression", "begin", "end", "expected"),
    [
        ("30 2 * * *", "2026-03-28T12:00", "2026-03-30T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("30 2 * * *", "2026-10-24T12:00", "2026-10-26T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("0 2,3 * * *", "2026-03-29T00:10", "2026-03-29T04:00", ["2026-03-29T01:00"]),
        ("0 * * * *", "2026-03-28T23:30", "2026-03-29T02:00", ["2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T02:00"]),
        ("0 * * * *", "2026-10-24T23:30", "2026-10-25T02:00", ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"]),
        ("*/30 2 * * *", "2026-03-29T00:10", "2026-03-29T04:00", []),
        ("*/30 2 * * *", "2026-10-24T23:50", "2026-10-25T04:00", ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30"]),
        ("0 12 29 2 *", "2028-02-28T12:00", "2028-03-01T12:00", ["2028-02-29T11:00"]),
        ("0 12 29 2 *", "2027-02-27T12:00", "2027-03-02T12:00", []),
        ("30 1 L * *", "2026-02-27T12:00", "2026-03-02T12:00", ["2026-02-28T00:30"]),
        ("30 1 31 * *", "2026-04-29T12:00", "2026-05-02T12:00", []),
        ("0 0 1 * *", "2026-12-31T12:00", "2027-01-01T12:00", ["2026-12-31T23:00"]),
    ],
)  # fmt: skip
def test_nights_when_clocks_are_moved_leap_days_and_month_ends(site, clock, ticker, expression, begin, end, expected):
    clock.set(at(begin))
    add(site, cron(expression, timezone="Europe/Prague", overlap="allow"))
    step = timedelta(minutes=30 if at(end) - at(begin) >= timedelta(days=1) else 10)
    assert walk(clock, site, ticker, at(begin), at(end), step) == [at(each) for each in expected]


def test_the_job_of_a_tick_has_its_time_exactly_and_what_was_bound(site, clock, ticker):
    clock.set(NINE - timedelta(seconds=0.5))
    add(site, every(minutes=5), tasks.beat.using(priority=7, max_attempts=1).bind("x"))
    seen = ticker()
    assert ran_at(site) == []
    assert seen.ahead == 0.5
    clock.set(NINE + timedelta(seconds=2.25))
    ticker()
    job = site.row(row(site).last_job)
    assert (job.run_at, job.submitted_at) == (NINE, NINE + timedelta(seconds=2.25))
    assert (job.arguments, job.priority, job.max_attempts, job.state) == (b'{"what":"x"}', 7, 1, State.READY)
    seen = row(site)
    assert (seen.last_at, seen.next_at, seen.note) == (NINE, NINE + timedelta(minutes=5), None)


def test_a_tick_between_the_making_of_a_schedule_and_its_first_look_is_not_lost(site, clock, ticker):
    clock.set(NINE - timedelta(seconds=1))
    add(site, every(minutes=5))
    clock.set(NINE + timedelta(seconds=3))
    ticker()
    assert ran_at(site) == [NINE]


def test_jobs_of_ticks_pass_the_gates_and_have_the_keys_of_their_task(site, clock, ticker):
    clock.set(NINE)
    add(site, every(minutes=5, overlap="allow"), tasks.of_tenant.bind("acme"))
    clock.set(NINE + timedelta(minutes=5))
    ticker()
    clock.set(NINE + timedelta(minutes=10))
    ticker()
    ((gates, parked, key),) = site.rows("SELECT gates, parked, unique_key FROM {}.job")
    assert (gates, key) == (msgspec.json.decode(tasks.of_tenant.bind("acme").gates), "acme")
    assert parked == gates["key"]
    found = row(site)
    assert found.note == (
        f"the tick of 2026-11-25 09:10:00 UTC got no new job, because of a unique key that job {found.last_job} has "
        f"(existing)"
    )


def test_a_tick_whose_key_is_held_and_that_must_not_meet_it_is_noted_and_the_schedule_goes_on(site, clock, ticker):
    clock.set(NINE)
    unique = Unique(key="k", on_conflict="raise")
    (held,) = site.submit(tasks.beat.using(unique=unique, delay=timedelta(days=1)).bind("first"))
    add(site, every(minutes=5, overlap="allow"), tasks.beat.using(unique=unique).bind("second"))
    clock.set(NINE + timedelta(minutes=5))
    ticker()
    assert [job.id for job in chancy.jobs(site.conn, schema=site.schema)] == [held.id]
    assert (row(site).next_at, row(site).note) == (
        NINE + timedelta(minutes=10),
        f"the tick of 2026-11-25 09:05:00 UTC got no new job, because of a unique key that job {held.id} has (refused)",
    )


# Stops of all workers, and jobs that take longer than their interval


@pytest.mark.parametrize(
    ("missed", "minutes", "noted"),
    [
        ("skip", [], "ticks from 2026-11-25 09:05:00 UTC until 2026-11-25 09:32:45 UTC were missed"),
        ("one", [30], "ticks from 2026-11-25 09:05:00 UTC until 2026-11-25 09:30:00 UTC were missed"),
        ("all", [5, 10, 15, 20, 25, 30], None),
    ],
)
def test_after_a_stop_of_all_workers_missed_ticks_go_by_the_policy(site, clock, ticker, missed, minutes, noted):
    clock.set(NINE)
    add(site, every(minutes=5, missed=missed))
    ticker()
    clock.set(NINE + timedelta(minutes=33))
    ticker()
    assert ran_at(site) == [NINE + timedelta(minutes=each) for each in minutes]
    assert (row(site).note, row(site).next_at) == (noted, NINE + timedelta(minutes=35))
    finish(site)
    clock.set(NINE + timedelta(minutes=35, seconds=14))
    ticker()
    assert ran_at(site) == [NINE + timedelta(minutes=35)]


@pytest.mark.parametrize("missed", ["skip", "one"])
def test_where_one_is_on_time_no_missed_one_runs(site, clock, ticker, missed):
    clock.set(NINE)
    add(site, every(minutes=5, missed=missed))
    ticker()
    clock.set(NINE + timedelta(minutes=30, seconds=15))
    ticker()
    assert ran_at(site) == [NINE + timedelta(minutes=30)]


def test_three_thousand_missed_ticks_all_run_a_thousand_at_a_look(site, clock, ticker):
    clock.set(NINE)
    add(site, every(seconds=1, missed="all"))
    ticker()
    clock.set(NINE + timedelta(seconds=3000))
    ticker()
    assert ran_at(site) == [NINE + timedelta(seconds=each) for each in range(1, 3001)]


def test_a_tick_is_dropped_while_the_job_of_the_last_one_is_live(site, clock, ticker):
    clock.set(NINE)
    add(site, every(minutes=5))
    for minutes in (0, 5, 10):
        clock.set(NINE + timedelta(minutes=minutes))
        ticker()
    assert ran_at(site) == [NINE + timedelta(minutes=5)]
    found = row(site)
    assert found.note == (
        f"the tick of 2026-11-25 09:10:00 UTC got no job, because job {found.last_job} of the tick before was not "
        f"finished"
    )
    assert (found.last_at, found.next_at) == (NINE + timedelta(minutes=5), NINE + timedelta(minutes=15))
    finish(site)
    clock.set(NINE + timedelta(minutes=15))
    ticker()
    assert ran_at(site) == [NINE + timedelta(minutes=15)]


def test_overlap_allowed_drops_none(site, clock, ticker):
    clock.set(NINE)
    add(site, every(minutes=5, overlap="allow"))
    for minutes in (0, 5, 10):
        clock.set(NINE + timedelta(minutes=minutes))
        ticker()
    assert ran_at(site) == [NINE + timedelta(minutes=5), NINE + timedelta(minutes=10)]


def test_of_several_on_time_the_latest_runs_where_they_must_not_overlap(site, clock, ticker):
    clock.set(NINE)
    add(site, every(seconds=1))
    ticker()
    clock.set(NINE + timedelta(seconds=7.5))
    ticker()
    assert ran_at(site) == [NINE + timedelta(seconds=7)]


# Pauses, and ticks that somebody asks for


def test_ticks_of_a_paused_time_are_dropped_whatever_the_policy(site, clock, ticker):
    clock.set(NINE)
    add(site, every(minutes=5, missed="all"))
    ticker()
    send(site.conn, pause_schedule("a", NINE + timedelta(minutes=12)), site.schema)
    clock.set(NINE + timedelta(minutes=11))
    assert ticker().ahead == 60
    clock.set(NINE + timedelta(minutes=21))
    ticker()
    assert ran_at(site) == [NINE + timedelta(minutes=15), NINE + timedelta(minutes=20)]
    assert (row(site).paused_until, row(site).note) == (None, None)


def test_one_that_is_paused_without_end_waits_until_it_is_resumed(site, clock, ticker):
    clock.set(NINE)
    add(site, every(minutes=5, missed="all"))
    ticker()
    send(site.conn, pause_schedule("a", None), site.schema)
    clock.set(NINE + timedelta(days=3))
    assert ticker().ahead is None
    assert send(site.conn, resume_schedule("a"), site.schema)
    ticker()
    assert ran_at(site) == []
    clock.set(NINE + timedelta(days=3, minutes=5))
    ticker()
    assert ran_at(site) == [NINE + timedelta(days=3, minutes=5)]


def test_run_now_ticks_besides_its_own_times(site, clock, ticker):
    clock.set(NINE + timedelta(seconds=7))
    add(site, every(minutes=5, overlap="allow"))
    ticker()
    chancy.run_now(site.conn, "a", schema=site.schema)
    clock.set(NINE + timedelta(seconds=9))
    ticker()
    assert ran_at(site) == [NINE + timedelta(seconds=7)]
    assert row(site).next_at == NINE + timedelta(minutes=5)


# Several who tick


def test_of_two_who_see_the_same_tick_one_submits_it(site, clock, ticker):
    clock.set(NINE)
    add(site, every(minutes=5, overlap="allow"))
    ticker()
    clock.set(NINE + timedelta(minutes=5))
    with psycopg.connect(site.dsn, autocommit=True) as other:
        links = [Sender(site.conn, site.schema), Sender(other, site.schema)]
        both = [send(link.conn, look_at_schedules([tasks.beat.name], []), site.schema) for link in links]
        told = [
            asyncio.run(room._see_to(link, seen.due[0], tasks.beat, seen.at))
            for link, seen in zip(links, both, strict=True)
        ]
    assert told == [None, room.CONTESTED]
    assert ran_at(site) == [NINE + timedelta(minutes=5)]


def test_one_who_has_read_what_was_replaced_meanwhile_submits_nothing(site, clock, ticker):
    clock.set(NINE)
    add(site, every(minutes=5))
    clock.set(NINE + timedelta(minutes=5))
    for change in (
        lambda: add(site, every(minutes=5), tasks.beat.bind("new")),
        lambda: send(site.conn, pause_schedule("a", None), site.schema),
        lambda: (chancy.unschedule(site.conn, "a", schema=site.schema), add(site, every(minutes=5))),
    ):
        (due,) = send(site.conn, look_at_schedules([tasks.beat.name], []), site.schema).due
        change()
        link = Sender(site.conn, site.schema)
        assert asyncio.run(room._see_to(link, due, tasks.beat, NINE + timedelta(minutes=5))) == room.CONTESTED
        send(site.conn, resume_schedule("a"), site.schema)
        site.conn.execute(f"UPDATE {site.schema}.schedule SET since = %s", [NINE])
    assert ran_at(site) == []


def test_one_whose_row_is_held_by_somebody_keeps_nobody_waiting(site, clock, ticker):
    clock.set(NINE)
    add(site, every(minutes=5), name="held")
    add(site, every(minutes=5), tasks.beat.bind("free"), name="free")
    clock.set(NINE + timedelta(minutes=5))
    with psycopg.connect(site.dsn) as holder:
        chancy.schedule(holder, "held", tasks.beat.bind(), every(minutes=5), schema=site.schema)
        ticker()
        assert [job.arguments for job in chancy.jobs(site.conn, schema=site.schema)] == [b'{"what":"free"}']
        holder.rollback()
    ticker()
    assert len(ran_at(site)) == 2


@pytest.mark.long
async def test_many_schedulers_over_many_ticks_submit_each_once(site, clock):
    clock.set(NINE)
    add(site, every(seconds=1, missed="all"))
    names = {tasks.beat.name: tasks.beat}
    links = [room.Link(site.dsn, site.schema, f"test {n}", deadline=8) for n in range(6)]
    fast = dataclasses.replace(FAST, look=0.02)
    parts = [Schedules(names, fast) for _ in links]
    loops = [asyncio.create_task(take_turns(*each)) for each in zip(links, parts, strict=True)]
    for part in parts:
        part.heard(SimpleNamespace(schedules=True))
    for number in range(1, 101):
        clock.set(NINE + timedelta(seconds=number))
        await eventually(lambda number=number: len(ran_at(site)) >= number)
    await asyncio.sleep(0.2)
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    for link in links:
        await link.close()
    assert ran_at(site) == [NINE + timedelta(seconds=number) for number in range(1, 101)]


# What tasks declare


def declare(site, *known):
    return send(site.conn, declare_schedules({task.name: task for task in known}), site.schema)


def names(site):
    return [row.name for row in chancy.schedules(site.conn, schema=site.schema)]


def changed(task, **options):
    return dataclasses.replace(task, **options)


def test_what_a_task_declares_is_there_once_a_worker_has_started(site):
    assert declare(site, *EVERY) == []
    found = row(site, tasks.yearly.name)
    assert (found.task, found.when, found.arguments, found.declared) == (
        tasks.yearly.name,
        tasks.YEARLY,
        b"{}",
        True,
    )
    assert names(site) == [tasks.yearly.name]


def test_a_restart_loses_no_missed_tick_and_a_change_begins_anew(site, clock, ticker):
    clock.set(NINE)
    daily = changed(tasks.beat, schedule=every(days=1, missed="all"))
    declare(site, daily)
    ticker(daily)
    clock.set(NINE + timedelta(days=3))
    declare(site, daily)
    ticker(daily)
    assert [at.day for at in ran_at(site)] == [26, 27, 28]
    clock.set(NINE + timedelta(days=6))
    other = changed(tasks.beat, schedule=every(days=2, missed="all"))
    declare(site, other)
    ticker(other)
    assert len(ran_at(site)) == 3
    assert row(site, daily.name).when == every(days=2, missed="all")


def test_defaults_of_its_arguments_are_of_the_code_that_performs_a_tick(site, clock, ticker):
    clock.set(NINE)
    daily = changed(tasks.beat, schedule=every(days=1, missed="all"))
    declare(site, daily)
    clock.set(NINE + timedelta(days=1))
    ticker(daily)
    other = changed(daily, signature=tasks.yearly.signature)
    declare(site, other)
    clock.set(NINE + timedelta(days=2))
    ticker(other)
    found = site.rows("SELECT arguments::text FROM {}.job ORDER BY run_at")
    assert found == [("{}",), ("{}",)]


def test_a_task_that_declares_no_schedule_any_more_loses_it_and_one_that_is_not_known_keeps_it(site):
    declare(site, *EVERY)
    declare(site, tasks.beat)
    assert names(site) == [tasks.yearly.name]
    declare(site, changed(tasks.yearly, schedule=None))
    assert names(site) == []


def test_a_task_with_a_new_name_has_no_schedule_under_its_old_one(site):
    declare(site, tasks.yearly)
    renamed = changed(tasks.yearly, name="new")
    send(site.conn, declare_schedules({"new": renamed, tasks.yearly.name: renamed}), site.schema)
    assert names(site) == ["new"]


def test_a_schedule_that_has_another_name_goes_on_where_it_was_and_stays_paused(site, clock, ticker):
    clock.set(NINE)
    daily = changed(tasks.beat, schedule=every(days=1, missed="all"))
    declare(site, daily)
    ticker(daily)
    renamed = changed(daily, name="new", aliases=(daily.name,))
    both = {"new": renamed, daily.name: renamed}
    clock.set(NINE + timedelta(days=3))
    chancy_ops.pause(site.conn, schedule=daily.name, until=timedelta(hours=1), schema=site.schema)
    last = row(site, daily.name).last_job
    send(site.conn, declare_schedules(both), site.schema)
    assert names(site) == ["new"]
    found = row(site, "new")
    assert (found.paused_until, found.last_job, found.task) == (NINE + timedelta(days=3, hours=1), last, "new")
    chancy_ops.resume(site.conn, schedule="new", schema=site.schema)
    send(site.conn, declare_schedules(both), site.schema)  # a second worker changes nothing
    assert names(site) == ["new"]


def test_ticks_that_were_missed_during_the_deploy_of_a_new_name_are_not_lost(site, clock, ticker):
    clock.set(NINE)
    daily = changed(tasks.beat, schedule=every(days=1, missed="all"))
    declare(site, daily)
    ticker(daily)
    next_at = row(site, daily.name).next_at
    clock.set(NINE + timedelta(days=3))
    renamed = changed(daily, name="new", aliases=(daily.name,))
    send(site.conn, declare_schedules({"new": renamed, daily.name: renamed}), site.schema)
    assert row(site, "new").next_at == next_at
    other = changed(renamed, name="newer", aliases=("new",), schedule=every(days=2, missed="all"))
    send(site.conn, declare_schedules({"newer": other, "new": other}), site.schema)
    assert (names(site), row(site, "newer").next_at) == (["newer"], None)  # another recurrence begins anew


def test_what_was_made_at_run_time_is_never_touched_by_what_a_task_declares(site):
    add(site, every(days=7), tasks.yearly.bind(False), name=tasks.yearly.name)
    add(site, every(days=7), tasks.beat.bind(), name="other")
    assert declare(site, *EVERY) == [tasks.yearly.name]
    declare(site, changed(tasks.yearly, schedule=None), tasks.beat)
    assert names(site) == ["other", tasks.yearly.name]
    assert row(site, tasks.yearly.name).when == every(days=7)


# What goes wrong


def test_a_schedule_that_does_not_fit_its_task_any_more_says_so_and_the_others_go_on(site, clock, ticker, caplog):
    clock.set(NINE)
    add(site, every(minutes=5), tasks.beat.bind("x"), name="bad")
    add(site, every(minutes=5), tasks.once_a_day.bind("x"), name="key")
    add(site, every(minutes=5), tasks.beat.bind("y"), name="good")
    site.conn.execute(f"""UPDATE {site.schema}.schedule SET arguments = '{{"wrong": 1}}' WHERE name = 'bad'""")
    site.conn.execute(f"""UPDATE {site.schema}.schedule SET arguments = '{{"what": "bad"}}' WHERE name = 'key'""")
    add(site, cron("*/5 * * * *", timezone="Europe/Prague"), name="zone")
    site.conn.execute(
        f"""UPDATE {site.schema}.schedule SET recurrence = replace(recurrence::text, 'Prague', 'Gone')::json
        WHERE name = 'zone'"""
    )
    clock.set(NINE + timedelta(minutes=5))
    ticker()
    assert [job.arguments for job in chancy.jobs(site.conn, schema=site.schema)] == [b'{"what":"y"}']
    assert row(site, "bad").note.startswith("no jobs for ticks from 2026-11-25 09:00:00 UTC on: argument 'wrong'")
    assert "no\\0key" in row(site, "key").note
    assert "no time zone 'Europe/Gone'" in row(site, "zone").note
    assert row(site, "good").note is None
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 3
    assert any("schedule bad cannot tick" in line for line in told)
    # Once it is put right it goes on, without a minute's wait.
    add(site, every(minutes=5), tasks.beat.bind("x"), name="bad")
    ticker()
    assert len(ran_at(site)) == 2


def test_more_broken_ones_than_one_look_takes_keep_no_good_one_waiting(site, clock, ticker):
    clock.set(NINE)
    for number in range(room.MOST_DUE + 20):
        add(site, every(minutes=5), tasks.beat.bind(), name=f"bad {number}")
    site.conn.execute(f"""UPDATE {site.schema}.schedule SET arguments = '{{"odd": 1}}', next_at = '2026-01-01'""")
    add(site, every(minutes=5), name="good")
    clock.set(NINE + timedelta(minutes=5))
    ticker()
    assert ran_at(site) == [NINE + timedelta(minutes=5)]


def test_a_schedule_of_a_task_that_this_worker_does_not_know_is_left_for_others(site, clock, ticker):
    clock.set(NINE)
    add(site, every(minutes=5))
    clock.set(NINE + timedelta(minutes=5))
    ticker(tasks.yearly)
    assert ran_at(site) == []
    ticker()
    assert len(ran_at(site)) == 1


# Workers


@pytest.mark.parametrize("pooler", ["session", "transaction"])
async def test_a_worker_ticks_soon_and_performs(site, pooler):
    add(site, every(seconds=1, missed="all"), tasks.beat.bind('50 % of what\'s "Ř"'))
    # No look but those for its ticks is in time.
    async with working(site, pooler=pooler, timing=ONLY_WOKEN):
        await eventually(lambda: len(ran_at(site)) >= 5)
        await eventually(lambda: site.count("succeeded") >= 5)
    ticks = ran_at(site)
    assert all(late - early == timedelta(seconds=1) for early, late in itertools.pairwise(ticks))
    lags = [lag for (lag,) in site.rows("SELECT extract(epoch FROM submitted_at - run_at)::float8 FROM {}.any_job")]
    assert min(lags) < 0.3  # some 20 ms on a machine that has nothing else to do; on a busy one some are late


async def test_a_worker_writes_down_what_its_tasks_declare_and_says_what_is_replaced(site, caplog):
    add(site, every(days=7), tasks.yearly.bind(), name=tasks.yearly.name)
    async with working(site, tasks.yearly, changed(tasks.beat, schedule=every(days=1))):
        await eventually(lambda: len(names(site)) == 2)
    assert f"schedule {tasks.yearly.name} was made at run time" in caplog.text


async def test_ticks_go_on_after_the_connection_was_lost(site):
    add(site, every(seconds=1, missed="all"))
    async with Proxy(site.dsn) as proxy, working(site, dsn=proxy.dsn):
        await eventually(lambda: len(ran_at(site)) >= 2)
        proxy.cut()
        seen = len(ran_at(site))
        await eventually(lambda: len(ran_at(site)) >= seen + 3)
    ticks = ran_at(site)
    assert all(late - early == timedelta(seconds=1) for early, late in itertools.pairwise(ticks))


async def test_while_there_are_no_schedules_nobody_looks_for_any(site, monkeypatch):
    sent = []
    original = room.Link.send

    async def noted(link, statement):
        if link.purpose == "schedules":
            sent.append(statement.sql)
        return await original(link, statement)

    monkeypatch.setattr(room.Link, "send", noted)
    async with working(site, tasks.beat):
        await asyncio.sleep(2)  # some heartbeats
        assert sent == []
        add(site, every(seconds=1))
        await eventually(lambda: room.TICK in sent)
