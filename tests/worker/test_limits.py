"""Limits that hold, wherever the function runs, and children that die alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import child_tasks
import limit_tasks as tasks
import pytest
import worker_tasks
from worker_help import FAST, Site, eventually, is_alive, worker_with, working

import chancy
from chancy import InvalidArguments, InvalidTask, Limit, Queue, State, task
from chancy_worker import WorkerConfig
from chancy_worker.child import memory
from chancy_worker.children.line import Line

pytestmark = pytest.mark.any_postgres

QUICK = WorkerConfig(timing=FAST, grace=1, children=3)


async def finished(site: Site, *jobs, within=20.0):
    await eventually(lambda: all(site.row(job).finished_at for job in jobs), within)
    return [site.row(job) for job in jobs]


@pytest.mark.long
@pytest.mark.parametrize("how", ["bytearray", "numpy", "list", "shared", "swallow"])
async def test_a_job_that_wants_more_memory_than_its_limit_ends_and_its_neighbours_do_not(site, tmp_path, how):
    if how == "numpy":
        pytest.importorskip("numpy")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with working(site.app(), QUICK):
        (neighbour,) = site.submit(tasks.wait_in_process.bind(str(tmp_path / "gate"), str(tmp_path / "pids")))
        (hungry,) = site.submit(tasks.eat.bind(how))
        (row,) = await finished(site, hungry)
        (tmp_path / "gate").touch()
        (other,) = await finished(site, neighbour)
    error = row.errors[-1]
    assert (row.state, error.kind) == (State.FAILED, "MemoryLimitExceeded"), error
    peak = int(error.message.split(" MiB")[0].rpartition(" ")[2].replace(",", ""))
    assert peak < 1.2 * 1024, error.message
    assert (other.state, other.attempt) == (State.SUCCEEDED, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.long
@pytest.mark.parametrize("how", ["loop", "sleep", "gil"])
async def test_a_plain_function_over_its_time_is_killed(site, how):
    async with working(site.app(), QUICK):
        warm, job = site.submit(tasks.pid.bind(), tasks.last.bind(how))
        row, _ = await finished(site, job, warm)
    error = row.errors[-1]
    assert (row.state, error.kind) == (State.FAILED, "TimeLimitExceeded")
    assert 1 <= float(error.message.split()[2]) < 20, error.message  # and not 100
    assert "its time limit is 1 s" in error.message


async def test_a_coroutine_over_its_time_is_cancelled(site):
    async with working(site.app(), QUICK):
        (job,) = site.submit(tasks.last_async.bind("await"))
        (row,) = await finished(site, job)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "TimeLimitExceeded")
    assert 1 <= row.errors[-1].duration < 20


async def test_a_coroutine_that_swallows_its_cancellation_is_complained_of_and_what_it_returns_counts(
    site, monkeypatch, caplog
):
    monkeypatch.setattr("chancy_worker.slots.slots.INSIST_SECONDS", 0.3)
    async with working(site.app(), QUICK):
        (job,) = site.submit(tasks.last_async.bind("swallow"))
        (row,) = await finished(site, job)
    assert (row.state, row.result) == (State.SUCCEEDED, b'"went on"')
    assert any("swallows CancelledError" in r.getMessage() and str(job.id) in r.getMessage() for r in caplog.records)


async def test_a_coroutine_that_blocks_the_loop_is_named_and_costs_its_worker_no_lease(site, caplog):
    async with working(site.app(), replace(QUICK, timing=replace(FAST, lease=2.4))):  # it blocks for 2.5 s
        (lease,) = await eventually(lambda: list(site.workers()))
        (job,) = site.submit(tasks.last_async.bind("block"))
        (row,) = await finished(site, job)
        assert list(site.workers()) == [lease]
    blocked = [r for r in caplog.records if "event loop is blocked" in r.getMessage()]
    (said,) = [r.getMessage() for r in blocked if r.levelname == "ERROR"]  # a busy machine may hold up other steps
    assert f"job {job.id} (limit_tasks.last_async)" in said
    assert "limit_tasks.py" in said
    assert row.attempt == 1


async def test_a_loop_that_no_job_blocks_is_warned_of(site, caplog):
    async with working(site.app(), QUICK) as worker:
        await worker.begun.wait()
        time.sleep(2.5)
    assert {r.levelname for r in caplog.records if "event loop is blocked" in r.getMessage()} == {"WARNING"}


async def test_a_lease_is_kept_while_the_loop_is_blocked_for_longer_than_the_lease(site, tmp_path):
    """Another worker looks for the dead all the time, and finds none."""
    timing = replace(FAST, lease=4)
    other = site.spawn(timing=timing)
    await site.started(other)
    blocking = task(name="limit_tests.block")(_block)
    worker = worker_with(site.app(queues=[Queue("blocked")]), replace(QUICK, timing=timing))
    worker._tasks = {blocking.name: blocking}
    run = asyncio.create_task(worker.start())
    await eventually(lambda: len(site.workers()) == 2)
    before = set(site.workers())
    (job,) = site.submit(blocking.using(queue="blocked").bind(1.5 * timing.lease))
    await finished(site, job)
    assert set(site.workers()) == before
    assert (site.row(job).state, site.row(job).attempt, site.row(job).crashes) == (State.SUCCEEDED, 1, 0)
    worker.stop()
    await run


async def _block(seconds: float) -> None:
    time.sleep(seconds)


async def test_functions_of_both_kinds_run_in_children_and_keep_them(site):
    async with working(site.app(), QUICK):
        jobs = site.submit(tasks.pid.bind(), tasks.pid_async.bind())
        rows = await finished(site, *jobs)
        again = site.submit(*[tasks.pid.bind() for _ in range(20)])
        rows += await finished(site, *again)
    pids = {int(row.result) for row in rows}
    assert os.getpid() not in pids
    assert len(pids) <= 3
    await eventually(lambda: not any(map(is_alive, pids)))


@pytest.mark.long
async def test_a_child_is_replaced_after_its_share_of_jobs(site):
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, children=1, recycle=5)):
        rows = await finished(site, *site.submit(*[tasks.pid_slowly.bind() for _ in range(20)]))
    assert {row.attempt for row in rows} == {1}
    assert len({row.result for row in rows}) == 4


async def test_outcomes_and_errors_are_the_same_in_a_child(site):
    hows = ["fine", "snooze", "discard", "retry", "raise", "result"]
    async with working(site.app(), QUICK):
        jobs = site.submit(*[tasks.end_in_process.using(retry=worker_tasks.AT_ONCE).bind(how) for how in hows])
        rows = await finished(site, *jobs)
    seen = [(row.state.value, row.attempt, row.errors[-1].kind if row.errors else None) for row in rows]
    assert seen == [
        ("succeeded", 1, None),
        ("succeeded", 1, None),
        ("discarded", 1, "Discard"),
        ("succeeded", 2, "Retry"),
        ("failed", 2, "ValueError"),
        ("failed", 1, "InvalidResult"),
    ]
    assert rows[4].errors[-1].message == "of the child\x00"
    assert "end_in_process" in rows[4].errors[-1].traceback
    assert "attempt.py" not in rows[4].errors[-1].traceback


async def test_current_job_progress_and_logging_work_in_a_child(site, tmp_path, caplog):
    gate = tmp_path / "gate"
    async with working(site.app(), QUICK):
        about, job = site.submit(tasks.about_me_in_process.bind(), tasks.tell.bind(str(gate)))
        await eventually(lambda: site.row(job).progress)
        assert site.row(job).progress == chancy.Progress(0.5, "half")
        gate.touch()
        rows = await finished(site, about, job)
    assert rows[0].result == f'[{about.id},"limit_tasks.about_me_in_process","default",1,3]'.encode()
    (record,) = [r for r in caplog.records if r.name == "limit_tasks"]
    assert record.getMessage() == f"hello from the child, job {job.id}"
    assert record.levelname == "WARNING"
    assert record.process != os.getpid()


async def test_what_a_handler_in_a_child_submits_lands_in_its_workers_schema(site, chancy_dsn):
    async with working(site.app(), QUICK):
        (job,) = site.submit(tasks.submit_in_process.bind(chancy_dsn))
        (row,) = await finished(site, job)
        (inner,) = await finished(site, int(row.result))
    assert inner.state is State.SUCCEEDED


@pytest.mark.parametrize(
    ("how", "words"),
    [("exit", "ended with exit code 3"), ("SIGKILL", "SIGKILL from outside"), ("SIGSEGV", "died of SIGSEGV")],
)
async def test_a_child_that_dies_takes_only_its_own_job_and_the_row_says_how(site, tmp_path, how, words):
    gate = tmp_path / "gate"
    async with working(site.app(), QUICK):
        (neighbour,) = site.submit(tasks.wait_in_process.bind(str(gate), str(tmp_path / "pids")))
        (job,) = site.submit(tasks.die.bind(how))
        (row,) = await finished(site, job)
        gate.touch()
        (other,) = await finished(site, neighbour)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "ProcessDied")
    assert words in row.errors[-1].message
    assert (other.state, other.attempt) == (State.SUCCEEDED, 1)


async def test_children_and_what_they_started_end_with_a_worker_that_is_killed(site, tmp_path):
    pids = tmp_path / "pids"
    worker = site.work("limit_tasks", "--dsn", site.dsn, "--schema", site.schema, "--children", "2")
    site.submit(*[tasks.wait_in_process.bind(str(tmp_path / "never"), str(pids)) for _ in range(2)])
    await eventually(lambda: pids.exists() and len(pids.read_text().splitlines()) == 2)
    children = [int(line.split()[0]) for line in pids.read_text().splitlines()]
    programs = [int(line.split()[1]) for line in pids.read_text().splitlines()]
    worker.signal(signal.SIGKILL)
    try:
        await eventually(lambda: not any(map(is_alive, children + programs)))
    finally:
        for pid in children + programs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_jobs_run_at_a_time_only_while_their_memory_limits_fit_into_the_budget(site, tmp_path):
    gate, pids = tmp_path / "gate", tmp_path / "pids"
    config = WorkerConfig(timing=FAST, grace=1, children=3, memory_budget=3 * 1024**3)
    limits = [Limit.memory(1024**3), Limit.memory(1536 * 1024**2)]
    async with working(site.app(), config):
        jobs = site.submit(
            *[tasks.wait_in_process.using(limits=[limit]).bind(str(gate), str(pids)) for limit in limits + limits]
        )
        await eventually(lambda: pids.exists() and len(pids.read_text().splitlines()) == 2)
        (free,) = site.submit(worker_tasks.add.bind(1, 2))
        await finished(site, free)
        assert len(pids.read_text().splitlines()) == 2
        gate.touch()
        rows = await finished(site, *jobs)
    assert {(row.state, row.attempt) for row in rows} == {(State.SUCCEEDED, 1)}


async def test_a_task_whose_limit_is_above_the_whole_budget_is_refused_at_the_start(site):
    limited = task(name="limit_tests.limited", limits=[Limit.memory(2 * 1024**3)])(tasks.pid.function)
    worker = worker_with(site.app(), WorkerConfig(timing=FAST, memory_budget=1024**3))
    worker._tasks = {limited.name: limited}
    with pytest.raises(InvalidTask, match="--memory-budget"):
        await worker.start()
    assert site.workers() == {}


@pytest.mark.long
async def test_full_children_hold_up_no_other_jobs(site, tmp_path):
    gate, pids = tmp_path / "gate", tmp_path / "pids"
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, children=2)):
        jobs = site.submit(*[tasks.wait_in_process.bind(str(gate), str(pids)) for _ in range(10)])
        await eventually(lambda: pids.exists() and len(pids.read_text().splitlines()) == 2)
        others = site.submit(*[worker_tasks.add.bind(i, i) for i in range(500)])
        await eventually(lambda: site.count("succeeded") == 500)
        assert site.count("running") <= 4
        gate.touch()
        rows = await finished(site, *jobs, *others)
    assert {row.attempt for row in rows} == {1}


def test_limits_that_the_chosen_executor_cannot_keep_are_refused_with_the_reason():
    def plain() -> None: ...
    async def later() -> None: ...

    with pytest.raises(InvalidTask, match="a thread cannot keep a limit of time"):
        task(name="limit_tests.t", executor="thread", limits=[Limit.time(1)])(plain)
    with pytest.raises(InvalidTask, match="a thread cannot keep a limit of memory"):
        task(name="limit_tests.t", executor="thread", limits=[Limit.memory(1)])(plain)
    with pytest.raises(InvalidTask, match="a thread is for plain functions"):
        task(name="limit_tests.t", executor="thread")(later)
    with pytest.raises(InvalidTask, match='"thread" or "process"'):
        task(name="limit_tests.t", executor="fibre")(plain)  # type: ignore[call-overload]
    in_thread = task(name="limit_tests.u", executor="thread")(plain)
    with pytest.raises(InvalidArguments, match="limits"):
        in_thread.using(limits=[Limit.time(1)])


@pytest.mark.parametrize(
    ("asynchronous", "executor", "limits", "place"),
    [
        (True, None, [], "loop"),
        (True, None, [Limit.time(1)], "loop"),
        (True, None, [Limit.memory(1)], "process"),
        (True, "process", [Limit.time(1)], "process"),
        (False, None, [], "thread"),
        (False, None, [Limit.time(1)], "process"),
        (False, None, [Limit.memory(1)], "process"),
        (False, "thread", [], "thread"),
        (False, "process", [], "process"),
    ],
)
def test_limits_decide_where_a_function_runs(asynchronous, executor, limits, place):
    from chancy.options.limits import place_of

    assert place_of(asynchronous, executor, limits) == place


@pytest.mark.long
async def test_short_jobs_behind_one_that_takes_long_are_taken_back_and_go_elsewhere(site, tmp_path):
    gate, pids = tmp_path / "gate", tmp_path / "pids"
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, children=2)):
        await finished(site, *site.submit(*[tasks.pid.bind() for _ in range(300)]))  # by now they are sent in packets
        (long,) = site.submit(tasks.wait_in_process.bind(str(gate), str(pids)))  # before the others, in their lane
        short = site.submit(*[tasks.pid.bind() for _ in range(100)])
        rows = await finished(site, *short, within=60)
        assert site.row(long).state is State.RUNNING
        gate.touch()
        await finished(site, long)
    assert {(row.state, row.attempt) for row in rows} == {(State.SUCCEEDED, 1)}
    child = int(pids.read_text().split()[0])
    assert child not in {int(row.result) for row in rows}


@pytest.mark.usefixtures("started_children")
async def test_a_worker_that_stops_while_its_first_child_starts_leaves_nothing_behind(site):
    async with working(site.app(), QUICK):
        (job,) = site.submit(tasks.pid.bind())
        await eventually(lambda: site.row(job).state is not State.READY)
    assert site.workers() == {}
    assert site.row(job).state in (State.READY, State.SUCCEEDED)


@pytest.mark.parametrize("how", ["pool", "programs", "own sessions"])
async def test_a_memory_limit_counts_what_the_processes_of_a_job_have_together(site, how):
    """128 MiB in each of three, under a limit of 256."""
    async with working(site.app(), QUICK):
        (hungry,) = site.submit(child_tasks.eat_together.bind(how))
        (row,) = await finished(site, hungry, within=30)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "MemoryLimitExceeded"), row.errors[-1]
    assert 256 < int(row.errors[-1].message.split(" MiB")[0].rpartition(" ")[2]) < 500


@pytest.mark.long
async def test_memory_that_the_processes_of_a_job_share_is_counted_once(site, tmp_path):
    """160 MiB are resident in each of five, under a limit of 512."""
    gate = tmp_path / "gate"
    async with working(site.app(), QUICK) as worker:
        (job,) = site.submit(child_tasks.share.bind(str(gate), str(tmp_path / "ready")))
        await eventually(lambda: len(list(tmp_path.glob("ready*"))) == 4)
        families = worker._engine.slots._executors["process"]._families
        await eventually(lambda: any(len(members) == 4 for members in families._members.values()))
        seen = []

        def exact(child, others, original=families._proportional):
            seen.append(original(child, others))
            return seen[-1]

        families._exact.clear()  # what was counted before all four were found holds for a while
        families._proportional = exact
        await eventually(lambda: len(seen) > 2)
        sizes = list(seen)  # of the five, before one of them ends
        gate.touch()
        (row,) = await finished(site, job)
    assert row.state is State.SUCCEEDED, row.errors
    assert all(160 < size / 1024**2 < 400 for size in sizes)


async def test_what_a_job_has_left_in_memory_is_not_counted_for_the_next(site):
    """96 MiB under a limit of 128, of which a child needs some before it has done anything."""
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, children=1)):
        (before,) = await finished(site, *site.submit(child_tasks.leave.bind("some memory", "")))
        (little, much) = site.submit(child_tasks.eat_a_little.bind(), child_tasks.ask_too_much.bind())
        rows = await finished(site, little, much)
    assert (rows[0].state, rows[0].result) == (State.SUCCEEDED, before.result), rows[0].errors
    assert (rows[1].state, rows[1].errors[-1].kind) == (State.FAILED, "MemoryLimitExceeded")
    assert int(rows[1].errors[-1].message.split(" MiB")[0].rpartition(" ")[2]) < 96  # what was there is not its own


async def test_a_child_that_has_yet_to_say_what_others_have_left_in_it_is_not_killed_for_that(site, monkeypatch):
    """It is stopped between two jobs, as a busy machine stops it, while the worker looks at it again and again."""
    looks = []
    monkeypatch.setattr(Line, "insist", lambda line, insist=Line.insist: (looks.append(line.running), insist(line)))
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, children=1)):
        (before,) = await finished(site, *site.submit(child_tasks.leave.bind("some memory", "")))
        pid = int(before.result)
        os.kill(pid, signal.SIGSTOP)
        try:
            (little,) = site.submit(child_tasks.eat_a_little.bind())
            await eventually(lambda: any(sent is not None and sent.attempt.job.id == little.id for sent in looks))
            looks.clear()
            await eventually(lambda: len(looks) > 3)
        finally:
            os.kill(pid, signal.SIGCONT)
        (row,) = await finished(site, little)
    assert (row.state, row.attempt, row.result) == (State.SUCCEEDED, 1, before.result), row.errors


def test_a_family_is_what_is_of_a_childs_session_or_comes_of_it_and_no_one_else():
    code = (
        "import os, subprocess, sys, time\n"
        "os.setsid()\n"
        "one = subprocess.Popen(['sleep', '60'])\n"
        "own = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "orphan = int(subprocess.run(['sh', '-c', 'sleep 60 >/dev/null 2>&1 & echo $!'], capture_output=True).stdout)\n"
        "print(one.pid, own.pid, orphan, flush=True)\n"
        "time.sleep(60)\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    started = [sorted(map(int, child.stdout.readline().split())) for child in children]
    try:
        assert [memory.relatives(child.pid) for child in children] == started
        families = memory.Families()
        families.look([child.pid for child in children])
        assert [sorted(families._members[child.pid]) for child in children] == started
        child, limit = children[0].pid, 10**9
        alone = memory.Families().used(child, limit)
        assert alone == memory.used(child)
        assert alone < families.used(child, limit) < alone + 3 * 16 * 1024**2
        assert 0 < families.used(child, 0) < families.used(child, limit)
        families._next_look = 0
        families.look([])
        assert families._members == {}
    finally:
        for pid in [pid for pids in started for pid in pids] + [child.pid for child in children]:
            os.kill(pid, signal.SIGKILL)
        for child in children:
            child.wait()
