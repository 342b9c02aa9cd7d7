"""What users must not write. Each line with a mark must be an error to each checker that the mark names."""

from __future__ import annotations

from typing import Any

import psycopg

import chancy
import chancy_ops
from chancy import BatchCounts, Unique, callback, cron, every, submit_many, task
from chancy_testing import assert_submitted, drain, eager


@task
def plain(number: int, *, text: str = "") -> str:
    return str(number)


@task
async def later(number: int) -> bytes:
    return bytes(number)


@task(unique=True)  # E mypy ty
def wrong(number: int) -> None: ...


@task(schedule="0 9 * * *")  # E mypy ty
def wrong_too() -> None: ...


cron("* * * * *", missed="some")  # E mypy ty
cron("* * * * *", timezone=1)  # E mypy ty
every(minutes="5")  # E mypy ty
every("60")  # E mypy ty
Unique(until="claimed")  # E mypy ty
Unique(on_conflict="ignore")  # E mypy ty
Unique(within="60")  # E mypy ty
Unique(key=7)  # E mypy ty


def sync_side(conn: psycopg.Connection[Any]) -> None:
    plain.submit(conn)  # E mypy ty
    plain.submit(conn, "1")  # E mypy ty
    plain.submit(conn, 1, 2)  # E mypy ty
    plain.submit(conn, 1, extra=1)  # E mypy ty
    plain.submit(1)  # E mypy ty
    plain.submit("dsn", 1)  # E mypy ty
    plain.bind("1")  # E mypy ty
    plain("1")  # E mypy ty
    plain.using(colour="red")  # E mypy
    plain.using(priority="high")  # E mypy ty
    plain.using(unique="number")  # E mypy ty
    submit_many(conn, [1])  # E mypy ty
    plain.using(group=len)  # E mypy ty
    task(limits=[3])  # E mypy ty
    chancy_ops.limit(conn, "q", concurrency="3")  # E mypy ty
    chancy_ops.pause(conn, "q", until="5")  # E mypy ty
    chancy.jobs(conn, task=5)  # E mypy ty
    plain.using(delay="5")  # E mypy ty
    chancy_ops.requeue_many(conn, "q")  # E mypy ty
    chancy.schedule(conn, "a", plain, every(minutes=5))  # E mypy ty
    chancy.schedule(conn, "a", plain.bind(1), "* * * * *")  # E mypy ty
    number: int = plain.submit(conn, 1).result(conn)  # E mypy ty
    print(number)


async def async_side(conn: psycopg.AsyncConnection[Any]) -> None:
    await later.submit(conn, "1")  # E mypy ty
    later.submit(conn, 1)  # E mypy
    later(1)  # E mypy
    chancy.run_now(conn, "a")  # E mypy
    submit_many(conn, [later.bind(1)])  # E mypy
    print(later.submit(conn, 1).id)  # E mypy ty


def sync_tests(conn: psycopg.Connection[Any]) -> None:
    assert_submitted(conn, plain, "1")  # E mypy ty
    assert_submitted(conn, plain, number=1, extra=2)  # E mypy ty
    assert_submitted(conn, len)  # E mypy ty
    length: int = assert_submitted(conn, plain, 1).result(conn)  # E mypy ty
    drain(conn, limit="all")  # E mypy ty
    drain()  # E mypy ty
    eager(mode="later")  # E mypy ty
    with eager() as backend:
        plain.submit(backend.conn, "1")  # E mypy ty
    print(length)


async def async_tests(conn: psycopg.AsyncConnection[Any]) -> None:
    assert_submitted(conn, plain, 1)  # E mypy
    print(drain(conn).succeeded)  # E mypy ty


@task
def publish(counts: BatchCounts) -> None: ...


@task
async def report(counts: BatchCounts, import_id: int, *, text: str = "") -> None: ...


def batches(conn: psycopg.Connection[Any], aconn: psycopg.AsyncConnection[Any]) -> None:
    chancy.batch(conn, on_success=plain)  # E mypy ty
    chancy.batch(conn, on_finished=report)  # E mypy ty
    chancy.batch(conn, on_finished=len)  # E mypy ty
    chancy.batch(conn, publish)  # E mypy ty
    callback(plain, 7)  # E mypy ty
    callback(report)  # E mypy ty
    callback(report, "7")  # E mypy ty
    callback(report, import_id=7, txt="x")  # E mypy ty
    callback(publish, 7)  # E mypy ty
    with chancy.batch(aconn):  # E mypy ty
        pass
    with chancy.batch(conn) as batch:
        batch.submit(publish)  # E mypy ty
        number: int = batch.submit(plain.bind(1)).result(conn)  # E mypy ty
        print(number)


async def async_batches(conn: psycopg.AsyncConnection[Any]) -> None:
    async with chancy.batch(conn) as batch:
        batch.submit(plain.bind(1))  # E mypy
        print(batch.submit(plain.bind(1)).id)  # E mypy ty


def verbs(conn: psycopg.Connection[Any]) -> None:
    chancy.get(conn)  # E mypy ty
    chancy.get(1)  # E mypy ty
    chancy.get("dsn", 1)  # E mypy ty
    chancy.get(conn, "1")  # E mypy ty
    chancy.get(conn, 1, 2)  # E mypy ty
    chancy.get(conn, job_id=1)  # E mypy ty
    chancy.get(conn=conn, job_id=1)  # E mypy ty
    chancy.get(conn, 1, schema=7)  # E mypy ty
    chancy.jobs(conn, quue="q")  # E mypy ty
    chancy.logs(conn, 1, after=7)  # E mypy ty
    chancy_ops.count(conn, "q")  # E mypy ty
    chancy_ops.limit(conn, "q")  # E mypy ty
    text: str = chancy_ops.resume(conn, "q")  # E mypy ty
    print(text, chancy_ops.workers(conn)[0].nam)  # E mypy ty


async def verbs_awaited(conn: psycopg.AsyncConnection[Any]) -> None:
    chancy_ops.pause(conn, "q")  # E mypy
    print(chancy.jobs(conn)[0])  # E mypy ty
    number: int = await chancy.get(conn, 1)  # E mypy ty
    print(number)
