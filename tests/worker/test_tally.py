"""What workers count is what the rows say, over restarts, deaths and folds; and nobody waits for it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import flow_tasks
import msgspec
import psycopg
import pytest
import tally_tasks
import worker_tasks
from worker_help import FAST, MORTAL, Proxy, all_finished, eventually, working

import chancy_ops
from chancy import Queue, result_of
from chancy.run import send
from chancy.states import State
from chancy.tally.tally import bucket_of
from chancy_worker import WorkerConfig
from chancy_worker.attempts.verdict import Claimed, Completion, succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register
from chancy_worker.life.rescue import declare_dead
from chancy_worker.parts.tally import fold, sample, say
from chancy_worker.tally.tally import MOST_NAMES, OTHERS, Cell, Tally

SOON = WorkerConfig(timing=replace(FAST, tally=0.1), grace=5)
AT_THE_END = WorkerConfig(timing=replace(FAST, tally=3600), grace=5)
TAKES_BACK = WorkerConfig(timing=replace(MORTAL, tally=0.1), grace=5)
"""Soon, what those who died were running."""


def tallied(site, **more):
    """How many jobs of each task came out how."""
    rows = chancy_ops.throughput(site.conn, **{"by": "task", "schema": site.schema} | more)
    return {(row.task, str(outcome)): n for row in rows for outcome, n in row.outcomes.items()}


def ended(site):
    """The same by the rows."""
    query = "SELECT task, state::text, count(*) FROM {}.history GROUP BY 1, 2"
    return {(task, state): n for task, state, n in site.rows(query)}


FINAL = ("succeeded", "failed", "discarded", "cancelled")


def only_ends(counted):
    return {key: n for key, n in counted.items() if key[1] in FINAL}


@pytest.mark.parametrize("config", [SOON, AT_THE_END], ids=["as it works", "when it stops"])
async def test_what_a_worker_counts_is_what_the_rows_say(site, config):
    site.submit(
        *[worker_tasks.add.bind(n, 1) for n in range(300)],
        *[worker_tasks.add_in_thread.bind(n, 1) for n in range(20)],
        *[worker_tasks.raise_with.bind("no") for _ in range(7)],
        *[worker_tasks.succeed_at.bind(3) for _ in range(5)],
        *[worker_tasks.discard.bind() for _ in range(3)],
        worker_tasks.snooze.bind(4),
    )
    async with working(site.app(), config):
        await all_finished(site)
    counted = tallied(site)
    assert only_ends(counted) == ended(site)
    assert counted["worker_tasks.succeed_at", "retried"] == 10
    assert counted["worker_tasks.snooze", "snoozed"] == 4
    (row,) = chancy_ops.throughput(site.conn, by="nothing", schema=site.schema)
    assert sum(row.histograms["run"].values()) == sum(row.outcomes.values()) == 350


async def test_a_job_that_becomes_another_is_counted_when_that_has_ended_and_so_is_what_ends_by_a_need(site):
    lost = flow_tasks.broken.bind("x")
    site.submit(
        *[flow_tasks.workflow.bind(["a", "b"]) for _ in range(3)],
        flow_tasks.risky.bind("never healed"),
        flow_tasks.completes.bind(site.dsn),
        *[flow_tasks.join.bind([result_of(lost)]) for _ in range(4)],
    )
    async with working(site.app(), AT_THE_END):
        await all_finished(site)
    counted = tallied(site)
    assert only_ends(counted) == ended(site)
    assert {key: n for key, n in counted.items() if key[0] != "flow_tasks.leaf"} == {
        ("flow_tasks.workflow", "blocked"): 3,
        ("flow_tasks.workflow", "succeeded"): 3,
        ("flow_tasks.risky", "blocked"): 1,
        ("flow_tasks.risky", "failed"): 1,
        ("flow_tasks.completes", "blocked"): 1,
        ("flow_tasks.completes", "succeeded"): 1,
        ("flow_tasks.sometimes", "failed"): 1,
        ("flow_tasks.broken", "failed"): 1,
        ("flow_tasks.join", "succeeded"): 4,
        ("flow_tasks.join", "cancelled"): 5,
    }


async def test_what_is_given_back_is_counted_as_released(site):
    site.submit(*[worker_tasks.pass_gate.bind("never") for _ in range(3)])
    async with working(site.app(), AT_THE_END):
        await eventually(lambda: site.count("running") == 3)
    assert tallied(site) == {("worker_tasks.pass_gate", "released"): 3}


async def test_a_running_job_that_is_cancelled_is_counted_as_that(site):
    (job,) = site.submit(worker_tasks.pass_gate.bind("never"))
    async with working(site.app(), AT_THE_END):
        await eventually(lambda: site.count("running"))
        job.cancel(site.conn)
        await all_finished(site)
    assert tallied(site) == {("worker_tasks.pass_gate", "cancelled"): 1}


async def test_a_job_that_was_asked_to_stop_and_fails_is_counted_as_cancelled_as_its_row_says(site):
    begun, gate = site.folder / "begun", site.folder / "gate"
    (job,) = site.submit(worker_tasks.fail_in_thread.bind(str(begun), str(gate)))
    async with working(site.app(), AT_THE_END) as worker:
        await eventually(begun.exists)
        job.cancel(site.conn)
        await eventually(
            lambda: any(r.attempt and r.attempt.current.cancelled for r in worker._engine.slots.running.values())
        )
        gate.touch()
        await all_finished(site)
    row = site.row(job)
    assert (row.state, row.attempt, row.errors[-1].kind) == (State.CANCELLED, 1, "ValueError")
    assert tallied(site) == {("worker_tasks.fail_in_thread", "cancelled"): 1}


@pytest.mark.long
async def test_of_jobs_that_come_out_in_every_way_only_what_a_killed_worker_had_not_said_is_missing(site):
    def spawn():
        return site.spawn(queues=tally_tasks.QUEUES, timing=replace(MORTAL, tally=0.1), grace=0.0)

    site.submit(*[tally_tasks.tasks[n % 20].bind(n) for n in range(1500)])
    first, second = spawn(), spawn()
    await eventually(lambda: site.one("SELECT count(*) FROM {}.history") > 200, 30)
    deaths = [tally_tasks.kill(site, first)]
    second.signal(signal.SIGTERM)
    await eventually(lambda: second.code is not None)
    async with working(site.app(queues=[Queue(name, 20) for name in tally_tasks.QUEUES]), TAKES_BACK):
        await all_finished(site)
    ends, attempts = tally_tasks.compared(site)
    missing = sum(ends.values())
    assert min(ends.values(), default=0) >= 0
    assert min(attempts.values(), default=0) >= 0
    assert missing <= tally_tasks.unsaid(site, deaths)
    assert site.one("SELECT count(*) FROM {}.history") == 1500
    assert sum(jobs for jobs in tallied(site).values()) > 1500


async def test_jobs_of_a_worker_that_was_killed_are_counted_by_who_takes_them_back(site):
    (last,) = site.submit(worker_tasks.wait_for_file.using(max_attempts=1).bind("never"))
    (again,) = site.submit(worker_tasks.wait_for_file.bind(str(site.folder / "gate")))
    worker = site.spawn()
    await eventually(lambda: site.count("running") == 2, 30)
    tally_tasks.kill(site, worker)
    (site.folder / "gate").touch()
    async with working(site.app(), TAKES_BACK):
        await all_finished(site)
    assert site.row(last).state is State.FAILED
    assert site.row(again).attempt == 2
    assert tallied(site) == {
        ("worker_tasks.wait_for_file", "failed"): 1,
        ("worker_tasks.wait_for_file", "died"): 1,
        ("worker_tasks.wait_for_file", "succeeded"): 1,
    }


async def test_a_verdict_that_came_too_late_is_counted_as_lost_and_the_job_by_who_has_it(site):
    (job,) = site.submit(worker_tasks.first_waits.bind("gate"))
    async with working(site.app(), AT_THE_END) as worker:
        await eventually(lambda: site.count("running"))
        site.rows("UPDATE {}.job SET worker = worker + 1000, claims = claims + 1 RETURNING id")
        worker_tasks.gates["gate"].set()
        await eventually(lambda: not worker._engine.slots.running and not worker._engine.claimer.held)
    assert tallied(site) == {("worker_tasks.first_waits", "lost"): 1}
    assert site.row(job).state is State.RUNNING


async def test_a_job_that_its_handler_completes_is_counted_once(site):
    worker_tasks.gates["gate"].set()
    site.submit(worker_tasks.complete_at_gate.using(max_attempts=1).bind("gate"))
    async with working(site.app(), AT_THE_END):
        await all_finished(site)
    assert tallied(site) == {("worker_tasks.complete_at_gate", "succeeded"): 1}


async def test_a_worker_whose_app_keeps_no_tally_writes_none(site):
    dead = send(site.conn, register("dead", 0.01), site.schema)
    site.submit(worker_tasks.add.bind(1, 2))
    send(site.conn, play_round(dead, [], Wanted({"default": 1}, looking=("default",))), site.schema)
    async with working(site.app(tally=False), TAKES_BACK):
        await all_finished(site)
    assert [site.one(f"SELECT count(*) FROM {{}}.{table}") for table in ("tally", "tally_day", "depth")] == [0, 0, 0]


async def test_what_could_not_be_said_is_said_when_the_database_is_back_and_once(site):
    async with Proxy(site.dsn) as proxy, working(site.app(dsn=proxy.dsn), SOON) as worker:
        await worker.begun.wait()
        for _ in range(5):
            site.submit(*[worker_tasks.add.bind(n, 1) for n in range(20)])
            proxy.mute = True  # the answers do not arrive, of rounds as of this
            await asyncio.sleep(0.15)
            proxy.cut()
            proxy.mute = False
            await all_finished(site)
    assert tallied(site) == ended(site) == {("worker_tasks.add", "succeeded"): 100}


# Saying


def cells(jobs=3, task="t", queue="q", outcome="succeeded", **more):
    return {(queue, task, outcome): Cell(jobs, **more)}


def test_what_is_said_twice_under_a_number_counts_once(site):
    lease = send(site.conn, register("w", 60), site.schema)
    assert send(site.conn, say(lease, 1, cells(3)), site.schema)
    assert send(site.conn, say(lease, 1, cells(3)), site.schema)
    assert send(site.conn, say(lease, 2, cells(4)), site.schema)
    assert tallied(site) == {("t", "succeeded"): 7}


def test_who_has_no_lease_has_said_nothing(site):
    lease = send(site.conn, register("w", 60), site.schema)
    send(site.conn, declare_dead(worker=lease), site.schema)
    assert not send(site.conn, say(lease, 1, cells(3)), site.schema)
    assert tallied(site) == {}


def test_names_of_any_kind_are_kept_as_they_are(site):
    lease = send(site.conn, register("w", 60), site.schema)
    name = 'a "b", {c} \\ \n NULL žluť'
    send(site.conn, say(lease, 1, cells(1, name, name) | cells(2, "NULL", "")), site.schema)
    assert tallied(site) == {(name, "succeeded"): 1, ("NULL", "succeeded"): 2}


# Folding

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.fixture
def told(site, chancy_clock):
    """Two workers have said something in each of three minutes, and in an hour and on a day after that."""
    leases = [send(site.conn, register("w", 10**6), site.schema) for _ in range(2)]
    minutes = [timedelta(minutes=n) for n in range(3)] + [timedelta(hours=1), timedelta(days=1)]
    for n, after in enumerate(minutes, 1):
        chancy_clock.set(NOON + after + timedelta(seconds=30))
        for lease in leases:
            half = {"waited": 1.0, "ran": 0.5, "waits": {40: n, 50: 1}, "runs": {30: n + 1}}
            mail = {"runs": {90: 1}}
            said = cells(n + 1, "t", **half) | cells(1, "u", "mail", "failed", **mail) | cells(2, "t", "q", "retried")
            send(site.conn, say(lease, n, said), site.schema)
    chancy_clock.set(NOON + timedelta(days=1, minutes=5))
    return site


def everything(site):
    """All that can be read, by each kind of table."""
    return [
        [
            (row.since, row.queue, row.task, row.outcomes, row.wait, row.run, row.histograms)
            for row in chancy_ops.throughput(
                site.conn, since=NOON, by="queue and task", every=every, schema=site.schema
            )
        ]
        for every in ("minute", "hour", "day")
    ]


def test_what_is_folded_is_read_as_before(told):
    before = everything(told)
    assert [len(each) for each in before] == [10, 6, 4]
    assert send(told.conn, fold(), told.schema) is False
    assert everything(told) == before
    assert [told.one(f"SELECT count(*) FROM {{}}.tally{table}") for table in ("", "_minute", "_hour", "_day")] == [
        0, 15, 9, 6,
    ]  # fmt: skip


def test_it_is_folded_in_pieces_and_more_is_added_to_what_was(told):
    before = everything(told)
    turns = 0
    while send(told.conn, fold(4), told.schema):
        turns += 1
        assert everything(told) == before
    assert turns == 7
    assert told.one("SELECT count(*) FROM {}.tally_day") == 6
    assert told.one("SELECT count(*) FROM {}.tally") == 0


def test_the_minute_that_goes_on_is_not_folded(told, chancy_clock):
    chancy_clock.set(NOON + timedelta(days=1, seconds=45))
    send(told.conn, fold(), told.schema)
    assert told.one("SELECT count(*) FROM {}.tally") == 6


def test_one_folds_at_a_time_and_the_others_do_not_wait(told):
    with told.conn.transaction():
        send(told.conn, fold(4), told.schema)

        with psycopg.connect(told.dsn, autocommit=True) as other:
            other.execute("SET lock_timeout = '1s'")
            assert send(other, fold(4), told.schema) is False
            send(other, sample(), told.schema)
    assert told.one("SELECT count(*) FROM {}.tally") == 26


def test_minutes_are_kept_for_two_days_hours_for_five_weeks_and_days_for_a_year(told, chancy_clock):
    send(told.conn, fold(), told.schema)
    left = []
    for after in (timedelta(days=2, hours=13), timedelta(days=36), timedelta(days=402)):
        chancy_clock.set(NOON + after)
        send(told.conn, fold(), told.schema)
        left.append([told.one(f"SELECT count(*) FROM {{}}.tally_{span}") for span in ("minute", "hour", "day")])
    assert left == [[3, 9, 6], [0, 3, 6], [0, 0, 0]]


# Reading


def test_a_series_leaves_out_the_minutes_in_which_nothing_was_done(told):
    rows = chancy_ops.throughput(told.conn, since=NOON, by="nothing", every="minute", schema=told.schema)
    assert [row.since - NOON for row in rows] == [timedelta(minutes=n) for n in (0, 1, 2, 60, 1440)]
    assert [row.until - row.since for row in rows] == [timedelta(minutes=1)] * 5
    assert [row.finished for row in rows] == [2 * (n + 2) for n in range(1, 6)]
    assert rows[0].rate == 6 / 60
    assert (rows[0].failed, rows[0].errors) == (2, 6)


def test_a_queue_a_task_and_a_time_are_looked_at_alone(told):
    def finished(**more):
        return {
            (row.queue, row.task): row.finished
            for row in chancy_ops.throughput(told.conn, **{"since": NOON, "schema": told.schema} | more)
        }

    assert finished(by="queue") == {("q", None): 40, ("mail", None): 10}
    assert finished(by="task") == {(None, "t"): 40, (None, "u"): 10}
    assert finished(by="nothing", queue="mail") == {(None, None): 10}
    assert finished(by="nothing", task="t", until=NOON + timedelta(minutes=2)) == {(None, None): 10}
    assert finished(by="nothing", since=timedelta(minutes=10)) == {(None, None): 14}
    assert finished(by="nothing", queue="none") == {}


def test_what_goes_on_is_as_long_as_it_has_gone_on(told):
    (row,) = chancy_ops.throughput(told.conn, since=timedelta(minutes=6), by="nothing", schema=told.schema)
    assert (row.since, row.until) == (NOON + timedelta(hours=24, minutes=-1), NOON + timedelta(hours=24, minutes=5))


def test_means_and_percentiles_are_of_what_was_measured(told):
    (row,) = chancy_ops.throughput(
        told.conn, since=NOON, until=NOON + timedelta(minutes=1), by="nothing", every="minute", schema=told.schema
    )
    assert row.histograms == {"wait": {40: 2, 50: 2}, "run": {30: 4, 90: 2}}
    assert bucket_of(row.wait.p50) == 40
    assert bucket_of(row.wait.p95) == 50
    assert row.wait.mean == 2.0 / 4
    assert bucket_of(row.run.p99) == 90


# Counting


def claimed(n, task="t", run_at=None):
    run_at = run_at or datetime.fromtimestamp(time.time() - 3, UTC)
    return Claimed(n, task, "q", 1, 3, 1, 0, b"{}", None, None, None, run_at=run_at)


def measured(tally, n, seconds=0.5):
    """So many attempts are over, as `Ends` counts them."""
    job = claimed(1)
    verdict = succeeded(job, b"null")
    for _ in range(n):
        tally.left -= 1
        if tally.left < 0:
            tally.measure(job, verdict, seconds)


@pytest.fixture
def still(monkeypatch):
    """What happens takes no time."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.usefixtures("still")
