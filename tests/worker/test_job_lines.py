"""One line a job in the log: the same words whoever listens, each there, once, in order."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import signal
import threading
from collections import Counter, defaultdict
from datetime import timedelta

import pytest
import said_tasks
from worker_help import eventually

from chancy import State
from chancy_worker.attempts.verdict import Claimed, Completion, failure, released, since_now, succeeded
from chancy_worker.logs import job_lines, setting
from chancy_worker.logs.format import JsonFormatter, PlainFormatter
from chancy_worker.logs.handler import WHOLE_IN_A_PIPE, Lines, only_listener
from chancy_worker.logs.job_lines import JobLines, job_log

pytestmark = pytest.mark.any_postgres

SITE = ["--dsn", "{dsn}", "--schema", "{schema}", "--queue", "said"]
JOB = Claimed(7, "shop.send", "mail", 2, 3, 2, 0, b"{}", None, None, None)


def verdicts():
    since = since_now("w:1")
    return [
        succeeded(JOB, b"null"),
        released(JOB, "its worker\nstops"),
        Completion(7, 2, State.READY, refund=True, delay=timedelta(seconds=5), note="snoozed for 0:00:05"),
        Completion(7, 2, State.CANCELLED, note="cancelled while it ran"),
        failure(JOB, State.READY, ValueError("a \0 and\n more " + "x" * 1_000), since),
        failure(JOB, State.DISCARDED, ValueError("never"), since),
    ]


@contextlib.contextmanager
def ours(formatter=PlainFormatter):
    """Logging as `chancy-worker` has it, writing in here: within a test, since pytest adds handlers of its own."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level, handler = root.handlers[:], root.level, Lines(stream)
    handler.setFormatter(formatter())
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def lines_of(stream):
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("formatter", [PlainFormatter, JsonFormatter])
async def test_a_line_without_a_record_has_the_words_of_one_with_a_record(formatter):
    def told():
        mine = JobLines()
        with ours(formatter) as stream:
            for verdict in verdicts():
                mine.tell(JOB, verdict, 1.25)
            mine.flush()
        return lines_of(stream)

    formed = told()
    job_log.addFilter(bool)  # from here on with records
    try:
        recorded = told()
    finally:
        job_log.removeFilter(bool)
    instant = re.compile(r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}|"at":"[^"]+"')
    assert all(instant.search(line) for line in formed + recorded)
    assert [instant.sub("", line) for line in formed] == [instant.sub("", line) for line in recorded]
    assert len(formed) == len(verdicts())


class Elsewhere(logging.Logger):
    def callHandlers(self, record):  # noqa: N802
        super().callHandlers(record)


def with_own_factory(monkeypatch):
    factory = logging.getLogRecordFactory()
    monkeypatch.setattr(logging, "_logRecordFactory", lambda *args, **more: factory(*args, **more))


INTRUSIONS = {
    "a handler at the root": lambda patch: patch.setattr(
        logging.getLogger(), "handlers", [*logging.getLogger().handlers, logging.NullHandler()]
    ),
    "a handler of the logger": lambda patch: patch.setattr(job_log, "handlers", [logging.NullHandler()]),
    "a handler of its parent": lambda patch: patch.setattr(
        logging.getLogger("chancy"), "handlers", [logging.NullHandler()]
    ),
    "a filter of the logger": lambda patch: patch.setattr(job_log, "filters", [bool]),
    "a filter of our handler": lambda patch: patch.setattr(logging.getLogger().handlers[0], "filters", [bool]),
    "a level of our handler": lambda patch: patch.setattr(logging.getLogger().handlers[0], "level", logging.INFO),
    "a formatter of our handler": lambda patch: patch.setattr(
        logging.getLogger().handlers[0], "formatter", logging.Formatter()
    ),
    "a factory of records": with_own_factory,
    "an error reporter": lambda patch: patch.setattr(logging.Logger, "callHandlers", Elsewhere.callHandlers),
}


