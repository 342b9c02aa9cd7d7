"""How fast one worker with shipped defaults drains no-op async jobs, beside the raw-SQL floor in the same run.

    hatch run bench [--jobs 50000] [--runs 3]

The floor is the worker's own two statements, sent as fast as they come back, with nothing around them: claim 100,
complete these 100 and claim more, until the table is empty. The two are interleaved, on one Postgres with full
durability; only the ratio means something.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import statistics
import time

import psycopg

import chancy
from chancy import Chancy, task
from chancy.task import BaseTask
from chancy_testing.postgres import DURABLE, Postgres
from chancy_worker import Worker
from chancy_worker.claims import START, Wanted, play_round
from chancy_worker.leases import register
from chancy_worker.link import Link
from chancy_worker.verdict import succeeded

SCHEMA = "chancy_bench"
BATCH = 100


@task(name="bench.noop")
async def noop(number: int) -> None:
    """Nothing."""


def fill(dsn: str, jobs: int, task: BaseTask[[int], None] = noop) -> None:
    """A fresh schema with so many ready jobs."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        chancy.migrate(conn, schema=SCHEMA)
        for start in range(0, jobs, 10_000):
            batch = [task.bind(number) for number in range(start, min(start + 10_000, jobs))]
            chancy.submit_many(conn, batch, schema=SCHEMA)
        conn.execute(f"VACUUM ANALYZE {SCHEMA}.job")
        conn.execute("CHECKPOINT")


async def drain_floor(dsn: str, jobs: int) -> float:
    """Jobs per second of the bare statements."""
    link = Link(dsn, SCHEMA, "floor", deadline=30)
    await link.connect()
    worker = await link.send(register("floor", 600))
    lane = ("default", 0)
    mark, verdicts, done = START, [], 0
    began = time.perf_counter()
    while done < jobs:
        wanted = Wanted({"default": BATCH}, {lane: mark})
        answer = await link.send(play_round(worker, verdicts, wanted))
        done += answer.settled
        mark = answer.marks.get(lane, mark)
        verdicts = [succeeded(job, b"null") for job in answer.claimed]
    seconds = time.perf_counter() - began
    await link.close()
    return jobs / seconds


async def drain_worker(dsn: str, jobs: int) -> float:
    """Jobs per second of a worker with shipped defaults, from its first claim to its last completion."""
    worker = Worker(Chancy(dsn, schema=SCHEMA))
    running = asyncio.create_task(worker.start())
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        while True:
            await asyncio.sleep(0.2)
            left = await (await conn.execute(f"SELECT EXISTS (SELECT FROM {SCHEMA}.job)")).fetchone()
            if not left[0]:
                break
        cursor = await conn.execute(
            f"SELECT count(*), extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM {SCHEMA}.history"
        )
        count, seconds = await cursor.fetchone()
    worker.stop()
    await running
    assert count == jobs, f"{count} of {jobs} in history"
    return jobs / seconds


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    figures: dict[str, list[float]] = {"floor": [], "worker": []}
    with server() as dsn:
        with psycopg.connect(dsn) as conn:
            for name in ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers"):
                print(f"{name} = {conn.execute(f'SHOW {name}').fetchone()[0]}")
        for _ in range(options.runs):
            for name, drain in (("floor", drain_floor), ("worker", drain_worker)):
                fill(dsn, options.jobs)
                figures[name].append(asyncio.run(drain(dsn, options.jobs)))
                print(f"{name:8} {figures[name][-1]:10,.0f} jobs/s", flush=True)
    ratios = [worker / floor for worker, floor in zip(figures["worker"], figures["floor"], strict=True)]
    print("\n| | jobs/s median | min | max |\n|---|---|---|---|")
    for name, values in figures.items():
        print(f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} | {max(values):,.0f} |")
    print(f"| worker / floor | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |")


@contextlib.contextmanager
def server():
    """`CHANCY_BENCH_DSN`, or an embedded Postgres with its own defaults."""
    if dsn := os.environ.get("CHANCY_BENCH_DSN"):
        yield dsn
    else:
        with Postgres(settings=DURABLE) as postgres:
            yield postgres.dsn


if __name__ == "__main__":
    main()
