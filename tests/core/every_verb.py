"""A call of each verb that takes a connection, by its name: for tests that have to know them all.

They act on what `fill` has put there, in the schema in use. `test_sessions.py` says that none is missing.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
from psycopg import sql

import chancy
import chancy_ops
from chancy import Job, Keep, Limit, State, Unique, days, task
from chancy.current import CurrentJob
from chancy.run import awaited
from chancy.wires.registry import wire_of
from chancy_ops import JobFilter

LATER = datetime(2044, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
WORD = "žluť \\ € {"
NAME = "café \\ {"
"""Of a queue: what an encoding lacks can be carried as JSON on a session that speaks it, and named there by nobody."""


PRINT = "5ade1fb7c0d3"


@task
def count(number: int = 0, name: str = "") -> int | str:
    return number


@task
def called(counts: chancy.BatchCounts) -> None: ...


limited = count.using(limits=[Limit.concurrency(3)], group="g")


@dataclass(frozen=True)
class Things:
    waiting: Job[int | str]  # unique, and scheduled
    ready: Job[int | str]
    succeeded: Job[int | str]
    failed: Job[int | str]
    running: Job[int | str]
    batch: int

    @property
    def current(self) -> CurrentJob:
        """The attempt that runs, as its handler sees it."""
        return CurrentJob(
            self.running.id, self.running.task, self.running.queue, 1, 3, fence=1, lease=1,
            schema=self.running.schema, encode_result=count.signature.encode_result,
        )  # fmt: skip


FINISH = """
    WITH done AS (DELETE FROM {0}.job WHERE id = %(id)s RETURNING *)
    INSERT INTO {0}.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, run_at,
        submitted_at, started_at, finished_at, arguments, result, errors, error_kind, fingerprint)
    SELECT id, task, queue, priority, %(state)s::text::{0}.state, 1, max_attempts, 1, crashes, run_at,
        submitted_at, {0}.clock(), {0}.clock(), arguments, %(result)s::text::json, %(errors)s::text::json,
        {0}.of_last_error(%(errors)s::text::json, 'kind'), {0}.of_last_error(%(errors)s::text::json, 'fingerprint')
    FROM done
"""
RUN = """
    WITH worker AS (
        INSERT INTO {0}.worker (name, started_at, expires_at, clock_ahead)
        VALUES ('web-1:77', {0}.clock(), {0}.clock() + interval '1 hour', 0.004) RETURNING id
    ),
    offer AS (
        INSERT INTO {0}.offer (worker, queues, tasks, signatures, version, listens)
        SELECT id, %(queues)s::text[], ARRAY[%(task)s::text], ARRAY[''], '0.1.0', true FROM worker
    )
    UPDATE {0}.job SET state = 'running', attempt = 1, claims = 1, worker = worker.id, started_at = {0}.clock(),
        progress = %(progress)s::text::json
    FROM worker WHERE job.id = %(id)s
"""
TALLY = """
    INSERT INTO {0}.tally (at, queue, task, outcome, jobs, waited, ran, wait_buckets, wait_counts)
    VALUES ({0}.clock() - interval '30 minutes', 'default', %(task)s, 'succeeded', 3, 0.5, 0.1, '{{4,7}}', '{{1,2}}')
