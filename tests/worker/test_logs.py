"""What jobs log is kept with them, and what they say of their progress is seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import threading
import time
from datetime import datetime, timedelta
from itertools import pairwise

import log_tasks as tasks
import psycopg
import pytest
import worker_tasks
from _pytest.logging import LogCaptureHandler
from worker_help import FAST, Site, all_finished, eventually, kept_up, worker_with, working

import chancy
from chancy import CurrentJob, State
from chancy.current import running_attempt
from chancy_testing.server.postgres import Postgres
from chancy_worker import WorkerConfig, engine
from chancy_worker.attempts import logs as records
from chancy_worker.attempts.logs import MOST_BYTES, MOST_RECORDS, Keeper
from chancy_worker.attempts.verdict import Claimed
from chancy_worker.logs.format import JsonFormatter
from chancy_worker.parts import reports

PLACES = ["on_loop", "in_thread", "in_process"]


@pytest.fixture
def uncaptured(request):
    """It could not send a lone surrogate from one of its processes to the other."""
    plugin = request.config.pluginmanager.get_plugin("logging-plugin")
    handlers = plugin.caplog_handler, plugin.report_handler
    for handler in handlers:
        handler.addFilter(_nothing)
    yield
    for handler in handlers:
        handler.removeFilter(_nothing)


def _nothing(record):
    return False


@pytest.fixture(autouse=True)
def _levels(caplog):
    """As `chancy-worker` sets them."""
    caplog.set_level(logging.INFO)


def logs(site, job, **more):
    return chancy.logs(site.conn, job.id, schema=site.schema, **more)


def messages(site, job):
    return [entry.message for entry in logs(site, job)]


async def kept(site, *jobs):
    """Their messages, as soon as those of one that came after them are there."""
    await all_finished(site)
    (last,) = site.submit(tasks.speak_on_loop.bind(1))
    await eventually(lambda: messages(site, last))
    return [messages(site, job) for job in jobs]


async def test_the_records_of_a_hundred_jobs_at_once_are_found_with_their_own_in_order(site):
    places = [tasks.speak_on_loop, tasks.speak_in_thread, tasks.speak_in_process, tasks.speak_async_in_process]
    async with working(site.app()):
        jobs = site.submit(*[place.bind(20) for _ in range(25) for place in places])
        await all_finished(site)
    for job in jobs:
        entries = logs(site, job)
        assert [entry.message for entry in entries] == [f"job {job.id} says {n}" for n in range(20)]
        assert {(entry.attempt, entry.level, entry.logger, entry.traceback) for entry in entries} == {
            (1, "INFO", "app.logs", "")
        }
        first = entries[0].n  # above 1,000 for one that was claimed, found no room, and was given back
        assert [entry.n for entry in entries] == list(range(first, first + 20))
        row = site.row(job)
        slack = timedelta(milliseconds=500)
        assert all(row.started_at - slack < entry.at < row.finished_at + slack for entry in entries)
        assert entries[0].at.utcoffset() == timedelta(0)


async def test_records_are_there_a_second_later_while_the_job_runs(site):
    async with working(site.app()):
        (job,) = site.submit(tasks.speak_at_gate.bind("running", 3, 1))
        await eventually(lambda: len(messages(site, job)) == 3)
        assert site.row(job).state is State.RUNNING
        tasks.gates["running"].set()
        await eventually(lambda: len(messages(site, job)) == 4)


async def test_pages_follow_each_other(site):
    async with working(site.app()):
        (job,) = site.submit(tasks.speak_in_thread.bind(25))
        await all_finished(site)
    every, paged, after = logs(site, job), [], None
    while page := logs(site, job, after=after, limit=10):
        paged += page
        after = page[-1].attempt, page[-1].n
    assert paged == every
    assert len(every) == 25
    assert logs(site, job, limit=0) == []
    with pytest.raises(ValueError, match="limit"):
        logs(site, job, limit=-1)
    async with await psycopg.AsyncConnection.connect(site.dsn) as conn:
        assert await chancy.logs(conn, job.id, schema=site.schema) == every
        assert await chancy.logs(conn, job.id + 1, schema=site.schema) == []


@pytest.mark.parametrize("place", [tasks.speak_through_others_on_loop, tasks.speak_through_others_in_process])
async def test_tasks_and_threads_that_copy_the_context_speak_for_the_job(site, place):
    async with working(site.app()):
        (job,) = site.submit(place.bind())
        assert await kept(site, job) == [["itself", "its thread"]]


async def test_each_attempt_has_its_own_records(site):
    async with working(site.app()):
        (job,) = site.submit(tasks.speak_and_fail.bind())
        await kept(site, job)
    entries = logs(site, job)
    assert [(entry.attempt, entry.n, entry.message) for entry in entries] == [
        (attempt, n, message) for attempt in (1, 2, 3) for n, message in [(1, f"attempt {attempt}"), (2, "it failed")]
    ]
    assert "ValueError: not yet" in entries[1].traceback
    assert entries[1].level == "ERROR"


async def test_claims_that_do_not_count_follow_each_other_in_the_records_of_their_attempt(site):
    async with working(site.app()):
        (job,) = site.submit(tasks.speak_and_snooze.bind())
        assert await kept(site, job) == [["claim 1", "claim 2", "claim 3"]]
    assert {entry.attempt for entry in logs(site, job)} == {1}


@pytest.mark.parametrize("place", [tasks.speak_strangely_in_thread, tasks.speak_strangely_in_process])
async def test_untrusted_text_is_kept_as_far_as_it_can_be(site, uncaptured, place, monkeypatch):
    monkeypatch.setattr(LogCaptureHandler, "handleError", logging.NullHandler.handle)  # pytest's own would raise
    async with working(site.app()):
        (job,) = site.submit(place.bind())
        await all_finished(site)
    nul, surrogate, long, *broken, error = logs(site, job)
    assert (nul.message, surrogate.message) == ("a\x00b", "a\\ud800b")
    assert len(long.message) <= 4096
    assert "cut" in long.message
    assert [entry.message for entry in broken] == [
        f"its message could not be read: {kind}" for kind in ("RuntimeError", "RuntimeError", "TypeError")
    ]
    assert len(error.traceback.encode()) <= 16 * 1024
    assert "a\\ud800b\x00xxx" in error.traceback
    assert site.row(job).state is State.SUCCEEDED


@pytest.mark.parametrize("place", [tasks.speak_too_much, tasks.speak_too_much_in_process])
async def test_who_logs_too_much_keeps_the_beginning_and_is_told_how_much_is_lost(site, place):
    async with working(site.app()):
        jobs = site.submit(place.bind(3_000), place.bind(1_000))
        await all_finished(site)
    entries, enough = (logs(site, job, limit=10_000) for job in jobs)
    assert [entry.message for entry in entries[:-1]] == [f"job {jobs[0].id} says {n}" for n in range(MOST_RECORDS)]
    assert entries[-1].message.startswith("2,000 more records were not kept: ")
    assert (entries[-1].level, entries[-1].n) == ("WARNING", MOST_RECORDS + 1)
    assert len(enough) == 1_000


async def test_an_attempt_keeps_256_kilobytes(site):
    async with working(site.app()):
        (job,) = site.submit(tasks.speak_large.bind(200))
        await all_finished(site)
    *entries, last = logs(site, job)
    assert 80 * 3_000 < sum(len(entry.message) for entry in entries) <= MOST_BYTES
    assert last.message.startswith(f"{200 - len(entries)} more records")


async def test_what_a_thread_says_after_its_attempt_is_over_is_not_kept(site):
    keeper = Keeper()
    book = keeper.open(Claimed(1, "t", "q", 1, 3, 1, 0, b"{}", None, None, None))
    book.add(logging.makeLogRecord({"msg": "in time"}))
    book.close()
    book.add(logging.makeLogRecord({"msg": "late"}))
    assert [json.loads(each.entry)["message"] for each in keeper.take()] == ["in time"]


async def test_a_stop_of_the_worker_writes_what_is_left_first(site, monkeypatch):
    monkeypatch.setattr(reports, "EVERY_SECONDS", 60)
    async with working(site.app()):
        jobs = site.submit(*[tasks.speak_on_loop.bind(30) for _ in range(100)])
        await all_finished(site)
        assert not any(messages(site, job) for job in jobs)
    assert [len(messages(site, job)) for job in jobs] == [30] * 100


async def test_a_worker_process_that_is_killed_loses_a_second_at_most(site, tmp_path):
    place = ["--dsn", site.dsn, "--schema", site.schema, "--queue", "default"]
    worker = site.work("log_tasks", *place, "--log-format", "json")
    (job,) = site.submit(tasks.speak_until.bind(str(tmp_path / "gate")))
    await eventually(lambda: len(messages(site, job)) > 100, 20)
    worker.signal(signal.SIGKILL)
    worker.popen.wait()
    # By the worker's own log: when it was killed is known to nobody on a busy machine.
    said = [json.loads(line) for line in worker.text.splitlines()]
    (*_, last) = [datetime.fromisoformat(entry["at"]) for entry in said if entry["logger"] == "app.logs"]
    assert last - logs(site, job)[-1].at < timedelta(seconds=reports.EVERY_SECONDS + 1)


@pytest.mark.long
async def test_while_the_database_is_away_nothing_is_raised_at_handlers_and_later_it_is_all_there(tmp_path, caplog):
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        try:
            async with working(site.app()) as worker:
                jobs = site.submit(*[tasks.speak_at_gate.bind("away", 5, 100) for _ in range(20)])
                await eventually(lambda: all(len(messages(site, job)) == 5 for job in jobs))
                server.stop(immediate=True)
                tasks.gates["away"].set()
                (part,) = [part for part in worker._engine.parts if isinstance(part, reports.Reports)]
                await eventually(lambda: part.due.recovery.lasts)
                server.start()
                site.conn = psycopg.connect(server.dsn, autocommit=True)
                await all_finished(site)
                await eventually(lambda: all(len(messages(site, job)) == 105 for job in jobs))
                (again,) = site.submit(tasks.speak_on_loop.bind(3))
                assert await kept(site, again) == [[f"job {again.id} says {n}" for n in range(3)]]
        finally:
            site.close()
    assert "ended in an error" not in caplog.text


async def test_what_waits_for_a_slow_database_is_bounded_and_the_job_is_told_what_it_has_lost(site, monkeypatch):
    monkeypatch.setattr(records, "MOST_WAITING_BYTES", 10_000)
    monkeypatch.setattr(reports, "EVERY_SECONDS", 60)
    async with working(site.app()):
        (job,) = site.submit(tasks.speak_in_thread.bind(500))
        await all_finished(site)
    *entries, last = logs(site, job)
    assert 20 < len(entries) < 40
    assert last.message.startswith(f"{500 - len(entries)} more records were not kept")


async def test_a_record_that_the_database_refuses_is_lost_alone(site, caplog):
    async with working(site.app()):
        site.conn.execute(f"ALTER TABLE \"{site.schema}\".log ADD CHECK (entry::text NOT LIKE '%%says 3%%')")
        (bad,) = site.submit(tasks.speak_on_loop.bind(5))
        await all_finished(site)
        await eventually(lambda: f"a log record of job {bad.id} is lost" in caplog.text)
        (good,) = site.submit(tasks.speak_on_loop.bind(3))
        assert len((await kept(site, good))[0]) == 3
    assert messages(site, bad) == [f"job {bad.id} says {n}" for n in (0, 1, 2, 4)]


async def test_a_batch_that_is_sent_twice_is_read_once(site):
    keeper = Keeper()
    book = keeper.open(Claimed(1, "t", "q", 1, 3, 1, 0, b"{}", None, None, None))
    for number in range(3):
        book.add(logging.makeLogRecord({"msg": f"{number}"}))
    batch = keeper.take()
    keeper.put_back(batch)
    assert keeper.take() == batch
    for _ in range(2):
        chancy.run.send(site.conn, records.write_logs(batch), site.schema)
    assert site.one("SELECT count(*) FROM {}.log") == 6
    assert [entry.message for entry in chancy.logs(site.conn, 1, schema=site.schema)] == ["0", "1", "2"]


def reporting(site):
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chancy parts' AND backend_start >= %s"
    return site.one(count, site.since)


async def nothing_is_reported(site, worker, seconds):
    """What the worker does at its start is over, and after that nobody opens the connection that the parts share."""
    await kept_up(worker)
    await eventually(lambda: reporting(site) == 0)
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        assert reporting(site) == 0
        await asyncio.sleep(0.02)


async def test_where_no_task_keeps_logs_no_handler_is_installed_and_nothing_is_asked(site, monkeypatch):
    monkeypatch.setattr(engine, "IDLE_SECONDS", 0.3)
    before = list(logging.getLogger().handlers)
    worker = worker_with(site.app(), WorkerConfig(timing=FAST, grace=1))
    worker._tasks = {name: task for name, task in worker._tasks.items() if not task.keep_logs}
    run = asyncio.create_task(worker.start())
    jobs = site.submit(tasks.speak_unkept.bind(3), tasks.speak_unkept_in_process.bind(3), worker_tasks.add.bind(1, 2))
    await all_finished(site)
    assert logging.getLogger().handlers == before
    await nothing_is_reported(site, worker, reports.EVERY_SECONDS + 0.2)  # its beat
    worker.stop()
    await run
    assert site.one("SELECT count(*) FROM {}.log") == 0
    assert {site.row(job).state for job in jobs} == {State.SUCCEEDED}


async def test_a_lifespan_that_configures_logging_anew_takes_nothing_away(site):
    root = logging.getLogger()
    before = root.handlers[:]

    @contextlib.asynccontextmanager
    async def configure():
        root.handlers[:] = [logging.NullHandler()]
        yield

    try:
        async with working(site.app(lifespan=configure)):
            (job,) = site.submit(tasks.speak_on_loop.bind(3))
            assert len((await kept(site, job))[0]) == 3
    finally:
        root.handlers[:] = before


async def test_a_module_of_tasks_that_configures_logging_takes_nothing_away(site):
    worker = site.work("configured_tasks", "--dsn", site.dsn, "--schema", site.schema)
    await eventually(lambda: site.workers(), 30)
    said = {"says_on_the_loop": "on the loop", "says_in_a_thread": "in a thread", "says_in_a_child": "in a child"}
    ids = [site.one("SELECT {}.submit(%s)", f"configured_tasks.{name}") for name in said]
    await all_finished(site)
    await eventually(lambda: site.one("SELECT count(*) FROM {}.log") == 3)
    assert [entry.message for id_ in ids for entry in chancy.logs(site.conn, id_, schema=site.schema)] == [
        *said.values()
    ]
    await eventually(lambda: all(f"own {text}" in worker.text for text in said.values()))
    assert all(f"job {id_} configured_tasks." in worker.text for id_ in ids)


async def test_beside_tasks_that_keep_their_logs_others_do_not(site, monkeypatch):
    monkeypatch.setattr(engine, "IDLE_SECONDS", 0.3)
    before = list(logging.getLogger().handlers)
    async with working(site.app()) as worker:
        await eventually(lambda: len(logging.getLogger().handlers) == len(before) + 1)
        jobs = site.submit(tasks.speak_unkept.bind(3), tasks.speak_unkept_in_process.bind(3))
        await all_finished(site)
        await nothing_is_reported(site, worker, 0.2)
    assert logging.getLogger().handlers == before
    assert [messages(site, job) for job in jobs] == [[], []]


async def test_the_traceback_of_a_child_is_logged_by_its_worker(site, caplog):
    async with working(site.app()):
        site.submit(tasks.speak_strangely_in_process.bind())
        await all_finished(site)
    (record,) = [record for record in caplog.records if record.getMessage() == "an error"]
    assert "speak_strangely" in logging.Formatter().format(record)
    assert "speak_strangely" in json.loads(JsonFormatter().format(record))["traceback"]


async def test_an_async_function_in_a_child_knows_its_job(site):
    async with working(site.app()):
        jobs = site.submit(*[tasks.who_async_in_process.bind() for _ in range(3)])
        await all_finished(site)
    assert [site.row(job).result for job in jobs] == [str(job.id).encode() for job in jobs]


@pytest.mark.long
@pytest.mark.parametrize("place", [tasks.tell_on_loop, tasks.tell_in_thread, tasks.tell_in_process])
async def test_progress_said_in_a_tight_loop_is_written_once_a_second_and_seen(site, tmp_path, monkeypatch, place):
    gate, written = tmp_path / "gate", []

    def write_down(told, original=reports.write_down):
        written.append((time.monotonic(), len(told)))
        return original(told)

    monkeypatch.setattr(reports, "write_down", write_down)
    async with working(site.app()) as worker:
        (job,) = site.submit(place.bind(str(gate)))
        await eventually(lambda: site.row(job).progress)
        seen = site.row(job).progress
        await eventually(lambda: site.row(job).progress != seen)
        await eventually(lambda: len(written) >= 3)
        assert len(worker._engine.slots.progress) <= 1
        gate.touch()
        await all_finished(site)
    assert {number for _, number in written} == {1}
    assert min(later - at for (at, _), (later, _) in pairwise(written)) > 0.99
    assert int(site.row(job).result) > 1_000


async def test_a_wrong_word_about_itself_is_refused_in_words_wherever_a_job_runs(site):
    conn = (
        "the first argument is your connection: expected one of psycopg, SQLAlchemy, Django, asyncpg or psycopg2, got"
    )
    async with working(site.app()):
        jobs = site.submit(*[getattr(tasks, f"say_wrongly_{where}").bind() for where in PLACES])
        await all_finished(site)
    for job in jobs:
        assert job.result(site.conn) == [
            "InvalidOption: fraction: expected a fraction from 0 to 1, got 'x'",
            "InvalidOption: fraction: expected a fraction from 0 to 1, got None",
            "InvalidOption: fraction: expected a fraction from 0 to 1, got 2",
            "InvalidOption: fraction: expected a fraction from 0 to 1, got nan",
            "InvalidOption: note: expected a text, got None",
            "InvalidOption: note: expected a text, got 5",
            f"InvalidConnection: {conn} NoneType: give the connection before everything else",
            f"InvalidConnection: {conn} str: connect with it first",
        ]


async def test_a_note_that_no_text_can_be_is_seen_as_far_as_it_can_be(site, tmp_path):
    gate = tmp_path / "gate"
    async with working(site.app()):
        (job,) = site.submit(tasks.tell_strangely.bind(str(gate)))
        await eventually(lambda: site.row(job).progress)
        assert site.row(job).progress == chancy.Progress(1.0, "a\x00b\\ud800" + 496 * "z")
        gate.touch()
        await all_finished(site)


async def test_progress_that_could_not_be_written_is_written_when_the_database_is_back(site, tmp_path, caplog):
    gate = tmp_path / "gate"
    async with working(site.app()):
        (job,) = site.submit(tasks.tell_strangely.bind(str(gate)))
        site.conn.execute(f'ALTER TABLE "{site.schema}".job ADD CONSTRAINT mute CHECK (progress IS NULL)')
        await eventually(lambda: "is kept for now: new row" in caplog.text)
        site.conn.execute(f'ALTER TABLE "{site.schema}".job DROP CONSTRAINT mute')
        await eventually(lambda: site.row(job).progress)
        gate.touch()
        await all_finished(site)


def test_a_message_that_takes_long_to_read_holds_up_no_other_thread():
    keeper, gate = Keeper(), threading.Event()

    class Slow:
        def __str__(self) -> str:
            gate.wait(10)
            return "slow"

    with records.listening(keeper):
        books = [keeper.open(Claimed(n, "t", "q", 1, 3, 1, 0, b"{}", None, None, None)) for n in (1, 2)]

        def speak(book, what):
            running_attempt.set(CurrentJob(1, "t", "q", 1, 3, book=book))
            keeper.handle(logging.makeLogRecord({"msg": what}))

        slow = threading.Thread(target=speak, args=[books[0], Slow()])
        slow.start()
        fast = threading.Thread(target=speak, args=[books[1], "fast"])
        fast.start()
        fast.join(5)
        assert keeper.waiting == 1
        books[0].close()
        gate.set()
        slow.join()
    assert [each.job for each in keeper.take()] == [2]