def test_each_attempt_is_measured_while_there_are_few():
    tally = Tally()
    measured(tally, 400)
    cell = tally.take()["q", "t", "succeeded"]
    assert sum(cell.waits.values()) == sum(cell.runs.values()) == 400
    assert bucket_of(cell.waited / 400) == bucket_of(2.5)
    assert cell.ran == 200


def test_of_many_attempts_some_are_measured_and_stand_for_all(monkeypatch):
    tally, calls = Tally(), Counter()
    plain = tally.measure
    monkeypatch.setattr(tally, "measure", lambda *args: (calls.update(["measured"]), plain(*args)))
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    for _ in range(5):
        measured(tally, 50_000)
        clock += 1.0
    cell = tally.take()["q", "t", "succeeded"]
    assert sum(cell.runs.values()) == pytest.approx(250_000, abs=200)
    assert calls["measured"] < 5 * 6000


@pytest.mark.usefixtures("still")
def test_waits_are_by_the_clock_of_the_database():
    tally = Tally()
    tally.ahead = 2.0
    tally.measure(claimed(1), succeeded(claimed(1), b"null"), 0.25)
    (bucket,) = tally.take()["q", "t", "succeeded"].waits
    assert bucket == bucket_of(0.75)


def test_what_never_began_is_not_measured():
    tally = Tally()
    tally.measure(claimed(1), Completion(1, 1, State.READY, refund=True), 0.0)
    assert tally.take() == {}


