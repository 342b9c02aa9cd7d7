"""One job's life in a worker, from claim to history, whatever its handler says."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
import uuid
from datetime import timedelta

import psycopg
import pytest
import worker_tasks as tasks
from worker_help import FAST, ONLY_WOKEN, Site, eventually, working

import chancy
from chancy import JobFailed, Queue, State
from chancy_worker import Timing, WorkerConfig
from chancy_worker.connection.link import Link


async def test_async_and_sync_tasks_run_and_give_their_typed_results(site, chancy_dsn):
    given = tasks.Point(1, {5, 6}, timedelta(seconds=2))
    one, two, three = site.submit(tasks.add.bind(1, 2), tasks.add_in_thread.bind(3, 4), tasks.point.bind(given))
    async with (
        working(site.app()),
        await psycopg.AsyncConnection.connect(chancy_dsn, autocommit=True) as conn,
    ):
        assert await one.result(conn, timeout=timedelta(seconds=10)) == 3
        assert await two.result(conn, timeout=timedelta(seconds=10)) == 7
        assert await three.result(conn, timeout=timedelta(seconds=10)) == tasks.Point(
            2, {0, 5, 6}, timedelta(seconds=4)
        )


async def test_a_finished_job_is_in_history_and_no_longer_live(site):
    (job,) = site.submit(tasks.add.bind(1, 2))
    async with working(site.app()):
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)
    assert site.rows("SELECT attempt, claims, result::text FROM {}.history") == [(1, 1, "3")]
    assert site.rows("SELECT id FROM {}.job") == []


async def test_a_failing_job_is_tried_again_until_it_succeeds(site):
    (job,) = site.submit(tasks.succeed_at.bind(3))
    async with working(site.app()):
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.attempt, row.result) == (State.SUCCEEDED, 3, b"3")
    assert [(error.attempt, error.message) for error in row.errors] == [
        (1, "not at attempt 1"),
        (2, "not at attempt 2"),
    ]


async def test_after_max_attempts_a_job_has_failed_and_keeps_the_error_of_each_attempt(site, chancy_dsn):
    (job,) = site.submit(tasks.succeed_at.using(max_attempts=3).bind(9))
    async with (
        working(site.app()),
        await psycopg.AsyncConnection.connect(chancy_dsn, autocommit=True) as conn,
    ):
        with pytest.raises(JobFailed, match="not at attempt 3") as caught:
            await job.result(conn, timeout=timedelta(seconds=10))
    row = site.row(job)
    assert (row.state, row.attempt, row.crashes) == (State.FAILED, 3, 0)
    assert [(error.attempt, error.kind) for error in row.errors] == [(n, "ValueError") for n in (1, 2, 3)]
    assert all("succeed_at" in error.traceback and "attempt.py" not in error.traceback for error in row.errors)
    assert "succeed_at" in str(caught.value)


async def test_the_backoff_of_a_submit_decides_when_the_next_attempt_is(site):
    slow = chancy.Backoff(base=timedelta(hours=1), factor=2, maximum=timedelta(days=1), jitter=0)
    (job,) = site.submit(tasks.succeed_at.using(retry=slow).bind(2))
    async with working(site.app()):
        row = await eventually(lambda: (row := site.row(job)).errors and row)
    assert (row.state, row.attempt) == (State.SCHEDULED, 1)
    assert timedelta(minutes=59) < row.run_at - row.started_at < timedelta(minutes=61)


async def test_retry_waits_as_long_as_it_says_and_counts(site):
    (job,) = site.submit(tasks.ask_for_retry.bind(250))
    async with working(site.app()):
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.attempt, row.result) == (State.SUCCEEDED, 2, b'"second"')
    assert [(error.kind, error.message, error.traceback) for error in row.errors] == [("Retry", "not yet", "")]
    assert row.started_at - row.submitted_at >= timedelta(milliseconds=250)


async def test_snooze_does_not_count_as_an_attempt(site):
    (job,) = site.submit(tasks.snooze.using(max_attempts=1).bind(4))
    async with working(site.app()):
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.attempt, row.result, row.errors) == (State.SUCCEEDED, 1, b"1", ())
    assert len(tasks.notes) == 5


async def test_discard_ends_a_job_whatever_attempts_are_left(site):
    (job,) = site.submit(tasks.discard.bind())
    async with working(site.app()):
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.attempt) == (State.DISCARDED, 1)
    assert [(error.kind, error.message) for error in row.errors] == [("Discard", "nobody needs it")]


async def test_larger_priorities_run_first_and_equals_in_the_order_of_their_submit(site):
    order = [0, -5, 10, 0, 100, -100, 10]
    site.submit(*(tasks.note.using(priority=p).bind(f"{p} {n}") for n, p in enumerate(order)))
    async with working(site.app(concurrency=1)):
        await eventually(lambda: len(tasks.notes) == len(order))
    assert tasks.notes == ["100 4", "10 2", "10 6", "0 0", "0 3", "-5 1", "-100 5"]


async def test_no_more_jobs_of_a_queue_run_at_a_time_than_it_allows(site):
    site.submit(*(tasks.pass_gate.bind("go") for _ in range(10)))
    (last,) = site.submit(tasks.note.using(priority=-1).bind("last"))
    async with working(site.app(concurrency=3)):
        await eventually(lambda: site.count("running") == 3)
        # The other queue's turn comes and goes while this one is full.
        async with working(site.app(queues=[Queue("other")])):
            (other,) = site.submit(tasks.note.using(queue="other").bind("other"))
            await eventually(lambda: site.row(other).finished_at)
        assert site.count("running") == 3
        tasks.gates["go"].set()
        await eventually(lambda: site.row(last).finished_at)


async def test_a_job_scheduled_in_300_ms_starts_within_50_ms_of_its_time(site):
    async with working(site.app(), WorkerConfig(timing=ONLY_WOKEN, grace=1)):
        (warm,) = site.submit(tasks.add.bind(1, 1))
        await eventually(lambda: site.row(warm).finished_at)
        late = []
        while len(late) < 3 or (len(late) < 30 and min(late) >= timedelta(milliseconds=50)):
            (job,) = site.submit(tasks.add.using(delay=timedelta(milliseconds=300)).bind(1, 2))
            row = await eventually(lambda job=job: (row := site.row(job)).finished_at and row)
            late.append(row.started_at - row.run_at)
    assert all(delay >= timedelta(0) for delay in late)
    # The best of some: other processes of the test machine may take the CPU away for longer than that.
    assert min(late) < timedelta(milliseconds=50), late


async def test_an_idle_worker_hears_of_a_commit_at_once(site):
    async with working(site.app(), WorkerConfig(timing=ONLY_WOKEN, grace=1)):
        took = []
        for _ in range(21):
            (job,) = site.submit(tasks.add.bind(1, 2))
            row = await eventually(lambda job=job: (row := site.row(job)).finished_at and row)
            took.append((row.started_at - row.submitted_at).total_seconds())
    # Promised are 3 ms, which a benchmark measures; here CPUs are shared with the rest of the tests. So a quarter counts.
    assert statistics.quantiles(took, n=4)[0] < 0.03, took


@pytest.mark.parametrize("workers", [1, 4])
async def test_an_idle_worker_asks_the_database_little_more_than_once_in_a_second(site, monkeypatch, workers):
    asked = 0
    send = Link.send

    async def counted(link, statement):
        nonlocal asked
        asked += 1
        return await send(link, statement)

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(working(site.app(), WorkerConfig(grace=1, timing=Timing(lease=6))))
        await asyncio.sleep(6.5)  # until they look for the dead, too
        monkeypatch.setattr(Link, "send", counted)
        began = time.monotonic()
        await asyncio.sleep(8)
        seconds = time.monotonic() - began
    # One holds the key, the others wait in line for it.
    assert asked <= seconds * (1 + 2 * (workers - 1)) + 2, asked


async def test_current_job_is_the_attempt_that_asks(site):
    job, in_thread = site.submit(tasks.about_me.using(max_attempts=7).bind(), tasks.about_me_in_thread.bind())
    async with working(site.app()):
        await eventually(lambda: site.count("succeeded") == 2)
    assert site.row(job).result == f'[{job.id},"worker_tasks.about_me","default",1,7,false]'.encode()
    assert site.row(in_thread).result == str(in_thread.id).encode()


async def test_what_a_handler_submits_lands_in_the_schema_of_its_worker(site, chancy_dsn, tmp_path):
    other = Site(chancy_dsn, f"o{uuid.uuid4().hex[:10]}", tmp_path)
    chancy.migrate(other.conn, schema=other.schema)
    try:
        async with working(site.app()), working(other.app()):
            site.submit(tasks.submit_a_note.bind("here"))
            other.submit(tasks.submit_a_note.bind("there"))
            await eventually(lambda: sorted(tasks.notes) == ["here", "there"])
            for each, what in ((site, "here"), (other, "there")):
                await eventually(lambda each=each: each.count("succeeded") == 2)
                assert each.rows("SELECT arguments::text LIKE %s FROM {}.history WHERE task = %s", f"%{what}%",
                                 tasks.note.name) == [(True,)]  # fmt: skip
    finally:
        other.conn.execute(f"DROP SCHEMA {other.schema} CASCADE")
        other.close()


async def test_middleware_surrounds_each_attempt_the_first_one_outermost(site):
    def named(name):
        async def middleware(job, proceed):
            tasks.notes.append(f"{name} in {job.attempt}")
            completion = await proceed()
            tasks.notes.append(f"{name} out {completion.state}")
            return completion

        return middleware

    site.submit(tasks.note.bind("job"))
    async with working(site.app(middleware=[named("a"), named("b")])):
        await eventually(lambda: site.count("succeeded") == 1)
    assert tasks.notes == ["a in 1", "b in 1", "job", "b out succeeded", "a out succeeded"]


async def test_a_middleware_that_raises_fails_the_attempt_and_not_the_worker(site):
    async def broken(job, proceed):
        await proceed()
        raise ZeroDivisionError("of the middleware")

    (job,) = site.submit(tasks.note.using(max_attempts=1).bind("job"))
    async with working(site.app(middleware=[broken])):
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.errors[0].kind) == (State.FAILED, "ZeroDivisionError")


async def test_lifespan_is_entered_before_the_first_job_and_left_after_the_last(site):
    @contextlib.asynccontextmanager
    async def lifespan():
        tasks.notes.append("entered")
        yield
        tasks.notes.append("left")

    site.submit(tasks.note.bind("job"))
    async with working(site.app(lifespan=lifespan)):
        await eventually(lambda: "job" in tasks.notes)
    assert tasks.notes == ["entered", "job", "left"]


async def test_an_unknown_task_burns_no_attempt_stops_nobody_and_is_named_in_one_warning(site, caplog):
    unknown = [site.one("SELECT {}.submit('nobody.knows', priority => 9)") for _ in range(3)]
    async with working(site.app()):
        for _ in range(3):
            jobs = site.submit(*(tasks.add.bind(1, n) for n in range(5)))
            await eventually(lambda jobs=jobs: all(site.row(job).state is State.SUCCEEDED for job in jobs))
    assert [(site.row(id_).state, site.row(id_).attempt) for id_ in unknown] == [(State.READY, 0)] * 3
    warnings = [r.getMessage() for r in caplog.records if "nobody.knows" in r.getMessage() and r.levelname == "WARNING"]
    assert len(warnings) == 1


async def test_stopping_lets_running_jobs_finish_and_claims_no_more(site, caplog):
    caplog.set_level("INFO", "chancy.worker")
    (job,) = site.submit(tasks.pass_gate.bind("go"))
    async with working(site.app(), WorkerConfig(timing=FAST, grace=20)) as worker:
        await eventually(lambda: site.count("running") == 1)
        worker.stop()
        await eventually(lambda: "stopping: 1 jobs" in caplog.text)
        (late,) = site.submit(tasks.add.bind(1, 2))
        tasks.gates["go"].set()
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)
        await eventually(lambda: site.workers() == {})
        assert (site.row(late).state, site.row(late).attempt) == (State.READY, 0)
