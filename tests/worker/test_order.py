"""In what order the jobs of a queue begin: priority, run_at, id."""

import asyncio
import bisect
import logging
import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psycopg
import pytest
import worker_tasks as tasks
from worker_help import FAST, ONLY_WOKEN, all_finished, eventually, working

from chancy import Limit, Queue, State
from chancy.options.limits import Place
from chancy.registry import registered
from chancy.run import send
from chancy_worker import WorkerConfig
from chancy_worker.attempts.verdict import Claimed, released
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register
from chancy_worker.slots.slots import Slots

pytestmark = pytest.mark.any_postgres

CONFIG = WorkerConfig(timing=FAST, grace=1, children=2)
PLACES = {"loop": tasks.begin, "thread": tasks.begin_in_thread, "child": tasks.begin_in_child}
QUICK, LONG = 0.001, 0.08
"""In seconds; who waits behind a long one goes back."""


def begun(path):
    """The ids in the order in which their functions began, each for its first time."""
    return list(dict.fromkeys(int(line) for line in path.read_text().split()))


def overtaken(jobs, order):
    """The most that began before one and should have come after it."""
    place = {job.id: n for n, job in enumerate(jobs)}
    seen, most = [], 0
    for number in [place[id_] for id_ in order]:
        most = max(most, len(seen) - bisect.bisect(seen, number))
        bisect.insort(seen, number)
    return most


def test_what_is_claimed_is_in_the_order_of_its_queue_whatever_the_order_of_its_rows(site):
    worker = send(site.conn, register("one", 60), site.schema)
    now = datetime.now(UTC)
    expected = {}
    for minutes, priority, queue in [(1, 0, "a"), (3, 0, "a"), (2, 5, "b"), (2, -5, "a"), (9, 0, "b"), (2, 0, "a")]:
        at = now - timedelta(minutes=minutes)
        jobs = site.submit(*[tasks.add.using(queue=queue, priority=priority, run_at=at).bind(1, n) for n in range(3)])
        expected |= {job.id: (queue, -priority, at, job.id) for job in jobs}
    # Rows that were written anew lie elsewhere.
    site.rows("UPDATE {}.job SET max_attempts = 4 WHERE id %% 3 = %s RETURNING 1", 0)
    wanted = Wanted({"a": 100, "b": 100}, looking=("a", "b"))
    claimed = send(site.conn, play_round(worker, [], wanted), site.schema).claimed
    assert len(claimed) == len(expected)
    for queue in "ab":
        ids = [job.id for job in claimed if job.queue == queue]
        assert ids == [id_ for id_, place in sorted(expected.items(), key=lambda each: each[1]) if place[0] == queue]


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("beside", ["alone", "beside a busy queue"])
async def test_with_one_slot_the_jobs_of_a_queue_begin_one_after_another(site, tmp_path, place, beside):
    path = tmp_path / "begun"
    lengths = [QUICK, QUICK, LONG, QUICK, LONG, LONG] * 4
    jobs = site.submit(*[PLACES[place].using(queue="line").bind(str(path), seconds) for seconds in lengths])
    if beside != "alone":
        site.submit(*[tasks.nap.using(queue="busy").bind(0.005) for _ in range(1500)])
    async with working(site.app(queues=[Queue("line", 1), Queue("busy", 4)]), CONFIG):
        await eventually(lambda: all(site.row(job).finished_at for job in jobs), 30)
    assert begun(path) == [job.id for job in jobs]
    assert {site.row(job).attempt for job in jobs} == {1}


async def test_with_one_slot_it_does_not_matter_where_the_jobs_of_a_queue_run(site, tmp_path):
    path, places = tmp_path / "begun", list(PLACES.values()) * 2
    lengths = [QUICK, LONG, QUICK, QUICK, LONG, QUICK, LONG, LONG] * 3
    jobs = site.submit(
        *[places[n % 6].using(queue="line").bind(str(path), seconds) for n, seconds in enumerate(lengths)]
    )
    async with working(site.app(queues=[Queue("line", 1)]), WorkerConfig(timing=FAST, grace=1, children=1, threads=1)):
        await all_finished(site)
    assert begun(path) == [job.id for job in jobs]


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
async def test_with_ten_slots_no_job_is_overtaken_by_more_than_ten(site, tmp_path, place):
    path, lengths = tmp_path / "begun", random.Random(7)
    jobs = site.submit(*[PLACES[place].bind(str(path), lengths.uniform(0.001, 0.06)) for _ in range(80)])
    async with working(site.app(concurrency=10), CONFIG):
        await all_finished(site)
    assert overtaken(jobs, begun(path)) <= 10


async def test_a_queue_of_one_slot_waits_where_its_next_job_has_no_thread(site, tmp_path):
    path, gate = tmp_path / "begun", tmp_path / "gate"
    config = WorkerConfig(timing=ONLY_WOKEN, grace=1, threads=1)
    queues = [Queue("line", 1), Queue("others", 5)]
    async with working(site.app(queues=queues), config):
        (holder,) = site.submit(tasks.wait_for_file_in_thread.using(queue="others").bind(str(gate)))
        await eventually(lambda: site.row(holder).state is State.RUNNING)
        line = [tasks.begin, tasks.begin_in_thread, tasks.begin]
        jobs = site.submit(*[task.using(queue="line").bind(str(path), 0) for task in line])
        others = site.submit(*[task.using(queue="others").bind(str(tmp_path / "others"), 0) for task in line])
        # In the queue of several slots it is passed by.
        await eventually(lambda: {site.row(job).state for job in [jobs[0], others[0], others[2]]} == {State.SUCCEEDED})
        assert {site.row(job).state for job in [*jobs[1:], others[1]]} == {State.READY}
        gate.touch()
        await all_finished(site, 10)
    assert begun(path) == [job.id for job in jobs]


