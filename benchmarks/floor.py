"""The raw floor as a contender: Chancy's tables and its worker's own statements, with nothing around them.

No job is performed: what is claimed is completed by the next statement. What submits is the plain INSERT, by which one
would add rows to these tables by hand.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import psycopg

from chancy_here import connected, prepare
from chancy_worker.attempts.verdict import succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import START, Wanted
from chancy_worker.connection.link import Link
from chancy_worker.life.lease import register
from contender import begun, main, stamp

LANE = ("default", 0)

INSERT = """
    INSERT INTO chancy.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
    VALUES (%s, %s, %s, 'ready', %s, now(), now(), %s)
    RETURNING id
"""
INSERT_LOUD = INSERT + ", pg_notify('chancy', queue)"
INSERT_MANY = """
    INSERT INTO chancy.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
    SELECT task, queue, priority, 'ready', attempts, now(), now(), arguments
    FROM unnest(%s::text[], %s::text[], %s::smallint[], %s::smallint[], %s::json[])
        AS given (task, queue, priority, attempts, arguments)
    RETURNING id
"""


def describe() -> dict[str, str]:
    """What is measured."""
    return {
        "name": "bare statements",
        "version": "",
        "left": "SELECT EXISTS (SELECT FROM chancy.job)",
        "default": "batches of 100.",
        "best": "batches of the size that the benchmark says.",
        "pip": "psycopg[binary]",
    }


def _one(kind: str, number: int) -> tuple[Any, ...]:
    return kind, "default", 0, 3, f'{{"number":{number}}}'


def _many(kind: str, count: int) -> tuple[Any, ...]:
    arguments = [f'{{"number":{number}}}' for number in range(count)]
    return [kind] * count, ["default"] * count, [0] * count, [3] * count, arguments


class AsyncSubmitter:
    """psycopg and an INSERT."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.conn = conn

    async def one(self, kind: str, number: int) -> None:
        """One row."""
        text = INSERT_LOUD if kind == "stamp" else INSERT
        await (await self.conn.execute(text, _one(kind, number))).fetchone()

    async def many(self, kind: str, count: int) -> None:
        """One statement."""
        await (await self.conn.execute(INSERT_MANY, _many(kind, count))).fetchall()

    async def together(self, kind: str, count: int) -> None:
        """In one transaction."""
        async with self.conn.transaction():
            for number in range(count):
                await self.one(kind, number)


class SyncSubmitter:
    """The same with a sync connection."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    async def one(self, kind: str, number: int) -> None:
        """One row."""
        self.conn.execute(INSERT, _one(kind, number)).fetchone()

    async def many(self, kind: str, count: int) -> None:
        """One statement."""
        self.conn.execute(INSERT_MANY, _many(kind, count)).fetchall()

    async def together(self, kind: str, count: int) -> None:
        """In one transaction."""
        with self.conn.transaction():
            for number in range(count):
                self.conn.execute(INSERT, _one(kind, number)).fetchone()


async def work(dsn: str, kind: str, setting: str, concurrency: int) -> None:
    """Claim and complete; where nothing is left, LISTEN."""
    batch = 100 if setting == "default" else concurrency
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    link = Link(dsn, "chancy", "floor", deadline=30)
    await link.connect()
    worker = await link.send(register("floor", 3600))
    heard = asyncio.Event()
    conn = link.conn
    assert conn is not None
    conn.add_notify_handler(lambda notify: heard.set())
    await conn.execute("LISTEN chancy")
    await _rounds(link, worker, batch, heard, stop)


async def _rounds(link: Link, worker: int, batch: int, heard: asyncio.Event, stop: asyncio.Event) -> None:
    mark, verdicts = START, []
    while not stop.is_set():
        heard.clear()
        answer = await link.send(play_round(worker, verdicts, Wanted({"default": batch}, {LANE: mark})))
        mark = answer.marks.get(LANE, mark)
        for job in answer.claimed:
            stamp(int(job.arguments[10:-1])) if job.task == "stamp" else begun()
        verdicts = [succeeded(job, b"null") for job in answer.claimed]
        if not verdicts:
            await _hear(link, heard, stop)


async def _hear(link: Link, heard: asyncio.Event, stop: asyncio.Event) -> None:
    conn = link.conn
    assert conn is not None
    loop = asyncio.get_running_loop()

    def readable() -> None:
        conn.pgconn.consume_input()
        while conn.pgconn.notifies() is not None:
            heard.set()

    loop.add_reader(conn.fileno(), readable)
    waits = [asyncio.ensure_future(event.wait()) for event in (heard, stop)]
    await asyncio.wait(waits, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    loop.remove_reader(conn.fileno())


if __name__ == "__main__":
    main(
        prepare=prepare,
        describe=describe,
        submitter=lambda dsn: connected(dsn, SyncSubmitter, AsyncSubmitter),
        work=work,
    )
