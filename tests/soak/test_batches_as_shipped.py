"""Batches at scale, with workers that die: each end is told once, with the counts of the rows."""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import time

import batch_patience_tasks as tasks
import pytest
from worker_help import all_finished, eventually, states

import chancy
from chancy import callback, cancel

pytestmark = [pytest.mark.patience, pytest.mark.timeout(400)]


def fleet(site, size):
    where = ["--dsn", site.dsn, "--schema", site.schema]
    return [site.run("-m", "chancy_worker", "batch_patience_tasks", "--queue", "default", *where) for _ in range(size)]


def batch_of(site, tmp_path, jobs):
    told = {
        "on_success": callback(tasks.succeeded, str(tmp_path)),
        "on_finished": callback(tasks.finished, str(tmp_path)),
    }
    with chancy.batch(site.conn, schema=site.schema, **told) as batch:
        made = [job for first in range(0, len(jobs), 5000) for job in batch.submit_many(jobs[first : first + 5000])]
    return batch, made


async def test_a_batch_of_10_000_is_over_once_with_the_counts_of_its_rows_while_workers_are_killed(site, tmp_path, say):
    workers = fleet(site, 4)
    await site.started(*workers)
    start = time.monotonic()
    big, made = batch_of(site, tmp_path, [tasks.member.bind(str(tmp_path), n) for n in range(10_000)])
    small = [batch_of(site, tmp_path, [tasks.member.bind(str(tmp_path), 0) for _ in range(20)])[0] for _ in range(50)]
    say(f"10,000 + 50 times 20 jobs in 51 batches submitted in {time.monotonic() - start:.2f} s")
    kills = cancels = 0
    while site.one("SELECT EXISTS (SELECT FROM {}.batch WHERE finished_at IS NULL)"):
        await asyncio.sleep(0.4)
        for job in random.sample(made, 20):
            cancels += cancel(site.conn, job.id, schema=site.schema)
        if kills < 12 and site.one("SELECT count(*) FROM {}.job") > 100:
            victim = random.choice([worker for worker in workers if worker.code is None])
            victim.signal(signal.SIGKILL)
            workers += fleet(site, 1)
            kills += 1
        assert time.monotonic() - start < 300
    await all_finished(site, 60)
    rows = dict(site.rows("SELECT state::text, count(*) FROM {}.history WHERE batch = %s GROUP BY 1", big.id))
    told = [line.split(" ", 2) for line in (tmp_path / "told").read_text().splitlines()]
    ends = [text for kind, _, text in told if kind == "finished"]
    say(f"{time.monotonic() - start:.1f} s, {kills} kills, {cancels} cancels, {rows}, {states(site)}")
    assert sum(rows.values()) == 10_000
    counts = ", ".join(f"{state}={rows.get(state, 0)}" for state in ("succeeded", "failed", "discarded", "cancelled"))
    assert f"BatchCounts(batch={big.id}, total=10000, {counts})" in ends
    # A callback is a job: one that was killed is told again, under the same id.
    callbacks = site.rows(
        "SELECT task, arguments->'counts'->>'batch', count(*) FROM {}.any_job "
        "WHERE task LIKE '%%.finished' OR task LIKE '%%.succeeded' GROUP BY 1, 2"
    )
    assert {number for _, _, number in callbacks} == {1}
    assert sum(task.endswith("finished") for task, _, _ in callbacks) == 51
    assert len(set(ends)) == 51
    for batch in small:
        progress = batch.progress(site.conn)
        succeeded = any(task.endswith("succeeded") and int(of) == batch.id for task, of, _ in callbacks)
        assert (progress.total, succeeded) == (20, progress.succeeded == 20)


async def test_the_end_of_a_batch_is_seen_promptly_by_four_workers_and_costs_its_jobs_little(site, tmp_path, say):
    jobs = [tasks.nothing.bind(n) for n in range(20_000)]
    await site.started(*fleet(site, 4))
    took: dict[str, list[float]] = {"plain": [], "batch": []}
    for turn in range(10):
        for kind in sorted(took, reverse=bool(turn % 2)):
            start = time.monotonic()
            if kind == "batch":
                batch_of(site, tmp_path, jobs)
            else:
                with site.conn.transaction():
                    for first in range(0, len(jobs), 5000):
                        site.submit(*jobs[first : first + 5000])
            await all_finished(site, 100)
            await eventually(lambda: not site.rows("SELECT FROM {}.batch WHERE finished_at IS NULL"))
            took[kind].append(time.monotonic() - start)
    plain, batch = (statistics.median(took[kind]) for kind in ("plain", "batch"))
    say(f"submit and drain 20,000: {plain:.2f} s plain, {batch:.2f} s as a batch ({plain / batch:.2f})")
    (waits,) = zip(
        *site.rows(
            "SELECT extract(epoch FROM finished_at - (SELECT max(finished_at) FROM {0}.history WHERE batch = batch.id))"
            "::float8 FROM {0}.batch AS batch"
        ),
        strict=True,
    )
    say(
        f"the end was seen {statistics.median(waits) * 1e3:.0f} ms after the last job's, at most {max(waits) * 1e3:.0f}"
    )
    assert max(waits) < 1
    await eventually(lambda: len((tmp_path / "told").read_text().splitlines()) == 20)
