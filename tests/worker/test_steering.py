"""Pausing, limiting, editing and deleting, as the workers see it."""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime, timedelta

import child_tasks
import gate_tasks
import psycopg
import pytest
import worker_tasks
from worker_help import FAST, ONLY_WOKEN, all_finished, eventually, states, working

import chancy
import chancy_ops
from chancy import Queue, State
from chancy.model import WITHOUT_END
from chancy.run import send
from chancy_ops import JobFilter
from chancy_worker import WorkerConfig
from chancy_worker.attempts.verdict import succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Circle, Wanted
from chancy_worker.life.lease import extend, register
from chancy_worker.memory import Memory, measured

AWAKE = WorkerConfig(timing=ONLY_WOKEN, grace=1)


async def test_a_paused_queue_starts_nothing_and_goes_on_at_once_when_it_is_resumed(site):
    chancy_ops.pause(site.conn, "default", schema=site.schema)
    site.submit(*[worker_tasks.add.bind(n, 1) for n in range(20)])
    async with working(site.app(), AWAKE):
        (other,) = site.submit(worker_tasks.add.using(queue="other").bind(1, 1))
        async with working(site.app(queues=[Queue("other")]), AWAKE):
            await eventually(lambda: site.row(other).state is State.SUCCEEDED)
        assert states(site) == {"ready": 20, "succeeded": 1}
        assert chancy_ops.resume(site.conn, "default", schema=site.schema)
        await all_finished(site)


async def test_a_paused_task_lets_the_others_of_its_queue_pass(site):
    chancy_ops.pause(site.conn, task=worker_tasks.note, schema=site.schema)
    site.submit(
        *[worker_tasks.note.bind("paused") for _ in range(20)], *[worker_tasks.add.bind(n, 1) for n in range(9)]
    )
    async with working(site.app(), AWAKE):
        await eventually(lambda: site.count("succeeded") == 9)
        assert worker_tasks.notes == []
        assert chancy_ops.resume(site.conn, task="worker_tasks.note", schema=site.schema)
        await all_finished(site)


async def test_what_runs_when_its_queue_is_paused_runs_on(site):
    (job,) = site.submit(worker_tasks.pass_gate.bind("g"))
    async with working(site.app()):
        await eventually(lambda: site.row(job).state is State.RUNNING)
        chancy_ops.pause(site.conn, "default", schema=site.schema)
        worker_tasks.gates["g"].set()
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)


async def test_a_pause_ends_by_itself(site):
    chancy_ops.pause(site.conn, "default", until=timedelta(seconds=1), schema=site.schema)
    site.submit(worker_tasks.add.bind(1, 2))
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1)):
        await all_finished(site)
    assert site.one("SELECT finished_at >= (SELECT until FROM {0}.pause) FROM {0}.history")


async def test_a_second_pause_sets_another_end(site):
    chancy_ops.pause(site.conn, "default", until=datetime.now(UTC) + timedelta(seconds=1), schema=site.schema)
    chancy_ops.pause(site.conn, "default", schema=site.schema)
    assert site.one("SELECT until = 'infinity' FROM {}.pause")


def test_resume_says_whether_anything_was_paused(site):
    assert not chancy_ops.resume(site.conn, "default", schema=site.schema)
    chancy_ops.pause(site.conn, "default", schema=site.schema)
    assert chancy_ops.resume(site.conn, "default", schema=site.schema)
    assert not chancy_ops.resume(site.conn, "default", schema=site.schema)


async def test_a_paused_schedule_ticks_again_when_it_is_resumed(site):
    chancy.schedule(site.conn, "s", worker_tasks.add.bind(1, 2), chancy.every(seconds=1), schema=site.schema)
    chancy_ops.pause(site.conn, schedule="s", until=timedelta(hours=1), schema=site.schema)
    (row,) = chancy.schedules(site.conn, schema=site.schema)
    assert timedelta(minutes=59) < row.paused_until - row.read_at <= timedelta(hours=1)
    async with working(site.app()):
        (other,) = site.submit(worker_tasks.add.bind(1, 2))
        await eventually(lambda: site.row(other).state is State.SUCCEEDED)
        assert chancy_ops.resume(site.conn, schedule="s", schema=site.schema)
        assert not chancy_ops.resume(site.conn, schedule="s", schema=site.schema)
        await eventually(lambda: site.count("succeeded") > 1)
    with pytest.raises(chancy.UnknownSchedule):
        chancy_ops.pause(site.conn, schedule="t", schema=site.schema)


