"""The `chancy` of PyPI, another project of the same name, as a contender of the benchmark."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from kinds import known
from psycopg.rows import dict_row

from chancy import Chancy, Queue, Worker, job
from chancy.plugins.leadership import Leadership
from chancy.plugins.pruner import Pruner
from chancy.plugins.recovery import Recovery
from contender import begun, doze, main, stamp


@job()
async def noop(number: int) -> None:
    begun()


@job()
def thread(number: int) -> None:
    begun()


@job()
async def sleep(number: int) -> None:
    await doze()


@job()
async def stamped(number: int) -> None:
    stamp(number)


JOBS = {"noop": noop.job, "thread": thread.job, "sleep": sleep.job, "stamp": stamped.job}


def application(dsn: str, setting: str = "default") -> Chancy:
    """Without its own log handler, which prints a line for each job."""
    log = logging.getLogger("chancy.bench")
    log.setLevel(logging.WARNING)
    if setting == "default":
        return Chancy(dsn, log=log)
    return Chancy(dsn, log=log, no_default_plugins=True, plugins=[Leadership(), Pruner(), Recovery()])


def prepare(dsn: str) -> None:
    async def migrate() -> None:
        async with application(dsn) as chancy:
            await chancy.migrate()

    asyncio.run(migrate())


def describe() -> dict[str, str]:
    """What is measured."""
    return {
        "name": "chancy (PyPI)",
        "version": version("chancy"),
        "left": "SELECT (SELECT true FROM chancy_jobs WHERE queue = 'default' AND state = 'pending'"
        " ORDER BY attempts, scheduled_at, priority DESC, id DESC LIMIT 1) IS NOT NULL"
        " OR (SELECT true FROM chancy_jobs WHERE queue = 'default' AND state IN ('running', 'retrying')"
        " ORDER BY state LIMIT 1) IS NOT NULL",
        "default": 'The queue "default" as the worker itself declares it: processes, as many as there are cores, and a'
        " poll each 5 s, which is also when the next jobs of a backlog are fetched.",
        "best": "Queue(concurrency, eager_polling=True), with the async executor, or the threaded one for sync jobs"
        " (the docstrings of chancy.Queue and of the executors); completions are written each 0.1 s, not each 1 s"
        " (Worker.send_outgoing_interval); of the default plugins those of metrics and workflows are off.",
        "pip": "chancy==0.26.0 psycopg[binary]",
    }


class Submitter:
    """Jobs by way of the app's pool, or of one of its connections."""

    def __init__(self, chancy: Chancy) -> None:
        self.chancy = chancy

    async def one(self, kind: str, number: int) -> None:
        await self.chancy.push(JOBS[known(kind)].with_kwargs(number=number))

    async def many(self, kind: str, count: int) -> None:
        jobs = [JOBS[known(kind)].with_kwargs(number=number) for number in range(count)]
        async for _ in self.chancy.push_many(jobs, batch_size=count):
            pass

    async def together(self, kind: str, count: int) -> None:
        """`push_ex`, of the docs' page on transactions."""
        async with self.chancy.pool.connection() as conn, conn.transaction():
            async with conn.cursor(row_factory=dict_row) as cursor:
                for number in range(count):
                    await self.chancy.push_ex(cursor, JOBS[known(kind)].with_kwargs(number=number))


@asynccontextmanager
async def submitter(dsn: str) -> AsyncIterator[Submitter]:
    async with application(dsn) as chancy:
        yield Submitter(chancy)


async def work(dsn: str, kind: str, setting: str, concurrency: int) -> None:
    """One worker; it handles SIGTERM itself, lets the jobs end that have begun, and writes their ends."""
    known(kind)
    async with application(dsn, setting) as chancy:
        if setting == "best":
            executor = Chancy.Executor.Threaded if kind == "thread" else Chancy.Executor.Async
            queue = Queue("default", concurrency=concurrency, executor=executor, eager_polling=True)
            await chancy.declare(queue, upsert=True)
        worker = Worker(chancy)
        if setting == "best":
            worker.send_outgoing_interval = 0.1
        async with worker:
            await worker.wait_for_shutdown()


if __name__ == "__main__":
    main(prepare=prepare, describe=describe, submitter=submitter, work=work)
