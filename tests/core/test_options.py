"""Whatever an option says is turned into its plain kind by one room, for one job and for many and for each verb: the row
says exactly what was meant, or the option is refused by its name before anything is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from odd_values import (
    ANYTHING,
    DURATIONS,
    HUGE,
    INSTANTS,
    LMT,
    LONE,
    NO_DURATION,
    NO_INSTANT,
    NO_LIST,
    NO_NAME,
    NO_NUMBER,
    NO_TEXT,
    ODD_DURATIONS,
    ODD_INSTANTS,
    ODD_NUMBERS,
    ODD_TEXTS,
    SPRING,
    TEXTS,
    Colour,
    Level,
    Longer,
    Loud,
    Precise,
    Stream,
    Wrong,
    mostly,
)
from psycopg.pq import TransactionStatus

import chancy
import chancy_ops
from chancy import (
    Backoff,
    Chancy,
    InvalidArguments,
    InvalidOption,
    InvalidTask,
    Keep,
    Limit,
    Queue,
    State,
    Unique,
    callback,
    cron,
    days,
    every,
    submit_many,
    task,
)
from chancy.job import NewJob
from chancy.model import WITHOUT_END, Options
from chancy.options.plain import EARLIEST, base_of
from chancy.wires.literals import in_seconds, of_numbers, of_texts
from chancy_ops import JobFilter


@task
def note(number: int = 0) -> int:
    return number


@task(queue=Stream.MAIL, priority=Level.HIGH, max_attempts=Wrong(4))
def send(number: int = 0) -> int:
    return number


@task
def told(counts: chancy.BatchCounts) -> None: ...


# A job's own options


def rows(database):
    return database.rows(
        "SELECT queue, priority, max_attempts, run_at AT TIME ZONE 'UTC', limits::text FROM {}.job ORDER BY id"
    )


async def in_each_way(caller, conn, made):
    """One job by `submit`, by `submit_many`, as a unique one and in a batch; and by an application."""
    await caller.now(made.submit(conn, 1))
    await caller.now(submit_many(conn, [made.bind(2)]))
    await caller.now(made.using(unique=Unique()).submit(conn, 3))
    async with caller.entered(chancy.batch(conn)) as batch:
        await caller.now(batch.submit(made.bind(4)))


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"queue": Stream.MAIL}, ("mail", 0, 3)),
        ({"queue": Loud("quiet")}, ("quiet", 0, 3)),
        ({"queue": State.READY}, ("ready", 0, 3)),
        ({"priority": Level.HIGH}, ("default", 50, 3)),
        ({"priority": Wrong(5)}, ("default", 5, 3)),
        ({"max_attempts": Wrong(9)}, ("default", 0, 9)),
    ],
    ids=str,
)
async def test_a_job_has_the_value_and_not_what_its_class_says_of_it(caller, database, changes, row):
    conn = await caller.connect(autocommit=True)
    made = note.using(**changes)
    await in_each_way(caller, conn, made)
    with Chancy(database.dsn, schema=database.schema) as app:
        app.submit(made.bind(5))
    assert [found[:3] for found in rows(database)] == [row] * 5
    (job,) = await caller.now(chancy.jobs(conn, limit=1))
    assert (type(job.queue), type(job.priority)) == (str, int)


async def test_what_a_decorator_says_is_plain_for_jobs_and_for_workers(caller, database):
    conn = await caller.connect(autocommit=True)
    await in_each_way(caller, conn, send)
    assert [found[:3] for found in rows(database)] == [("mail", 50, 4)] * 4
    assert [type(value) for value in (send.options.queue, send.options.priority)] == [str, int]
    assert (str(Queue(Stream.MAIL).name), f"{Queue(Loud('quiet')).name}") == ("mail", "quiet")
    assert of_texts([Stream.MAIL, Loud("quiet"), None]) == '{"mail","quiet",NULL}'
    assert of_numbers([Level.HIGH, Wrong(3), True]) == "{50,3,1}"


@pytest.mark.parametrize(
    "at",
    [
        SPRING,
        SPRING.astimezone(ZoneInfo("Europe/Prague")),
        datetime(2031, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Prague"), fold=1),
        SPRING.astimezone(LMT),
        datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Prague")),
        datetime(55, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        Precise(2031, 3, 30, 12, 0, 0, 5, tzinfo=UTC),
        EARLIEST,
        WITHOUT_END,
    ],
    ids=str,
)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
async def test_an_instant_is_the_same_in_each_way_and_can_be_read_in_each_zone(caller, database, at, zone):
    conn = await caller.connect(autocommit=True, options=f"-c TimeZone={zone}")
    await in_each_way(caller, conn, note.using(run_at=at))
    assert [found.run_at for found in await caller.now(chancy.jobs(conn))] == [at.astimezone(UTC)] * 4
    (first, *_) = await caller.now(chancy.jobs(conn))
    assert await caller.now(chancy_ops.edit(conn, first.id, run_at=at))
    assert (await caller.now(chancy.get(conn, first.id))).run_at == at.astimezone(UTC)
    await caller.now(chancy_ops.pause(conn, "a", until=at))
    paused = [queue.paused_until for queue in await caller.now(chancy_ops.queues(conn)) if queue.paused_until]
    assert paused in ([], [at.astimezone(UTC)])  # what is over is not paused


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (90, timedelta(seconds=90)),
        (0.25, timedelta(milliseconds=250)),
        (-5, timedelta(seconds=-5)),
        (Level.HIGH, timedelta(seconds=50)),
        (Longer(seconds=7), timedelta(seconds=7)),
        (timedelta(days=36_525), timedelta(days=36_525)),
        (timedelta(days=-36_525, microseconds=1), timedelta(days=-36_525, microseconds=1)),
    ],
    ids=str,
)
async def test_a_duration_is_seconds_or_a_timedelta_wherever_one_is_taken(caller, database, given, meant):
    conn = await caller.connect(autocommit=True)
    await in_each_way(caller, conn, note.using(delay=given))
    for row in await caller.now(chancy.jobs(conn)):
        assert row.run_at - row.submitted_at == meant
    database.rows("SELECT {}.clock()")
    await caller.now(chancy.schedule(conn, "a", note.bind(), every(hours=1)))
    for paused in ({"queue": "q"}, {"schedule": "a"}):
        await caller.now(chancy_ops.pause(conn, *filter(None, [paused.pop("queue", None)]), **paused, until=given))


def test_durations_of_other_options_are_seconds_too():
    assert Backoff(base=5, maximum=60.5) == Backoff(base=timedelta(seconds=5), maximum=timedelta(seconds=60.5))
    assert Unique(within=60) == Unique(within=timedelta(minutes=1))
    assert Limit.rate(1, per=1) == Limit.rate(1, per=timedelta(seconds=1))
    assert Limit.time(timedelta(minutes=1)) == Limit.time(60) == Limit(Limit.Type.TIME, 60) == Limit("time", 60)
    assert Limit(Limit.Type.MEMORY, 1e9) == Limit.memory(10**9)
    assert Keep(failed=86_400) == Keep(failed=days(1))
    assert Chancy(keep=86_400) == Chancy(keep=timedelta(days=1))
    assert every(60) == every(timedelta(minutes=1)) == every(minutes=1)


def test_an_interval_above_68_years_is_told_in_hours_which_every_postgres_reads(database):
    for length in (timedelta(days=36_525), -timedelta(days=30_000, seconds=1, microseconds=1), timedelta(days=24_000)):
        text = in_seconds(length)
        assert all(float(part) < 2**31 for part in text.split()[::2])
        assert database.rows("SELECT %s::interval, {}.clock()", text)[0][0] == length


@pytest.mark.parametrize("timeout", [0.01, timedelta(milliseconds=10)])
async def test_a_timeout_is_seconds_or_a_timedelta(caller, database, timeout):
    job = note.submit(database.conn)
    with pytest.raises(TimeoutError, match=r"still ready after 0\.01 s"):
        await caller.now(job.result(await caller.connect(autocommit=True), timeout=timeout))


# What is refused. For each option values that no row, column, index or clock takes, or that are of another kind.

USING = {
    "queue": NO_NAME,
    "priority": [*NO_NUMBER, 101, -101],
    "max_attempts": [*NO_NUMBER, 0, -1, 32_768],
    "run_at": [value for value in NO_INSTANT if value is not None],
    "delay": NO_DURATION,
    "limits": [*NO_LIST, [5], ["time"], [None], Limit.time(5)],
    "retry": [3, True, timedelta(5), "often", Backoff, lambda attempt, error: None],
    "group": [5, b"x", "", "a\0", LONE, len],
    "unique": [True, "key", 5, Unique],
}


def each(options: dict[str, list[Any]]):
    return [
        pytest.param(option, value, id=f"{option}-{number}")
        for option, values in options.items()
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(("option", "value"), each(USING))
def test_an_option_of_using_that_no_row_can_hold_is_refused_by_its_name(option, value):
    with pytest.raises(InvalidArguments) as caught:
        note.using(**{option: value})
    assert caught.value.argument == option
    assert len(str(caught.value)) < 700


DECORATED = {name: values for name, values in USING.items() if name not in ("run_at", "delay", "retry", "group")} | {
    "queue": NO_NAME,
    "name": [value for value in NO_NAME if value is not None],
    "aliases": [*NO_LIST, [5], [""], ["a\0"], [LONE], ["x" * 501], "old.name"],
    "retry": [3, True, timedelta(5), "often", Backoff, len, lambda attempt: None, lambda: None, _ := asyncio.sleep],
    "executor": ["loop", 5, True, "", "Thread"],
    "keep_logs": [1, 0, "yes", None],
    "schedule": ["* * * * *", 60, timedelta(1), cron],
    "group": [5, b"x", "", "a\0", LONE],
}


@pytest.mark.parametrize(("option", "value"), each(DECORATED))
def test_an_option_of_a_decorator_that_does_not_fit_is_refused_by_its_name(option, value):
    def function(number: int = 0) -> int:
        return number

    with pytest.raises(InvalidTask, match=rf"cannot be a task: .*\b{option}\b|executor") as caught:
        task(**({"name": "refused"} | {option: value}))(function)
    assert len(str(caught.value)) < 700
    assert "refused" not in chancy.registry.registered()


CONSTRUCTED = {
    "name": (Queue, NO_NAME),
    "concurrency": (lambda concurrency: Queue("q", concurrency), [*NO_NUMBER, 0, -1, 2**31]),
    "most": (Limit.concurrency, [*NO_NUMBER, 0, -1, 100_001]),
    "per": (lambda per: Limit.rate(1, per=per), [*NO_DURATION, 0, -1, 1e-6, timedelta(days=367), None]),
    "key": (lambda key: Limit.concurrency(1, key=key), [5, b"x", "", "a\0", LONE]),
    "time limit": (Limit.time, [*NO_DURATION, 0, -1, None]),
    "memory limit": (Limit.memory, [True, "1GB", None, 1.5, math.nan, math.inf, 0, -1, 2**63, b"1"]),
    "type": (lambda kind: Limit(kind, 1), ["disk", 5, None, Colour.RED]),
    "base": (lambda base: Backoff(base=base), [*NO_DURATION, -1, None]),
    "maximum": (lambda maximum: Backoff(maximum=maximum), [*NO_DURATION, -1, None]),
    "factor": (lambda factor: Backoff(factor=factor), [True, "3", None, math.nan, math.inf, 0.5, HUGE, 1e9]),
    "jitter": (lambda jitter: Backoff(jitter=jitter), [True, "3", None, math.nan, math.inf, -0.5, 1.5]),
    "within": (lambda within: Unique(within=within), [*NO_DURATION, 0, -1, timedelta(days=367)]),
    "until": (lambda until: Unique(until=until), ["claimed", 5, True, None, b"started"]),
    "on_conflict": (lambda on_conflict: Unique(on_conflict=on_conflict), ["ignore", 5, True, None]),
    "succeeded": (Keep, [*NO_DURATION, 5, -86_400, 86_401]),
    "keep": (lambda keep: Chancy(keep=keep), [*NO_DURATION, 5, 0]),
    "queues": (lambda queues: Chancy(queues=queues), [*NO_LIST, [5], ["mail"], Queue(), [Queue("a"), Queue("a")]]),
    "middleware": (lambda functions: Chancy(middleware=functions), [*NO_LIST, len, ["timing"], [None]]),
    "lifespan": (lambda lifespan: Chancy(lifespan=lifespan), ["setup", 5, [len]]),
    "interval": (every, [*NO_DURATION, 0, 0.5, -1, timedelta(days=367)]),
    "minutes": (lambda minutes: every(minutes=minutes), [True, "5", None, math.nan, math.inf]),
    "expression": (cron, [5, None, "", "a\0", LONE, "* * *", "@daily"]),
    "timezone": (lambda zone: cron("* * * * *", timezone=zone), [5, None, "", "a\0", LONE, "Mars", UTC]),
    "missed": (lambda missed: cron("* * * * *", missed=missed), ["some", 5, True, None]),
    "state": (lambda state: JobFilter(state=state), ["done", 5, True, b"ready", Colour.RED]),
    "since": (lambda since: JobFilter(since=since), [value for value in NO_INSTANT if value is not None]),
    "error": (lambda error: JobFilter(error=error), [value for value in NO_TEXT if value is not None]),
    "queue": (lambda queue: JobFilter(queue=queue), [value for value in NO_TEXT if value is not None]),
    "task": (lambda task: JobFilter(task=task), [5, b"x", ["a"], len, "a\0", LONE]),
}


@pytest.mark.parametrize(
    ("option", "make", "value"),
    [
        pytest.param(option, make, value, id=f"{option}-{number}")
        for option, (make, values) in CONSTRUCTED.items()
        for number, value in enumerate(values)
    ],
)
def test_what_is_built_of_something_that_does_not_fit_is_refused_by_its_name(option, make, value):
    with pytest.raises(InvalidOption) as caught:
        make(value)
    assert caught.value.option == option
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 700


def test_a_retry_that_cannot_be_is_told_the_right_spelling():
    with pytest.raises(InvalidTask, match=r"retry: give Backoff\(base=5.*max_attempts=, got 3"):
        task(retry=3)(note.function)


def test_a_backoff_that_grows_beyond_all_bounds_stays_at_its_maximum():
    backoff = Backoff(base=timedelta(days=3), factor=1_000_000, maximum=timedelta(days=36_525), jitter=0)
    assert backoff.delay(32_767) == timedelta(days=36_525)
    assert Backoff(base=0, factor=1_000_000).delay(32_767) == timedelta(0)


# Verbs

NO_ATTEMPTS = [value for value in NO_NUMBER if value is not None]  # which is what the task declares
IDS = [True, 1.5, "1", None, 0, -1, 2**63, HUGE, b"1", Decimal(1)]
FILTER = JobFilter(queue="default")


def verbs(conn):
    """Each option of each verb that takes one: the call, and what it must refuse."""
    return {
        "get job_id": (lambda v: chancy.get(conn, v), IDS),
        "cancel job_id": (lambda v: chancy.cancel(conn, v), IDS),
        "requeue job_id": (lambda v: chancy.requeue(conn, v), IDS),
        "requeue attempts": (lambda v: chancy.requeue(conn, 1, attempts=v), [*NO_ATTEMPTS, 0, -1, 32_768]),
        "delete job_id": (lambda v: chancy_ops.delete(conn, v), IDS),
        "why job_id": (lambda v: chancy_ops.why(conn, v), IDS),
        "logs job_id": (lambda v: chancy.logs(conn, v), IDS),
        "logs limit": (lambda v: chancy.logs(conn, 1, limit=v), [*NO_NUMBER, -1, 2**31]),
        "logs after": (lambda v: chancy.logs(conn, 1, after=v), [5, "12", (1,), (1, 2, 3), (1.5, 2), (2**15, 1)]),
        "edit job_id": (lambda v: chancy_ops.edit(conn, v, priority=1), IDS),
        "edit priority": (
            lambda v: chancy_ops.edit(conn, 1, priority=v),
            [value for value in [*NO_NUMBER, 101] if value is not None],
        ),
        "edit run_at": (lambda v: chancy_ops.edit(conn, 1, run_at=v), NO_INSTANT),
        "jobs queue": (lambda v: chancy.jobs(conn, queue=v), [value for value in NO_TEXT if value is not None]),
        "jobs task": (lambda v: chancy.jobs(conn, task=v), [5, b"x", ["a"], len, "a\0", LONE]),
        "jobs state": (lambda v: chancy.jobs(conn, state=v), ["done", 5, True, Colour.RED]),
        "jobs batch": (lambda v: chancy.jobs(conn, batch=v), [value for value in IDS if value is not None]),
        "jobs limit": (lambda v: chancy.jobs(conn, limit=v), [*NO_NUMBER, -1, 2**31]),
        "jobs before": (
            lambda v: chancy.jobs(conn, before=v),
            [value for value in IDS if value is not None and value != 0],
        ),
        "batch_progress batch_id": (lambda v: chancy.batch_progress(conn, v), IDS),
        "pause queue": (lambda v: chancy_ops.pause(conn, v), [value for value in NO_NAME if value is not None]),
        "pause task": (lambda v: chancy_ops.pause(conn, task=v), [5, b"x", ["a"], len, "a\0", LONE, "", "x" * 501]),
        "pause schedule": (lambda v: chancy_ops.pause(conn, schedule=v), [5, "", "a\0", LONE, "x" * 201]),
        "pause until": (
            lambda v: chancy_ops.pause(conn, "q", until=v),
            [value for value in NO_INSTANT if not isinstance(value, (int, float, timedelta))]
            + [value for value in NO_DURATION if value is not SPRING],
        ),
        "resume queue": (lambda v: chancy_ops.resume(conn, v), [value for value in NO_TEXT if value is not None]),
        "resume task": (lambda v: chancy_ops.resume(conn, task=v), [5, b"x", ["a"], "a\0", LONE]),
        "limit queue": (lambda v: chancy_ops.limit(conn, v, concurrency=1), NO_NAME),
        "limit concurrency": (
            lambda v: chancy_ops.limit(conn, "q", concurrency=v),
            [value for value in [*NO_NUMBER, -1, 2**31] if value is not None],
        ),
        "keep queue": (lambda v: chancy_ops.keep(conn, v, Keep()), NO_NAME),
        "keep rules": (lambda v: chancy_ops.keep(conn, "q", v), [5, days(1), {"succeeded": days(1)}]),
        "count which": (lambda v: chancy_ops.count(conn, v), [5, "q", {"queue": "q"}, None]),
        "cancel_many which": (lambda v: chancy_ops.cancel_many(conn, v), [5, "q", None]),
        "cancel_many batch": (lambda v: chancy_ops.cancel_many(conn, FILTER, batch=v), [*NO_NUMBER, 0, -1]),
        "cancel_many told": (lambda v: chancy_ops.cancel_many(conn, FILTER, told=v), [5, "print"]),
        "delete_many batch": (lambda v: chancy_ops.delete_many(conn, FILTER, batch=v), [*NO_NUMBER, 0, -1]),
        "requeue_many attempts": (
            lambda v: chancy_ops.requeue_many(conn, JobFilter(state=State.FAILED), attempts=v),
            [*NO_ATTEMPTS, 0, 32_768],
        ),
        "schedule name": (
            lambda v: chancy.schedule(conn, v, note.bind(), every(hours=1)),
            [*NO_TEXT, "", "x" * 201],
        ),
        "schedule job": (lambda v: chancy.schedule(conn, "a", v, every(hours=1)), [note, 5, None, [note.bind()]]),
        "schedule when": (lambda v: chancy.schedule(conn, "a", note.bind(), v), ["* * * * *", 60, None, timedelta(1)]),
        "unschedule name": (lambda v: chancy.unschedule(conn, v), [5, None, "a\0", LONE]),
        "signal job_id": (lambda v: chancy.signal(conn, v, "a"), ["1", None, 1.5, 2**63]),
        "signal name": (lambda v: chancy.signal(conn, 1, v), [*NO_TEXT, "", "x" * 501]),
        "signal value": (lambda v: chancy.signal(conn, 1, "a", v), [object(), float("nan"), "x" * 2**20, LONE]),
        "steps limit": (lambda v: chancy.steps(conn, 1, limit=v), ["1", None, -1, 2**31]),
        "forget_steps names": (
            lambda v: chancy.forget_steps(conn, 1, names=v),
            ["a", 5, [5], [None], [""], ["a", "x" * 501], {"a": 1}],
        ),
        "run_now name": (lambda v: chancy.run_now(conn, v), [5, None, "a\0", LONE]),
        "submit_many jobs": (
            lambda v: submit_many(conn, v),
            [note.bind(), "jobs", 5, None, [note], [note.bind(), note], [None], {"a": note.bind()}],
        ),
        "batch callback": (lambda v: chancy.batch(conn, on_success=v), [5, "told", note.function]),
        "result timeout": (
            lambda v: note.submit(conn).result(conn, timeout=v),
            [value for value in NO_DURATION if value is not None],
        ),
    }


VERBS = verbs(None)


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_of_a_verb_that_does_not_fit_is_refused_by_its_name_and_nothing_is_sent(database, verb):
    conn = database.connect()
    conn.execute("SELECT 1")
    call, values = verbs(conn)[verb]
    for value in values:
        with pytest.raises(InvalidOption) as caught:
            call(value)
        assert caught.value.option == verb.split()[1], value
        assert len(str(caught.value)) < 700
        assert conn.info.transaction_status is TransactionStatus.INTRANS, value
    kept = note.submit(conn)
    conn.commit()
    assert kept.id in database.ids()


@pytest.mark.parametrize("schema", ["", "a b", 5, "a\0", LONE, "x" * 49])
def test_a_schema_that_none_can_be_called_is_refused_and_not_left_out(database, schema):
    for call in (
        lambda: chancy.jobs(database.conn, schema=schema),
        lambda: chancy_ops.count(database.conn, schema=schema),
        lambda: Chancy(schema=schema),
        lambda: chancy.configure(schema=schema),
    ):
        with pytest.raises(chancy.ChancyError, match="schema"):
            call()


def test_jobs_may_come_from_a_generator_and_names_may_be_members_of_enumerations(database):
    jobs = submit_many(database.conn, (note.using(queue=Stream.MAIL).bind(n) for n in range(3)))
    conn = database.conn
    assert [row.id for row in chancy.jobs(conn, queue=Stream.MAIL, limit=Wrong(2))] == [jobs[2].id, jobs[1].id]
    assert chancy_ops.count(conn, JobFilter(queue=Stream.MAIL, state="ready")) == {State.READY: 3}
    chancy_ops.pause(conn, Stream.MAIL, until=60)
    chancy_ops.limit(conn, Stream.MAIL, concurrency=Level.HIGH)
    chancy_ops.keep(conn, Stream.MAIL, Keep(succeeded=days(1)))
    (queue,) = chancy_ops.queues(conn)
    assert (queue.name, queue.limit, queue.paused_until is not None) == ("mail", 50, True)
    assert database.rows("SELECT queue FROM {}.retention") == [("mail",)]
    assert chancy_ops.resume(conn, Stream.MAIL)
    assert chancy_ops.cancel_many(conn, JobFilter(queue=Stream.MAIL), batch=Wrong(1)).changed == 3


def test_limits_and_names_of_a_generator_are_for_each_task_of_a_decorator():
    both = task(limits=(limit for limit in [Limit.time(5)]), name="generated")
    made = both(note.function)
    again = both(note.function)
    assert made.options.limits == again.options.limits == (Limit.time(5),)


def test_a_value_of_a_subclass_is_said_as_its_base_is():
    at = Precise(2031, 1, 1, tzinfo=UTC)
    assert [type(base_of(value)) for value in (Loud("a"), Wrong(1), at)] == [str, int, datetime]
    assert (base_of(Loud("a")), base_of(Wrong(1)), base_of(at)) == ("a", 1, at)
    with pytest.raises(TypeError, match="type object is unsupported"):
        base_of(object())


# Every option of every verb, with anything

MORE = int(os.environ.get("CHANCY_EXAMPLES", "300"))
"""`CHANCY_EXAMPLES=20000` looks longer."""

LIMITS = st.lists(
    mostly(
        st.tuples(st.just(Limit.memory), st.integers(1, 2**63 - 1))
        | st.tuples(st.just(Limit.time), st.floats(1e-3, 1e9)),
        st.tuples(st.sampled_from([Limit.time, Limit.memory, lambda value: value]), ODD_NUMBERS),
    ),
    max_size=2,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "queue": mostly(TEXTS, ODD_TEXTS | ANYTHING),
        "priority": mostly(st.integers(-100, 100), ODD_NUMBERS | ANYTHING),
        "max_attempts": mostly(st.integers(1, 32_767), ODD_NUMBERS | ANYTHING),
        "run_at": mostly(st.none() | INSTANTS, ODD_INSTANTS | ANYTHING),
        "delay": mostly(st.none() | DURATIONS, ODD_DURATIONS | ANYTHING),
        "group": mostly(TEXTS, ODD_TEXTS | ANYTHING),
        "key": mostly(TEXTS, ODD_TEXTS),
        "within": mostly(st.floats(0.001, 1e7), ODD_DURATIONS),
        "limits": LIMITS,
    },
)


def made_of(options):
    """The task with these options, or None if they were refused, each by its name."""
    named = dict(options)
    try:
        if "limits" in named:
            named["limits"] = [make(value) for make, value in named["limits"]]
        if "key" in named or "within" in named:
            named["unique"] = Unique(key=named.pop("key", "k"), within=named.pop("within", None))
        return note.using(**named)
    except (InvalidArguments, InvalidOption) as error:
        blamed = error.argument if isinstance(error, InvalidArguments) else error.option
    assert blamed in {*options, "unique", "limits", "time limit", "memory limit"}, (blamed, options)
    return None


def meant_by(options, row):
    """What the row has to say, of options that were taken."""
    if "queue" in options:
        assert row.queue == str.__str__(options["queue"])
    if "priority" in options:
        assert row.priority == int.__int__(options["priority"])
    if "max_attempts" in options:
        assert row.max_attempts == int.__int__(options["max_attempts"])
    if options.get("run_at") is not None:
        assert row.run_at == options["run_at"].astimezone(UTC)
    if options.get("delay") is not None:
        delay = options["delay"]
        if isinstance(delay, timedelta):
            delay = timedelta.__add__(delay, timedelta(0))
        else:
            delay = timedelta(seconds=float(delay))
        assert abs(row.run_at - row.submitted_at - delay) <= timedelta(microseconds=1)
    if "key" in options:
        assert row.unique_key is not None


anything_goes = settings(
    max_examples=MORE,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=MORE <= 300,
)


@pytest.mark.long
@anything_goes
@given(options=OPTIONS, zone=st.sampled_from(["UTC", "Pacific/Kiritimati", "America/New_York", "Asia/Manila"]))
@example(options={"run_at": EARLIEST}, zone="Asia/Manila")
@example(options={"run_at": WITHOUT_END}, zone="Pacific/Kiritimati")
def test_a_job_says_what_its_options_meant_or_they_were_refused_and_nothing_was_sent(database, options, zone):
    conn = database.conn
    made = made_of(options)
    if made is None:
        return
    new = made.bind(1)
    conn.execute(f"SET TimeZone = '{zone}'")
    with conn.transaction(force_rollback=True):
        single = made.submit(conn, 1)
        (many,) = submit_many(conn, [with_another_key(new, number=2)])
        with chancy.batch(conn, on_finished=callback(told.using(**shared_by(made)))):
            pass
        found = {row.id: row for row in chancy.jobs(conn)}
        for job in {single.id, many.id}:
            meant_by(options, found[job])
        one, other = found[single.id], found[many.id]
        assert (one.queue, one.priority, one.max_attempts) == (other.queue, other.priority, other.max_attempts)
        assert chancy_ops.count(conn, JobFilter(queue=one.queue))
        assert conn.info.transaction_status is TransactionStatus.INTRANS


def with_another_key(job: NewJob[Any], number: int) -> NewJob[Any]:
    """The same job, of a unique one with another key."""
    unique = job.unique and msgspec.structs.replace(job.unique, text=f"{job.unique.text[:300]} {number}")
    return msgspec.structs.replace(job, unique=unique)


def shared_by(made) -> dict[str, Any]:
    plain = Options()
    names = ("queue", "priority", "max_attempts", "run_at", "delay")
    return {n: getattr(made.options, n) for n in names if getattr(made.options, n) != getattr(plain, n)}


VERB_NAMES = sorted(set(VERBS) - {"result timeout", "batch callback", "cancel_many told"})


@pytest.mark.long
@anything_goes
@given(verb=st.sampled_from(VERB_NAMES), value=ANYTHING)
def test_a_verb_refuses_an_option_by_its_name_or_does_what_it_says(database, verb, value):
    conn = database.conn
    call, _ = verbs(conn)[verb]
    with conn.transaction(force_rollback=True):
        note.submit(conn)
        chancy.schedule(conn, "a", note.bind(), every(hours=1))
        blamed = None
        with contextlib.suppress(chancy.UnknownJob, chancy.UnknownBatch, chancy.UnknownSchedule):
            try:
                call(value)
            except InvalidOption as error:
                blamed = error.option
        nothing = "queue" if verb.startswith(("pause", "resume")) and value is None else None
        assert blamed in (None, verb.split()[1], nothing)
        assert conn.info.transaction_status is TransactionStatus.INTRANS
        chancy.jobs(conn)
        chancy_ops.queues(conn)
        chancy.schedules(conn)
        chancy_ops.count(conn)