@pytest.mark.parametrize("verb", [chancy_ops.pause, chancy_ops.resume])
def test_a_pause_names_one_thing(site, verb):
    with pytest.raises(ValueError, match="name one"):
        verb(site.conn, schema=site.schema)
    with pytest.raises(ValueError, match="name one"):
        verb(site.conn, "default", task="t", schema=site.schema)


def test_a_pause_until_a_naive_time_is_refused(site):
    with pytest.raises(ValueError, match="time zone"):
        chancy_ops.pause(site.conn, "default", until=datetime(2026, 1, 1), schema=site.schema)  # noqa: DTZ001


def admitted(site):
    """The tasks of the jobs that may pass their limits now."""
    worker = send(site.conn, register("w", 60), site.schema)
    wanted = Wanted({"default": 100}, gated={"default": Circle(True)})
    return [job.task for job in send(site.conn, play_round(worker, [], wanted), site.schema).claimed]


def test_a_paused_task_has_no_places_in_a_limit_that_it_shares(site):
    site.submit(*[gate_tasks.shared_one.bind() for _ in range(5)])
    chancy_ops.pause(site.conn, task=gate_tasks.shared_one, schema=site.schema)
    site.submit(*[gate_tasks.shared_two.bind() for _ in range(5)])
    assert admitted(site) == ["gate_tasks.shared_two"] * 2


def test_a_paused_queue_admits_nobody(site):
    site.submit(*[gate_tasks.shared_one.bind() for _ in range(5)])
    chancy_ops.pause(site.conn, "default", schema=site.schema)
    assert admitted(site) == []
    chancy_ops.resume(site.conn, "default", schema=site.schema)
    assert len(admitted(site)) == 2


async def test_a_waiting_job_can_be_brought_forward_and_put_off(site):
    (job,) = site.submit(worker_tasks.add.using(delay=timedelta(hours=1)).bind(1, 2))
    async with working(site.app(), AWAKE):
        assert chancy_ops.edit(site.conn, job.id, run_at=datetime.now(UTC), schema=site.schema)
        await all_finished(site)
    assert not chancy_ops.edit(site.conn, job.id, priority=5, schema=site.schema)
    (job,) = site.submit(worker_tasks.add.bind(1, 2))
    later = datetime.now(UTC) + timedelta(hours=1)
    assert chancy_ops.edit(site.conn, job.id, run_at=later, priority=7, schema=site.schema)
    row = site.row(job)
    assert (row.state, row.run_at, row.priority) == (State.SCHEDULED, later, 7)


def test_an_edit_of_a_job_that_there_is_not_is_told(site):
    with pytest.raises(chancy.UnknownJob, match="job 999 "):
        chancy_ops.edit(site.conn, 999, priority=1, schema=site.schema)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"priority": 101}, "-100 to 100"), ({"run_at": datetime(2026, 1, 1)}, "time zone")],  # noqa: DTZ001
)
def test_an_edit_that_no_row_can_hold_is_refused(site, change, words):
    with pytest.raises(ValueError, match=words):
        chancy_ops.edit(site.conn, 1, **change, schema=site.schema)


async def test_a_running_job_is_neither_edited_nor_deleted(site):
    (job,) = site.submit(worker_tasks.pass_gate.bind("g"))
    async with working(site.app()):
        await eventually(lambda: site.row(job).state is State.RUNNING)
        assert not chancy_ops.edit(site.conn, job.id, priority=1, schema=site.schema)
        assert not chancy_ops.delete(site.conn, job.id, schema=site.schema)
        worker_tasks.gates["g"].set()
        await all_finished(site)
    assert chancy_ops.delete(site.conn, job.id, schema=site.schema)
    with pytest.raises(chancy.UnknownJob):
        site.row(job)
    with pytest.raises(chancy.UnknownJob):
        chancy_ops.delete(site.conn, job.id, schema=site.schema)


