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


@task(unique=True)  # E mypy ty pyright
def wrong(number: int) -> None: ...


@task(schedule="0 9 * * *")  # E mypy ty pyright
def wrong_too() -> None: ...


cron("* * * * *", missed="some")  # E mypy ty pyright
cron("* * * * *", timezone=1)  # E mypy ty pyright
every(minutes="5")  # E mypy ty pyright
every("60")  # E mypy ty pyright
Unique(until="claimed")  # E mypy ty pyright
Unique(on_conflict="ignore")  # E mypy ty pyright
Unique(within="60")  # E mypy ty pyright
Unique(key=7)  # E mypy ty pyright


def sync_side(conn: psycopg.Connection[Any]) -> None:
    plain.submit(conn)  # E mypy ty pyright
    plain.submit(conn, "1")  # E mypy ty pyright
    plain.submit(conn, 1, 2)  # E mypy ty pyright
    plain.submit(conn, 1, extra=1)  # E mypy ty pyright
    plain.submit(1)  # E mypy ty pyright
    plain.submit("dsn", 1)  # E mypy ty pyright
    plain.bind("1")  # E mypy ty pyright
    plain("1")  # E mypy ty pyright
    plain.using(colour="red")  # E mypy pyright
    plain.using(priority="high")  # E mypy ty pyright
    plain.using(unique="number")  # E mypy ty pyright
    submit_many(conn, [1])  # E mypy ty pyright
    plain.using(group=len)  # E mypy ty pyright
    task(limits=[3])  # E mypy ty pyright
    chancy_ops.limit(conn, "q", concurrency="3")  # E mypy ty pyright
    chancy_ops.pause(conn, "q", until="5")  # E mypy ty pyright
    chancy.jobs(conn, task=5)  # E mypy ty pyright
    plain.using(delay="5")  # E mypy ty pyright
    chancy_ops.requeue_many(conn, "q")  # E mypy ty pyright
    chancy.schedule(conn, "a", plain, every(minutes=5))  # E mypy ty pyright
    chancy.schedule(conn, "a", plain.bind(1), "* * * * *")  # E mypy ty pyright
    number: int = plain.submit(conn, 1).result(conn)  # E mypy ty pyright
    print(number)


async def async_side(conn: psycopg.AsyncConnection[Any]) -> None:
    await later.submit(conn, "1")  # E mypy ty pyright
    later.submit(conn, 1)  # E mypy pyright
    later(1)  # E mypy pyright
    chancy.run_now(conn, "a")  # E mypy pyright
    submit_many(conn, [later.bind(1)])  # E mypy pyright
    print(later.submit(conn, 1).id)  # E mypy ty pyright


def sync_tests(conn: psycopg.Connection[Any]) -> None:
    assert_submitted(conn, plain, "1")  # E mypy ty pyright
    assert_submitted(conn, plain, number=1, extra=2)  # E mypy ty pyright
    assert_submitted(conn, len)  # E mypy ty pyright
    length: int = assert_submitted(conn, plain, 1).result(conn)  # E mypy ty pyright
    drain(conn, limit="all")  # E mypy ty pyright
    drain()  # E mypy ty pyright
    eager(mode="later")  # E mypy ty pyright
    with eager() as backend:
        plain.submit(backend.conn, "1")  # E mypy ty pyright
    print(length)


async def async_tests(conn: psycopg.AsyncConnection[Any]) -> None:
    assert_submitted(conn, plain, 1)  # E mypy pyright
    print(drain(conn).succeeded)  # E mypy ty pyright


@task
def publish(counts: BatchCounts) -> None: ...


@task
async def report(counts: BatchCounts, import_id: int, *, text: str = "") -> None: ...


