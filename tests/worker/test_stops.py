"""What stops a running attempt, what it says of its end, and which of the two counts."""

from __future__ import annotations

import asyncio
import os
import signal

import limit_tasks
import psycopg
import pytest
import worker_tasks as tasks
from psycopg import sql
from worker_help import FAST, eventually, is_alive, process_facts, working

import chancy
from chancy import InvalidConnection, State
from chancy.current import CurrentJob
from chancy_worker import Timing, WorkerConfig
from chancy_worker.doorbell.ear import Ear
from chancy_worker.rounds.claimer import Claimer

pytestmark = pytest.mark.any_postgres

QUICK = WorkerConfig(timing=FAST, grace=1, children=2)
ONE_BEAT = WorkerConfig(timing=Timing(lease=3600, extend=3600), grace=1, children=2)
"""After its first heartbeat there is none within a test."""


async def running(site, *jobs):
    await eventually(lambda: all(site.row(job).state is State.RUNNING for job in jobs))


async def has_beaten(site):
    await eventually(lambda: site.rows("SELECT FROM {}.worker WHERE clock_ahead IS NOT NULL"))


async def test_a_cancelled_coroutine_and_a_cancelled_process_are_stopped_at_once(site, tmp_path):
    async with working(site.app(), ONE_BEAT):
        await has_beaten(site)
        loop, process = site.submit(
            tasks.pass_gate.bind("never"),
            limit_tasks.wait_in_process.bind(str(tmp_path / "never"), str(tmp_path / "pids")),
        )
        await running(site, loop, process)
        await eventually((tmp_path / "pids").exists)
        assert loop.cancel(site.conn) is True
        assert process.cancel(site.conn) is True
        await eventually(lambda: site.count("cancelled") == 2)  # by the notification
    assert (site.row(loop).attempt, site.row(loop).errors) == (1, ())
    with pytest.raises(chancy.JobCancelled):
        loop.result(site.conn)


async def test_a_cancel_whose_notification_is_lost_arrives_with_the_heartbeat(site, monkeypatch):
    monkeypatch.setattr(Ear, "cancelled", lambda self, notify, lease: None)
    async with working(site.app(), QUICK):
        (job,) = site.submit(tasks.pass_gate.bind("never"))
        await running(site, job)
        job.cancel(site.conn)
        await eventually(lambda: site.row(job).state is State.CANCELLED)


async def test_a_cancel_that_is_rolled_back_stops_nothing(site):
    async with working(site.app(), QUICK):
        (job,) = site.submit(tasks.pass_gate.bind("go"))
        await running(site, job)
        with psycopg.connect(site.dsn) as conn:
            job.cancel(conn)
            conn.rollback()
        await asyncio.sleep(2 * FAST.extend)
        tasks.gates["go"].set()
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)


async def test_a_thread_sees_that_it_is_cancelled_and_what_it_returns_counts(site, tmp_path):
    async with working(site.app(), QUICK):
        (job,) = site.submit(limit_tasks.cooperative.bind(str(tmp_path / "never")))
        await running(site, job)
        job.cancel(site.conn)
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)
    assert site.row(job).result == b'"saw it"'


@pytest.mark.parametrize(
    ("how", "attempts", "state"),
    [
        ("snoozes", 2, State.CANCELLED),
        ("snoozes", 1, State.CANCELLED),
        ("retries", 2, State.CANCELLED),
        ("retries", 1, State.FAILED),
        ("fails", 2, State.CANCELLED),
        ("fails", 1, State.FAILED),
        ("discards", 2, State.DISCARDED),
        ("returns", 2, State.SUCCEEDED),
    ],
)
async def test_what_becomes_of_a_cancelled_thread_that_has_looked_is_what_it_raises(site, how, attempts, state):
    """As the table in docs/guides/submitting.md says."""
    async with working(site.app(), QUICK):
        (job,) = site.submit(limit_tasks.heed.using(max_attempts=attempts).bind(how))
        await running(site, job)
        job.cancel(site.conn)
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.attempt) == (state, 1)


async def test_a_job_that_is_cancelled_while_it_fails_is_not_tried_again(site, tmp_path, monkeypatch):
    """The one rule: what would make it ready again makes it cancelled."""
    monkeypatch.setattr(Ear, "cancelled", lambda self, notify, lease: None)
    async with working(site.app(), WorkerConfig(grace=1)):  # the next heartbeat is far away
        (job,) = site.submit(tasks.fail_at_gate.bind("go"))
        await running(site, job)
        job.cancel(site.conn)
        tasks.gates["go"].set()
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.attempt, [error.kind for error in row.errors]) == (State.CANCELLED, 1, ["ValueError"])


async def test_a_cancelled_job_of_a_worker_that_dies_is_not_run_again(site, tmp_path):
    worker = site.spawn()
    (job,) = site.submit(tasks.wait_for_file.bind(str(tmp_path / "never")))
    await running(site, job)
    worker.signal(signal.SIGSTOP)
    job.cancel(site.conn)
    worker.signal(signal.SIGKILL)
    site.spawn()
    row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.attempt, row.errors[-1].kind) == (State.CANCELLED, 1, "WorkerDied")
    assert row.errors[-1].duration > 0


async def test_a_finished_job_cannot_be_cancelled(site):
    async with working(site.app(), QUICK):
        (job,) = site.submit(tasks.add.bind(1, 2))
        await eventually(lambda: site.row(job).finished_at)
    assert job.cancel(site.conn) is False


@pytest.fixture
def effects(site):
    site.conn.execute(sql.SQL("CREATE TABLE {}.effect (job bigint)").format(sql.Identifier(site.schema)))
    return f'"{site.schema}".effect'


