"""What is measured: each function takes one sample; the benchmark repeats them and interleaves the contenders.

Rates are per second, CPU is in microseconds a job, latencies are in milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import re
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from chancy_testing.server.postgres import binaries
from chancy_worker.attempts.verdict import succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.connection.link import Link
from chancy_worker.demand.marks import Marks
from chancy_worker.life.lease import register
from place import Contender, Run, Site

Figures = dict[str, float]

DEEP_SECONDS = 2.0
HISTORY = """
    INSERT INTO chancy.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, worker,
        run_at, submitted_at, started_at, finished_at, arguments, result)
    SELECT -n, 'noop', 'default', 0, 'succeeded', 1, 3, 1, 0, 1, now(), now(), now(), now(), '{"number":1}', 'null'
    FROM generate_series(1, %s) AS n
"""
FUTURE = """
    INSERT INTO chancy.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
    SELECT 'noop', 'default', 10, 'ready', 3, now() + interval '1 day' + n * interval '1 ms', now(), '{"number":1}'
    FROM generate_series(1, %s) AS n
"""
IMPORT = """
import sys, time
before, began = len(sys.modules), time.perf_counter()
import {}
print(time.perf_counter() - began, len(sys.modules) - before)
"""
RESCUED = "SELECT (arguments->>'number')::integer FROM chancy.any_job WHERE task = 'stamp' AND attempt > 1"
SILENT = "CREATE OR REPLACE FUNCTION chancy.ring(queue text) RETURNS void LANGUAGE sql AS 'SELECT'"
WAITING = """
    INSERT INTO chancy.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
    SELECT 'noop', 'default', 0, 'ready', 3, now(), now(), '{"number":1}' FROM generate_series(1, %s) AS n
"""


def drain(site: Site, contender: Contender, jobs: int, processes: int = 1) -> Figures:
    """Empty a backlog: from the start of the first job to the completion of the last."""
    with site.run(contender) as run:
        run.fill(contender.kind, jobs)
        blocks = run.blocks()
        run.work(contender.kind, processes)
        began = run.begun_at()
        python, postgres, wal = run.worker_seconds(), site.postgres_seconds(), site.wal_bytes()
        ended = run.empty_at()
        python, postgres = run.worker_seconds() - python, site.postgres_seconds() - postgres
        wal = site.wal_bytes() - wal
        run.stop()  # sessions that end have told of all blocks that they have read
        return {
            "rate": jobs / (ended - began),
            "cpu_us": (python + postgres) / jobs * 1e6,
            "python_us": python / jobs * 1e6,
            "postgres_us": postgres / jobs * 1e6,
            "wal_bytes": wal / jobs,
            "blocks": (run.blocks() - blocks) / jobs,
        }


def drain_by_many(site: Site, contender: Contender, jobs: int, processes: int) -> Figures:
    """By workers that wait for it, since so many do not start in the same moment: from the commit of all jobs to the
    completion of the last.
    """
    with site.run(contender) as run:
        run.work(contender.kind, processes)
        _wait_for(lambda: len(run.conn.execute("SELECT FROM chancy.worker").fetchall()) == processes, 60)
        time.sleep(1)
        filling = run.begin("fill", contender.kind, str(jobs), str(jobs))
        _wait_for(lambda: run.conn.execute(run.left).fetchone()[0], 60)
        began = time.monotonic()
        python, postgres, wal = run.worker_seconds(), site.postgres_seconds(), site.wal_bytes()
        ended = run.empty_at()
        filling.communicate()
        python, postgres = run.worker_seconds() - python, site.postgres_seconds() - postgres
        return {
            "rate": jobs / (ended - began),
            "cpu_us": (python + postgres) / jobs * 1e6,
            "python_us": python / jobs * 1e6,
            "postgres_us": postgres / jobs * 1e6,
            "wal_bytes": (site.wal_bytes() - wal) / jobs,
        }


def busy_slots(site: Site, contender: Contender, jobs: int) -> Figures:
    """Jobs that sleep for 10 ms: the share of the slots' time that is spent in jobs."""
    with site.run(contender) as run:
        run.fill("sleep", jobs)
        run.work("sleep")
        began = run.begun_at()
        seconds = run.empty_at() - began
        run.stop()
        dozed = float(Path(run.env["BENCH_DOZED"]).read_text())
        return {"rate": jobs / seconds, "busy": dozed / seconds / contender.concurrency}


def submit(site: Site, contender: Contender, jobs: int) -> Figures:
    """One by one, each in a transaction of its own."""
    with site.run(contender) as run:
        run.call("submit", "noop", "20", "0")
        answer = run.call("submit", "noop", str(jobs), "0")
        return {"rate": answer["jobs"] / answer["seconds"]}