async def failed(site, *binds):
    """These jobs, failed."""
    jobs = site.submit(*binds)
    async with working(site.app()):
        await all_finished(site)
    return jobs


async def test_the_failed_of_one_kind_are_requeued_in_batches_and_counted_first(site):
    await failed(
        site,
        *[worker_tasks.end_badly.bind("open", "nul") for _ in range(7)],
        *[worker_tasks.end_badly.bind("open", "surrogate") for _ in range(3)],
        *[worker_tasks.discard.bind() for _ in range(4)],
        *[worker_tasks.end_badly.bind("open", "object") for _ in range(2)],
    )
    which = JobFilter(state=State.FAILED, error="ValueError", task=worker_tasks.end_badly)
    assert chancy_ops.count(site.conn, which, schema=site.schema) == {State.FAILED: 10}
    told = []
    swept = chancy_ops.requeue_many(site.conn, which, batch=4, told=told.append, schema=site.schema)
    assert (swept.changed, swept.left, told) == (10, 0, [4, 8, 10])
    assert states(site) == {"ready": 10, "discarded": 4, "failed": 2}
    assert chancy_ops.count(site.conn, schema=site.schema) == {State.READY: 10, State.DISCARDED: 4, State.FAILED: 2}


@pytest.fixture(autouse=True)
def open_gate(site):
    worker_tasks.gates["open"].set()


async def test_an_error_is_looked_for_where_it_stands_and_not_in_what_a_message_says(site):
    await failed(site, worker_tasks.raise_with.bind('{"kind":"TimeoutError"} "kind":"TimeoutError"'))
    assert chancy_ops.count(site.conn, JobFilter(error="TimeoutError"), schema=site.schema) == {}
    assert chancy_ops.count(site.conn, JobFilter(error="ValueError"), schema=site.schema) == {State.FAILED: 1}
    assert chancy_ops.count(site.conn, JobFilter(error="ValueErro."), schema=site.schema) == {}


async def test_of_several_errors_the_last_one_counts(site):
    await failed(site, worker_tasks.raise_in_turn.using(max_attempts=2, retry=worker_tasks.AT_ONCE).bind())
    assert chancy_ops.count(site.conn, JobFilter(error="KeyError"), schema=site.schema) == {}
    assert chancy_ops.count(site.conn, JobFilter(error="ValueError"), schema=site.schema) == {State.FAILED: 1}


async def test_jobs_are_chosen_by_when_they_finished(site):
    await failed(site, *[worker_tasks.add.bind(1, 2) for _ in range(4)])
    middle = site.one("SELECT finished_at FROM {}.history ORDER BY finished_at, id OFFSET 2 LIMIT 1")
    early, late = JobFilter(until=middle), JobFilter(since=middle)
    found = [chancy_ops.count(site.conn, which, schema=site.schema).get(State.SUCCEEDED, 0) for which in (early, late)]
    assert sum(found) == 4
    assert found[1] >= 1


async def test_waiting_jobs_are_cancelled_and_running_ones_asked_to_stop(site):
    (running,) = site.submit(worker_tasks.pass_gate.bind("never"))
    async with working(site.app(concurrency=1)):
        await eventually(lambda: site.row(running).state is State.RUNNING)
        site.submit(*[worker_tasks.add.bind(1, 2) for _ in range(10)])
        site.submit(*[worker_tasks.add.using(queue="other").bind(1, 2) for _ in range(3)])
        swept = chancy_ops.cancel_many(site.conn, JobFilter(queue="default"), batch=3, schema=site.schema)
        assert (swept.changed, swept.left) == (11, 0)
        await eventually(lambda: states(site) == {"cancelled": 11, "ready": 3})