"""
DEPTH = "INSERT INTO {0}.depth VALUES ({0}.clock() - interval '1 hour', %(queue)s, 1, 2, 3, 4, 5, 6.5)"
DECLARED = "INSERT INTO {0}.task (name, queue, gates) VALUES (%(task)s, 'default', %(gates)s::text::json)"
SLOT = "INSERT INTO {0}.slot (gate, n, job, fence) VALUES (%(gate)s, 1, %(job)s, 1)"
LOG = "INSERT INTO {0}.log (job, attempt, n, at, entry) VALUES (%(id)s, 1, 1, {0}.clock(), %(entry)s::text::json)"


def fill(conn: psycopg.Connection[Any], schema: str) -> Things:
    """Something of everything, on an ordinary connection in autocommit."""

    def put(query: str, **params: Any) -> None:
        conn.execute(sql.SQL(query).format(sql.Identifier(schema)), params)

    waiting = count.using(unique=Unique(), delay=timedelta(hours=30)).submit(conn, 1, name=WORD)
    ready, succeeded, failed, running = chancy.submit_many(conn, [count.bind(n, name=WORD) for n in range(4)])
    error: dict[str, Any] = {"attempt": 1, "kind": "ValueError", "message": WORD, "started_at": "2026-01-01T00:00:00Z"}
    error["fingerprint"] = PRINT
    put(FINISH, id=succeeded.id, state="succeeded", result="2", errors=None)
    put(FINISH, id=failed.id, state="failed", result=None, errors=json.dumps([error], ensure_ascii=False))
    progress = json.dumps({"fraction": 0.5, "note": WORD}, ensure_ascii=False)
    put(RUN, id=running.id, task=count.name, queues=["default", NAME], progress=progress)
    put(LOG, id=failed.id, entry=json.dumps({"level": "INFO", "logger": "a", "message": WORD}, ensure_ascii=False))
    put(TALLY, task=NAME)
    put(DEPTH, queue=NAME)
    put(DECLARED, task=NAME, gates=json.dumps([{"start": f"concurrency({NAME} k=", "names": ["k"], "most": 3}]))
    put(SLOT, gate=f"concurrency({NAME} k=1)", job=running.id)
    with chancy.batch(conn, on_finished=called) as made:
        made.submit(count.bind(3))
    chancy.schedule(conn, "nightly", count.bind(4), chancy.every(timedelta(hours=25)))
    chancy_ops.pause(conn, NAME, until=datetime(2099, 1, 1, tzinfo=UTC))
    chancy_ops.limit(conn, "mail", concurrency=3)
    chancy_ops.keep(conn, "mail", Keep(succeeded=days(3)))
    return Things(waiting, ready, succeeded, failed, running, made.id)


Verb = Callable[[Any, Things], Any]
"""On a sync connection its answer, on an async one something to be awaited."""

LOOKS: dict[str, Verb] = {
    "audit": lambda conn, things: chancy_ops.audit(conn),
    "Batch.progress": lambda conn, things: chancy.Batch(conn, things.batch, chancy.schema_in_use()).progress(conn),
    "Job.refresh": lambda conn, things: things.waiting.refresh(conn),
    "Job.result": lambda conn, things: things.succeeded.result(conn, timeout=20),
    "batch_progress": lambda conn, things: chancy.batch_progress(conn, things.batch),
    "batches": lambda conn, things: chancy_ops.batches(conn),
    "count": lambda conn, things: chancy_ops.count(conn),
    "depths": lambda conn, things: chancy_ops.depths(conn, NAME, since=timedelta(days=500)),
    "doctor": lambda conn, things: chancy_ops.doctor(conn),
    "hiding": lambda conn, things: chancy_ops.hiding(conn, [count.name]),
    "graph": lambda conn, things: chancy_ops.graph(conn, things.ready.id),
    "failures": lambda conn, things: chancy_ops.failures(conn, task=count),
    "get": lambda conn, things: chancy.get(conn, things.failed.id),
    "jobs": lambda conn, things: chancy.jobs(conn, limit=50),
    "limits": lambda conn, things: chancy_ops.limits(conn),
    "logs": lambda conn, things: chancy.logs(conn, things.failed.id),
    "plan_sweep": lambda conn, things: chancy_ops.plan_sweep(conn, "requeue", JobFilter(state=State.FAILED)),
    "queues": lambda conn, things: chancy_ops.queues(conn),
    "retention": lambda conn, things: chancy_ops.retention(conn),
    "schedules": lambda conn, things: chancy.schedules(conn),
    "search": lambda conn, things: chancy_ops.search(conn, JobFilter(task=count), words="number"),
    "steps": lambda conn, things: chancy.steps(conn, things.running.id),
    "tasks": lambda conn, things: chancy_ops.tasks(conn),
    "throughput": lambda conn, things: chancy_ops.throughput(conn, since=timedelta(days=2), by="task", every="hour"),
    "why": lambda conn, things: chancy_ops.why(conn, things.waiting.id),
    "workers": lambda conn, things: chancy_ops.workers(conn),
}
"""Those that change nothing."""


def in_a_batch(conn: Any, things: Things) -> Any:
    if awaited(conn):
        return in_an_async_batch(conn)
    with chancy.batch(conn, on_success=called, on_finished=chancy.callback(called)) as made:
        return made.submit(count.bind(1, name=WORD)), made.submit_many([count.bind(2), limited.bind(3)])


async def in_an_async_batch(conn: Any) -> Any:
    async with chancy.batch(conn, on_success=called, on_finished=chancy.callback(called)) as made:
        return await made.submit(count.bind(1, name=WORD)), await made.submit_many([count.bind(2), limited.bind(3)])


def complete(conn: Any, things: Things) -> Any:
    if awaited(conn):
        return complete_async(conn, things)
    with wire_of(conn).block():
        return things.current.complete(conn, WORD)


async def complete_async(conn: Any, things: Things) -> Any:
    async with wire_of(conn).block():
        return await things.current.complete(conn, WORD)


def swept(conn: Any, things: Things) -> Any:
    if awaited(conn):
        return async_swept(conn)
    planned = chancy_ops.plan_sweep(conn, "cancel", JobFilter(queue="default", state=State.SCHEDULED))
    return chancy_ops.sweep(conn, planned, who=NAME, via="a test")


async def async_swept(conn: Any) -> Any:
    planned = await chancy_ops.plan_sweep(conn, "cancel", JobFilter(queue="default", state=State.SCHEDULED))
    return await chancy_ops.sweep(conn, planned, who=NAME, via="a test")


def word() -> str:
    return WORD


def suspended(conn: Any, rest: Callable[[], Any]) -> Any:
    """What is said of an attempt that sleeps or waits."""
    if awaited(conn):
        return suspended_async(rest)
    try:
        return rest()
    except chancy.Suspended as end:
        return end.note


async def suspended_async(rest: Callable[[], Any]) -> Any:
    try:
        return await rest()
    except chancy.Suspended as end:
        return end.note


WRITES: dict[str, Verb] = {
    "Stepwise.step": lambda conn, things: things.current.step(conn, NAME, word),
    "signal": lambda conn, things: chancy.signal(conn, things.running.id, "told", {WORD: 1}),
    "Stepwise.wait": lambda conn, things: things.current.wait(conn, "told", dict[str, int]),
    "Stepwise.sleep": lambda conn, things: suspended(
        conn, lambda: things.current.sleep(conn, NAME + "!", timedelta(days=400, hours=3))
    ),
    "forget_steps": lambda conn, things: chancy.forget_steps(conn, things.failed.id, names=[NAME]),
    "CurrentJob.complete": complete,
    "BaseTask.submit": lambda conn, things: limited.using(unique=Unique(within=timedelta(days=40))).submit(
        conn, 1, WORD
    ),
    "submit_many": lambda conn, things: chancy.submit_many(
        conn, [count.using(run_at=LATER).bind(n, name=WORD) for n in range(2)]
    ),
    "batch": in_a_batch,
    "Batch.submit": in_a_batch,
    "Batch.submit_many": in_a_batch,
    "schedule": lambda conn, things: chancy.schedule(
        conn, "hourly", count.bind(4, name=WORD), chancy.every(timedelta(days=300, hours=7))
    ),
    "run_now": lambda conn, things: chancy.run_now(conn, "nightly"),
    "pause": lambda conn, things: chancy_ops.pause(conn, "reports", until=LATER),
    "limit": lambda conn, things: chancy_ops.limit(conn, NAME, concurrency=2),
    "keep": lambda conn, things: chancy_ops.keep(conn, NAME, Keep(succeeded=days(1), failed=days(30), results=days(0))),
    "edit": lambda conn, things: chancy_ops.edit(conn, things.waiting.id, run_at=LATER + timedelta(days=1), priority=5),
    "cancel": lambda conn, things: chancy.cancel(conn, things.ready.id),
    "requeue": lambda conn, things: chancy.requeue(conn, things.failed.id, attempts=2),
    "Job.cancel": lambda conn, things: things.failed.cancel(conn),
    "cancel_many": lambda conn, things: chancy_ops.cancel_many(conn, JobFilter(task=count)),
    "requeue_many": lambda conn, things: chancy_ops.requeue_many(
        conn, JobFilter(state=State.CANCELLED, since=datetime(2020, 1, 1, tzinfo=UTC), until=LATER)
    ),
    "note": lambda conn, things: chancy_ops.note(
        conn, "cancel", {WORD: things.ready.id}, who=NAME, via="a test", changed=1
    ),
    "sweep": swept,
    "stop_sweep": lambda conn, things: chancy_ops.stop_sweep(conn, 1),
    "delete": lambda conn, things: chancy_ops.delete(conn, things.succeeded.id),
    "delete_many": lambda conn, things: chancy_ops.delete_many(conn, JobFilter(queue="reports")),
    "unschedule": lambda conn, things: chancy.unschedule(conn, "hourly"),
    "resume": lambda conn, things: chancy_ops.resume(conn, NAME),
    "migrate": lambda conn, things: chancy.migrate(conn),
}
"""The others, in an order in which each has something to do."""

VERBS = LOOKS | WRITES


def exported() -> set[str]:
    """The verbs that there are: what the package exports and takes a connection first, and so do their methods."""
    things = [getattr(package, name) for package in (chancy, chancy_ops) for name in package.__all__]
    found = {thing.__name__ for thing in things if takes_a_connection(thing)}
    for kind in filter(inspect.isclass, things):
        methods = inspect.getmembers(kind, lambda each: takes_a_connection(each, 1))
        found |= {method.__qualname__ for name, method in methods if not name.startswith("_")}
    return found | {"Batch.submit", "Batch.submit_many"}  # which have the connection of their block


def takes_a_connection(function: object, position: int = 0) -> bool:
    if not inspect.isfunction(function):
        return False
    return list(inspect.signature(function).parameters)[position : position + 1] == ["conn"]


def told(answer: object) -> Any:
    """An answer as plain data, which is the same in each schema."""
    match answer:
        case Job():
            return answer.id, answer.task, answer.queue, answer.outcome
        case chancy.Batch():
            return answer.id
        case chancy.JobRow():  # a session that does not speak UTF-8 writes JSON with escapes, which means the same
            read = [None if payload is None else json.loads(payload) for payload in (answer.arguments, answer.result)]
            return read, repr(msgspec.structs.replace(answer, arguments=b"", result=None))
        case chancy_ops.JobLine():
            read = None if answer.arguments is None else json.loads(answer.arguments)
            return read, repr(replace(answer, arguments=None))
        case chancy.StepRow():
            read = None if answer.result is None else json.loads(answer.result)
            return read, repr(msgspec.structs.replace(answer, result=None))
        case list() | tuple():
            return [told(each) for each in answer]
        case dict():
            return {repr(key): told(value) for key, value in answer.items()}
        case _:
            return repr(answer)
