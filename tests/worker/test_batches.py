"""Batches with real workers on real Postgres: their end is seen once, whoever ends the last job, and however."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from datetime import timedelta

import batch_tasks as tasks
import psycopg
import pytest
import worker_tasks
from worker_help import all_finished, eventually, working

import chancy
import chancy_ops
from chancy import BatchCounts, State, callback
from chancy.batches.statements import finish_batches, finish_unfinished
from chancy.run import send
from chancy_worker import Timing, WorkerConfig, engine
from chancy_worker.attempts.verdict import failure, since_now, succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register
from chancy_worker.life.rescue import declare_dead, take_back
from chancy_worker.parts.retention import keep, sweep_batches

PROMPT = WorkerConfig(timing=Timing(look=60, lease=180, extend=60), grace=1)
"""A worker that sees the end of a batch by the verdict of its last job, or within the test's deadline not at all."""


@pytest.fixture(autouse=True)
def clean():
    tasks.told.clear()


def batch_of(site, *jobs, **callbacks):
    with chancy.batch(site.conn, schema=site.schema, **(callbacks or {"on_finished": tasks.tell})) as batch:
        made = batch.submit_many(jobs)
    return batch, made


def claim(site, queue="default"):
    """Claim all as a worker of the test's own."""
    worker = send(site.conn, register("the test", 600), site.schema)
    return worker, send(site.conn, play_round(worker, [], Wanted({queue: 1000}, looking=(queue,))), site.schema).claimed


def finish(site, worker, *verdicts):
    assert send(site.conn, play_round(worker, verdicts, Wanted()), site.schema).settled == len(verdicts)


def callbacks_of(site, task="batch_tasks.tell"):
    return len(chancy.jobs(site.conn, task=task, schema=site.schema))


def look(site, *batches, conn=None):
    return send(conn or site.conn, finish_batches([batch.id for batch in batches]), site.schema).ended


async def test_the_counts_are_those_of_the_rows_however_the_jobs_have_ended(site):
    batch, _ = batch_of(
        site, *[tasks.end_somehow.bind(n) for n in range(300)], on_finished=tasks.tell, on_success=tasks.tell
    )
    async with working(site.app()), working(site.app()):
        await eventually(lambda: tasks.told)
        await all_finished(site)
    (counts,) = site.rows(
        "SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed'), "
        "count(*) FILTER (WHERE state = 'discarded') FROM {}.history WHERE batch = %s",
        batch.id,
    )
    assert counts == (240, 30, 30)
    assert tasks.told == [("", BatchCounts(batch.id, 300, *counts, 0))]


async def test_on_success_is_called_when_every_job_has_succeeded(site):
    batch, _ = batch_of(
        site,
        *[worker_tasks.add.bind(n, 1) for n in range(20)],
        on_success=callback(tasks.tell, "success"),
        on_finished=callback(tasks.tell, note="finished"),
    )
    async with working(site.app()):
        await eventually(lambda: len(tasks.told) == 2)
        await all_finished(site)
    counts = BatchCounts(batch.id, 20, 20)
    assert sorted(tasks.told) == [("finished", counts), ("success", counts)]


async def test_a_batch_shows_how_far_it_is_at_each_stage(site):
    def seen():
        progress = batch.progress(site.conn)
        ended = progress.succeeded, progress.failed, progress.discarded, progress.cancelled
        return progress.waiting, progress.running, ended, progress.finished_at is not None

    gates = [worker_tasks.pass_gate.bind(f"gate {n}") for n in range(3)]
    later = worker_tasks.add.using(delay=timedelta(hours=1)).bind(1, 2)
    batch, (*_, last) = batch_of(site, *gates, worker_tasks.discard.bind(), tasks.end_somehow.bind(1), later)
    assert seen() == (6, 0, (0, 0, 0, 0), False)
    async with working(site.app(), PROMPT):
        await eventually(lambda: seen() == (1, 3, (0, 1, 1, 0), False))
        worker_tasks.gates["gate 0"].set()
        await eventually(lambda: seen() == (1, 2, (1, 1, 1, 0), False))
        chancy.cancel(site.conn, last.id, schema=site.schema)
        assert seen() == (0, 2, (1, 1, 1, 1), False)
        worker_tasks.gates["gate 1"].set()
        worker_tasks.gates["gate 2"].set()
        await eventually(lambda: seen() == (0, 0, (3, 1, 1, 1), True))
        await eventually(lambda: tasks.told == [("", BatchCounts(batch.id, 6, 3, 1, 1, 1))])


