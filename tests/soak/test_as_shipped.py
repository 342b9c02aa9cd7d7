"""The promises about breakage, with the defaults of a worker and of Postgres; each test prints what it saw."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from datetime import timedelta
from pathlib import Path

import limit_tasks
import psycopg
import pytest
import worker_tasks as tasks
from worker_help import Proxy, all_finished, eventually, states, warm_up, working

import chancy
from chancy import State
from chancy_worker import Timing, WorkerConfig
from chancy_worker.connection.link import Link

pytestmark = [pytest.mark.patience, pytest.mark.timeout(300)]
SHIPPED = Timing()


async def fleet(site, size, **options):
    workers = [site.spawn(timing=SHIPPED, **options) for _ in range(size)]
    await site.started(*workers)
    return workers


def rounds_of(monkeypatch):
    """The seconds that each round of workers in this process takes, as it comes."""
    took = []
    send = Link.send

    async def timed(link, statement):
        began = time.perf_counter()
        try:
            return await send(link, statement)
        finally:
            if link.purpose == "claim":
                took.append(time.perf_counter() - began)

    monkeypatch.setattr(Link, "send", timed)
    return took


async def test_four_workers_run_each_of_20_000_jobs_exactly_once(site, tmp_path, say):
    out = tmp_path / "ran"
    site.submit(*[tasks.record.bind(str(out)) for _ in range(20_000)])
    began = time.monotonic()
    await fleet(site, 4, concurrency=100)
    await all_finished(site, 120)
    ran = out.read_text().split()
    say(f"ran {len(ran)}, distinct {len(set(ran))}, rows {states(site)}, {time.monotonic() - began:.1f} s")
    assert len(ran) == len(set(ran)) == 20_000
    assert states(site) == {"succeeded": 20_000}
    assert site.one("SELECT count(*) FROM {}.job") == 0


async def test_jobs_of_a_killed_worker_run_again_within_25_seconds(site, tmp_path, say):
    gate, started = tmp_path / "gate", tmp_path / "started"
    await fleet(site, 2)
    await asyncio.sleep(SHIPPED.lease)  # the other has been connected for a whole lease
    jobs = site.submit(*[tasks.wait_for_file.bind(str(gate), str(started)) for _ in range(10)])
    await eventually(lambda: site.count("running") == 10)
    victim = site.row(jobs[0]).worker
    lost = [job for job in jobs if site.row(job).worker == victim]
    os.kill(site.workers()[victim], signal.SIGKILL)
    killed = time.monotonic()
    await eventually(lambda: any(site.row(job).attempt == 2 for job in lost), 25)  # suspects start one by one
    say(f"second attempt {time.monotonic() - killed:.1f} s after the kill, {len(lost)} jobs lost by it")
    gate.touch()
    await all_finished(site, 60)
    assert {site.row(job).attempt for job in lost} == {2}
    assert {site.row(job).attempt for job in jobs if job not in lost} <= {1}


async def test_no_worker_exits_and_every_job_finishes_over_a_crash_of_postgres(server, site, say):
    workers = await fleet(site, 4)
    site.submit(*[tasks.nap.bind(0.02) for _ in range(10_000)])
    await eventually(lambda: site.count("succeeded") > 500)
    server.stop(immediate=True)
    server.start()
    site.conn = psycopg.connect(server.dsn, autocommit=True)
    await all_finished(site, 120)
    say(f"{states(site)}, exit codes {[worker.code for worker in workers]}")
    assert states(site) == {"succeeded": 10_000}
    assert [worker.code for worker in workers] == [None] * 4


async def test_no_job_of_a_living_worker_is_rescued_after_postgres_was_away_for_40_seconds(server, site, say):
    workers = await fleet(site, 4)
    jobs = site.submit(*[tasks.nap.bind(60) for _ in range(40)])
    await eventually(lambda: site.count("running") == 40)
    server.stop()
    await asyncio.sleep(40)  # the outage itself
    server.start()
    site.conn = psycopg.connect(server.dsn, autocommit=True)
    await all_finished(site, 120)
    seen = {(site.row(job).state.value, site.row(job).attempt, site.row(job).crashes) for job in jobs}
    say(f"(state, attempt, crashes) of 40 jobs: {seen}")
    assert seen == {("succeeded", 1, 0)}
    assert [worker.code for worker in workers] == [None] * 4


async def test_jobs_of_an_unheard_claim_start_within_20_seconds(server, site, say):
    async with Proxy(server.dsn) as proxy, working(site.app(dsn=proxy.dsn), WorkerConfig(grace=1)):
        await warm_up(site)
        proxy.mute = True
        jobs = site.submit(*[tasks.add.bind(i, 1) for i in range(10)])
        await eventually(lambda: site.count("running") == 10)
        proxy.cut()
        proxy.mute = False
        began = time.monotonic()
        await eventually(lambda: site.count("succeeded") == 15, 25)
        say(f"started within {time.monotonic() - began:.1f} s, attempts { ({site.row(job).attempt for job in jobs}) }")
    assert time.monotonic() - began < 25
    assert {site.row(job).attempt for job in jobs} == {1}


async def test_a_reader_of_history_holds_up_no_round_while_partitions_are_made_and_dropped(site, monkeypatch, say):
    took = rounds_of(monkeypatch)
    site.conn.execute("SELECT chancy.make_partitions('2020-01-01', '2020-01-03')")
    for day in range(8):  # today's too: a completion makes it anew
        site.conn.execute(
            f"DROP TABLE chancy.history_{time.strftime('%Y%m%d', time.gmtime(time.time() + day * 86400))}"
        )
    with psycopg.connect(site.dsn) as reader:
        reader.execute("SELECT count(*) FROM chancy.history")
        async with working(site.app(), WorkerConfig(timing=Timing(upkeep=0.3), grace=1)):
            for _ in range(100):
                jobs = site.submit(*[tasks.add.bind(i, 1) for i in range(20)])
                await eventually(lambda jobs=jobs: site.row(jobs[-1]).finished_at)
                await asyncio.sleep(0.05)
    say(f"{len(took)} rounds, longest {max(took) * 1e3:.0f} ms, median {statistics.median(took) * 1e3:.1f} ms")
    assert max(took) < 0.2
    assert site.one("SELECT count(*) FROM {}.history") == 2_000


@pytest.mark.parametrize("size", [1, 4])
async def test_what_an_idle_worker_asks_in_a_second(server, site, size, say):
    await fleet(site, size)
    await asyncio.sleep(20)
    site.conn.execute("SELECT pg_stat_force_next_flush()")
    site.conn.execute("ALTER SYSTEM SET log_min_duration_statement = 0")
    site.conn.execute("SELECT pg_reload_conf()")
    log = server._home / "log"
    size_before = log.stat().st_size
    await asyncio.sleep(40)
    with log.open("rb") as lines:
        lines.seek(size_before)
        asked = sum((b"duration:" in line and b"execute" in line) or b"statement:" in line for line in lines)
    say(f"{size} workers: {asked / 40 / size:.2f} queries a second each")
    assert asked / 40 <= 1 + 1.5 * (size - 1)


async def test_how_soon_an_idle_worker_starts_a_job(server, site, say):
    await fleet(site, 1)
    soon, late = [], []
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        for i in range(200):
            await asyncio.sleep(0.05)
            job = (
                tasks.add.submit(conn, i, 1)
                if i % 10
                else tasks.add.using(delay=timedelta(milliseconds=300)).submit(conn, i, 1)
            )
            row = await eventually(lambda job=job: (row := chancy.get(conn, job.id)).finished_at and row)
            (late if i % 10 == 0 else soon).append((row.started_at - row.run_at).total_seconds() * 1e3)
    soon.sort()
    say(
        f"commit to start: p50 {soon[len(soon) // 2]:.2f} ms, p99 {soon[int(len(soon) * 0.99)]:.2f} ms; "
        f"delayed by 300 ms: {statistics.median(late):.1f} ms after its time, at most {max(late):.1f}"
    )
    assert statistics.median(soon) < 3
    assert max(late) < 50


def test_processes_bring_a_dead_child_back(site, tmp_path, say):
    gate = tmp_path / "gate"
    parent = site.run("-m", "chancy_worker", "worker_tasks", "--processes", "2", "--dsn", site.dsn)
    asyncio.run(eventually(lambda: len(site.workers()) == 2, 20))
    took = []
    for _ in range(20):
        (job,) = site.submit(tasks.wait_for_file.bind(str(gate)))
        asyncio.run(eventually(lambda job=job: site.row(job).state is State.RUNNING))
        (pid,) = [pid for id_, pid in site.workers().items() if id_ == site.row(job).worker]
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        asyncio.run(eventually(lambda job=job: site.row(job).attempt == 2, 10))
        took.append(time.monotonic() - killed)
        gate.touch()
        asyncio.run(all_finished(site))
        gate.unlink()
        asyncio.run(eventually(lambda: len(site.workers()) == 2, 20))
    parent.signal(signal.SIGTERM)
    say(f"second attempt after a kill -9: p50 {statistics.median(took):.2f} s, max {max(took):.2f} s")
    assert max(took) < 2


async def test_a_worker_ends_within_its_grace_and_two_seconds(site, say):
    (worker,) = await fleet(site, 1, grace=5)
    jobs = site.submit(*[tasks.nap.bind(60) for _ in range(100)])
    await eventually(lambda: site.count("running") == 20)
    worker.signal(signal.SIGTERM)
    told = time.monotonic()
    await eventually(lambda: worker.code is not None, 20)
    seen = {(site.row(job).state.value, site.row(job).attempt) for job in jobs}
    say(f"exit code {worker.code} after {time.monotonic() - told:.1f} s; 100 jobs are {seen}")
    assert time.monotonic() - told < 7
    assert seen == {("ready", 0)}


async def test_a_row_that_is_locked_for_30_seconds_holds_up_its_own_job_only(site, monkeypatch, say):
    took = rounds_of(monkeypatch)
    async with working(site.app(), WorkerConfig(grace=1)):
        (locked,) = site.submit(tasks.nap.bind(1))
        await eventually(lambda: site.row(locked).state is State.RUNNING)
        with psycopg.connect(site.dsn) as other:
            other.execute("SELECT FROM chancy.job WHERE id = %s FOR UPDATE", [locked.id])
            began, done = time.monotonic(), 0
            while time.monotonic() - began < 30:
                jobs = site.submit(*[tasks.add.bind(i, 1) for i in range(20)])
                await eventually(lambda jobs=jobs: site.row(jobs[-1]).finished_at)
                done += 20
                await asyncio.sleep(0.05)
            assert site.row(locked).state is State.RUNNING
        await eventually(lambda: site.row(locked).state is State.SUCCEEDED)
    took.sort()
    say(f"{done} other jobs done; {len(took)} rounds, p99 {took[int(len(took) * 0.99)] * 1e3:.0f} ms")
    assert took[int(len(took) * 0.99)] < 0.3


async def test_a_worker_that_was_frozen_for_60_seconds_changes_nothing(site, tmp_path, say):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    (frozen,) = await fleet(site, 1)
    (job,) = site.submit(tasks.note_lease_lost.bind(str(notes), str(gate)))
    await eventually(lambda: site.row(job).state is State.RUNNING)
    frozen.signal(signal.SIGSTOP)
    await fleet(site, 1)
    await eventually(lambda: site.row(job).attempt == 2, 40)
    await asyncio.sleep(30)
    frozen.signal(signal.SIGCONT)
    await eventually(notes.exists)
    gate.touch()
    await eventually(lambda: site.row(job).finished_at)
    row = site.row(job)
    say(f"the frozen one's handler saw: {notes.read_text().strip()!r}; the row: attempt {row.attempt}, {row.result}")
    assert (row.attempt, row.result) == (2, b'"attempt 2"')


async def test_the_memory_of_worker_and_children_stays_flat_over_200_000_jobs(site, say):
    worker = site.run("-m", "chancy_worker", "limit_tasks", "--dsn", site.dsn, "--log-format", "json")
    await site.started(worker)

    def resident() -> tuple[float, float]:
        """Mebibytes of the worker, and of the largest of its children."""
        pids = [child for server in children_of(worker.pid) for child in children_of(server)]
        return used(worker.pid) / 2**20, max(map(used, pids), default=0) / 2**20

    seen = []
    for block in range(20):
        site.submit(*[limit_tasks.add_in_process.bind(block, i) for i in range(10_000)])
        await eventually(lambda: site.one("SELECT count(*) FROM {}.job") < 200, 120)
        seen.append(resident())
    say("worker / largest child, MiB: " + ", ".join(f"{mine:.0f}/{theirs:.0f}" for mine, theirs in seen[::3]))
    assert seen[-1][0] < seen[2][0] + 10
    assert seen[-1][1] < seen[2][1] + 10


def children_of(pid: int) -> list[int]:
    lines = [file.read_text(encoding="ascii") for file in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for line in lines for child in line.split()]


def used(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096