def test_totals_are_of_all_that_was_ever_taken():
    tally = Tally()
    for n in range(1, 4):
        tally.written([claimed(i) for i in range(n)], ["q"])
        tally.came_out(claimed(0), "retried")
        assert tally.totals["q", "t", "retried"].jobs == n
        tally.take()
    assert {key: cell.jobs for key, cell in tally.totals.items()} == {
        ("q", "t", "succeeded"): 3,
        ("q", "t", "retried"): 3,
    }
    assert tally.take() == {}


def test_jobs_of_a_round_are_counted_each_in_its_queue():
    tally = Tally()
    jobs = [claimed(1), msgspec.structs.replace(claimed(2), queue="r"), msgspec.structs.replace(claimed(3), task="u")]
    tally.written(jobs, {"q", "r"})
    counted = {key: cell.jobs for key, cell in tally.take().items()}
    assert counted == {("q", "t", "succeeded"): 1, ("q", "u", "succeeded"): 1, ("r", "t", "succeeded"): 1}


def test_names_without_number_are_counted_as_others():
    tally = Tally()
    for n in range(3 * MOST_NAMES):
        tally.written([claimed(n, f"t{n}")], ["q"])
    counted = tally.take()
    assert len(counted) == MOST_NAMES + 1
    assert counted["q", OTHERS, "succeeded"].jobs == 2 * MOST_NAMES


