"""Tasks of graphs: what they give is made of what they were given, so that a result tells all that came before it."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import worker_tasks
from step_tasks import sleeps_long

from chancy import Job, Outcome, current_job, result_of, task

gates: dict[str, asyncio.Event] = {}
"""What a `wait` waits for, by its name; emptied before each test."""
ran: list[str] = []
"""The names of jobs whose functions were called in this process, in their order."""


class Broken(Exception):
    pass


@task
async def leaf(name: str) -> str:
    ran.append(name)
    return name


@task
async def wait(name: str) -> str:
    ran.append(name)
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


@task
async def join(parts: list[str], name: str = "join") -> str:
    ran.append(name)
    return f"{name}({','.join(parts)})"


@task
def in_thread(part: str) -> str:
    return f"thread({part})"


@task(executor="process")
def in_child(part: str) -> str:
    return f"child({part})"


@task(max_attempts=1)
async def broken(name: str) -> str:
    ran.append(name)
    raise Broken(name)


@task
async def anything(name: str) -> Any:
    ran.append(name)
    return name


@task(max_attempts=5)
async def counted(number: int) -> int:
    ran.append("counted")
    return number


@task(max_attempts=5, executor="process")
def counted_in_child(number: int) -> int:
    return number


@task
async def told(name: str, outcome: Outcome[str]) -> str:
    errors = ",".join(error.kind for error in outcome.errors)
    return f"{name}: {outcome.state} {outcome.result} {errors}"


@task
async def workflow(names: list[str]) -> str:
    return result_of(join.bind([result_of(leaf.bind(name)) for name in names]))


@task
def workflow_in_thread(names: list[str]) -> str:
    return result_of(join.bind([result_of(leaf.bind(name)) for name in names]))


@task(executor="process")
def workflow_in_child(names: list[str]) -> str:
    return result_of(join.bind([result_of(leaf.bind(name)) for name in names]))


@task
async def nested(depth: int) -> str:
    if depth:
        return result_of(join.bind([result_of(nested.bind(depth - 1))], name=f"nested{depth}"))
    return "bottom"


healed: set[str] = set()
"""What does not fail any more."""


@task(max_attempts=1)
async def sometimes(name: str) -> str:
    ran.append(name)
    if name not in healed:
        raise Broken(name)
    return name


@task
async def risky(name: str) -> str:
    ran.append("risky")
    return result_of(join.bind([result_of(sometimes.bind(name))]))


@task
async def waiting(name: str) -> str:
    return result_of(join.bind([result_of(wait.bind(name))]))


@task
async def itself() -> str:
    job = current_job()
    own: Job[str] = Job(job.id, job.task, job.queue, job.schema, decode_result=leaf.signature.decode_result)
    async with await psycopg.AsyncConnection.connect(worker_tasks.dsn, autocommit=True) as conn:
        return result_of(await join.submit(conn, [result_of(own)]))


others: dict[str, Job[str]] = {}


@task(max_attempts=1)
async def stands_for(name: str) -> str:
    """Has the result of one that was submitted."""
    return result_of(others[name])


@task
async def completes(dsn: str) -> str:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn, conn.transaction():
        await current_job().complete(conn, result_of(join.bind([result_of(leaf.bind("a"))])))
    return "not this"


@task
def completes_in_thread(dsn: str) -> str:
    with psycopg.connect(dsn) as conn:
        current_job().complete(conn, result_of(join.bind([result_of(leaf.bind("a"))])))
    return "not this"


@task
async def yearly(dsn: str) -> str:
    """One of what it needs is there at once, and the other one in a year."""
    return result_of(join.bind([result_of(leaf.bind("early")), result_of(sleeps_long.bind(dsn))]))
