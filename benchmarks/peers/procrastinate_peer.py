"""Procrastinate with its psycopg 3 connector, as a contender of the benchmark."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from importlib.metadata import version

import psycopg
from kinds import known
from procrastinate import App, PsycopgConnector
from procrastinate.tasks import Task

from contender import begun, doze, main, stamp

logging.getLogger("procrastinate").setLevel(logging.ERROR)  # an app in __main__ is warned of; the tasks have names


def application(dsn: str) -> tuple[App, dict[str, Task]]:
    """The app of the docs' quickstart, and a task for each kind of job."""
    app = App(connector=PsycopgConnector(conninfo=dsn))

    @app.task(name="noop")
    async def noop(number: int) -> None:
        begun()

    @app.task(name="thread")
    def thread(number: int) -> None:
        begun()

    @app.task(name="sleep")
    async def sleep(number: int) -> None:
        await doze()

    @app.task(name="stamp")
    async def stamped(number: int) -> None:
        stamp(number)

    return app, {"noop": noop, "thread": thread, "sleep": sleep, "stamp": stamped}


def prepare(dsn: str) -> None:
    """The schema, as `procrastinate schema --apply` does it."""
    app, _ = application(dsn)
    with app.open():
        app.schema_manager.apply_schema()


def describe() -> dict[str, str]:
    """What is measured."""
    return {
        "name": "procrastinate",
        "version": version("procrastinate"),
        "left": "SELECT (SELECT true FROM procrastinate_jobs WHERE status = 'todo' ORDER BY priority DESC, id LIMIT 1)"
        " IS NOT NULL OR (SELECT true FROM procrastinate_jobs WHERE status = 'doing' AND worker_id IS NOT NULL"
        " ORDER BY worker_id LIMIT 1) IS NOT NULL",
        "default": "run_worker_async as it is: concurrency 1, finished jobs are kept, a pool of 4 connections.",
        "best": 'concurrency (docs: "Execute multiple jobs at the same time") and delete_jobs="always" (docs: "Delete'
        ' finished jobs"); more connections than the pool of 4 were no faster.',
        "pip": "procrastinate==3.10.0 psycopg[binary]",
    }


class Submitter:
    """Jobs by way of the app's pool; those of `together` on a connection of the user's."""

    def __init__(self, dsn: str, tasks: dict[str, Task]) -> None:
        self.dsn = dsn
        self.tasks = tasks

    async def one(self, kind: str, number: int) -> None:
        await self.tasks[known(kind)].defer_async(number=number)

    async def many(self, kind: str, count: int) -> None:
        """Docs: "Defer multiple jobs at once"."""
        await self.tasks[known(kind)].batch_defer_async(*({"number": number} for number in range(count)))

    async def together(self, kind: str, count: int) -> None:
        """Docs: "Using an external database connection"."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as conn, conn.transaction():
            for number in range(count):
                await self.tasks[known(kind)].configure(connection=conn).defer_async(number=number)


@contextlib.asynccontextmanager
async def submitter(dsn: str) -> AsyncIterator[Submitter]:
    app, tasks = application(dsn)
    async with app.open_async():
        yield Submitter(dsn, tasks)


async def work(dsn: str, kind: str, setting: str, concurrency: int) -> None:
    """One worker; it handles SIGTERM itself, and lets the jobs end that have begun."""
    known(kind)
    app, _ = application(dsn)
    async with app.open_async():
        if setting == "default":
            await app.run_worker_async()
        else:
            await app.run_worker_async(concurrency=concurrency, delete_jobs="always")


if __name__ == "__main__":
    main(prepare=prepare, describe=describe, submitter=submitter, work=work)