@pytest.mark.long
async def test_two_workers_that_end_the_last_two_jobs_together_call_back_once_and_promptly(site):
    one, other = (site.app(queues=[chancy.Queue(name)]) for name in ("one", "other"))
    async with working(one, PROMPT), working(other, PROMPT):
        for turn in range(100):
            tasks.barrier = tasks.meet(2)
            ends = [tasks.end_together.using(queue=name).bind() for name in ("one", "other")]
            batch, _ = batch_of(site, *ends, on_finished=tasks.tell.using(queue="one"))
            await eventually(lambda turn=turn: len(tasks.told) > turn)
            assert tasks.told[-1] == ("", BatchCounts(batch.id, 2, 2))
        await all_finished(site)
    assert (len(tasks.told), callbacks_of(site)) == (100, 100)


async def test_who_looks_while_another_one_ends_the_batch_waits_and_finds_it_over(site, chancy_dsn):
    batch, _ = batch_of(site, worker_tasks.add.bind(1, 2))
    worker, (job,) = claim(site)
    finish(site, worker, succeeded(job, b"3"))
    with psycopg.connect(chancy_dsn) as one, psycopg.connect(chancy_dsn, autocommit=True) as other:
        assert look(site, batch, conn=one) == 1
        late = asyncio.create_task(asyncio.to_thread(look, site, batch, conn=other))
        await eventually(lambda: site.one("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s",
                                          other.info.backend_pid))  # fmt: skip
        one.commit()
        assert await late == 0
    assert callbacks_of(site) == 1


async def test_the_last_but_one_to_end_leaves_the_end_to_the_last_whatever_the_order_of_their_commits(site, chancy_dsn):
    batch, _ = batch_of(site, worker_tasks.add.bind(1, 2), worker_tasks.add.bind(3, 4))
    worker, (one, other) = claim(site)
    with psycopg.connect(chancy_dsn) as slow:
        send(slow, play_round(worker, [succeeded(one, b"3")], Wanted()), site.schema)
        finish(site, worker, succeeded(other, b"7"))
        assert look(site, batch) == 0  # the first one is not committed
        slow.commit()
    assert (look(site, batch), look(site, batch), callbacks_of(site)) == (1, 0, 1)


async def test_a_batch_whose_worker_died_before_it_looked_is_found_over_by_another_one(site):
    batch, _ = batch_of(site, worker_tasks.add.bind(1, 2))
    worker, (job,) = claim(site)
    finish(site, worker, succeeded(job, b"3"))
    async with working(site.app()), working(site.app()):
        await eventually(lambda: tasks.told)
        await all_finished(site)
    assert tasks.told == [("", BatchCounts(batch.id, 1, 1))]


async def test_what_ended_without_a_worker_is_seen_by_one_that_has_been_working_all_along(site):
    async with working(site.app()):
        await eventually(lambda: site.workers())
        batch, (job,) = batch_of(site, worker_tasks.add.using(queue="nobody's").bind(1, 2))
        assert chancy.cancel(site.conn, job.id, schema=site.schema)
        await eventually(lambda: tasks.told)
    assert tasks.told == [("", BatchCounts(batch.id, 1, cancelled=1))]


async def test_a_last_job_that_is_rescued_to_failure_ends_its_batch(site):
    batch, _ = batch_of(site, worker_tasks.add.using(max_attempts=1).bind(1, 2), on_success=tasks.tell,
                        on_finished=tasks.tell)  # fmt: skip
    worker, _ = claim(site)
    send(site.conn, declare_dead(worker=worker), site.schema)
    assert send(site.conn, take_back(), site.schema)[:2] == (0, 1)
    async with working(site.app()):
        await eventually(lambda: tasks.told)
    assert tasks.told == [("", BatchCounts(batch.id, 1, failed=1))]


