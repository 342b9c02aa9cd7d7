"""What users write, with the types that they must get. Never executed: read by the type checkers."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, assert_type

import psycopg

import chancy
from chancy import (
    AsyncTask,
    Finding,
    Job,
    JobRow,
    Limit,
    NewJob,
    Reason,
    Severity,
    SharedLimit,
    SubmitOutcome,
    Task,
    Unique,
    Why,
    submit_many,
    task,
)
from chancy_testing import (
    Clock,
    Drain,
    Drained,
    Eager,
    EagerJob,
    assert_submitted,
    drain,
    eager,
    refute_submitted,
    submitted,
)


@task
def plain(number: int, *, conn: str = "") -> str:
    return str(number)


@task
async def later(number: int) -> bytes:
    return bytes(number)


@task(queue="q", max_attempts=1)
def with_options(number: int) -> float:
    return number / 2


@task(queue="q")
async def later_with_options(number: int) -> list[int]:
    return [number]


@task(unique=Unique(key=lambda number: number, until="started", within=timedelta(hours=1), on_conflict="replace"))
def once(number: int) -> str:
    return str(number)


@task(unique=Unique())
async def once_async(number: int) -> str:
    return str(number)


def sync_side(conn: psycopg.Connection[dict[str, Any]]) -> None:
    assert_type(plain(1), str)
    assert_type(with_options(1), float)
    job = plain.submit(conn, 1, conn="x")
    assert_type(job, Job[str])
    assert_type(job.result(conn, timeout=timedelta(seconds=1)), str)
    assert_type(job.refresh(conn), JobRow)
    assert_type(job.cancel(conn), bool)
    assert_type(later.submit(conn, 1), Job[bytes])
    assert_type(later_with_options.submit(conn, number=1).result(conn), list[int])
    assert_type(plain.bind(1), NewJob[str])
    assert_type(submit_many(conn, [with_options.bind(1)]), list[Job[float]])
    assert_type(plain.using(priority=1).submit(conn, 1), Job[str])
    assert_type(once(1), str)
    assert_type(once.submit(conn, 1), Job[str])
    assert_type(once.submit(conn, 1).outcome, SubmitOutcome | None)
    assert_type(once.using(unique=None).submit(conn, 1), Job[str])
    assert_type(
        plain.using(unique=Unique(key="text", on_conflict="raise")).submit(conn, 1).refresh(conn).unique_key, str | None
    )
    assert_type(chancy.jobs(conn, limit=1), list[JobRow])
    assert_type(chancy.migrate(conn), list[str])


async def async_side(conn: psycopg.AsyncConnection[Any]) -> None:
    assert_type(await later(1), bytes)
    _ = assert_type(plain.submit(conn, 1), Coroutine[Any, Any, Job[str]])
    job = await plain.submit(conn, 1)
    assert_type(job, Job[str])
    assert_type(await job.result(conn), str)
    assert_type(await submit_many(conn, [later.bind(1)]), list[Job[bytes]])
    assert_type(await later.using(delay=timedelta(1)).submit(conn, 1), Job[bytes])
    assert_type(await once_async.submit(conn, 1), Job[str])
    assert_type(await chancy.get(conn, 1), JobRow)


def shapes(one: Task[[int], str], two: AsyncTask[[int], bytes]) -> None:
    assert_type(one(1), str)
    _ = assert_type(two(1), Coroutine[Any, Any, bytes])


@task(limits=[Limit.time(5), Limit.concurrency(3, key=lambda customer: customer)], group=lambda customer: customer)
def limited(customer: str) -> int:
    return len(customer)


def limits_of_all_workers(conn: psycopg.Connection[Any]) -> None:
    assert_type(Limit.rate(5, per=timedelta(seconds=1)), SharedLimit)
    assert_type(limited.using(group="a", limits=[Limit.concurrency(1, key="b")]).submit(conn, "x"), Job[int])
    assert_type(chancy.limit(conn, "q", concurrency=3), None)


def sync_tests(conn: psycopg.Connection[Any], chancy_drain: Drain, chancy_clock: Clock) -> None:
    assert_type(assert_submitted(conn, plain, 1, conn="x"), Job[str])
    assert_type(assert_submitted(conn, later), Job[bytes])
    assert_type(submitted(conn, with_options), list[Job[float]])
    assert_type(refute_submitted(conn, plain, number=1), None)
    assert_type(drain(conn, limit=1), Drained)
    assert_type(chancy_drain(conn).succeeded, int)
    assert_type(chancy_clock.move(timedelta(1)), None)
    with eager(mode="collect") as backend:
        assert_type(backend, Eager)
        assert_type(plain.submit(backend.conn, 1), Job[str])
        assert_type(backend.jobs, list[EagerJob])
        assert_type(backend.jobs[0].delays, tuple[timedelta, ...])


async def async_tests(conn: psycopg.AsyncConnection[Any], chancy_drain: Drain) -> None:
    unawaited = assert_submitted(conn, plain, 1)
    _ = assert_type(unawaited, Coroutine[Any, Any, Job[str]])
    assert_type(await unawaited, Job[str])
    assert_type(await assert_submitted(conn, later, number=1), Job[bytes])
    assert_type(await (await assert_submitted(conn, later)).result(conn), bytes)
    assert_type(await submitted(conn, later_with_options), list[Job[list[int]]])
    assert_type(await drain(conn, with_scheduled=True), Drained)
    assert_type(await chancy_drain(conn), Drained)
    with eager() as backend:
        assert_type(await plain.submit(backend.aconn, 1), Job[str])


def why_and_doctor(conn: psycopg.Connection[Any]) -> None:
    assert_type(chancy.why(conn, 1), Why)
    assert_type(chancy.why(conn, 1).until, datetime | None)
    assert_type(chancy.doctor(conn), list[Finding])


async def why_and_doctor_awaited(conn: psycopg.AsyncConnection[Any]) -> None:
    assert_type((await chancy.why(conn, 1)).reason, Reason)
    assert_type([found.severity for found in await chancy.doctor(conn)], list[Severity])
