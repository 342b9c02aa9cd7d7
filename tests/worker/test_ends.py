"""What ends the process of a worker, what does not, and what must not hold it up."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import stubborn_tasks as tasks
from worker_help import eventually, process_facts, states

from chancy import State
from chancy_worker import processes

pytestmark = pytest.mark.any_postgres


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request):
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return request.param


def start(site, *arguments, target="stubborn_tasks"):
    return site.work(target, "--dsn", site.dsn, "--schema", site.schema, *arguments)


def really_start(site, *arguments):
    """Where it matters how Python itself was started, and what is there before this package is imported."""
    return site.run("-m", "chancy_worker", "stubborn_tasks", "--dsn", site.dsn, "--schema", site.schema, *arguments)


async def begun(site, worker, count=1):
    await eventually(lambda: len(site.workers()) == count or worker.code is not None, 30)
    assert worker.code is None


async def ended(worker, within=20):
    await eventually(lambda: worker.code is not None, within)
    return worker.code


# Through the loop


THROUGH = {
    tasks.gathers_an_exit: (State.FAILED, "SystemExit"),
    tasks.groups_an_exit: (State.FAILED, "SystemExit"),
    tasks.gathers_an_interrupt: (State.FAILED, "KeyboardInterrupt"),
    tasks.forgets_an_exit: (State.SUCCEEDED, None),
    tasks.calls_an_exit: (State.SUCCEEDED, None),
    tasks.stops_the_loop: (State.SUCCEEDED, None),
}


async def test_what_a_job_raises_through_the_loop_ends_that_job_at_most(site, loop, tmp_path):
    gate = tmp_path / "gate"
    worker = start(site, "--loop", loop)
    neighbours = site.submit(*[tasks.waits.bind(str(gate)) for _ in range(5)])
    await eventually(lambda: site.count("running") == 5)
    jobs = site.submit(*[task.bind(2) for task in THROUGH])
    await eventually(lambda: all(site.row(job).finished_at for job in jobs))
    rows = [site.row(job) for job in jobs]
    assert [(row.state, row.errors[-1].kind if row.errors else None) for row in rows] == list(THROUGH.values())
    assert site.count("running") == 5
    gate.touch()
    await eventually(lambda: all(site.row(job).state is State.SUCCEEDED for job in neighbours))
    assert "SystemExit (2) was raised through the event loop, in _exits (" in worker.text
    if loop == "asyncio":  # uvloop does not say in whose context it was
        (told,) = [line for line in worker.text.splitlines() if "KeyboardInterrupt () was raised" in line]
        assert f"of job {jobs[2].id} (stubborn_tasks.gathers_an_interrupt)" in told
    worker.signal(signal.SIGTERM)
    assert await ended(worker) == 0
    assert "Traceback" not in worker.text.partition("stopping:")[2]


@pytest.mark.long
async def test_jobs_may_start_processes_in_each_way_wherever_they_run(site):
    worker = really_start(site)
    jobs = [tasks.maps_in_child.bind(way) for way in tasks.WAYS]
    jobs += [tasks.maps_in_thread.bind(way) for way in tasks.WAYS[1:]]  # and a fork in a thread: see `has_a_pool`
    jobs += [tasks.calls_a_program.bind(), tasks.calls_a_program_in_child.bind()]
    submitted = site.submit(*jobs)
    await eventually(lambda: all(site.row(job).finished_at for job in submitted), 60)
    rows = [site.row(job) for job in submitted]
    assert [row.errors for row in rows if row.errors] == []
    assert {(row.state, row.attempt) for row in rows} == {(State.SUCCEEDED, 1)}
    worker.signal(signal.SIGTERM)
    assert await ended(worker) == 0


@pytest.mark.parametrize("number", tasks.SIGNALS)
async def test_a_signal_to_what_a_job_has_forked_is_no_signal_to_the_worker(site, loop, number):
    worker = start(site, "--loop", loop)
    pool, process = site.submit(tasks.has_a_pool.bind(), tasks.ends_a_process.bind(number))
    await eventually(lambda: states(site) == {"succeeded": 2}, 30)
    assert (site.row(process).result, site.row(pool).attempt) == (b"true", 1)
    (after,) = site.submit(tasks.calls_an_exit.bind(0))
    await eventually(lambda: site.row(after).finished_at)
    assert worker.code is None
    assert "stopping" not in worker.text


# What jobs leave behind


LEAVE = [
    tasks.sleeps_in_our_thread, tasks.sleeps_in_the_loops_executor, tasks.sleeps_in_its_own_executor,
    tasks.leaves_a_thread, tasks.leaves_an_executor, tasks.leaves_a_stubborn_coroutine, tasks.leaves_a_process,
]  # fmt: skip


async def test_whatever_jobs_have_left_a_worker_ends_soon_after_its_grace(site, loop):
    worker = start(site, "--grace", "0.5", "--loop", loop)
    jobs = site.submit(*[task.bind() for task in LEAVE])
    await eventually(lambda: states(site) == {"running": 3, "succeeded": 4})
    worker.signal(signal.SIGTERM)
    assert await ended(worker) == 0  # everything that was left lasts for ten minutes
    assert {(site.row(job).state, site.row(job).attempt) for job in jobs[:3]} == {(State.READY, 0)}
    assert site.workers() == {}
    assert "of a client library" in worker.text


async def test_a_parent_of_processes_ends_with_them_whatever_jobs_have_left(site):
    parent = start(site, "--grace", "0.5", "--processes", "2")
    await begun(site, parent, 2)
    jobs = site.submit(*[tasks.leaves_a_thread.bind() for _ in range(6)])
    await eventually(lambda: all(site.row(job).finished_at for job in jobs))
    parent.signal(signal.SIGTERM)
    assert await ended(parent) == 0
    assert site.workers() == {}


@pytest.mark.long
async def test_a_parent_whose_workers_die_at_the_moment_of_its_signal_ends(site):
    parent = start(site, "--processes", "3")
    await begun(site, parent, 3)
    for pid in list(site.workers().values())[:2]:
        os.kill(pid, signal.SIGKILL)
    parent.signal(signal.SIGTERM)
    assert await ended(parent) == 0
    assert "Traceback" not in parent.text


async def test_what_is_registered_for_the_end_of_the_process_is_called(site, tmp_path, monkeypatch):
    (tmp_path / "flushing.py").write_text(
        "import atexit, pathlib, threading, time, chancy\n"
        "@chancy.task(name='flushing')\n"
        "def flushing() -> None: threading.Thread(target=time.sleep, args=(600,)).start()\n"
        f"atexit.register(pathlib.Path({str(tmp_path / 'flushed')!r}).touch)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    worker = start(site, target="flushing")
    site.one("SELECT {}.submit('flushing')")
    await eventually(lambda: states(site) == {"succeeded": 1})
    worker.signal(signal.SIGTERM)
    assert await ended(worker) == 0
    assert (tmp_path / "flushed").exists()


# Lifespans


@pytest.fixture
def stubborn(monkeypatch):
    return lambda where: monkeypatch.setenv("STUBBORN", where)


async def test_a_worker_that_waits_for_its_lifespan_stops_at_once(site, stubborn):
    stubborn("in")
    worker = start(site, target="stubborn_tasks:app")
    await eventually(lambda: "enters" in worker.text)
    worker.signal(signal.SIGTERM)
    assert await ended(worker, 8) == 0
    assert "cleans up" in worker.text
    assert site.workers() == {}


@pytest.mark.parametrize("where", ["out", "stubborn"])
async def test_a_second_signal_ends_a_lifespan_that_waits_on_its_way_out(site, stubborn, where):
    stubborn(where)
    worker = start(site, target="stubborn_tasks:app")
    await begun(site, worker)
    worker.signal(signal.SIGTERM)
    await eventually(lambda: "\nleaves\n" in worker.text)
    assert worker.code is None
    worker.signal(signal.SIGTERM)
    assert await ended(worker, 8) == 0
    assert "cleans up" in worker.text
    assert ("left to itself" in worker.text) is (where == "stubborn")
    assert site.workers() == {}


# Signals at any moment


async def test_a_signal_while_the_tasks_are_imported_ends_the_command(site, stubborn):
    stubborn("import")
    worker = really_start(site)
    await eventually(lambda: "imports" in worker.text)
    worker.signal(signal.SIGTERM)
    assert await ended(worker, 8) == 0


@pytest.mark.parametrize("seed", range(6))
async def test_signals_in_a_row_at_any_moment_end_a_worker_in_order(site, seed):
    chance = random.Random(seed)
    worker = start(site, "--grace", "0.2", "--loop", "asyncio")
    site.submit(tasks.sleeps_in_our_thread.bind(), tasks.leaves_a_thread.bind())
    await eventually(lambda: "event loop" in worker.text)  # from its first words on it has taken them
    await asyncio.sleep(chance.uniform(0, 0.6))
    while worker.code is None:
        worker.signal(chance.choice([signal.SIGTERM, signal.SIGINT]))
        await asyncio.sleep(chance.uniform(0, 0.05))
    assert worker.code == 0, worker.text
    assert site.workers() == {}
    # Each signal skips a stage: where that is the one that writes verdicts, the worker says so, and others take them back.
    assert "running" not in states(site) or "verdicts could not be written" in worker.text


@pytest.mark.long
@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs a namespace of processes")
@pytest.mark.parametrize("extra", [[], ["--processes", "2"]], ids=["alone", "with processes"])
async def test_the_first_process_of_a_container_obeys(site, extra):
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this container makes no others")
    command = [sys.executable, "-m", "chancy_worker", "stubborn_tasks", "--dsn", site.dsn, "--schema", site.schema]
    worker = site.run("-c", "import os, sys; os.execvp('unshare', sys.argv[1:])", *unshare, *command, *extra)
    (job,) = site.submit(tasks.leaves_a_thread.bind())
    await eventually(lambda: site.row(job).finished_at, 30)
    (first,) = _children(worker.pid)
    os.kill(first, signal.SIGTERM)
    assert await ended(worker) == 0
    assert site.workers() == {}


def _children(pid):
    found = []
    for other in filter(str.isdecimal, (each.name for each in Path("/proc").iterdir())):
        try:
            if process_facts(int(other))[1] == pid:
                found.append(int(other))
        except OSError:
            pass
    return found


# A fleet


@pytest.mark.long
async def test_a_job_cannot_stop_the_fleet_by_its_exit_code(site):
    parent = start(site, "--processes", "2")
    await begun(site, parent, 2)
    for task in (tasks.ends_the_process, tasks.gathers_an_exit):
        (job,) = site.submit(task.bind(2))
        await eventually(lambda job=job: site.row(job).finished_at, 30)
    await begun(site, parent, 2)
    parent.signal(signal.SIGTERM)
    assert await ended(parent) == 0


async def test_a_fleet_that_cannot_begin_ends_with_what_its_first_worker_said(site, tmp_path, stubborn):
    (tmp_path / "broken").touch()
    stubborn(str(tmp_path / "broken"))
    parent = start(site, "--processes", "2", "--health-port", "1")
    assert await ended(parent) == 2
    assert "half of a deploy" in parent.text


@pytest.mark.long
async def test_a_worker_that_cannot_start_again_stops_no_fleet_and_is_tried_until_it_can(site, tmp_path, stubborn):
    stubborn(str(tmp_path / "broken"))
    parent = start(site, "--processes", "2")
    await begun(site, parent, 2)
    (tmp_path / "broken").touch()
    victim, other = site.workers().values()
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: "cannot start any more; trying again" in parent.text, 60)
    assert parent.code is None
    await eventually(lambda: list(site.workers().values()) == [other])
    assert Path(f"/proc/{other}").exists()
    (tmp_path / "broken").unlink()
    await begun(site, parent, 2)
    parent.signal(signal.SIGTERM)
    assert await ended(parent) == 0


async def test_a_worker_whose_job_blocks_its_loop_holds_up_the_end_of_a_fleet_no_longer_than_its_times(
    site, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(processes, "TO_END_SECONDS", 1.0)
    monkeypatch.setenv("PYTHONPATH", str(Path(tasks.__file__).parent))
    command = [sys.executable, "-m", "chancy_worker", "stubborn_tasks", "--dsn", site.dsn, "--schema", site.schema]
    fleet = processes.Processes([*command, "--grace", "0.5"], 2, site.dsn, site.schema, grace=0.5)
    running = asyncio.create_task(fleet.run())
    await eventually(lambda: len(site.workers()) == 2, 60)
    (job,) = site.submit(tasks.blocks_the_loop.bind(str(tmp_path / "begun")))
    await eventually((tmp_path / "begun").exists, 60)
    signal.raise_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running, 60) == 0
    assert "and is killed: a job may block its event loop" in caplog.text
    assert site.workers() == {}
    assert site.row(job).state is State.READY  # declared dead, and given back at once