async def test_a_queue_of_one_slot_waits_where_its_next_job_that_waited_for_a_limit_has_no_thread(site, tmp_path):
    path, gate, first = tmp_path / "begun", tmp_path / "gate", tmp_path / "first"
    config = WorkerConfig(timing=ONLY_WOKEN, grace=1, threads=1)
    queues = [Queue("line", 1), Queue("others", 5)]
    limits = [Limit.concurrency(2, key="of the line")]
    async with working(site.app(queues=queues), config):
        (holder, ahead) = site.submit(
            tasks.wait_for_file_in_thread.using(queue="others").bind(str(gate)),
            tasks.wait_for_file.using(queue="line", limits=limits).bind(str(first)),
        )
        await eventually(lambda: {site.row(job).state for job in (holder, ahead)} == {State.RUNNING})
        limited = tasks.begin_in_thread.using(queue="line", limits=limits)
        line = [limited, tasks.begin.using(queue="line"), tasks.begin.using(queue="line", limits=limits), limited]
        jobs = site.submit(*[task.bind(str(path), 0) for task in line])
        first.touch()
        await eventually(lambda: site.row(ahead).state is State.SUCCEEDED)
        for _ in range(5):
            (other,) = site.submit(tasks.begin.using(queue="others").bind(str(tmp_path / "others"), 0))
            await eventually(lambda other=other: site.row(other).state is State.SUCCEEDED)
        assert [site.row(job).state for job in jobs] == [State.READY] * 4
        gate.touch()
        await all_finished(site, 10)
    assert begun(path)[0] == jobs[0].id
    assert {site.row(job).attempt for job in jobs} == {1}


async def test_nothing_of_a_queue_begins_while_a_job_that_comes_before_it_is_on_its_way_back(
    site, tmp_path, monkeypatch, caplog
):
    """Somebody has locked its row, so the verdict that gives it back is passed by again and again."""
    caplog.set_level(logging.INFO, "chancy.job")
    monkeypatch.setattr("chancy_worker.slots.turnstile.AHEAD_SECONDS", 1)
    path = tmp_path / "begun"
    warm = [tasks.add.using(queue="line").bind(1, 2)] * 20
    jobs = [tasks.begin.using(queue="line").bind(str(path), 0)] * 3
    *_, holder, ahead, behind, last = site.submit(*warm, tasks.pass_gate.using(queue="line").bind("slot"), *jobs)
    async with working(site.app(queues=[Queue("line", 1), Queue("other")]), CONFIG):
        await eventually(lambda: [site.row(job).state for job in (holder, ahead)] == [State.RUNNING] * 2)
        with psycopg.connect(site.dsn) as somebody:
            somebody.execute(f'SELECT FROM "{site.schema}".job WHERE id = %s FOR UPDATE', [ahead.id])
            await eventually(lambda: "no slot was free" in caplog.text)
            tasks.gates["slot"].set()
            await eventually(lambda: site.row(holder).state is State.SUCCEEDED)
            for _ in range(5):
                (other,) = site.submit(tasks.add.using(queue="other").bind(1, 2))
                await eventually(lambda other=other: site.row(other).state is State.SUCCEEDED)
            assert (site.row(ahead).state, site.row(behind).state) == (State.RUNNING, State.READY)
        await all_finished(site)
    assert begun(path) == [job.id for job in (ahead, behind, last)]


async def test_a_job_that_goes_back_from_its_slot_lets_none_of_those_behind_it_have_that(monkeypatch):
    """No child could be had for it: it was begun by the worker, and not by its function."""
    monkeypatch.setattr("chancy_worker.slots.turnstile.AHEAD_SECONDS", 60)
    gate, performed, ended = asyncio.Event(), [], []

    class NoChild:
        size = 2

        async def run(self, attempt):
            performed.append(attempt.job.id)
            await gate.wait()
            return released(attempt.job, "no child process was free")

    task = registered()["worker_tasks.begin_in_child"]
    slots = Slots(
        tasks={task.name: task},
        executors=dict.fromkeys(Place, NoChild()),
        concurrency={"line": 1, "other": 1},
        memory=None,
        worker="w",
        schema="s",
        middleware=(),
        keeper=None,
        ends=SimpleNamespace(ended=lambda job, verdict, seconds: ended.append(job.id)),
    )
    for number, queue in [(1, "line"), (2, "line"), (3, "other")]:
        slots.begin(Claimed(number, task.name, queue, 1, 3, 1, 0, b"{}", None, None, None))
    await eventually(lambda: performed == [1, 3])
    gate.set()
    await eventually(lambda: len(ended) == 3)
    assert performed == [1, 3]