async def test_a_running_last_job_that_is_cancelled_ends_its_batch_at_once(site):
    batch, (job,) = batch_of(site, worker_tasks.pass_gate.bind("never"))
    async with working(site.app(), PROMPT) as worker:
        await eventually(lambda: worker.busy == 1)
        chancy.cancel(site.conn, job.id, schema=site.schema)
        await eventually(lambda: tasks.told)
    assert tasks.told == [("", BatchCounts(batch.id, 1, cancelled=1))]


async def test_a_job_that_completes_in_its_own_transaction_ends_its_batch_when_its_attempt_is_over(site):
    batch, _ = batch_of(site, tasks.complete_in_my_transaction.bind("g"))
    async with working(site.app(), PROMPT):
        await eventually(lambda: site.count("succeeded"))  # two, if a look finds that the batch is over before that
        worker_tasks.gates["g"].set()
        await eventually(lambda: tasks.told)
    assert tasks.told == [("", BatchCounts(batch.id, 1, 1))]


def test_a_job_that_is_requeued_before_the_end_is_waited_for_wherever_its_id_is(site):
    batch, jobs = batch_of(site, *[worker_tasks.add.bind(n, 0) for n in range(2500)])
    worker, claimed = 0, []
    for _ in range(3):
        worker, more = claim(site)
        claimed += more
        finish(site, worker, *[succeeded(job, b"0") for job in more if job.id != jobs[-1].id])
        look(site, batch)
    assert site.one("SELECT witness FROM {}.batch") > jobs[1000].id
    assert chancy.requeue(site.conn, jobs[3].id, schema=site.schema)
    last = next(job for job in claimed if job.id == jobs[-1].id)
    finish(site, worker, succeeded(last, b"0"))
    assert (look(site, batch), site.one("SELECT witness FROM {}.batch")) == (0, jobs[3].id)
    worker, (again,) = claim(site)
    error = failure(again, State.DISCARDED, ValueError("no"), since_now("the test"))
    finish(site, worker, error)
    assert (look(site, batch), look(site, batch)) == (1, 0)
    (row,) = chancy.jobs(site.conn, task="batch_tasks.tell", schema=site.schema)
    assert b'"succeeded" : 2499, "failed" : 0, "discarded" : 1' in row.arguments


def test_a_job_that_is_requeued_after_the_end_changes_nothing(site):
    batch, (job,) = batch_of(site, worker_tasks.add.bind(1, 2))
    worker, (claimed,) = claim(site)
    finish(site, worker, succeeded(claimed, b"3"))
    assert look(site, batch) == 1
    assert chancy.requeue(site.conn, job.id, schema=site.schema)
    worker, claimed_again = claim(site)
    finish(site, worker, *[succeeded(each, b"3") for each in claimed_again])
    assert (look(site, batch), callbacks_of(site), batch.progress(site.conn).succeeded) == (0, 1, 1)


def test_a_look_at_a_batch_that_goes_on_writes_and_locks_nothing(site, chancy_dsn):
    batch, _ = batch_of(site, *[worker_tasks.add.bind(n, 0) for n in range(3)])
    with psycopg.connect(chancy_dsn) as conn:
        assert look(site, batch, conn=conn) == 0
        assert conn.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)


def test_a_callback_whose_key_is_held_by_an_open_transaction_keeps_no_other_batch_waiting(site, chancy_dsn):
    one, _ = batch_of(site, worker_tasks.add.bind(1, 2), on_finished=tasks.tell_once)
    two, _ = batch_of(site, worker_tasks.add.bind(3, 4))
    worker, claimed = claim(site)
    finish(site, worker, *[succeeded(job, b"0") for job in claimed])
    with psycopg.connect(chancy_dsn) as holder, psycopg.connect(chancy_dsn, autocommit=True) as looker:
        chancy.submit_many(holder, [tasks.tell_once.bind(BatchCounts(0))], schema=site.schema)
        looker.execute("SET lock_timeout = '100ms'")
        assert look(site, one, two, conn=looker) == 1
        assert (one.progress(looker).finished_at, two.progress(looker).finished_at is None) == (None, False)
        holder.rollback()
    assert look(site, one, two) == 1
    assert callbacks_of(site, "batch_tasks.tell_once") == 1


