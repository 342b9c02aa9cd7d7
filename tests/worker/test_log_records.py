"""Of which job a record is, whoever logs it wherever; what was given beside its message; and how a failure is told."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import said_tasks
from worker_help import FAST, all_finished, eventually, worker_with

import chancy
from chancy import CurrentJob, JobFailed
from chancy.current import running_attempt
from chancy_worker import WorkerConfig
from chancy_worker.attempts.verdict import Claimed, judged, since_now
from chancy_worker.logs.format import JsonFormatter, PlainFormatter
from chancy_worker.logs.job_lines import JobLines

pytestmark = pytest.mark.any_postgres


async def log_of(site, form, *jobs, module="said_tasks"):
    """What a worker of its own has logged until these jobs were over, as lines or as objects."""
    more = ["--log-format", form]
    place = ["--dsn", site.dsn, "--schema", site.schema, "--queue", "said"]
    worker = site.work(module, *place, *more)
    await eventually(lambda: all(site.row(job).finished_at for job in jobs), 40)
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.code == 0)
    return [json.loads(line) for line in worker.text.splitlines()] if form == "json" else worker.text.splitlines()


async def test_each_record_of_a_library_has_its_job_wherever_that_runs_as_json(site):
    jobs = site.submit(*[place.bind(n) for n in range(5) for place in said_tasks.PLACES])
    found = [entry for entry in await log_of(site, "json", *jobs) if entry["logger"] == "vendor.http"]
    for job in jobs:
        row = site.row(job)
        mine = [entry for entry in found if entry.get("job") == job.id]
        assert [entry["message"] for entry in mine] == [f"request {json.loads(row.arguments)['number']}"] * 2
        for entry in mine:
            assert (entry["task"], entry["attempt"], entry["queue"]) == (row.task, 1, "said")
            assert (entry["url"], entry["tries"], entry["when"]) == ("https://example.com", 3, "2026-01-02T00:00:00Z")
            assert entry["level"] == "info"
    assert len(found) == 2 * len(jobs)


async def test_each_record_of_a_library_has_its_job_wherever_that_runs_in_plain_text(site):
    jobs = site.submit(*[place.bind(n) for n in range(5) for place in said_tasks.PLACES])
    found = [line for line in await log_of(site, "plain", *jobs) if "vendor.http" in line]
    for job in jobs:
        row = site.row(job)
        number = json.loads(row.arguments)["number"]
        wanted = f"vendor.http [job {job.id}, {row.task}, attempt 1, queue said]: request {number}"
        assert len([line for line in found if line.endswith(f"INFO    {wanted}")]) == 2
    assert len(found) == 2 * len(jobs)


async def test_a_handler_of_ones_own_has_the_job_by_a_filter(site):
    jobs = site.submit(*[place.bind(n) for n in range(5) for place in said_tasks.PLACES])
    found = await log_of(site, "plain", *jobs, module="overheard_tasks")
    for job in jobs:
        row = site.row(job)
        number = json.loads(row.arguments)["number"]
        assert found.count(f"own|INFO|vendor.http|{job.id}|{row.task}|1|said|request {number}") == 2
        (line,) = [line for line in found if line.startswith(f"own|INFO|chancy.job|{job.id}|{row.task}|1|said|")]
        assert f"job {job.id} {row.task} succeeded attempt 1/3" in line
    assert any(line.startswith("own|INFO|chancy.worker|-|-|-|-|stopping") for line in found)


async def test_what_cannot_be_said_in_json_is_said_as_far_as_it_can_be(site):
    on_loop, in_process = site.submit(said_tasks.say_worse_on_loop.bind(), said_tasks.say_worse_in_process.bind())
    found = {
        entry["job"]: entry
        for entry in await log_of(site, "json", on_loop, in_process)
        if entry["logger"] == "vendor.http"
    }
    for job in (on_loop, in_process):
        entry = found[job.id]
        assert entry["level"] == "info"
        assert entry["message"] == "worse"
        assert entry["extra"] == {"job": "theirs", "level": "theirs"}
        assert entry["half"] == "a\\ud800b"
        assert entry["fine"] == [1]
        assert "RuntimeError" in entry["broken"]
        assert entry["itself"]


@pytest.fixture
def in_job():
    with contextlib.ExitStack() as stack:
        token = running_attempt.set(CurrentJob(5, "shop.send", "mail", 2, 3))
        stack.callback(running_attempt.reset, token)
        yield


def record_of(**more):
    record = logging.makeLogRecord({"name": "vendor.http", "msg": "a message", "levelname": "INFO"} | more)
    record.created = 0.0
    return record


def test_the_filter_leaves_what_a_record_has_of_such_a_name(in_job):
    record = record_of(job="theirs")
    assert chancy.WithJob().filter(record)
    assert (record.job, record.task, record.attempt, record.queue) == ("theirs", "shop.send", 2, "mail")


def test_outside_of_any_attempt_the_filter_says_so():
    record = record_of()
    assert chancy.WithJob(None).filter(record)
    assert (record.job, record.task, record.attempt, record.queue) == (None, None, None, None)
    assert PlainFormatter().format(record_of()).endswith(" INFO    vendor.http: a message")
    assert "job" not in json.loads(JsonFormatter().format(record_of()))


def test_extra_of_ones_own_never_hides_what_the_line_says(in_job):
    line = json.loads(JsonFormatter().format(record_of(job="theirs", order=7, at="never")))
    assert (line["job"], line["order"], line["extra"]) == (5, 7, {"job": "theirs", "at": "never"})


def test_a_record_of_the_worker_is_of_the_job_that_it_names_and_not_of_the_one_it_is_said_in(in_job):
    assert "job" not in json.loads(JsonFormatter().format(record_of(name="chancy.worker")))
    named = record_of(name="chancy.worker", chancy={"job": 9, "task": "t", "attempt": 1, "queue": "q"})
    assert json.loads(JsonFormatter().format(named))["job"] == 9


GUIDE = Path(__file__).parents[2] / "docs/guides/logs.md"


def test_the_configuration_in_the_guide_gives_each_record_its_job():
    snippet = GUIDE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    program = f"""{snippet}