@pytest.mark.parametrize("how", ["return", "raise"])
async def test_what_a_handler_completes_in_its_own_transaction_is_the_truth(site, effects, caplog, how):
    async with working(site.app(), QUICK):
        (job,) = site.submit(limit_tasks.effect.bind(site.dsn, effects, how))
        await eventually(lambda: site.row(job).finished_at)
        await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0)
    row = site.row(job)
    assert (row.state, row.attempt, row.result, row.errors) == (State.SUCCEEDED, 1, b'"from inside"', ())
    assert site.rows("SELECT job FROM {}.effect") == [(job.id,)]
    assert ("in its handler's own transaction" in caplog.text) is (how == "raise")
    assert "too late" not in caplog.text


async def test_a_completion_that_is_rolled_back_leaves_the_verdict_to_the_worker(site, effects):
    async with working(site.app(), QUICK):
        (job,) = site.submit(limit_tasks.effect.bind(site.dsn, effects, "rollback"))
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.result) == (State.SUCCEEDED, b'"rolled back"')
    assert site.rows("SELECT job FROM {}.effect") == []


async def test_a_sync_handler_completes_its_job_on_its_sync_connection(site, effects):
    async with working(site.app(), QUICK):
        (job,) = site.submit(limit_tasks.effect_in_thread.bind(site.dsn, effects))
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.result) == (State.SUCCEEDED, b'"from a thread"')


def test_a_job_is_completed_in_a_transaction_and_under_its_fence_only(site):
    (job,) = site.submit(tasks.add.bind(1, 2))
    site.conn.execute(f"UPDATE \"{site.schema}\".job SET state = 'running', worker = 1, claims = 2")
    for fence, lease in [(1, 1), (2, 2)]:  # an earlier claim; and one before a failover, under another lease
        late = CurrentJob(
            job.id, job.task, job.queue, 1, 3,
            fence=fence, schema=site.schema, encode_result=lambda _: b"3", lease=lease,
        )  # fmt: skip
        with pytest.raises(InvalidConnection, match=r"with conn\.transaction"):
            late.complete(site.conn)
        with pytest.raises(chancy.LeaseLost, match=str(job.id)), site.conn.transaction():
            late.complete(site.conn)
    assert site.row(job).state is State.RUNNING


async def test_sigterm_under_load_ends_a_worker_within_its_grace_and_refunds_what_it_interrupts(site, tmp_path):
    worker = site.spawn(concurrency=100, grace=1, timing=FAST)
    never = str(tmp_path / "never")
    jobs = site.submit(
        *[tasks.wait_for_file.bind(never) for _ in range(20)],
        *[tasks.wait_for_file_in_thread.bind(never) for _ in range(3)],
        *[limit_tasks.wait_in_process.bind(never, str(tmp_path / "pids")) for _ in range(2)],
        *[tasks.swallow_cancellation.bind(never) for _ in range(2)],
    )
    await running(site, *jobs)
    await eventually(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().splitlines()) == 2)
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.code is not None, 8)  # to write verdicts it would have ten seconds more
    assert worker.code == 0
    assert {(site.row(job).state, site.row(job).attempt) for job in jobs} == {(State.READY, 0)}
    assert site.workers() == {}
    pids = [int(pid) for line in (tmp_path / "pids").read_text().splitlines() for pid in line.split()]
    await eventually(lambda: not any(map(is_alive, pids)))  # a killed process ends when it has its turn


async def test_sigterm_to_the_whole_group_leaves_children_the_grace(site, tmp_path):
    """As a service manager sends it."""
    gate, pids = tmp_path / "gate", tmp_path / "pids"
    worker = site.spawn(grace=20, timing=FAST)
    (job,) = site.submit(limit_tasks.wait_in_process.bind(str(gate), str(pids)))
    await eventually(lambda: pids.exists() and pids.read_text())
    child = int(pids.read_text().split()[0])
    for pid in (worker.pid, process_facts(child)[1], child):
        os.kill(pid, signal.SIGTERM)
    await asyncio.sleep(0.5)
    gate.touch()
    await eventually(lambda: worker.code is not None)
    assert (worker.code, site.row(job).state, site.row(job).attempt) == (0, State.SUCCEEDED, 1)


async def test_a_worker_that_was_frozen_beyond_its_lease_changes_nothing_and_tells_its_handlers(site, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    frozen = site.spawn()
    (job,) = site.submit(tasks.note_lease_lost.bind(str(notes), str(gate)))
    await running(site, job)
    frozen.signal(signal.SIGSTOP)
    second = site.spawn()
    await site.started(second)
    await eventually(lambda: site.row(job).attempt == 2 and site.row(job).state is State.RUNNING)
    frozen.signal(signal.SIGCONT)
    await eventually(lambda: notes.exists())
    gate.touch()
    await eventually(lambda: site.row(job).finished_at)
    assert notes.read_text() == "attempt 1 lost True\n"
    assert (site.row(job).attempt, site.row(job).result) == (2, b'"attempt 2"')


async def test_what_a_round_brings_after_its_worker_was_told_to_stop_goes_back(site, monkeypatch):
    take = Claimer._take

    def told_to_stop(self, answer, wanted, under):
        with monkeypatch.context() as patch:
            patch.setattr(self, "stopping", True)
            return take(self, answer, wanted, under)

    monkeypatch.setattr(Claimer, "_take", told_to_stop)
    async with working(site.app()):
        (job,) = site.submit(tasks.add.bind(1, 2))
        await eventually(lambda: site.one("SELECT claims FROM {}.any_job WHERE id = %s", job.id))
    assert (site.row(job).state, site.row(job).attempt) == (State.READY, 0)