# Depth


def test_how_deep_the_queues_are_is_written_down_once_a_minute(site, chancy_clock):
    chancy_clock.set(NOON)
    later = NOON + timedelta(hours=1)
    limited = worker_tasks.add.using(group="g")
    site.submit(
        *[worker_tasks.add.bind(n, 1) for n in range(3)],
        *[worker_tasks.add.using(priority=5).bind(n, 1) for n in range(2)],
        worker_tasks.add.using(run_at=later).bind(1, 1),
        *[limited.bind(n, 1) for n in range(4)],
        worker_tasks.add.using(queue="mail").bind(1, 1),
        worker_tasks.add.using(queue="late", after=[worker_tasks.add.using(queue="mail").bind(1, 1)]).bind(1, 1),
    )
    chancy_clock.set(NOON + timedelta(seconds=30))
    worker = send(site.conn, register("w", 60), site.schema)
    send(site.conn, play_round(worker, [], Wanted({"default": 1}, looking=("default",))), site.schema)
    send(site.conn, sample(), site.schema)
    site.submit(worker_tasks.add.bind(1, 1))
    send(site.conn, sample(), site.schema)
    columns = "queue, ready, waiting, scheduled, blocked, running, oldest"
    assert site.rows(f"SELECT {columns} FROM {{}}.depth ORDER BY queue") == [
        ("default", 8, 4, 1, 0, 1, 30.0), ("late", 0, 0, 0, 1, 0, None), ("mail", 2, 0, 0, 0, 0, 30.0),
    ]  # fmt: skip
    chancy_clock.set(NOON + timedelta(seconds=60))
    send(site.conn, sample(), site.schema)
    assert site.rows("SELECT ready FROM {}.depth WHERE queue = 'default' ORDER BY at") == [(8,), (9,)]