import logging
from chancy import CurrentJob
from chancy.current import running_attempt
logging.getLogger("vendor").info("outside")
running_attempt.set(CurrentJob(5, "shop.send", "mail", 2, 3))
logging.getLogger("vendor").info("inside")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["INFO vendor [- - - -] outside", "INFO vendor [5 shop.send 2 mail] inside"]


# How a failure is told


async def records_of(site, caplog, *jobs):
    caplog.set_level(logging.INFO)
    worker = worker_with(site.app(queues=[chancy.Queue("said")]), WorkerConfig(timing=FAST, grace=1))
    worker._tasks |= {task.name: task for task in [*said_tasks.FAILING, said_tasks.give_up]}
    async with worker.running():
        ids = [job.id for job in site.submit(*jobs)]
        await all_finished(site)
    found = [record for record in caplog.records if record.name == "chancy.job"]
    # One that was claimed ahead, and waited too long on a busy machine, has a record of its way back, too.
    told = [record for record in found if record.chancy["state"] != "released"]
    return [[record for record in told if record.chancy["job"] == id_] for id_ in ids]


async def test_a_final_failure_is_an_error_with_its_exception_and_one_that_is_tried_again_is_none(site, caplog):
    for records in await records_of(site, caplog, said_tasks.fail_on_loop.bind(7), said_tasks.fail_in_thread.bind(7)):
        retried, failed = records
        assert (retried.levelname, retried.exc_info) == ("WARNING", None)
        assert failed.levelname == "ERROR"
        kind, error, frames = failed.exc_info
        assert (kind, str(error)) == (said_tasks.Own, "not 7")
        assert frames.tb_frame.f_code.co_name.startswith("fail_")  # from the function's own on
        assert failed.chancy["state"] == "failed"


async def test_of_a_failure_in_a_child_process_the_exception_is_a_stand_in_that_says_all(site, caplog):
    ((_, failed),) = await records_of(site, caplog, said_tasks.fail_in_process.bind(7))
    assert failed.levelname == "ERROR"
    error = failed.exc_info[1]
    assert isinstance(error, JobFailed)
    assert (error.kind, error.message, error.attempt) == ("Own", "not 7", 2)
    assert "in fails" in JsonFormatter().format(failed)


async def test_who_gives_up_by_its_own_wish_is_a_warning(site, caplog):
    (((discarded,)),) = await records_of(site, caplog, said_tasks.give_up.bind(7))
    assert (discarded.levelname, discarded.exc_info) == ("WARNING", None)


def test_what_an_exception_holds_is_let_go_of_when_it_is_told(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])  # pytest's keeps its records

    class Large:
        pass

    def fails():
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no")

    held = []
    job = Claimed(1, "t", "q", 3, 3, 3, 0, b"{}", None, None, None)
    gc.disable()
    try:
        try:
            fails()
        except ValueError as error:
            verdict = judged(job, error, since_now("w"), lambda *_: None)
        assert held[0]() is not None
        JobLines().tell(job, verdict, 0.0)
        assert verdict.raised is None
        assert held[0]() is None
    finally:
        gc.enable()


async def test_a_time_limit_is_an_error_with_its_exception(site, caplog):
    caplog.set_level(logging.INFO)
    since = since_now("w")
    error = chancy.TimeLimitExceeded(1.0, 1.2)
    verdict = judged(Claimed(1, "t", "q", 3, 3, 3, 0, b"{}", None, None, None), error, since, lambda *_: None)
    JobLines().tell(SimpleNamespace(id=1, task="t", queue="q", attempt=3, max_attempts=3), verdict, 1.2)
    assert caplog.records[-1].exc_info[1] is error