def together(site: Site, contender: Contender, jobs: int) -> Figures:
    """One by one, in one transaction."""
    with site.run(contender) as run:
        answer = run.call("together", "noop", str(jobs))
        return {"rate": answer["jobs"] / answer["seconds"]}


def submit_many(site: Site, contender: Contender, batch: int) -> Figures:
    """In bulk, `batch` in a call and a transaction; the first call is not counted."""
    with site.run(contender) as run:
        answer = run.call("fill", "noop", str(batch * max(3, min(300, 6000 // batch)) + batch), str(batch))
        return {"rate": answer["jobs"] / answer["seconds"]}


def latency(site: Site, contender: Contender, jobs: int, *, load: bool = False) -> Figures:
    """From the return of the submit's commit to the job's first line; with `load`, beside 500 other jobs a second."""
    with site.run(contender) as run:
        _warm(run)
        time.sleep(1)
        others = run.begin("submit", "noop", str(500 * jobs // 40 + 500), "0.0018") if load else None
        time.sleep(0.5)
        answer = run.call("submit", "stamp", str(jobs), "0.03")
        if others is not None:
            others.kill()
            others.communicate()
        return percentiles(_waits(run, answer["committed"], 20))


def _warm(run: Run, workers: int = 1) -> None:
    """Start workers, and wait until a job of theirs has begun."""
    run.work("stamp", workers)
    run.call("submit", "stamp", "1", "0")
    _wait_for(run.stamps, 20)
    Path(run.env["BENCH_STAMPS"]).unlink()


def _waits(run: Run, committed: list[float], patience: float) -> list[float]:
    """The milliseconds from each commit to the job's first line."""
    _wait_for(lambda: len(run.stamps()) == len(committed), patience)
    begun = run.stamps()
    return [(begun[number] - at) * 1000 for number, at in enumerate(committed)]


def percentiles(values: list[float]) -> Figures:
    """p50, p95, p99 and the largest."""
    values = sorted(values)
    return {
        name: values[min(len(values) - 1, int(len(values) * share))]
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    }


def idle(site: Site, contenders: list[Contender], seconds: int) -> dict[str, Figures]:
    """Transactions a second and megabytes of a worker with nothing to do; all at once, each in its own database."""
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(site.run(contender)) for contender in contenders]
        for run in runs:
            _warm(run)
            run.conn.close()
        time.sleep(12)  # until then sessions tell of what they did before
        before = _transactions(site)
        time.sleep(seconds)
        after = _transactions(site)
        return {
            run.contender.key: {
                "transactions": (after[run.database] - before[run.database]) / seconds,
                "megabytes": _resident(run.workers[0].pid) / 1024**2,
            }
            for run in runs
        }


def _transactions(site: Site) -> dict[str, int]:
    rows = site.admin.execute(
        "SELECT datname, xact_commit + xact_rollback FROM pg_stat_database WHERE datname IS NOT NULL"
    )
    return dict(rows.fetchall())


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def imports(contender: Contender, module: str) -> Figures:
    """Milliseconds and modules that an import adds to a bare interpreter."""
    command = [contender.python, "-c", IMPORT.format(module)]
    seconds, modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {"ms": float(seconds) * 1000, "modules": float(modules)}


def round_trips(count: int) -> Figures:
    """Bare round trips of 300 bytes to a child process over a socket pair: what jobs in children stand beside."""
    ours, theirs = socket.socketpair()
    child = multiprocessing.get_context("spawn").Process(target=_echo, args=(theirs,))
    child.start()
    theirs.close()
    message = bytes(300)
    ours.sendall(message)
    ours.recv(len(message))
    began = time.perf_counter()
    for _ in range(count):
        ours.sendall(message)
        ours.recv(len(message))
    seconds = time.perf_counter() - began
    ours.close()
    child.join()
    return {"rate": count / seconds}


def _echo(line: socket.socket) -> None:
    while data := line.recv(300):
        line.sendall(data)


def submitters(site: Site, contender: Contender, *, clients: int = 16, notifying: bool, seconds: int) -> Figures:
    """Commits a second of so many clients, each INSERT one job and a commit, while a worker drains what they add."""
    with site.run(contender) as run:
        if not notifying:
            run.conn.execute(SILENT)
        run.conn.execute(WAITING, [20_000])
        script = Path(run.env["BENCH_BEGUN"]).with_suffix(".sql")
        script.write_text("SELECT chancy.submit('noop', '{\"number\":1}');\n")
        run.work("noop")
        run.begun_at()
        options = f"--no-vacuum --protocol=prepared --client={clients} --jobs=2 --time={seconds}"
        command = [str(binaries() / "pgbench"), *options.split(), f"--file={script}", run.dsn]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rate = float(re.search(r"tps = ([\d.]+)", out)[1])
        if not notifying:
            return {"rate": rate}
        began = time.monotonic()
        run.empty_at()
        return {"rate": rate, "left_behind_s": time.monotonic() - began}


@contextlib.contextmanager
def deep(site: Site, contender: Contender, variant: str, scale: int) -> Iterator[Run]:
    """A database that has lived: 10 `scale` finished jobs, `scale` waiting, `scale` in the future, or a pinned xmin."""
    with site.run(contender) as run, contextlib.ExitStack() as stack:
        match variant:
            case "history":
                for _ in range(10):
                    run.conn.execute(HISTORY, [scale])
            case "waiting":
                run.conn.execute(WAITING, [scale])
            case "future":
                run.conn.execute(FUTURE, [scale])
            case "pinned":
                pin = stack.enter_context(psycopg.connect(run.dsn))
                pin.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                pin.execute("SELECT count(*) FROM chancy.job")
        run.conn.execute("VACUUM ANALYZE")
        yield run


def drain_deep(run: Run, jobs: int) -> Figures:
    """Drain for two seconds what is due, by the instants that the rows tell."""
    run.conn.execute(WAITING, [jobs])
    since = run.conn.execute("SELECT clock_timestamp()").fetchone()[0]
    Path(run.env["BENCH_BEGUN"]).unlink(missing_ok=True)
    run.work("noop")
    run.begun_at()
    time.sleep(DEEP_SECONDS)
    run.stop()
    count, seconds = run.conn.execute(
        "SELECT count(*), extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM chancy.history"
        " WHERE finished_at > %s AND id > 0",
        [since],
    ).fetchone()
    return {"rate": count / seconds}


def curve(site: Site, contender: Contender, variant: str, sizes: list[int]) -> list[tuple[int, float]]:
    """The median ms of a round that claims 100 jobs and completes 100, at each size of what stands in its way."""
    points = []
    with deep(site, contender, "pinned" if variant == "pinned" else "", 0) as run:
        there = 0
        for size in sizes:
            grown, there = size - there, size
            run.conn.execute(HISTORY if variant == "history" else WAITING, [grown])
            if variant == "pinned":  # claimed and completed since the snapshot was taken
                asyncio.run(rounds(run.dsn, grown // 100))
            run.conn.execute("ANALYZE chancy.job")
            if variant != "waiting":
                run.conn.execute(WAITING, [5_000])
            points.append((size, statistics.median(asyncio.run(rounds(run.dsn, 40))[5:])))
            if variant == "waiting":
                run.conn.execute(WAITING, [4_000])
    return points


async def rounds(dsn: str, count: int) -> list[float]:
    """The milliseconds that each of so many rounds takes, as a worker would play them."""
    link = Link(dsn, "chancy", "curve", deadline=60)
    await link.connect()
    worker = await link.send(register("curve", 3600))
    marks, verdicts, took = Marks(), [], []
    for _ in range(count):
        looking = marks.due(["default"], time.monotonic())
        wanted = Wanted({"default": 100}, {} if looking else marks.lanes(["default"]), looking)
        began = time.perf_counter()
        answer = await link.send(play_round(worker, verdicts, wanted))
        took.append((time.perf_counter() - began) * 1000)
        marks.learn(answer, looking, took[-1] / 1000)
        verdicts = [succeeded(job, b"null") for job in answer.claimed]
    await link.send(play_round(worker, verdicts, Wanted()))
    await link.close()
    return took


def doorbell(site: Site, contender: Contender, jobs: int, workers: int = 8) -> Figures:
    """Lone submits at random gaps, to workers that fall idle, are kept busy by bursts, and are killed and replaced."""
    with site.run(contender) as run:
        _warm(run, workers)
        time.sleep(3)
        kills = 0
        with ThreadPoolExecutor(1) as pool:
            lone = pool.submit(run.call, "submit", "stamp", str(jobs), "0.02")
            while not lone.done():
                time.sleep(random.uniform(3, 6))
                run.call("fill", "noop", "1000", "500")
                time.sleep(random.uniform(3, 6))
                victim = run.workers.pop(0)
                victim.kill()
                victim.communicate()
                run.work("stamp")
                kills += 1
        committed: list[float] = lone.result()["committed"]
        waits = _waits(run, committed, 40)
        # What a killed worker had claimed waits for its lease to run out, whatever the doorbell does.
        rescued = {number for (number,) in run.conn.execute(RESCUED)}
        return percentiles([wait for number, wait in enumerate(waits) if number not in rescued]) | {
            "kills": kills,
            "rescued": len(rescued),
        }


def _wait_for(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"this has not happened within {seconds:.0f} s: {condition}")
        time.sleep(0.01)
