"""Huey with its Postgres storage, as a contender of the benchmark."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from huey import PostgresHuey
from huey.api import TaskWrapper
from kinds import known

from contender import SLEEP_SECONDS, begun, main, stamp


def application(dsn: str) -> tuple[PostgresHuey, dict[str, TaskWrapper]]:
    """The instance, and a task for each kind of job; all are sync, since Huey runs no others."""
    huey = PostgresHuey("bench", dsn=dsn)

    @huey.task()
    def noop(number: int) -> None:
        begun()

    @huey.task()
    def thread(number: int) -> None:
        begun()

    @huey.task()
    def sleep(number: int) -> None:
        begun()
        time.sleep(SLEEP_SECONDS)

    @huey.task()
    def stamped(number: int) -> None:
        stamp(number)

    return huey, {"noop": noop, "thread": thread, "sleep": sleep, "stamp": stamped}


def prepare(dsn: str) -> None:
    """The storage makes its tables when it is made."""
    huey, _ = application(dsn)
    huey.storage.close()


def describe() -> dict[str, str]:
    """What is measured."""
    return {
        "name": "huey",
        "version": version("huey"),
        "left": "SELECT (SELECT true FROM huey_task WHERE queue = 'bench' ORDER BY priority DESC, id LIMIT 1)"
        " IS NOT NULL",
        "default": "The consumer as it is: 1 worker thread. All jobs are sync, and a job's row is deleted before the"
        " job begins, so a job is lost when its worker dies.",
        "best": 'workers=concurrency for jobs that sleep (docs: "Consuming Tasks", -w), and 1 worker for all others:'
        " the threads share one connection, and more of them are slower. It listens for NOTIFY as shipped.",
        "pip": "huey==3.5.4 psycopg[binary]",
    }


class Submitter:
    """Jobs by way of the storage's connection."""

    def __init__(self, tasks: dict[str, TaskWrapper]) -> None:
        self.tasks = tasks

    async def one(self, kind: str, number: int) -> None:
        self.tasks[known(kind)](number)

    async def many(self, kind: str, count: int) -> None:
        """`map` is Huey's one call for many tasks; each is a transaction of its own."""
        self.tasks[known(kind)].map(range(count))

    async def together(self, kind: str, count: int) -> None:
        """The storage begins and commits a transaction for each task, on a connection of its own."""
        raise NotImplementedError


@asynccontextmanager
async def submitter(dsn: str) -> AsyncIterator[Submitter]:
    huey, tasks = application(dsn)
    yield Submitter(tasks)
    huey.storage.close()


def work(dsn: str, kind: str, setting: str, concurrency: int) -> None:
    """One consumer; SIGTERM is the signal at which it does not wait for jobs."""
    workers = concurrency if known(kind) == "sleep" and setting == "best" else 1
    huey, _ = application(dsn)
    huey.create_consumer(workers=workers).run()


if __name__ == "__main__":
    main(prepare=prepare, describe=describe, submitter=submitter, work=work)
