"""Tasks that stay at a certain place until their worker is killed there, and go on in their next attempt."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from step_tasks import outside_async, write_async
from worker_tasks import AT_ONCE, gates, write_line

from chancy import current_job, result_of, task
from chancy.options.outcomes import Suspended


async def stay(folder: str, here: str, place: str) -> None:
    """The first time, if this is the place."""
    reached = Path(folder, "reached")
    if here == place and not reached.exists():
        reached.touch()
        await asyncio.sleep(3600)


async def outside(dsn: str, folder: str, place: str) -> str:
    await stay(folder, "in a step, before its effect", place)
    await outside_async(dsn, "outside")
    await stay(folder, "between effect and checkpoint", place)
    return "outside"


async def inside(conn: psycopg.AsyncConnection[Any], folder: str, place: str) -> str:
    await write_async(conn, "inside")
    await stay(folder, "in a step, in its transaction", place)
    return "inside"


@task(max_attempts=2)
async def steps(dsn: str, folder: str, place: str) -> list[str]:
    job = current_job()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await stay(folder, "before its first step", place)
        first = await job.step(conn, "outside", outside, dsn, folder, place)
        await stay(folder, "after the checkpoint", place)
        async with conn.transaction():
            second = await job.step(conn, "inside", inside, conn, folder, place)
            await stay(folder, "before the commit", place)
        await stay(folder, "after the commit", place)
        try:
            await job.sleep(conn, "settle", timedelta(seconds=2))
        except Suspended:
            await stay(folder, "between the sleep and the verdict", place)
            raise
    return [first, second]


PLACES = {
    "before its first step": 1,
    "in a step, before its effect": 1,
    "between effect and checkpoint": 2,
    "after the checkpoint": 1,
    "in a step, in its transaction": 1,
    "before the commit": 1,
    "after the commit": 1,
    "between the sleep and the verdict": 1,
}
"""And how often what is outside of any transaction is done then."""


@task(retry=AT_ONCE)
async def commits(dsn: str) -> str:
    """Its transaction with a step ends when the test says so."""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        done = await current_job().step(conn, "inside", write_async, conn, "inside")
        if current_job().attempt == 1:
            gates["begun"].set()
            await gates["commit"].wait()
    return done


@task
async def part(number: int) -> int:
    return number


@task
async def waits(folder: str, number: int) -> int:
    while not Path(folder, "go").exists():
        await asyncio.sleep(0.01)
    return number


@task
async def join(numbers: list[int]) -> int:
    return sum(numbers)


@task(max_attempts=2)
async def need(folder: str, place: str, number: int) -> int:
    await stay(folder, "in a need", place)
    return number


@task(max_attempts=1)
async def last_try(folder: str) -> int:
    await stay(folder, "in a need", "in a need")
    return 0


@task(max_attempts=2)
async def flow(folder: str, place: str) -> int:
    """Writes down that it was called."""
    write_line(str(Path(folder, "called")), "flow")
    await stay(folder, "before it returns", place)
    return result_of(join.bind([result_of(part.bind(1)), result_of(waits.bind(folder, 2))]))


@task(max_attempts=2)
async def flow_of_its_own(dsn: str, folder: str, place: str) -> int:
    """The same, in a transaction of its own."""
    write_line(str(Path(folder, "called")), "flow")
    graph = result_of(join.bind([result_of(part.bind(1)), result_of(waits.bind(folder, 2))]))
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await current_job().complete(conn, graph)
        await stay(folder, "before its commit", place)
        await conn.commit()
        await stay(folder, "before its verdict", place)
    return 0