def batches(conn: psycopg.Connection[Any], aconn: psycopg.AsyncConnection[Any]) -> None:
    chancy.batch(conn, on_success=plain)  # E mypy ty pyright
    chancy.batch(conn, on_finished=report)  # E mypy ty pyright
    chancy.batch(conn, on_finished=len)  # E mypy ty pyright
    chancy.batch(conn, publish)  # E mypy ty pyright
    callback(plain, 7)  # E mypy ty pyright
    callback(report)  # E mypy ty pyright
    callback(report, "7")  # E mypy ty pyright
    callback(report, import_id=7, txt="x")  # E mypy ty pyright
    callback(publish, 7)  # E mypy ty pyright
    with chancy.batch(aconn):  # E mypy ty pyright
        pass
    with chancy.batch(conn) as batch:
        batch.submit(publish)  # E mypy ty pyright
        number: int = batch.submit(plain.bind(1)).result(conn)  # E mypy ty pyright
        print(number)


async def async_batches(conn: psycopg.AsyncConnection[Any]) -> None:
    async with chancy.batch(conn) as batch:
        batch.submit(plain.bind(1))  # E mypy pyright
        print(batch.submit(plain.bind(1)).id)  # E mypy ty pyright


def verbs(conn: psycopg.Connection[Any]) -> None:
    chancy.get(conn)  # E mypy ty pyright
    chancy.get(1)  # E mypy ty pyright
    chancy.get("dsn", 1)  # E mypy ty pyright
    chancy.get(conn, "1")  # E mypy ty pyright
    chancy.get(conn, 1, 2)  # E mypy ty pyright
    chancy.get(conn, job_id=1)  # E mypy ty pyright
    chancy.get(conn=conn, job_id=1)  # E mypy ty pyright
    chancy.get(conn, 1, schema=7)  # E mypy ty pyright
    chancy.jobs(conn, quue="q")  # E mypy ty pyright
    chancy.logs(conn, 1, after=7)  # E mypy ty pyright
    chancy_ops.count(conn, "q")  # E mypy ty pyright
    chancy_ops.limit(conn, "q")  # E mypy ty pyright
    text: str = chancy_ops.resume(conn, "q")  # E mypy ty pyright
    print(text, chancy_ops.workers(conn)[0].nam)  # E mypy ty pyright


async def verbs_awaited(conn: psycopg.AsyncConnection[Any]) -> None:
    chancy_ops.pause(conn, "q")  # E mypy pyright
    print(chancy.jobs(conn)[0])  # E mypy ty pyright
    number: int = await chancy.get(conn, 1)  # E mypy ty pyright
    print(number)


def charge(order: int, *, key: str) -> bytes:
    return key.encode() * order


async def charge_later(order: int, *, key: str) -> bytes:
    return key.encode() * order


def steps_sync_side(conn: psycopg.Connection[Any]) -> None:
    job = chancy.current_job()
    job.step(conn, "charge", charge, "7", key="a")  # E mypy ty pyright
    job.step(conn, "charge", charge, 7)  # E mypy ty pyright
    job.step(conn, "charge", charge, 7, key="a", more=1)  # E mypy ty pyright
    job.step("charge", charge, 7, key="a")  # E mypy ty pyright
    job.step(conn, charge, 7, key="a")  # E mypy ty pyright
    job.sleep(conn, "settle")  # E mypy ty pyright
    job.sleep(conn, "settle", "3 days")  # E mypy ty pyright
    job.wait(conn, "approved", 7)  # E mypy ty pyright
    job.wait(conn, "approved", int, timeout="3 days")  # E mypy ty pyright
    text: str = job.wait(conn, "approved", int)  # E mypy ty pyright
    text = job.step(conn, "charge", charge, 7, key="a")  # E mypy ty pyright
    chancy.signal(conn, "7", "approved")  # E mypy ty pyright
    print(text)


async def steps_async_side(conn: psycopg.AsyncConnection[Any]) -> None:
    job = chancy.current_job()
    await job.step(conn, "charge", charge, 7, key="a")  # E mypy ty pyright
    await job.step(conn, "charge", charge_later, "7", key="a")  # E mypy ty pyright
    job.sleep(conn, "settle", 7)  # E mypy pyright
    text: str = await job.step(conn, "charge", charge_later, 7, key="a")  # E mypy ty pyright
    print(text)
