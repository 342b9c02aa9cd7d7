"""Finished jobs are kept as long as their queue says, each by how it ended; so are their results."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from time import monotonic

import limit_tasks
import psycopg
import pytest
import worker_tasks as tasks
from psycopg import sql
from worker_help import FAST, all_finished, eventually, working

import chancy
import chancy_ops
from chancy import Chancy, Keep, Queue, ResultExpired, State, UnknownJob, days
from chancy.history.moving import make_partitions
from chancy.run import send
from chancy_worker import Timing, WorkerConfig
from chancy_worker.attempts.verdict import Completion, cancelled, released, succeeded
from chancy_worker.claims.settling import settle
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.cli import load, parser
from chancy_worker.connection.link import Link
from chancy_worker.life.lease import register
from chancy_worker.life.rescue import declare_dead, take_back
from chancy_worker.parts.retention import FIRST_SECONDS, Retention, drop_alone, drop_overdue, overdue

QUICK = WorkerConfig(timing=FAST, grace=1)
RULES = "SELECT what, days FROM {}.retention WHERE queue = 'default' ORDER BY 1"


def keep(site, rules, queue="default"):
    chancy_ops.keep(site.conn, queue, rules, schema=site.schema)


def places(site):
    """The retention of each finished job: of which table its row is, without the day."""
    found = site.rows("SELECT id, tableoid::regclass::text FROM {}.history")
    return {id_: name.partition(".")[2][:-9] for id_, name in found}


async def ended(site, state, task, *arguments, gate=None):
    """A job that was performed by a worker and ended so."""
    (job,) = site.submit(task.bind(*arguments))
    if gate:
        tasks.gates[gate].set()
    await eventually(lambda: site.one("SELECT count(*) FROM {}.job WHERE id = %s", job.id) == 0)
    return job


async def test_each_end_is_kept_as_long_as_the_queue_says(site):
    rules = Keep(succeeded=days(1), failed=days(30), cancelled=days(2))
    async with working(site.app(queues=[Queue(keep=rules)]), QUICK):
        expected = {
            (await ended(site, "succeeded", tasks.add, 1, 2)).id: "history_1d",
            (await ended(site, "failed", tasks.end_badly, "g", "nul", gate="g")).id: "history_30d",
            (await ended(site, "discarded", tasks.discard)).id: "history",
        }
        (waiting,) = site.submit(tasks.add.using(delay=timedelta(hours=1)).bind(1, 2))
        assert waiting.cancel(site.conn)
        (running,) = site.submit(tasks.pass_gate.bind("never"))
        await eventually(lambda: site.count("running") == 1)
        assert running.cancel(site.conn)
        await all_finished(site)
        (elsewhere,) = site.submit(tasks.add.using(queue="other").bind(1, 2))
        assert elsewhere.cancel(site.conn)
    assert places(site) == expected | {waiting.id: "history_2d", running.id: "history_2d", elsewhere.id: "history"}
    assert {site.row(id_).state for id_ in expected} == {State.SUCCEEDED, State.FAILED, State.DISCARDED}


async def test_a_worker_stores_the_rules_of_its_queues_and_leaves_those_that_it_does_not_name(site):
    keep(site, Keep(failed=days(9)))
    async with working(site.app(), QUICK) as worker:
        await worker.begun.wait()
    assert site.rows(RULES) == [("failed", 9)]
    async with working(site.app(queues=[Queue(keep=Keep(succeeded=days(3)))]), QUICK) as worker:
        await worker.begun.wait()
    assert site.rows(RULES) == [("succeeded", 3)]
    async with working(site.app(queues=[Queue(keep=Keep())]), QUICK) as worker:
        await worker.begun.wait()
    assert site.rows(RULES) == []


def test_a_queue_that_the_command_line_names_keeps_what_the_app_says_of_it(tmp_path, monkeypatch):
    (tmp_path / "kept_app.py").write_text(
        "from chancy import Chancy, Keep, Queue\napp = Chancy(queues=[Queue('mail', 7, Keep.nothing()), Queue('other')])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    app = load(parser().parse_args(["kept_app:app", "--queue", "mail=4", "--queue", "new"]))
    assert app.queues == (Queue("mail", 4, Keep.nothing()), Queue("new"))


ENDS = {
    "success": (tasks.add, 1, 2),
    "failure": (tasks.end_badly, "g", "nul"),
    "failure_without_data": (tasks.end_badly, "g", "object"),
    "discard": (tasks.discard,),
    "cancel": (tasks.pass_gate, "never"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_queue_that_keeps_nothing_leaves_no_row(site, caplog, end):
    keep(site, Keep.nothing())
    task, *arguments = ENDS[end]
    async with working(site.app(), QUICK):
        tasks.gates["g"].set()
        (job,) = site.submit(task.bind(*arguments))
        if end == "cancel":
            await eventually(lambda: site.count("running") == 1)
            assert job.cancel(site.conn)
        await all_finished(site)
    assert site.one("SELECT count(*) FROM {}.any_job") == 0
    assert "too late" not in caplog.text
    with pytest.raises(UnknownJob):
        job.result(site.conn)


async def test_what_keeps_failures_only_leaves_failures_only(site):
    keep(site, Keep(succeeded=days(0), failed=days(30)))
    async with working(site.app(), QUICK):
        tasks.gates["g"].set()
        jobs = site.submit(*[tasks.add.bind(n, 1) for n in range(200)], tasks.end_badly.bind("g", "nul"))
        await all_finished(site)
    assert places(site) == {jobs[-1].id: "history_30d"}


@pytest.mark.parametrize("how", ["return", "raise"])
async def test_a_job_that_its_handler_completes_may_leave_no_row(site, caplog, how):
    site.conn.execute(sql.SQL("CREATE TABLE {}.effect (job bigint)").format(sql.Identifier(site.schema)))
    keep(site, Keep.nothing())
    async with working(site.app(), QUICK) as worker:
        (job,) = site.submit(limit_tasks.effect.bind(site.dsn, f'"{site.schema}".effect', how))
        await all_finished(site)
        await eventually(lambda: worker.busy == 0)
    assert site.rows("SELECT job FROM {}.effect") == [(job.id,)]
    assert site.one("SELECT count(*) FROM {}.any_job") == 0
    assert "too late" not in caplog.text


def claim(site, worker):
    (job,) = send(site.conn, play_round(worker, [], Wanted({"default": 1}, looking=("default",))), site.schema).claimed
    return job


@pytest.mark.parametrize("asked", [False, True], ids=["failed", "cancelled"])
@pytest.mark.parametrize(("time", "place"), [(0, None), (6, "history_6d")])
async def test_a_job_whose_last_worker_died_is_kept_as_long_as_any(site, asked, time, place):
    keep(site, Keep(cancelled=days(time)) if asked else Keep(failed=days(time)))
    (job,) = site.submit(tasks.add.using(max_attempts=1).bind(1, 2))
    worker = send(site.conn, register("w", 60), site.schema)
    claim(site, worker)
    if asked:
        job.cancel(site.conn)
    send(site.conn, declare_dead(worker=worker), site.schema)
    assert send(site.conn, take_back(), site.schema)[:2] == (0, 1)
    assert places(site) == ({} if place is None else {job.id: place})
    if place:
        row = site.row(job)
        assert (row.state, row.crashes) == (State.CANCELLED if asked else State.FAILED, 1)


async def test_a_released_job_that_was_cancelled_may_leave_no_row_and_is_settled(site):
    keep(site, Keep(cancelled=days(0)))
    (job,) = site.submit(tasks.add.bind(1, 2))
    claimed = claim(site, send(site.conn, register("w", 60), site.schema))
    job.cancel(site.conn)
    answer = send(site.conn, play_round(claimed.lease, [released(claimed, "")], Wanted()), site.schema)
    assert answer.settled == 1
    assert site.one("SELECT count(*) FROM {}.any_job") == 0


def fate(site, job, verdict):
    held = {(job.id, job.fence): job}
    return send(site.conn, settle(job.lease, [verdict], held), site.schema)[job.id, job.fence]


async def test_a_verdict_whose_answer_was_lost_is_done_though_it_left_no_row(site):
    keep(site, Keep.nothing())
    site.submit(tasks.add.bind(1, 2))
    worker = send(site.conn, register("w", 60), site.schema)
    job = claim(site, worker)
    verdict = succeeded(job, b"3")
    again = play_round(worker, [verdict], Wanted())
    assert [send(site.conn, again, site.schema).settled for _ in range(2)] == [1, 0]
    assert fate(site, job, verdict) == "done"


async def test_a_verdict_is_lost_while_another_claim_has_the_job_and_where_all_ends_leave_rows(site):
    keep(site, Keep.nothing())
    keep(site, Keep(succeeded=days(5), results=days(0)), "other")
    site.submit(tasks.add.bind(1, 2))
    worker = send(site.conn, register("w", 60), site.schema)
    first = claim(site, worker)
    send(site.conn, play_round(worker, [released(first, "")], Wanted()), site.schema)
    second = claim(site, worker)
    assert fate(site, first, succeeded(first, b"3")) == "lost"
    keep(site, None)
    assert send(site.conn, play_round(worker, [cancelled(second)], Wanted()), site.schema).settled == 1
    keep(site, Keep.nothing())
    assert fate(site, first, succeeded(first, b"3")) == "lost"
    site.conn.execute(sql.SQL("DELETE FROM {}.history").format(sql.Identifier(site.schema)))
    assert fate(site, first, succeeded(first, b"3")) == "done"
    keep(site, None)
    assert fate(site, first, succeeded(first, b"3")) == "lost"


async def test_a_missing_day_of_a_retention_loses_no_completion(site):
    keep(site, Keep(succeeded=days(30), results=days(1)))
    named = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relname ~ '_[0-9]+d_[0-9]{8}$'"
    for (name,) in site.conn.execute(named, [site.schema]).fetchall():
        site.conn.execute(f'DROP TABLE "{site.schema}".{name}')
    async with working(site.app(), QUICK):
        jobs = site.submit(*[tasks.add.bind(i, 1) for i in range(20)])
        await all_finished(site)
    assert set(places(site).values()) == {"history_30d"}
    assert [job.result(site.conn) for job in jobs] == list(range(1, 21))


# In the course of time.


def finish_one(site, queue):
    (job,) = site.submit(tasks.add.using(queue=queue).bind(1, 2))
    assert job.cancel(site.conn)
    return job.id


def seen(site, every):
    return {queue for queue, job in every.items() if site.rows("SELECT FROM {}.any_job WHERE id = %s", job)}


async def test_a_day_is_dropped_when_its_own_retention_is_over_and_not_before(site, chancy_clock, upkeep):
    times = {"one": 1, "ten": 10, "thirty": 30}
    for queue, time in times.items():
        keep(site, Keep(cancelled=days(time)), queue)
    midnight = chancy_clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    chancy_clock.set(midnight + timedelta(hours=12))
    every = {queue: finish_one(site, queue) for queue in (*times, "plain")}
    assert site.one("SELECT value FROM {}.setting WHERE name = 'keep'") == "14 days"
    left = {"one", "ten", "thirty", "plain"}
    for queue, time in (("one", 1), ("ten", 10), ("plain", 14), ("thirty", 30)):
        over = midnight + days(time + 1)  # the last job of the day is so many days old
        chancy_clock.set(over - timedelta(seconds=1))
        await upkeep()
        assert seen(site, every) == left, queue
        chancy_clock.set(over)
        await upkeep()
        left -= {queue}
        assert seen(site, every) == left, queue
    assert site.one("SELECT count(*) FROM {}.history") == 0


async def test_logs_are_kept_as_long_as_any_job_may_be(site, chancy_clock, upkeep):
    keep(site, Keep(failed=days(30)))
    midnight = chancy_clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    insert = "INSERT INTO {}.log (job, attempt, n, at, entry) VALUES (1, 1, 1, %s, 'null') RETURNING 1"
    site.rows(insert, midnight + timedelta(hours=12))
    for moment, left in ((days(31) - timedelta(seconds=1), 1), (days(31), 0)):
        chancy_clock.set(midnight + moment)
        await upkeep()
        assert site.one("SELECT count(*) FROM {}.log") == left
    keep(site, None)
    site.rows(insert, midnight + days(31))
    chancy_clock.set(midnight + days(31 + 15) - timedelta(seconds=1))
    await upkeep()
    assert site.one("SELECT count(*) FROM {}.log") == 1
    chancy_clock.set(midnight + days(31 + 15))
    await upkeep()
    assert site.one("SELECT count(*) FROM {}.log") == 0


async def test_a_detach_that_was_interrupted_is_ended_at_the_next_upkeep(site):
    keep(site, Keep(succeeded=days(5)))
    send(site.conn, make_partitions(0), site.schema)
    site.conn.execute(f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-01')")
    detach = 'ALTER TABLE "{0}".history_5d DETACH PARTITION "{0}".history_5d_20200101 CONCURRENTLY'
    reader = await asyncio.to_thread(psycopg.connect, site.dsn)
    reader.execute(f'SELECT count(*) FROM "{site.schema}".history')
    link = Link(site.dsn, site.schema, "upkeep", deadline=20, lock_timeout="300ms")
    await link.connect()
    with pytest.raises(Exception, match="lock timeout"):
        await link.conn.execute(detach.format(site.schema))
    assert ("history_5d_20200101", "history_5d", True) in await link.send(overdue())
    reader.rollback()  # a session that is closed may keep its locks for a moment
    reader.close()
    await drop_overdue(link)
    await link.close()
    assert site.one("SELECT to_regclass('{}.history_5d_20200101')") is None


@pytest.mark.parametrize("isolation", [None, psycopg.IsolationLevel.REPEATABLE_READ])
async def test_of_two_who_make_the_same_days_the_second_finds_them_made(site, isolation):
    make = f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-02')"
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = %s"
    site.conn.execute(f"INSERT INTO \"{site.schema}\".retention VALUES ('default', 'succeeded', 5)")
    with psycopg.connect(site.dsn) as first:
        (made,) = first.execute(make).fetchone()
        async with await psycopg.AsyncConnection.connect(site.dsn, autocommit=True) as second:
            await second.set_isolation_level(isolation)
            call = asyncio.create_task(second.execute(make))
            await eventually(lambda: site.conn.execute(waits, [second.info.backend_pid]).fetchone()[0])
            first.commit()
            (made_then,) = await (await call).fetchone()
    assert (made, made_then) == (8, 0)


async def test_a_day_that_cannot_be_dropped_keeps_no_other_one(site, upkeep):
    site.conn.execute(f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-03')")
    days = [name for (name,) in site.rows("SELECT name FROM {}.kept_days('0') WHERE over AND name ~ '^history'")]
    site.conn.execute(f'CREATE VIEW "{site.schema}".in_the_way AS SELECT id FROM "{site.schema}"."{days[0]}"')
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match=days[0]):
        await upkeep()
    assert len(days) == 3
    assert site.rows("SELECT name FROM {}.kept_days('0') WHERE over AND name ~ '^history'") == [(days[0],)]


async def test_what_is_in_the_way_of_one_duty_of_the_upkeep_is_in_the_way_of_no_other(site):
    site.conn.execute(f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-01')")
    site.rows(
        "INSERT INTO {}.unique_window (task, key, job, expires_at) VALUES ('t', 'k', 1, now() - interval '1 day') "
        "RETURNING key"
    )
    with psycopg.connect(site.dsn) as reader:
        reader.execute(f'SELECT count(*) FROM "{site.schema}".history')
        async with working(site.app(), QUICK):
            await eventually(lambda: site.one("SELECT count(*) FROM {}.unique_window") == 0)
        assert site.one("SELECT to_regclass('{}.history_20200101')") is not None


def test_the_first_turns_of_a_fleet_that_is_started_at_once_are_spread_over_some_seconds():
    begun = monotonic()
    turns = [Retention(Chancy(), Timing(), is_lent=False).due.at - begun for _ in range(200)]
    assert all(0 <= turn <= FIRST_SECONDS + monotonic() - begun for turn in turns)
    assert max(sum(second <= turn < second + 1 for turn in turns) for second in range(6)) < 100
    assert Retention(Chancy(), Timing(upkeep=0.0), is_lent=False).due.at <= monotonic()


# Results.


async def test_a_result_goes_before_its_job_does(site, chancy_clock, upkeep):
    keep(site, Keep(succeeded=days(30), results=days(1)))
    async with working(site.app(), QUICK):
        jobs = site.submit(tasks.add.bind(1, 2), tasks.note.bind("no result"))
        await all_finished(site)
    assert [job.result(site.conn) for job in jobs] == [3, None]
    assert [site.row(job).result for job in jobs] == [b"3", b"null"]
    assert [row.result for row in chancy.jobs(site.conn, schema=site.schema)] == [b"null", b"3"]
    assert site.rows("SELECT count(*), count(result) FROM {}.history") == [(2, 0)]
    chancy_clock.move(days(2))
    await upkeep()
    assert {(site.row(job).state, site.row(job).result) for job in jobs} == {(State.SUCCEEDED, None)}
    for job in jobs:
        with pytest.raises(ResultExpired, match=f"job {job.id} .*Keep\\(results=…\\)"):
            job.result(site.conn)
    assert "in attempt 1 of 3, and its result is not kept any more." in str(
        chancy_ops.why(site.conn, jobs[0].id, schema=site.schema)
    )
    assert chancy.requeue(site.conn, jobs[0].id, schema=site.schema)
    async with working(site.app(), QUICK):
        await all_finished(site)
    assert jobs[0].result(site.conn) == 3


async def test_results_may_not_be_kept_at_all(site):
    keep(site, Keep(results=days(0)))
    async with working(site.app(), QUICK):
        (job,) = site.submit(tasks.add.bind(1, 2))
        await all_finished(site)
    assert site.row(job).state is State.SUCCEEDED
    assert site.one("SELECT count(*) FROM {}.history_result") == 0
    with pytest.raises(ResultExpired):
        job.result(site.conn)


async def test_a_requeued_jobs_old_result_is_not_taken_for_its_new_one(site):
    keep(site, Keep(results=days(1)))
    (job,) = site.submit(tasks.add.bind(1, 2))
    worker = send(site.conn, register("w", 60), site.schema)
    send(site.conn, play_round(worker, [succeeded(claim(site, worker), b"1")], Wanted()), site.schema)
    assert chancy.requeue(site.conn, job.id, schema=site.schema)
    again = claim(site, worker)
    failed = Completion(again.id, again.fence, State.FAILED)
    send(site.conn, play_round(worker, [failed], Wanted()), site.schema)
    assert (site.row(job).state, site.row(job).result) == (State.FAILED, None)
    assert site.one("SELECT count(*) FROM {}.history_result") == 0


async def test_a_job_that_leaves_no_row_leaves_no_result(site):
    keep(site, Keep(succeeded=days(0)))
    site.conn.execute(f"INSERT INTO \"{site.schema}\".retention VALUES ('default', 'results', 3)")
    async with working(site.app(), QUICK):
        site.submit(tasks.add.bind(1, 2))
        await all_finished(site)
    assert site.one("SELECT count(*) FROM {}.history_result") == 0


async def test_who_has_dropped_days_or_could_not_keeps_nobody_else_from_it(site):
    """The lock of who drops is not kept for as long as its connection lives, which others use, too."""

    def make():
        site.conn.execute(f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-01')")

    def is_there():
        return site.one("SELECT to_regclass('{}.history_20200101')") is not None

    one, other = (Link(site.dsn, site.schema, "upkeep", deadline=20, lock_timeout="100ms") for _ in range(2))
    await one.connect()
    await other.connect()
    make()
    await drop_alone(one)
    assert not is_there()
    make()
    with psycopg.connect(site.dsn) as reader:
        reader.execute(f'SELECT count(*) FROM "{site.schema}".history')
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await drop_alone(other)
        assert is_there()
    await drop_alone(one)
    assert not is_there()
    await one.close()
    await other.close()
