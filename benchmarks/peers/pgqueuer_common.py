"""What the two drivers of PgQueuer have in common as contenders of the benchmark."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.metadata import version

import pgqueuer
from kinds import known
from pgqueuer import Job, PgQueuer, Queries
from pgqueuer.ports.driver import Driver

from contender import begun, doze, main, stamp

Opened = tuple[Driver, Callable[[], AbstractAsyncContextManager[object]]]
"""A driver, and the transactions of its connection."""

Opening = Callable[[str], AbstractAsyncContextManager[Opened]]
"""Connects to the given database."""

BATCH = 500
STOP_SECONDS = 1.5


def register(pgq: PgQueuer) -> PgQueuer:
    """An entrypoint for each kind of job. Since 1.0 all are async: a sync function goes by `asyncio.to_thread`."""

    @pgq.entrypoint("noop")
    async def noop(job: Job) -> None:
        begun()

    @pgq.entrypoint("thread")
    async def thread(job: Job) -> None:
        await asyncio.to_thread(begun)

    @pgq.entrypoint("sleep")
    async def sleep(job: Job) -> None:
        await doze()

    @pgq.entrypoint("stamp")
    async def stamped(job: Job) -> None:
        stamp(int(job.payload or b""))

    return pgq


class Submitter:
    """Jobs by way of one connection."""

    def __init__(self, opened: Opened) -> None:
        driver, self.transaction = opened
        self.queries = Queries(driver)

    async def one(self, kind: str, number: int) -> None:
        await self.queries.enqueue(known(kind), b"%d" % number)

    async def many(self, kind: str, count: int) -> None:
        """Lists in place of scalars: one statement."""
        await self.queries.enqueue([known(kind)] * count, [b"%d" % number for number in range(count)], [0] * count)

    async def together(self, kind: str, count: int) -> None:
        async with self.transaction():
            for number in range(count):
                await self.one(kind, number)


def contend(driver_name: str, requirement: str, opening: Opening) -> None:
    """Play the part that the command line says, with this driver."""

    def prepare(dsn: str) -> None:
        """`pgq install`, and `pgq autovac`: the first of the checklist in the docs' "Performance Tuning"."""

        async def install() -> None:
            async with opening(dsn) as (driver, _):
                queries = Queries(driver)
                await queries.install()
                await queries.optimize_autovacuum()

        asyncio.run(install())

    def describe() -> dict[str, str]:
        return {
            "name": f"pgqueuer ({driver_name})",
            "version": version("pgqueuer"),
            "left": "SELECT (SELECT true FROM pgqueuer ORDER BY id LIMIT 1) IS NOT NULL",
            "default": "pgqueuer.run as it is: batch_size 10, which is also how many completions are written at once,"
            " no limit of concurrency; the loop is asyncio's, not uvloop.",
            "best": f'batch_size {BATCH} (docs: "Performance Tuning", "Batch Size"), and no limit of concurrency, which'
            " is the fastest; the loop is asyncio's, not uvloop.",
            "pip": requirement,
        }

    @asynccontextmanager
    async def submitter(dsn: str) -> AsyncIterator[Submitter]:
        async with opening(dsn) as opened:
            yield Submitter(opened)

    async def work(dsn: str, kind: str, setting: str, concurrency: int) -> None:
        """At SIGTERM the jobs that have begun may end, for a while: each last query of psycopg's driver takes 1 s."""
        known(kind)

        @asynccontextmanager
        async def manager() -> AsyncIterator[PgQueuer]:
            async with opening(dsn) as (driver, _):
                yield register(PgQueuer(driver))

        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        batch = {} if setting == "default" else {"batch_size": BATCH}
        running = asyncio.create_task(pgqueuer.run(manager, shutdown=stop, **batch))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        with suppress(TimeoutError):
            await asyncio.wait_for(running, STOP_SECONDS)

    main(prepare=prepare, describe=describe, submitter=submitter, work=work)