def test_samples_of_full_hours_are_kept_longer(site, chancy_clock):
    site.submit(worker_tasks.add.bind(1, 1))
    for minutes in (0, 1, 60):
        chancy_clock.set(NOON + timedelta(minutes=minutes))
        send(site.conn, sample(), site.schema)
    left = []
    for days in (3, 36):
        chancy_clock.set(NOON + timedelta(days=days))
        send(site.conn, sample(), site.schema)
        left.append(site.rows("SELECT at FROM {}.depth ORDER BY at"))
    assert left[0] == [(NOON,), (NOON + timedelta(hours=1),), (NOON + timedelta(days=3),)]
    assert left[1] == [(NOON + timedelta(days=3),), (NOON + timedelta(days=36),)]


async def test_workers_fold_and_sample_by_themselves(site, chancy_clock):
    chancy_clock.set(NOON)
    site.submit(worker_tasks.add.using(run_at=NOON + timedelta(hours=1)).bind(1, 1), worker_tasks.add.bind(1, 1))
    async with working(site.app(), SOON):
        await eventually(lambda: site.one("SELECT count(*) FROM {}.depth"))
        # How long it ran is known before its verdict is written, and may be told before: wait for the verdict.
        await eventually(lambda: site.one("SELECT sum(jobs) FROM {}.tally"))
        chancy_clock.set(NOON + timedelta(minutes=1))
        await eventually(lambda: site.one("SELECT count(*) FROM {}.tally_minute"))
        await eventually(lambda: site.one("SELECT count(*) FROM {}.depth") == 2)
    assert site.one("SELECT count(*) FROM {}.tally") == 0