def test_more_batches_than_one_look_takes_are_looked_at_in_turn(site):
    batches = [batch_of(site, worker_tasks.add.bind(n, 0))[0] for n in range(3)]
    assert send(site.conn, finish_unfinished(batches[0].id), site.schema) == (batches[2].id, (0, []))
    assert send(site.conn, finish_unfinished(batches[2].id), site.schema) == (None, (0, []))


@pytest.mark.long
async def test_batches_are_over_though_workers_are_killed(site, tmp_path):
    record, gate = tmp_path / "told", tmp_path / "gate"
    workers = [site.spawn() for _ in range(3)]
    await site.started(*workers)
    jobs = [worker_tasks.nap.using(max_attempts=20).bind(0.02) for _ in range(90)]
    # Those that are not over before their workers are killed, however late that is: there are slots for more.
    jobs += [worker_tasks.wait_for_file.using(max_attempts=20).bind(str(gate)) for _ in range(10)]
    batches = [batch_of(site, *jobs, on_finished=callback(tasks.write_down, str(record)))[0] for _ in range(5)]
    for worker, over in zip(workers, (20, 60), strict=False):
        await eventually(lambda over=over: site.count("succeeded") > over)
        worker.signal(signal.SIGKILL)
        site.spawn()
    gate.touch()
    await eventually(lambda: site.one("SELECT count(*) FROM {}.batch WHERE finished_at IS NULL") == 0, 40)
    await all_finished(site)
    assert callbacks_of(site, "batch_tasks.write_down") == 5
    for batch in batches:
        progress = batch.progress(site.conn)
        assert (progress.total, progress.succeeded + progress.failed) == (100, 100)
    told = Counter(line.split()[0] for line in record.read_text().splitlines())
    assert told.keys() == {str(batch.id) for batch in batches}


def test_batches_that_finished_before_the_retention_are_swept_and_unfinished_ones_are_not(site):
    batches = [batch_of(site)[0] for _ in range(2)]
    waiting, _ = batch_of(site, worker_tasks.add.bind(1, 2))
    send(site.conn, keep(timedelta(days=2)), site.schema)
    site.rows(
        "UPDATE {}.batch SET created_at = created_at - interval '3 days', "
        "finished_at = CASE WHEN id = %s THEN finished_at - interval '3 days' ELSE finished_at END RETURNING id",
        batches[0].id,
    )
    assert send(site.conn, sweep_batches(), site.schema) is False
    assert site.rows("SELECT id FROM {}.batch ORDER BY id") == [(batches[1].id,), (waiting.id,)]


async def test_a_worker_without_batches_opens_no_connection_for_them(site, monkeypatch):
    monkeypatch.setattr(engine, "IDLE_SECONDS", 0.5)
    named = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chancy parts' AND backend_start > %s"

    def connections():
        return site.one(named, site.since)

    async with working(site.app(), WorkerConfig(timing=Timing(extend=0.1, look=0.2), grace=1)):
        await eventually(lambda: connections() == 1)  # what it has to drop is dropped at its start
        site.submit(worker_tasks.add.bind(1, 2))
        await all_finished(site)
        await eventually(lambda: connections() == 0)
        await asyncio.sleep(0.5)
        assert connections() == 0
        batch_of(site, worker_tasks.add.bind(1, 2))
        await eventually(lambda: connections() == 1)
        await eventually(lambda: tasks.told)


async def test_a_batch_is_counted_also_where_its_queue_keeps_nothing(site):
    chancy_ops.keep(site.conn, "default", chancy.Keep.nothing(), schema=site.schema)
    (plain,) = site.submit(worker_tasks.add.bind(1, 2))
    batch, jobs = batch_of(site, *[worker_tasks.add.bind(n, 1) for n in range(3)], worker_tasks.discard.bind())
    async with working(site.app(), PROMPT):
        await eventually(lambda: tasks.told)
    assert tasks.told == [("", BatchCounts(batch.id, 4, 3, 0, 1, 0))]
    assert [site.row(job).state for job in jobs] == [State.SUCCEEDED] * 3 + [State.DISCARDED]
    with pytest.raises(chancy.UnknownJob):
        site.row(plain)
