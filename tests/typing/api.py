"""What users write, with the types that they must get. Never executed: read by the type checkers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Annotated, Any, assert_type

import psycopg

import chancy
import chancy_ops
from chancy import (
    AsyncTask,
    Backoff,
    BatchCounts,
    BatchProgress,
    Callback,
    Chancy,
    Found,
    Job,
    JobRow,
    Keep,
    Limit,
    LogEntry,
    NewJob,
    ScheduleRow,
    Secret,
    SharedLimit,
    State,
    SubmitOutcome,
    Task,
    Unique,
    callback,
    cron,
    every,
    submit_many,
    task,
)
from chancy_ops import Count, Finding, JobFilter, Reason, Severity, Swept, Why, WorkerRow
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
def log_in(user: str, password: Annotated[str, Secret()]) -> Annotated[str, Secret()]:
    return assert_type(password, str)


assert_type(log_in("ann", "pw"), str)
assert_type(log_in.bind("ann", password="pw"), NewJob[str])


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


@task(keep_logs=True)
def kept(number: int) -> str:
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
    assert_type(chancy.jobs(conn, limit=1), Found[JobRow])
    assert_type(chancy.migrate(conn), list[str])
    assert_type(kept(1), str)
    assert_type(chancy.logs(conn, 1, after=(1, 2), limit=3), list[LogEntry])


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
    assert_type(await chancy.logs(conn, 1), list[LogEntry])


@task(retry=Backoff(base=5, maximum=timedelta(hours=1)), unique=Unique(within=60), schedule=every(60))
def in_seconds(number: int = 0) -> str:
    return str(number)


def durations_are_seconds_or_timedeltas(conn: psycopg.Connection[Any]) -> None:
    job = in_seconds.using(delay=2.5).submit(conn, 1)
    assert_type(job.result(conn, timeout=5), str)
    assert_type(chancy_ops.pause(conn, "q", until=60), None)
    assert_type(Limit.rate(5, per=1), SharedLimit)
    assert_type(Limit.time(timedelta(minutes=1)), Limit)
    assert_type(Keep(failed=86_400), Keep)
    Chancy(keep=86_400)


def a_task_stands_for_all_its_names(conn: psycopg.Connection[Any]) -> None:
    assert_type(chancy.jobs(conn, task=plain), Found[JobRow])
    assert_type(chancy.jobs(conn, task="name"), Found[JobRow])
    assert_type(chancy_ops.count(conn, JobFilter(task=later)), dict[State, Count])
    assert_type(plain.names, tuple[str, ...])


def shapes(one: Task[[int], str], two: AsyncTask[[int], bytes]) -> None:
    assert_type(one(1), str)
    _ = assert_type(two(1), Coroutine[Any, Any, bytes])


@task(limits=[Limit.time(5), Limit.concurrency(3, key=lambda customer: customer)], group=lambda customer: customer)
def limited(customer: str) -> int:
    return len(customer)


def limits_of_all_workers(conn: psycopg.Connection[Any]) -> None:
    assert_type(Limit.rate(5, per=timedelta(seconds=1)), SharedLimit)
    assert_type(limited.using(group="a", limits=[Limit.concurrency(1, key="b")]).submit(conn, "x"), Job[int])
    assert_type(chancy_ops.limit(conn, "q", concurrency=3), None)


def steering(conn: psycopg.Connection[Any]) -> None:
    assert_type(chancy_ops.pause(conn, "q", until=timedelta(hours=1)), None)
    assert_type(chancy_ops.resume(conn, task=limited), bool)
    assert_type(chancy_ops.edit(conn, 1, priority=5), bool)
    assert_type(chancy_ops.count(conn, JobFilter(queue="q")), dict[State, Count])
    assert_type(chancy_ops.search(conn, JobFilter(queue="q"), words="w").looked_back_to, datetime | None)
    assert_type(chancy_ops.failures(conn, limit=1)[0].count, int)
    assert_type(chancy_ops.requeue_many(conn, JobFilter(state=State.FAILED), told=print), Swept)
    assert_type(chancy_ops.queues(conn)[0].oldest_at, datetime | None)
    planned = chancy_ops.plan_sweep(conn, "requeue", JobFilter(state=State.FAILED))
    assert_type(planned.total, Count)
    assert_type(chancy_ops.sweep(conn, planned, who="ann", via="x", told=print, begun=print), Swept)
    assert_type(chancy_ops.stop_sweep(conn, 1), bool)
    assert_type(chancy_ops.note(conn, "cancel", {"job": 1}, who="ann", via="x"), None)
    assert_type(chancy_ops.audit(conn, who="ann")[0].who, str)
    assert_type(chancy_ops.hiding(conn, ["t"], redact=lambda part, task, value: value).job(chancy.get(conn, 1)), JobRow)


async def steering_async(conn: psycopg.AsyncConnection[Any]) -> None:
    assert_type(await chancy_ops.resume(conn, "q"), bool)
    assert_type(await chancy_ops.cancel_many(conn, JobFilter(queue="q")), Swept)
    assert_type(await chancy_ops.workers(conn), list[WorkerRow])


@task(schedule=cron("0 9 * * 1-5", timezone="Europe/Prague", missed="all"))
def daily(tenant: str = "") -> int:
    return len(tenant)


@task(schedule=every(minutes=5, overlap="allow"))
async def often() -> None: ...


def schedules_of_a_sync_side(conn: psycopg.Connection[Any]) -> None:
    assert_type(daily.submit(conn, "x"), Job[int])
    assert_type(chancy.schedule(conn, "a", daily.using(priority=1).bind(tenant="x"), every(timedelta(hours=1))), None)
    assert_type(chancy.unschedule(conn, "a"), bool)
    assert_type(chancy.schedules(conn), list[ScheduleRow])
    assert_type(chancy.schedules(conn)[0].upcoming(5), list[datetime])
    assert_type(chancy.run_now(conn, "a"), None)


async def schedules_of_an_async_side(conn: psycopg.AsyncConnection[Any]) -> None:
    await chancy.schedule(conn, "a", often.bind(), cron("* * * * *"))
    assert_type(await chancy.unschedule(conn, "a"), bool)
    assert_type(await chancy.schedules(conn), list[ScheduleRow])
    await chancy.run_now(conn, "a")


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


@task
def publish(counts: BatchCounts) -> None: ...


@task
async def report(counts: BatchCounts, import_id: int = 0, *, text: str = "") -> str:
    return text


@task
def report_on(counts: BatchCounts, import_id: int) -> None: ...


def sync_batches(conn: psycopg.Connection[dict[str, Any]]) -> None:
    with chancy.batch(conn, on_success=publish, on_finished=report) as batch:
        assert_type(batch.submit(plain.bind(1)), Job[str])
        assert_type(batch.submit_many([later.bind(1)]), list[Job[bytes]])
        assert_type(batch.id, int)
    assert_type(batch.progress(conn), BatchProgress)
    assert_type(chancy.batch_progress(conn, batch.id).running, int)
    assert_type(callback(report, 7, text="x"), Callback)
    with chancy.batch(conn, on_success=callback(publish), on_finished=callback(report_on, import_id=7)):
        pass
    with chancy.batch(conn, on_finished=publish.using(priority=3)):
        pass
    assert_type(chancy.jobs(conn, batch=batch.id)[0].batch, int | None)


async def async_batches(conn: psycopg.AsyncConnection[Any]) -> None:
    async with chancy.batch(conn, on_success=publish, on_finished=callback(report_on, 7)) as batch:
        assert_type(await batch.submit(plain.bind(1)), Job[str])
        assert_type(await batch.submit_many([later.bind(1)]), list[Job[bytes]])
    assert_type(await batch.progress(conn), BatchProgress)
    assert_type(await chancy.batch_progress(conn, batch.id), BatchProgress)


def verbs_can_be_passed_on(
    conn: psycopg.Connection[Any],
    one: Callable[[psycopg.Connection[Any], int], bool],
    ask: Callable[[psycopg.Connection[Any]], list[ScheduleRow]],
) -> None:
    assert_type(one(conn, 1), bool)
    verbs_can_be_passed_on(conn, chancy.cancel, chancy.schedules)
    assert_type(list(map(chancy.schedules, [conn])), list[list[ScheduleRow]])


def why_and_doctor(conn: psycopg.Connection[Any]) -> None:
    assert_type(chancy_ops.why(conn, 1), Why)
    assert_type(chancy_ops.why(conn, 1).until, datetime | None)
    assert_type(chancy_ops.doctor(conn), list[Finding])


async def why_and_doctor_awaited(conn: psycopg.AsyncConnection[Any]) -> None:
    assert_type((await chancy_ops.why(conn, 1)).reason, Reason)
    assert_type([found.severity for found in await chancy_ops.doctor(conn)], list[Severity])


def charge(order: int, *, key: str) -> bytes:
    return key.encode() * order


async def charge_later(order: int, *, key: str) -> bytes:
    return key.encode() * order


def step_by_step(conn: psycopg.Connection[Any]) -> None:
    job = chancy.current_job()
    assert_type(job.step(conn, "charge", charge, 7, key="a"), bytes)
    assert_type(job.step(conn, "plain", plain, 7, conn="a"), str)
    assert_type(job.sleep(conn, "settle", timedelta(days=3)), None)
    assert_type(job.sleep(conn, "settle", 1.5), None)
    assert_type(job.wait(conn, "approved", int), int)
    assert_type(job.wait(conn, "approved", list[str], timeout=timedelta(days=3)), list[str])
    assert_type(chancy.signal(conn, 7, "approved", {"by": "ann"}), bool)
    assert_type(chancy.steps(conn, 7), list[chancy.StepRow])
    assert_type(chancy.forget_steps(conn, 7, names=["charge"]), int)


async def step_by_step_async(conn: psycopg.AsyncConnection[Any]) -> None:
    job = chancy.current_job()
    assert_type(await job.step(conn, "charge", charge_later, 7, key="a"), bytes)
    assert_type(await job.step(conn, "later", later, 7), bytes)
    assert_type(await job.sleep(conn, "settle", timedelta(days=3)), None)
    assert_type(await job.wait(conn, "approved", int, timeout=60), int)
    assert_type(await chancy.signal(conn, 7, "approved"), bool)
    assert_type(await chancy.steps(conn, 7), list[chancy.StepRow])
    assert_type(await chancy.forget_steps(conn, 7), int)
