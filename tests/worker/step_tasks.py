"""Tasks that do one thing after the other, in every place where a task can run; what they do is rows of a table."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import psycopg
from worker_tasks import AT_ONCE, gates

from chancy import current_job, task

EFFECT = "INSERT INTO public.step_effect (job, name) VALUES (%s, %s)"
MAKE_EFFECTS = "CREATE TABLE IF NOT EXISTS public.step_effect (job bigint, name text)"


def write(conn: psycopg.Connection[Any], name: str) -> str:
    conn.execute(EFFECT, [current_job().id, name])
    return name


async def write_async(conn: psycopg.AsyncConnection[Any], name: str) -> str:
    await conn.execute(EFFECT, [current_job().id, name])
    return name


def outside(dsn: str, name: str) -> str:
    """On a connection of its own, and so committed whatever becomes of the step."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return write(conn, name)


async def outside_async(dsn: str, name: str) -> str:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        return await write_async(conn, name)


def go_through(dsn: str) -> list[str]:
    job = current_job()
    with psycopg.connect(dsn, autocommit=True) as conn:
        with conn.transaction():
            first = job.step(conn, "first", write, conn, "first")
        job.sleep(conn, "settle", timedelta(milliseconds=100))
        word = job.wait(conn, "word", str)
        return [first, word, job.step(conn, "last", write, conn, "last")]


@task
async def on_loop(dsn: str) -> list[str]:
    job = current_job()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        async with conn.transaction():
            first = await job.step(conn, "first", write_async, conn, "first")
        await job.sleep(conn, "settle", timedelta(milliseconds=100))
        word = await job.wait(conn, "word", str)
        return [first, word, await job.step(conn, "last", write_async, conn, "last")]


@task
def in_thread(dsn: str) -> list[str]:
    return go_through(dsn)


@task(executor="process")
def in_process(dsn: str) -> list[str]:
    return go_through(dsn)


@task
async def waits(dsn: str) -> int:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        return await current_job().wait(conn, "word", int)


@task
async def sleeps_long(dsn: str) -> str:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await current_job().step(conn, "first", write_async, conn, "first")
        await current_job().sleep(conn, "settle", timedelta(days=365))
        return "awake"


async def until_its_gate(conn: psycopg.AsyncConnection[Any], gate: str) -> str:
    await write_async(conn, gate)
    gates["begun"].set()
    await gates[gate].wait()
    return gate


@task(retry=AT_ONCE)
async def stays_in_its_step(dsn: str, gate: str) -> str:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn, conn.transaction():
        return await current_job().step(conn, "first", until_its_gate, conn, gate)


@task(max_attempts=100, retry=AT_ONCE)
async def order(dsn: str) -> int:
    """Five steps whose effects are in their transaction, two whose are not, and a sleep."""
    job, total = current_job(), 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await job.step(conn, "charge", outside_async, dsn, "charge")
        for number in range(5):
            async with conn.transaction():
                total += len(await job.step(conn, f"book {number}", write_async, conn, f"book {number}"))
            if (job.id + number + job.attempt) % 11 == 0:
                raise RuntimeError("no luck")
            await asyncio.sleep((job.id * 7 + number) % 5 / 100)
        await job.sleep(conn, "settle", timedelta(milliseconds=200))
        await job.step(conn, "ship", outside_async, dsn, "ship")
    return total


@task(max_attempts=100, retry=AT_ONCE)
def order_in_thread(dsn: str) -> int:
    """The same in a thread."""
    job, total = current_job(), 0
    with psycopg.connect(dsn, autocommit=True) as conn:
        job.step(conn, "charge", outside, dsn, "charge")
        for number in range(5):
            with conn.transaction():
                total += len(job.step(conn, f"book {number}", write, conn, f"book {number}"))
            if (job.id + number + job.attempt) % 11 == 0:
                raise RuntimeError("no luck")
            time.sleep((job.id * 7 + number) % 5 / 100)
        job.sleep(conn, "settle", timedelta(milliseconds=200))
        job.step(conn, "ship", outside, dsn, "ship")
    return total