@pytest.mark.parametrize("intrusion", INTRUSIONS)
def test_whoever_listens_gets_records(monkeypatch, intrusion):
    with ours():
        assert only_listener(job_log) is not None
        with monkeypatch.context() as patch:
            INTRUSIONS[intrusion](patch)
            assert only_listener(job_log) is None
        assert only_listener(job_log) is not None


async def test_who_begins_to_listen_gets_what_is_told_from_the_next_round_on():
    mine, heard = JobLines(), []
    own = logging.Handler()
    own.emit = lambda record: heard.append(record.getMessage())
    with ours() as stream:
        mine.tell(JOB, succeeded(JOB, b"1"), 0.0)
        logging.getLogger().addHandler(own)
        mine.flush()
        mine.tell(JOB, succeeded(JOB, b"2"), 0.0)
    assert len(heard) == 1
    assert len(lines_of(stream)) == 2


async def test_a_record_comes_behind_the_lines_that_were_told_before_it():
    mine = JobLines()
    with ours() as stream:
        mine.tell(JOB, succeeded(JOB, b"1"), 0.0)
        logging.getLogger("vendor").warning("later")
        mine.tell(JOB, failure(JOB, State.FAILED, ValueError("at last"), since_now("w:1")), 0.0)
    assert [re.sub(r"^.{23} ", "", line) for line in lines_of(stream)][:3] == [
        "INFO    chancy.job: job 7 shop.send succeeded attempt 2/3 0.000s",
        "WARNING vendor: later",
        "ERROR   chancy.job: job 7 shop.send failed attempt 2/3 0.000s ValueError: at last",
    ]


async def test_where_no_round_goes_out_a_line_is_there_a_moment_later(monkeypatch):
    monkeypatch.setattr(job_lines, "LATE_SECONDS", 0.01)
    mine = JobLines()
    with ours() as stream:
        for number in range(1, 4):
            mine.tell(JOB, succeeded(JOB, b"1"), 0.0)
            await eventually(lambda number=number: len(lines_of(stream)) == number)


def test_several_processes_share_a_pipe_so_each_write_is_of_whole_lines_and_goes_into_it_whole():
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb"), os.fdopen(writes, "w") as pipe:
        handler = Lines(pipe)
        told = [f"{n} " + "é" * (n % 300) + "\n" for n in range(1_000)]
        for line in told:
            handler.add(line)
        parts = [*handler._parts()]
    assert "".join(parts) == "".join(told)
    assert max(len(part.encode()) for part in parts) <= WHOLE_IN_A_PIPE
    assert all(part.endswith("\n") for part in parts)
    assert len(parts) < 110


def test_a_process_that_a_job_has_forked_does_not_write_the_lines_of_its_parent(tmp_path):
    file = tmp_path / "log"
    with file.open("w") as stream:
        handler = Lines(stream)
        handler.add("of the parent\n")
        if (pid := os.fork()) == 0:
            handler.add("of the fork\n")
            handler.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        handler.flush()
    assert file.read_text() == "of the parent\n"


def test_a_message_that_takes_long_to_read_holds_up_no_line():
    class Slow:
        def __str__(self):
            reading.set()
            gate.wait(10)
            return "slow"

    reading, gate, stream = threading.Event(), threading.Event(), io.StringIO()
    handler = Lines(stream)
    thread = threading.Thread(target=handler.handle, args=[logging.makeLogRecord({"msg": Slow()})])
    thread.start()
    assert reading.wait(10)
    handler.add("a line\n")
    handler.flush()
    assert stream.getvalue() == "a line\n"
    gate.set()
    thread.join()
    assert stream.getvalue() == "a line\nslow\n"


def test_nothing_is_raised_where_nothing_can_be_written(tmp_path):
    stream = (tmp_path / "log").open("w")
    handler = Lines(stream)
    handler.setFormatter(PlainFormatter())
    handler.add("a line\n")
    stream.close()
    handler.flush()
    handler.handle(logging.makeLogRecord({"msg": "a record"}))
    handler.flush()


