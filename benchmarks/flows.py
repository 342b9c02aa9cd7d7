"""How long graphs take beside as many plain jobs in the same run, on a server of its own: `python benchmarks/flows.py`.

A worker in this process, the jobs do nothing. Each turn makes one of each kind, in another order; medians are shown.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

import chancy
from chancy import Chancy, NewJob, Queue, result_of, submit_many, task
from chancy_testing.server.postgres import DURABLE, Postgres
from chancy_worker import Worker, WorkerConfig

SIZE = 10_000
CHAIN = 100


ENDED: dict[int, asyncio.Event] = {}
"""Of those that go on by hand: set in the function itself."""


@task
async def step(number: int) -> int:
    """The same; and tells whoever waits for it."""
    if (ended := ENDED.pop(number, None)) is not None:
        ended.set()
    return number


@task
async def join(numbers: list[int]) -> int:
    """How many."""
    return len(numbers)


async def finish(conn: psycopg.AsyncConnection[Any], jobs: list[NewJob[int]]) -> None:
    """Submit, and wait until nothing is left."""
    await submit_many(conn, jobs)
    while True:
        row = await (await conn.execute("SELECT EXISTS (SELECT FROM chancy.job)")).fetchone()
        if row is None or not row[0]:
            return
        await asyncio.sleep(0.005)


async def plain(conn: psycopg.AsyncConnection[Any]) -> None:
    """10,000 that need nobody."""
    await finish(conn, [step.bind(n) for n in range(SIZE)])


async def fan_in(conn: psycopg.AsyncConnection[Any]) -> None:
    """10,000, and one that needs all of them."""
    await finish(conn, [join.bind([result_of(step.bind(n)) for n in range(SIZE)])])


async def out_and_in(conn: psycopg.AsyncConnection[Any]) -> None:
    """One, 10,000 that need it, and one that needs those."""
    first = step.bind(1)
    await finish(conn, [join.bind([result_of(step.bind(result_of(first))) for _ in range(SIZE)])])


async def chain(conn: psycopg.AsyncConnection[Any]) -> None:
    """A hundred, each of which needs the one before."""
    last = step.bind(1)
    for _ in range(CHAIN - 1):
        last = step.bind(result_of(last))
    (job,) = await submit_many(conn, [last])
    await job.result(conn, timeout=60)


async def by_hand(conn: psycopg.AsyncConnection[Any]) -> None:
    """A hundred, each of which is submitted when the one before has run."""
    value = 1
    for _ in range(CHAIN):
        ended = ENDED[value] = asyncio.Event()
        await step.submit(conn, value)
        await ended.wait()
        value += 1


KINDS: list[Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]] = [plain, fan_in, out_and_in, chain, by_hand]


async def measure(turns: int) -> None:
    """Print the medians, and what they are to each other."""
    with Postgres(settings=DURABLE) as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn)
        app = Chancy(dsn=server.dsn, queues=[Queue("default", 100)])
        async with (
            Worker(app, WorkerConfig()).running(),
            await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as aconn,
        ):
            await plain(aconn)
            took: dict[str, list[float]] = {kind.__name__: [] for kind in KINDS}
            for _ in range(turns):
                for kind in random.sample(KINDS, len(KINDS)):
                    began = time.perf_counter()
                    await kind(aconn)
                    took[kind.__name__].append(time.perf_counter() - began)
    medians = {name: statistics.median(each) for name, each in took.items()}
    for name, median in medians.items():
        print(f"{name:12} {median * 1000:8.0f} ms  [{min(took[name]) * 1000:.0f}]")
    print(f"fan_in / plain      {medians['fan_in'] / medians['plain']:.2f}  (at most 1.6)")
    print(f"out_and_in / plain  {medians['out_and_in'] / medians['plain']:.2f}  (at most 2.5)")
    print(f"chain / by_hand     {medians['chain'] / medians['by_hand']:.2f}  (at most 1.6)")


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