async def test_deleting_leaves_the_running_and_takes_the_rest(site):
    await failed(site, *[worker_tasks.add.bind(1, 2) for _ in range(4)])
    (running,) = site.submit(worker_tasks.pass_gate.bind("never"))
    async with working(site.app(concurrency=1), WorkerConfig(timing=FAST, grace=0)):
        await eventually(lambda: site.row(running).state is State.RUNNING)
        site.submit(*[worker_tasks.add.bind(1, 2) for _ in range(5)])
        swept = chancy_ops.delete_many(site.conn, JobFilter(queue="default"), batch=2, schema=site.schema)
        assert (swept.changed, swept.left) == (9, 1)
        assert states(site) == {"running": 1}


def test_what_could_never_be_meant_is_refused(site):
    for verb in (chancy_ops.cancel_many, chancy_ops.delete_many):
        with pytest.raises(ValueError, match="fits every one"):
            verb(site.conn, JobFilter(), schema=site.schema)
    for verb, state in [
        (chancy_ops.cancel_many, State.FAILED), (chancy_ops.delete_many, State.RUNNING), (chancy_ops.requeue_many, State.READY),
        (chancy_ops.requeue_many, None),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=verb.__name__):
            verb(site.conn, JobFilter(queue="q", state=state), schema=site.schema)


async def test_a_requeue_leaves_those_whose_key_a_live_job_has(site):
    unique = worker_tasks.discard.using(unique=chancy.Unique("k"))
    await failed(site, unique.bind())
    await failed(site, unique.bind())
    swept = chancy_ops.requeue_many(site.conn, JobFilter(state=State.DISCARDED), schema=site.schema)
    assert (swept.changed, swept.left) == (1, 1)


async def test_a_bulk_verb_on_an_async_connection_is_the_same(site):
    site.submit(*[worker_tasks.add.bind(1, 2) for _ in range(5)])
    async with await psycopg.AsyncConnection.connect(site.dsn) as conn:
        swept = await chancy_ops.cancel_many(conn, JobFilter(task=worker_tasks.add), schema=site.schema)
    assert swept.changed == 5