@pytest.fixture
def run(site):
    def run(module, *more):
        told = [word.format(dsn=site.dsn, schema=site.schema) for word in SITE]
        return site.work(module, *told, *more)

    return run


PLAIN = re.compile(r"^\S+ \S+ INFO +vendor\.http \[job (\d+), said_tasks\.say_once, attempt 1, queue said\]: says")
OWN = re.compile(r"^own\|INFO\|vendor\.http\|(\d+)\|said_tasks\.say_once\|1\|said\|says")
ENDED = re.compile(r"job (\d+) said_tasks\.say_once succeeded attempt 1/3")


def said_and_ended(text, form):
    """The ids of who has said something, and of who has ended, in their order."""
    for line in text.splitlines():
        if form == "json":
            entry = json.loads(line)
            # One that was claimed ahead, and waited too long on a busy machine, has a line of its way back, too.
            if entry.get("task") == "said_tasks.say_once" and entry.get("state") != "released":
                yield ("ended" if entry["logger"] == "chancy.job" else "said"), entry["job"]
        elif found := (OWN if form == "own" else PLAIN).match(line):
            yield "said", int(found[1])
        elif found := ENDED.search(line):
            yield "ended", int(found[1])


@pytest.mark.parametrize("form", ["plain", "json", "own"])
async def test_every_line_of_many_jobs_is_there_once_and_in_order_within_its_job(site, run, form):
    jobs = site.submit(*[said_tasks.say_once.bind(n) for n in range(3_000)])
    worker = run("overheard_tasks") if form == "own" else run("said_tasks", "--log-format", form)
    await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0, 60)
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.code == 0)
    events = defaultdict(list)
    for what, id_ in said_and_ended(worker.text, form):
        events[id_].append(what)
    assert Counter(map(tuple, events.values())) == {("said", "ended"): len(jobs)}
    assert set(events) == {job.id for job in jobs}


async def test_a_worker_that_is_killed_has_told_of_every_job_whose_end_is_in_the_database(site, run):
    jobs = [said_tasks.say_once.bind(n) for n in range(5_000)]
    site.submit(*jobs[:1_000], said_tasks.kill_my_worker_soon.bind(), *jobs[1_000:])
    worker = run("said_tasks")
    await eventually(lambda: worker.code == -signal.SIGKILL, 30)
    finished = {id_ for (id_,) in site.rows("SELECT id FROM {}.history WHERE task = %s", said_tasks.say_once.name)}
    assert len(finished) > 500
    assert site.one("SELECT count(*) FROM {}.job") > 0
    told = {int(found[1]) for line in worker.text.splitlines() if (found := ENDED.search(line))}
    assert finished <= told
    assert len(told - finished) <= 1_000  # of the round that was on its way, and of the next


async def test_a_switch_leaves_away_the_lines_of_jobs_that_go_well(site, run):
    site.submit(said_tasks.say_once.bind(1), said_tasks.fail_on_loop.bind(1))
    worker = run("said_tasks", "--no-job-lines")
    await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0, 30)
    await eventually(lambda: "failed attempt 2/2" in worker.text)
    assert "retried attempt 1/2" in worker.text
    assert "says 1" in worker.text
    assert "succeeded" not in worker.text


async def test_the_level_is_that_of_all_that_is_logged(site, run):
    site.submit(said_tasks.say_once.bind(1), said_tasks.fail_on_loop.bind(1))
    worker = run("said_tasks", "--log-level", "error")
    await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0, 30)
    await eventually(lambda: "failed attempt 2/2" in worker.text)
    assert worker.text.splitlines()[0].split()[2] == "ERROR"
    assert "succeeded" not in worker.text
    assert "retried" not in worker.text


def test_a_level_that_there_is_not_is_refused(capsys):
    from chancy_worker import cli

    with pytest.raises(SystemExit):
        cli.main(["said_tasks", "--log-level", "loud"])
    assert "--log-level" in capsys.readouterr().err
    assert set(setting.LEVELS) == {"debug", "info", "warning", "error"}
