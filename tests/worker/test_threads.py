"""Plain functions in threads: a thread performs several short ones in a row, and nobody may be able to tell. Where no
thread can be had, as in a container with too few processes, jobs go back unharmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import threading
import time
from collections import Counter
from contextvars import ContextVar

import pytest
from worker_help import FAST, all_finished, eventually, until_answered, working
from worker_tasks import add, add_in_thread, note_in_thread, notes, record_in_thread

from chancy import State, task
from chancy_worker import WorkerConfig
from chancy_worker.attempts.attempt import Attempt
from chancy_worker.attempts.verdict import Claimed, since_now
from chancy_worker.threads import threads
from chancy_worker.threads.threads import Threads

pytestmark = pytest.mark.any_postgres


async def test_where_no_thread_can_be_started_jobs_go_back_unharmed_and_run_once_when_one_can(
    site, port, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(threads, "PAUSE_SECONDS", 0.3)
    start, refused = threading.Thread.start, threading.Event()

    def begins(thread):
        if refused.is_set() and thread.name.startswith("chancy_"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", begins)
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, threads=5, health_port=port)) as worker:
        (first,) = site.submit(add_in_thread.bind(1, 2))
        await eventually(lambda: site.row(first).finished_at)  # there is one
        refused.set()
        jobs = site.submit(*[record_in_thread.bind(str(tmp_path / "ran"), str(tmp_path / "gate")) for _ in range(4)])
        said = await until_answered(port, 503)
        assert said == "no thread can be started: can't start new thread\n"
        await eventually(lambda: worker.busy <= 2)  # now and then the others are tried again
        (beside,) = site.submit(add.bind(1, 2))
        await eventually(lambda: site.row(beside).finished_at)
        refused.clear()
        (tmp_path / "gate").touch()
        await all_finished(site)
        await until_answered(port, 200)
    assert {(site.row(job).state, site.row(job).attempt) for job in jobs} == {(State.SUCCEEDED, 1)}
    assert sorted((tmp_path / "ran").read_text().split()) == sorted(str(job.id) for job in jobs)
    assert "no thread can be started: can't start new thread; until that is mended, jobs that" in caplog.text


ways = {}
"""What a job does, by a number."""
note = ContextVar("note", default="clean")


@task(name="threads.does", max_attempts=1)
def does(number: int) -> int | str | None:
    return ways[number]()


def nothing():
    pass


class Jobs:
    """Functions on their way through threads, each with its place in the order of all."""

    def __init__(self, most):
        self.threads = Threads(most)
        self.loop = asyncio.get_running_loop()
        ways.clear()

    def add(self, way):
        number = len(ways)
        ways[number] = way
        job = Claimed(number, does.name, "default", 1, 1, 1, 0, b'{"number":%d}' % number, None, None, None)
        return asyncio.create_task(self.threads.run(Attempt(job, does, None, since_now("w"), {}, nothing)))

    async def are_short(self):
        """From here on they are known to be, and no thread has anything to do."""
        await asyncio.gather(*[self.add(nothing) for _ in range(60)])
        await eventually(lambda: not self.threads._turns)
        await self.have_rested()
        self.threads._seconds = dict.fromkeys(self.threads._seconds, 0.0)  # a busy machine is no habit of theirs

    async def have_rested(self):
        """The pool knows of each of its threads that it has nothing to do, and no look is to come."""
        pool = self.threads._pool
        await eventually(lambda: pool._idle_semaphore._value == len(pool._threads) and self.threads._timer is None)


@pytest.fixture
async def jobs():
    made = Jobs(10)
    yield made
    await made.threads.close()


@pytest.fixture
def patient(monkeypatch):
    """Nothing goes back because it has waited."""
    monkeypatch.setattr(threads, "PATIENCE_SECONDS", 60)


async def results(*tasks):
    async with asyncio.timeout(20):
        return [verdict.result and json.loads(verdict.result) for verdict in await asyncio.gather(*tasks)]


async def test_short_functions_are_performed_in_a_row_in_one_thread_and_told_together(jobs, monkeypatch):
    await jobs.are_short()
    for name in ("SHORT_SECONDS", "TELL_SECONDS", "LOOK_SECONDS"):  # on a busy machine they are short as well
        monkeypatch.setattr(threads, name, 60)
    wakes, began = [], []
    tell, submit = jobs.loop.call_soon_threadsafe, jobs.threads._pool.submit
    jobs.loop.call_soon_threadsafe = lambda *given: wakes.append(1) or tell(*given)
    jobs.threads._pool.submit = lambda *given: began.append(1) or submit(*given)
    held, gate = threading.Event(), threading.Event()
    first = jobs.add(lambda: held.set() or (gate.wait(20) and None))
    await asyncio.to_thread(held.wait)
    more = [jobs.add(lambda: threading.get_ident()) for _ in range(9)]
    await asyncio.sleep(0)
    wakes.clear()
    gate.set()
    idents = await results(first, *more)
    del jobs.loop.call_soon_threadsafe
    assert Counter(idents[1:]).most_common(1)[0][1] >= 4
    assert len(wakes) + len(began) <= 9  # 18 with a way there and one back each


async def test_what_takes_long_holds_nobody_up_also_where_it_was_short(jobs, patient):
    gate = threading.Event()
    await jobs.are_short()
    long = [jobs.add(lambda: gate.wait(20) and 1) for _ in range(9)]
    short = [jobs.add(lambda: 2) for _ in range(50)]
    assert await results(*short) == [2] * 50
    assert not any(job.done() for job in long)
    gate.set()
    assert await results(*long) == [1] * 9


@pytest.mark.parametrize("was_short", [True, False])
async def test_as_many_are_performed_at_a_time_as_there_are_threads(jobs, was_short):
    meeting = threading.Barrier(10)
    if was_short:
        await jobs.are_short()
    assert await results(*[jobs.add(lambda: 0 * meeting.wait(15)) for _ in range(10)]) == [0] * 10


async def test_never_more_are_performed_at_a_time_than_there_are_threads(jobs, patient):
    inside, most, counting = [0], [0], threading.Lock()

    def counted(seconds):
        with counting:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(seconds)
        with counting:
            inside[0] -= 1

    await jobs.are_short()
    await results(*[jobs.add(lambda: counted(random.choice([0, 0, 0.0001, 0.003]))) for _ in range(400)])
    assert 1 <= most[0] <= 10


async def test_they_begin_in_their_order_whatever_they_take(patient):
    jobs, began = Jobs(1), []
    await results(*[jobs.add(lambda n=n: began.append(n) or time.sleep(0.002 * (n % 3 == 0))) for n in range(60)])
    assert began == list(range(60))
    await jobs.threads.close()


async def test_one_that_is_given_up_while_it_waits_never_begins(patient):
    jobs, gate, began = Jobs(1), threading.Event(), []
    await jobs.are_short()
    jobs.threads._careful_until = math.inf  # no more than there are threads
    first = jobs.add(lambda: gate.wait(20) and None)
    rest = [jobs.add(lambda n=n: began.append(n)) for n in range(10)]
    await asyncio.sleep(0.01)
    for each in rest[::2]:
        each.cancel()
    await asyncio.sleep(0)
    assert jobs.threads.stranded == 0
    gate.set()
    await results(first, *rest[1::2])
    assert began == [1, 3, 5, 7, 9]
    assert all(each.cancelled() for each in rest[::2])
    assert (jobs.threads.size, jobs.threads._busy) == (1, 0)
    await jobs.threads.close()


async def test_one_that_is_given_up_while_it_runs_keeps_its_thread_until_it_returns(jobs, patient):
    gate, begun = threading.Event(), threading.Event()
    await jobs.are_short()
    jobs.threads._careful_until = math.inf  # no more than there are threads
    one = jobs.add(lambda: begun.set() or (gate.wait(20) and None))
    await asyncio.to_thread(begun.wait)
    one.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await one
    assert (jobs.threads.stranded, jobs.threads.size) == (1, 9)
    assert await results(*[jobs.add(lambda: 1) for _ in range(20)]) == [1] * 20
    gate.set()
    await eventually(lambda: jobs.threads.stranded == 0)
    assert (jobs.threads.size, jobs.threads._busy) == (10, 0)


async def test_each_has_the_context_of_its_own_attempt_and_what_it_sets_there_is_not_for_the_next(jobs, patient):
    seen = []

    def soils():
        seen.append(note.get())
        note.set("soiled")

    await jobs.are_short()
    for name in "abc":
        note.set(name)
        await results(*[jobs.add(soils) for _ in range(30)])
    assert Counter(seen) == {"a": 30, "b": 30, "c": 30}


@pytest.mark.parametrize(
    "raised", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, asyncio.CancelledError]
)
async def test_whatever_one_raises_the_next_in_its_thread_runs(jobs, patient, raised):
    def raises():
        raise raised

    await jobs.are_short()
    failing, fine = [jobs.add(raises) for _ in range(20)], [jobs.add(lambda: 1) for _ in range(20)]
    assert await results(*fine) == [1] * 20
    assert {(await each).state for each in failing} == {State.FAILED}


async def test_what_comes_to_a_thread_from_outside_of_its_function_ends_one_attempt_and_no_thread(
    jobs, patient, monkeypatch
):
    call = threads.call

    def sometimes_called(job, *given):
        if job.id % 3 == 0:
            raise OSError("thrown into this thread by another one")
        return call(job, *given)

    await jobs.are_short()
    monkeypatch.setattr(threads, "call", sometimes_called)
    verdicts = await asyncio.gather(*[jobs.add(nothing) for _ in range(30)])
    assert Counter(verdict.state for verdict in verdicts) == {State.FAILED: 10, State.SUCCEEDED: 20}
    await eventually(lambda: (jobs.threads._busy, jobs.threads._turns, jobs.threads._free) == (0, {}, set()))


async def test_none_that_comes_when_a_thread_is_about_to_rest_is_forgotten(jobs):
    async def one_by_one():
        for _ in range(300):
            await jobs.add(nothing)
            if random.random() < 0.1:
                await asyncio.sleep(0.0005 * random.random())

    async with asyncio.timeout(20):
        await asyncio.gather(*[one_by_one() for _ in range(10)])
    await eventually(lambda: not jobs.threads._turns)
    assert jobs.threads._timer is None or not jobs.threads._waiting


async def test_more_are_ordered_than_there_are_threads_as_long_as_they_are_short(jobs):
    assert jobs.threads.size == 10
    await jobs.are_short()
    jobs.threads._pace = 0.0
    assert jobs.threads.size > 100
    await results(*[jobs.add(lambda: time.sleep(0.02)) for _ in range(10)])
    assert jobs.threads.size == 10


async def test_what_waits_in_vain_since_all_threads_are_busy_goes_back_and_for_a_while_nothing_waits_any_more(jobs):
    gate = threading.Event()
    await jobs.are_short()
    jobs.threads._pace = 0.0
    long = [jobs.add(lambda: gate.wait(20) and 1) for _ in range(10)]
    waiting = [jobs.add(lambda: 2) for _ in range(30)]
    async with asyncio.timeout(10):
        verdicts = await asyncio.gather(*waiting)
    assert {(verdict.state, verdict.refund, verdict.delay) for verdict in verdicts} == {(State.READY, True, None)}
    assert jobs.threads.size == 10
    gate.set()
    assert await results(*long) == [1] * 10
    assert jobs.threads.size == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks there")
async def test_a_process_that_one_forks_performs_none_of_the_others(jobs, tmp_path):
    ran = tmp_path / "ran"

    def forks():
        with ran.open("a") as file:
            file.write("forks\n")
        if (pid := os.fork()) == 0:
            return 7  # it comes back out of the function
        os.waitpid(pid, 0)
        return 1

    def runs():
        with ran.open("a") as file:
            file.write("runs\n")
        return 1

    await jobs.are_short()
    assert await results(*[jobs.add(way) for way in [forks, runs, runs, runs, runs] * 2]) == [1] * 10
    assert Counter(ran.read_text().split()) == {"forks": 2, "runs": 8}


async def test_what_waits_behind_one_that_hangs_goes_back_where_no_other_thread_can_be_started(
    jobs, monkeypatch, caplog
):
    start = threading.Thread.start

    def begins(thread):
        if thread.name.startswith("chancy_"):
            raise RuntimeError("can't start new thread")
        start(thread)

    gate, begun = threading.Event(), threading.Event()
    jobs.threads = Threads(5)
    await jobs.add(nothing)
    await eventually(lambda: not jobs.threads._turns)
    await jobs.have_rested()  # or it would start another one
    jobs.threads._seconds[does.name] = 0.0
    monkeypatch.setattr(threading.Thread, "start", begins)
    hangs = jobs.add(lambda: begun.set() or (gate.wait(20) and None))
    rest = [jobs.add(nothing) for _ in range(4)]
    await asyncio.to_thread(begun.wait)
    async with asyncio.timeout(10):
        verdicts = await asyncio.gather(*rest)
    assert {(verdict.state, verdict.refund) for verdict in verdicts} == {(State.READY, True)}
    assert jobs.threads.size == 1
    assert jobs.threads.problem == "no thread can be started: can't start new thread"
    gate.set()
    await results(hangs)
    await jobs.threads.close()


async def test_closing_waits_for_nobody_and_takes_no_more(jobs):
    gate, begun = threading.Event(), threading.Event()
    one = jobs.add(lambda: begun.set() or (gate.wait(20) and None))
    await asyncio.to_thread(begun.wait)
    one.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await one
    await jobs.threads.close()
    assert jobs.threads.stranded == 1
    assert (await jobs.add(nothing)).refund
    gate.set()


async def test_short_ones_that_a_stop_finds_waiting_are_done_within_the_grace_and_no_other_is_done_twice(
    site, tmp_path
):
    ran, gate = str(tmp_path / "ran"), str(tmp_path / "gate")
    async with working(site.app(), WorkerConfig(timing=FAST, grace=10, threads=4)) as worker:
        jobs = site.submit(*[record_in_thread.bind(ran, gate) for _ in range(4)])
        await eventually(lambda: worker.busy >= 4)
        short = site.submit(*[note_in_thread.bind(str(n)) for n in range(200)])
        worker.stop()
        (tmp_path / "gate").touch()
        await eventually(lambda: worker._engine.claimer.is_over)
    counts = Counter(notes)
    assert max(counts.values(), default=1) == 1
    for n, job in enumerate(short):
        assert (site.row(job).state is State.SUCCEEDED) == (str(n) in counts)
        assert site.row(job).attempt <= 1
    assert {site.row(job).state for job in jobs} == {State.SUCCEEDED}


async def test_at_the_deadline_what_hangs_goes_back_and_what_waited_behind_it_never_began(site, tmp_path):
    ran, never = str(tmp_path / "ran"), str(tmp_path / "gate")
    async with working(site.app(), WorkerConfig(timing=FAST, grace=0.2, threads=2)) as worker:
        done = site.submit(*[note_in_thread.bind("warm") for _ in range(40)])
        await all_finished(site)
        hanging = site.submit(*[record_in_thread.bind(ran, never) for _ in range(2)])
        await eventually(lambda: (tmp_path / "ran").exists() and (tmp_path / "ran").read_text().count("\n") == 2)
        late = site.submit(*[note_in_thread.bind(str(n)) for n in range(20)])
        worker.stop()
    assert worker.left_running == 2
    (tmp_path / "gate").touch()
    assert notes == ["warm"] * 40
    assert {site.row(job).state for job in done} == {State.SUCCEEDED}
    assert {(site.row(job).state, site.row(job).attempt) for job in hanging + late} == {(State.READY, 0)}