def test_two_who_requeue_the_same_jobs_do_each_of_them_once(site):
    site.submit(*[worker_tasks.add.bind(1, 2) for _ in range(200)])
    which = JobFilter(queue="default")
    chancy_ops.cancel_many(site.conn, which, schema=site.schema)
    found = []

    def requeue():
        with psycopg.connect(site.dsn, autocommit=True) as conn:
            which = JobFilter(state=State.CANCELLED)
            found.append(chancy_ops.requeue_many(conn, which, batch=7, schema=site.schema).changed)

    threads = [threading.Thread(target=requeue) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == 200
    assert states(site) == {"ready": 200}


async def test_the_queues_and_the_workers_are_listed(site):
    chancy_ops.pause(site.conn, "empty", schema=site.schema)
    chancy_ops.limit(site.conn, "default", concurrency=1, schema=site.schema)
    (running,) = site.submit(worker_tasks.pass_gate.bind("g"))
    async with working(site.app(), AWAKE):
        await eventually(lambda: site.row(running).state is State.RUNNING)
        late = worker_tasks.add.using(delay=timedelta(hours=1))
        jobs = site.submit(worker_tasks.add.bind(1, 2), late.bind(1, 2), gate_tasks.three.bind())
        default, empty = chancy_ops.queues(site.conn, schema=site.schema)
        assert (default.name, default.ready, default.scheduled, default.running) == ("default", 2, 1, 1)
        assert (default.limit, default.workers, default.paused_until) == (1, 1, None)
        assert default.oldest_at == site.row(jobs[0]).run_at
        assert (empty.name, empty.ready, empty.paused_until) == ("empty", 0, WITHOUT_END)
        (worker,) = chancy_ops.workers(site.conn, schema=site.schema)
        assert (worker.queues, worker.running, worker.listens) == (("default",), 1, True)
        assert "worker_tasks.add" in worker.tasks
        # What a heartbeat takes to arrive is taken for a clock that is behind: on a busy machine the next one knows.
        await eventually(
            lambda: (
                (ahead := chancy_ops.workers(site.conn, schema=site.schema)[0].clock_ahead) is not None
                and abs(ahead) < timedelta(seconds=1)
            )
        )
        worker_tasks.gates["g"].set()
    assert chancy_ops.workers(site.conn, schema=site.schema) == []


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has is read from /proc")
async def test_a_worker_says_how_much_memory_it_and_its_children_have_and_since_when(site):
    def told():
        return next(iter(chancy_ops.workers(site.conn, schema=site.schema)), None)

    async with working(site.app()):
        first = await eventually(lambda: (row := told()) and row.memory and row)
        assert 2**20 < first.memory < 2**40
        assert first.memory_of_children == 0
        assert first.started_at <= first.memory_at <= first.expires_at
        (job,) = site.submit(child_tasks.is_loaded.bind("json"))
        await eventually(lambda: site.row(job).state is State.SUCCEEDED, 30)
        later = await eventually(lambda: (row := told()).memory_of_children and row)
        assert later.memory_of_children > 2**20
        assert later.memory_at > first.memory_at


def test_a_heartbeat_that_does_not_know_the_memory_leaves_what_was_said_with_its_time(site):
    worker = send(site.conn, register("w", 60), site.schema)
    send(site.conn, extend(worker, 60, None, 0), site.schema)
    (row,) = chancy_ops.workers(site.conn, schema=site.schema)
    assert (row.memory, row.memory_of_children, row.memory_at) == (None, None, None)
    send(site.conn, extend(worker, 60, None, 0, memory=Memory(7, 8)), site.schema)
    (said,) = chancy_ops.workers(site.conn, schema=site.schema)
    send(site.conn, extend(worker, 60, None, 0, memory=Memory()), site.schema)
    (row,) = chancy_ops.workers(site.conn, schema=site.schema)
    assert (row.memory, row.memory_of_children, row.memory_at) == (7, 8, said.memory_at)
    assert row.expires_at > said.expires_at


def test_a_system_that_does_not_say_it_leaves_the_memory_unknown(monkeypatch):
    def refused(*_):
        raise OSError

    monkeypatch.setattr(os, "open", refused)
    assert measured([1]) == Memory(None, None)


def test_a_round_passes_by_what_is_paused_without_saying_that_it_is_at_its_limit(site):
    worker = send(site.conn, register("w", 60), site.schema)
    site.submit(*[worker_tasks.add.bind(1, 2) for _ in range(3)])
    chancy_ops.pause(site.conn, "default", schema=site.schema)
    answer = send(site.conn, play_round(worker, [], Wanted({"default": 9}, looking=("default",))), site.schema)
    assert (answer.claimed, list(answer.at_limit), answer.lanes) == ([], [], [("default", 0)])


def test_a_limit_that_is_lowered_under_full_workers_lets_them_claim_nothing_before_less_runs(site):
    """Each has room for one more at a time, as a full worker has: which is less than it had before."""
    workers = [send(site.conn, register(name, 60), site.schema) for name in ("one", "two")]
    site.submit(*[worker_tasks.add.bind(1, 2) for _ in range(60)])
    running = {worker: [] for worker in workers}

    def play(worker, ended, want):
        wanted = Wanted({"default": want}, looking=("default",))
        verdicts = [succeeded(job, b"3") for job in running[worker][:ended]]
        claimed = send(site.conn, play_round(worker, verdicts, wanted), site.schema).claimed
        running[worker] = running[worker][ended:] + claimed
        return len(claimed)

    chancy_ops.limit(site.conn, "default", concurrency=20, schema=site.schema)
    assert [play(worker, 0, 10) for worker in workers] == [10, 10]
    chancy_ops.limit(site.conn, "default", concurrency=5, schema=site.schema)
    for _ in range(9):
        for worker in workers:
            claimed, total = play(worker, 1, 1), sum(map(len, running.values()))
            assert not claimed or total <= 5
    for worker in workers * 2:
        play(worker, 0, 10)
    assert sum(map(len, running.values())) == 5
