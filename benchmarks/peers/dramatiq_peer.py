"""Dramatiq with the Postgres broker dramatiq-pg, as a contender of the benchmark."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import dramatiq
import psycopg2
from dramatiq.middleware import Prometheus, default_middleware
from dramatiq_pg import PostgresBroker, generate_init_sql
from kinds import known
from psycopg2.extensions import parse_dsn

from contender import SLEEP_SECONDS, begun, main, stamp

MAX_THREADS = 16
PREFETCH = 1000


def application(dsn: str, connections: int) -> tuple[PostgresBroker, dict[str, dramatiq.Actor]]:
    """The broker, and an actor for each kind of job; all are sync, since threads are what Dramatiq's workers are.

    Without the middleware of Prometheus, which wants the processes of Dramatiq's command line.
    """
    middleware = [made() for made in default_middleware if made is not Prometheus]
    url = {**parse_dsn(dsn), "maxconn": str(connections)}
    broker = PostgresBroker(url=url, middleware=middleware)

    def noop(number: int) -> None:
        begun()

    def sleep(number: int) -> None:
        begun()
        time.sleep(SLEEP_SECONDS)

    kinds = {"noop": noop, "thread": noop, "sleep": sleep, "stamp": stamp}
    return broker, {kind: dramatiq.actor(fn, actor_name=kind, broker=broker) for kind, fn in kinds.items()}


def prepare(dsn: str) -> None:
    """The statements of `dramatiq-pg init`."""
    with psycopg2.connect(dsn) as conn, conn.cursor() as cursor:
        cursor.execute(generate_init_sql())


def describe() -> dict[str, str]:
    """What is measured."""
    return {
        "name": "dramatiq-pg",
        "version": version("dramatiq-pg"),
        "left": "SELECT (SELECT true FROM dramatiq.queue WHERE state = 'queued' ORDER BY mtime LIMIT 1) IS NOT NULL"
        " OR (SELECT true FROM dramatiq.queue WHERE state = 'consumed' ORDER BY mtime LIMIT 1) IS NOT NULL",
        "default": f"dramatiq.Worker as it is, on dramatiq {version('dramatiq')}: 8 threads in one process, which"
        " fetch 16 messages ahead. All jobs are sync.",
        "best": f"worker_threads=concurrency, at most {MAX_THREADS}, and queue_prefetch={PREFETCH}, which is the"
        " environment's dramatiq_queue_prefetch: a worker that has fetched enough sleeps up to 1 s.",
        "pip": "dramatiq-pg==0.12.0 dramatiq==1.18.0 psycopg2-binary",
    }


class Submitter:
    """Jobs by way of the broker."""

    def __init__(self, actors: dict[str, dramatiq.Actor]) -> None:
        self.actors = actors

    async def one(self, kind: str, number: int) -> None:
        self.actors[known(kind)].send(number)

    async def many(self, kind: str, count: int) -> None:
        """Dramatiq has no call for many messages that is more than a loop."""
        for number in range(count):
            self.actors[known(kind)].send(number)

    async def together(self, kind: str, count: int) -> None:
        """The broker commits each message on a connection of its own."""
        raise NotImplementedError


@asynccontextmanager
async def submitter(dsn: str) -> AsyncIterator[Submitter]:
    broker, actors = application(dsn, connections=1)
    yield Submitter(actors)
    broker.pool.closeall()


def work(dsn: str, kind: str, setting: str, concurrency: int) -> None:
    """One worker; at SIGTERM the threads end their jobs."""
    known(kind)
    threads = 8 if setting == "default" else min(concurrency, MAX_THREADS)
    broker, _ = application(dsn, connections=threads + 8)
    worker = dramatiq.Worker(broker, worker_threads=threads)
    if setting == "best":
        worker.queue_prefetch = PREFETCH
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    worker.start()
    stop.wait()
    worker.stop(timeout=2000)


if __name__ == "__main__":
    main(prepare=prepare, describe=describe, submitter=submitter, work=work)
