"""How many workers one Postgres carries: counted with as many as fit on a machine, computed beyond.

    python benchmarks/scaling.py count 2 8 32    what so many worker processes ask of a Postgres, idle and busy
    python benchmarks/scaling.py compute         what more cores and more workers give, by a model of the rounds

Counts (statements, connections, waits) are true on a small and busy machine, too; rates are not, and are computed.
The model: a round goes over the network, takes a core of Postgres, waits for the next write of the WAL, which takes
along all that wait for it, and comes back; a worker handles what it brought, and sends the next.
"""

from __future__ import annotations

import heapq
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

import chancy
from chancy import submit_many
from chancy_here import TASKS
from chancy_testing.server.postgres import Postgres

HERE = Path(__file__).parent
BUSY = """
    SELECT count(*) FILTER (WHERE wait_event_type = 'Lock') FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query !~ 'pg_advisory_lock|bell_wait'
"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"

ROUND, JOB = 320e-6, 14e-6
"""Seconds of processor time in Postgres: of a round, and of each job that it completes and claims (docs/benchmarks.md:
46 µs a job by tens, 17 by hundreds).
"""
OWN_ROUND, OWN_JOB = 80e-6, 7e-6
"""Of a worker's, between two rounds; as much again goes beside them."""


@dataclass(frozen=True)
class Place:
    """Where they run: cores of Postgres; seconds of a way there and back, and of a write of the WAL; whether workers
    share the cores of Postgres, or have one each.
    """

    cores: int
    way: float = 300e-6
    write: float = 500e-6
    together: bool = False


class Cores:
    """Work waits for a core, and takes it until it is done."""

    def __init__(self, number: int) -> None:
        self._free_at = [0.0] * number

    def take(self, now: float, seconds: float) -> float:
        """When it is done."""
        end = max(now, heapq.heappop(self._free_at)) + seconds
        heapq.heappush(self._free_at, end)
        return end


class Disk:
    """One write at a time, which takes along all that wait for it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = self._next_ends = 0.0

    def commit(self, now: float) -> float:
        """When it is durable."""
        if now >= self._next_ends - self._seconds:  # the one that it would have joined has begun
            begins = max(now, self._next_ends)
            self._ends, self._next_ends = self._next_ends, begins + self._seconds
        return self._next_ends


def computed(workers: int, place: Place, slots: int = 100, job: float = 0.0, seconds: float = 3.0) -> float:
    """Jobs a second of a backlog, `job` seconds long each."""
    postgres, disk = Cores(place.cores), Disk(place.write)
    own = postgres if place.together else Cores(workers)
    done = 0
    order = itertools.count()
    # When each worker begins a round, and the instants at which the jobs end that it has begun.
    turns: list[tuple[float, int, list[float]]] = [(0.0, next(order), [0.0] * slots) for _ in range(workers)]
    heapq.heapify(turns)
    while turns[0][0] < seconds:
        now, _, running = heapq.heappop(turns)
        ended = sum(end <= now for end in running)
        if not ended:
            heapq.heappush(turns, (min(running), next(order), running))
            continue
        there = own.take(now, OWN_ROUND + OWN_JOB * ended) + place.way / 2
        back = disk.commit(postgres.take(there, ROUND + JOB * ended)) + place.way / 2
        beside = own.take(now, OWN_ROUND + OWN_JOB * ended)
        begun = max(back, beside)
        done += ended
        heapq.heappush(turns, (begun, next(order), [end for end in running if end > now] + [begun + job] * ended))
    return done / seconds


def compute() -> None:
    """A table for docs/how-it-works/scaling.md."""
    numbers = [1, 2, 4, 8, 16, 32, 64]
    here = Place(2, way=50e-6, write=90e-6, together=True)
    print("this machine, as a check:", [round(computed(n, here)) for n in (1, 2)])
    for job in (0.0, 0.01, 0.1):
        for cores in (2, 8, 32):
            rates = [round(computed(n, Place(cores), job=job), -2) for n in numbers]
            print(f"jobs of {job * 1000:.0f} ms, {cores} cores of Postgres:", dict(zip(numbers, rates, strict=True)))


def count(workers: int) -> dict[str, float]:
    """What so many ask of a Postgres."""
    with Postgres(settings={"max_connections": "400"}) as server, psycopg.connect(server.dsn, autocommit=True) as conn:
        chancy.migrate(conn)
        command = [sys.executable, str(HERE / "chancy_here.py"), "work", "sleep", "default", "100"]
        environment = {"BENCH_DSN": server.dsn, "BENCH_BEGUN": "/dev/null", "BENCH_DOZED": "/dev/null"}
        running = [
            subprocess.Popen(command, env={**environment, "PYTHONPATH": str(HERE)}, stderr=subprocess.DEVNULL)
            for _ in range(workers)
        ]
        try:
            wait_until(lambda: conn.execute("SELECT count(*) FROM chancy.worker").fetchone()[0] == workers)
            time.sleep(14)  # connections that nobody needs are closed
            found = {"workers": workers, "sessions idle": conn.execute(SESSIONS).fetchone()[0]}
            since, before = time.monotonic(), transactions(conn)
            time.sleep(25)
            idle = (transactions(conn) - before) / (time.monotonic() - since)
            since, before = time.monotonic(), transactions(conn)
            for number in range(60):
                TASKS["noop"].submit(conn, number)
                time.sleep(0.15)
            time.sleep(3)
            alone = transactions(conn) - before - idle * (time.monotonic() - since)
            jobs = 4_000 + 500 * workers
            with conn.transaction():
                submit_many(conn, [TASKS["sleep"].bind(number) for number in range(jobs)])
            before, waits = transactions(conn), []
            while conn.execute("SELECT EXISTS (SELECT FROM chancy.job)").fetchone()[0]:
                waits.append(conn.execute(BUSY).fetchone()[0])
                time.sleep(0.05)
            busy_sessions = conn.execute(SESSIONS).fetchone()[0]
            time.sleep(1.5)
            return found | {
                "transactions a second, idle": round(idle, 1),
                "transactions of a lone job": round(alone / 60 - 1, 1),
                "jobs a transaction, busy": round(jobs / (transactions(conn) - before), 1),
                "sessions busy": busy_sessions,
                "sessions that wait for a lock, on average": round(sum(waits) / max(1, len(waits)), 2),
            }
        finally:
            for worker in running:
                worker.terminate()
            for worker in running:
                worker.wait()


def transactions(conn: psycopg.Connection[tuple[int]]) -> int:
    """Of all sessions until now, but for the last second of those that are busy."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    row = conn.execute(TRANSACTIONS).fetchone()
    assert row is not None
    return row[0]


def wait_until(condition: Callable[[], bool]) -> None:
    """For a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the workers have not begun within a minute")
        time.sleep(0.1)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["count", *numbers] if numbers:
            for number in numbers:
                print(json.dumps(count(int(number))), flush=True)
        case ["compute"]:
            compute()
        case _:
            sys.exit(__doc__)
