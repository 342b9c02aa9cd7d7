"""What Chancy promises about jobs, as cases that run on any backend: on Postgres, in memory, and on one of yours.

    from chancy_testing.conformance import CASES, run

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
    def test_my_backend_keeps_the_promises(case, my_ground):
        run(case, my_ground)

A case is a generator: it yields what a verb gives, and gets it back as a value, awaited where the ground's connection
is async. Its name is the promise.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import logging
import math
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal

import msgspec
import psycopg
import pytest

import chancy
from chancy import (
    Backoff,
    BatchCounts,
    Discard,
    DuplicateJob,
    InvalidArguments,
    InvalidConnection,
    InvalidOption,
    Job,
    JobCancelled,
    JobFailed,
    JobRow,
    Limit,
    NewJob,
    NotCommitted,
    Retry,
    SchedulePaused,
    Snooze,
    State,
    Task,
    Unique,
    UnknownBatch,
    UnknownJob,
    UnknownSchedule,
    callback,
    cron,
    current_job,
    every,
    submit_many,
    task,
)
from chancy.model import WITHOUT_END

from .grounds import Case, Ground, InMemory, OnPostgres, Steps, run

__all__ = ["CASES", "Case", "Ground", "InMemory", "OnPostgres", "run"]

CASES: list[Case] = []

seen: list[Any] = []
"""What the handlers of the case that runs have noted."""
ground: list[Ground] = []
"""Of the case that runs, for handlers that submit."""


def case(function: Callable[[Ground], Steps]) -> Case:
    """One more of `CASES`."""

    def steps(where: Ground) -> Steps:
        seen.clear()
        ground[:] = [where]
        yield from function(where)

    steps.__name__ = function.__name__
    steps.__doc__ = function.__doc__
    CASES.append(steps)
    return steps


class Colour(enum.Enum):
    """An enumeration as an argument."""

    RED = "red"


@dataclass
class Point:
    """A dataclass as an argument."""

    x: int
    y: int = 0


@dataclass
class Point3(Point):
    """Has more than its base."""

    z: int = 0


class Stream(str, enum.Enum):  # noqa: UP042 (the `str` of one is not its text)
    """Names of queues."""

    MAIL = "mail"


class Safe(str):
    """A text that says more of itself, as web frameworks have it."""

    __slots__ = ()


class Moment(datetime):
    """An instant, as libraries have it that stop the clock."""


class Box(msgspec.Struct):
    """A Struct as an argument."""

    points: list[Point]


local: ContextVar[str] = ContextVar("chancy_conformance_local", default="nothing")


@task(name="conformance.note")
def note(value: Any = None) -> Any:
    """Notes and returns."""
    seen.append(value)
    return value


@task(name="conformance.note_async")
async def note_async(value: Any = None) -> Any:
    """The same, async."""
    await asyncio.sleep(0)
    seen.append(value)
    return value


@task(name="conformance.add")
def add(a: int, b: int = 2, *, c: int = 3) -> int:
    """Defaults, and an argument by name only."""
    return a * 100 + b * 10 + c


@task(name="conformance.by_position")
def by_position(a: int, /, b: int) -> int:
    """An argument by position only."""
    return a - b


@task(name="conformance.typed")
def typed(
    at: datetime, day: date, wait: timedelta, key: uuid.UUID, price: Decimal, colour: Colour,
    point: Point, box: Box, data: bytes, tags: set[str], pair: tuple[int, str], table: dict[int, list[float]],
    choice: Literal["a", "b"], either: int | str | None,
) -> bool:  # fmt: skip
    """Each kind of argument that JSON does not know."""
    seen.append((at, day, wait, key, price, colour, point, box, data, tags, pair, table, choice, either))
    return True


@task(name="conformance.float_of")
def float_of(value: float) -> float:
    """A float."""
    return value


@task(name="conformance.text_of")
def text_of(value: str) -> str:
    """A text."""
    return value


@task(name="conformance.at_of")
def at_of(value: datetime) -> datetime:
    """An instant."""
    seen.append(value)
    return value


@task(name="conformance.safe_of")
def safe_of(value: str) -> str:
    """A text of a subclass as a result."""
    return Safe(value)


@task(name="conformance.takes_point")
def takes_point(point: Point) -> Point:
    """A dataclass as an argument, and what has more than it as a result."""
    return point if point.x else Point3(1, 2, 3)


@task(name="conformance.renamed", aliases=["conformance.older"], unique=Unique(key=lambda key: key))
def renamed(key: str, *, snoozes: bool = False) -> str:
    """Was called otherwise."""
    if snoozes:
        raise Snooze(timedelta(hours=1))
    seen.append(key)
    return key


def traced(function: Callable[..., Any]) -> Any:
    """A plain wrapper around whatever it is given."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@task(name="conformance.wrapped")
@traced
async def wrapped(value: int) -> int:
    """A coroutine behind a plain wrapper."""
    await asyncio.sleep(0)
    return value + 1


@task(name="conformance.mutate")
def mutate(items: list[int]) -> int:
    """Changes its argument, and fails the first time."""
    items.append(4)
    seen.append(list(items))
    if current_job().attempt == 1:
        raise RuntimeError("once more")
    return len(items)


@task(name="conformance.point_of")
def point_of(x: int) -> Point:
    """A dataclass as a result."""
    return Point(x)


@task(name="conformance.liar")
def liar() -> int:
    """Returns what it does not promise."""
    seen.append("called")
    return "no number"  # type: ignore[return-value]


@task(name="conformance.returns_object")
def returns_object() -> Any:
    """Returns what cannot be encoded."""
    seen.append("called")
    return object()


@task(name="conformance.returns_nan")
async def returns_nan() -> float:
    """Returns what JSON cannot say."""
    return math.nan


@task(name="conformance.fail", max_attempts=3)
def fail(times: int, message: str = "not yet") -> int:
    """Fails so many times."""
    attempt = current_job().attempt
    seen.append(attempt)
    if attempt <= times:
        raise ValueError(message)
    return attempt


@task(name="conformance.fail_async", max_attempts=3)
async def fail_async(times: int) -> int:
    """The same, async."""
    await asyncio.sleep(0)
    attempt = current_job().attempt
    seen.append(attempt)
    if attempt <= times:
        raise ValueError("not yet")
    return attempt


@task(name="conformance.retry", max_attempts=2)
def retry(after: float | None = None) -> None:
    """Asks for a retry each time."""
    seen.append(current_job().attempt)
    raise Retry(None if after is None else timedelta(seconds=after), "later, please")


def decide(attempt: int, error: BaseException) -> timedelta | None:
    """A retry function: gives up after the second attempt, or breaks."""
    seen.append((attempt, repr(error)))
    if "broken" in str(error):
        raise LookupError("the retry function is broken")
    return timedelta(hours=1) if attempt < 2 else None


@task(name="conformance.choosy", max_attempts=9, retry=decide)
def choosy(message: str) -> None:
    """Has a retry function."""
    raise RuntimeError(message)


@task(name="conformance.snooze")
def snooze(times: int) -> int:
    """Snoozes so many times."""
    seen.append(current_job().attempt)
    if len(seen) <= times:
        raise Snooze(timedelta(hours=1))
    return len(seen)


@task(name="conformance.discard", max_attempts=5)
def discard(after: int = 0) -> None:
    """Gives up for good, after so many failures."""
    seen.append(current_job().attempt)
    if current_job().attempt <= after:
        raise ValueError("not yet")
    raise Discard("not worth it")


@task(name="conformance.leave", max_attempts=2)
def leave() -> None:
    """Ends the process, it thinks."""
    seen.append("leave")
    raise SystemExit(3)


@task(name="conformance.cancel_own_task", max_attempts=1)
async def cancel_own_task() -> None:
    """Cancels the asyncio task that it is in."""
    asyncio_task = asyncio.current_task()
    assert asyncio_task is not None
    asyncio_task.cancel()
    await asyncio.sleep(1)


class Speechless(Exception):
    """An error whose message cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@task(name="conformance.speechless", max_attempts=1)
def speechless() -> None:
    """Raises an error that cannot be printed."""
    raise Speechless


@task(name="conformance.who", queue="q", priority=7, max_attempts=4)
def who(value: int = 0) -> str:
    """Says what it is told about itself."""
    me = current_job()
    seen.append((me.id, me.task, me.queue, me.attempt, me.max_attempts, me.cancelled, me.lease_lost))
    return chancy.schema_in_use()


def say_wrongly() -> list[str]:
    """What a handler is told of each wrong word about itself."""
    me, told = current_job(), []
    fractions: list[Any] = ["x", None, 2, -0.1, math.nan, 10**400, 1j, [1], me]
    notes: list[Any] = [None, 5, b"half", ["half"], me]
    wrong: list[Callable[[], object]] = [
        *(functools.partial(me.progress, value) for value in fractions),
        *(functools.partial(me.progress, 0.5, value) for value in notes),
        *(functools.partial(me.complete, value) for value in (None, "dsn", 5, [ground[0].conn] if ground else [])),
    ]
    for say in wrong:
        try:
            say()
        except Exception as error:
            told.append(f"{type(error).__name__}: {str(error).partition(',')[0]}")
    return told


@task(name="conformance.wrong_in_a_thread", max_attempts=1)
def wrong_in_a_thread() -> list[str]:
    """Says something wrong about itself, and goes on."""
    return say_wrongly()


@task(name="conformance.wrong_on_the_loop", max_attempts=1)
async def wrong_on_the_loop() -> list[str]:
    """The same in a coroutine."""
    return say_wrongly()


@task(name="conformance.wrong_in_a_process", max_attempts=1, executor="process")
def wrong_in_a_process() -> list[str]:
    """The same in a child."""
    return say_wrongly()


@task(name="conformance.who_async")
async def who_async() -> int:
    """The same in a coroutine, and in a task that it begins."""

    async def inner() -> int:
        return current_job().id

    return await asyncio.create_task(inner())


@task(name="conformance.set_local")
def set_local() -> str:
    """Sets a context variable."""
    before = local.get()
    local.set("set by a handler")
    return before


@task(name="conformance.own_loop")
def own_loop() -> str:
    """A plain function may run a loop."""

    async def inner() -> str:
        await asyncio.sleep(0)
        return "ran"

    return asyncio.run(inner())


@task(name="conformance.progress")
def progress(fraction: float) -> None:
    """Says how far it is."""
    current_job().progress(fraction, "so far")


@task(name="conformance.speak", max_attempts=2, keep_logs=True)
def speak(times: int) -> None:
    """Logs at each of two attempts."""
    for number in range(times):
        logging.getLogger("conformance").warning("%d says %d\0", current_job().attempt, number)
    if current_job().attempt == 1:
        raise ValueError("not yet")


@task(name="conformance.mutter")
def mutter() -> None:
    """Logs, and nobody keeps it."""
    logging.getLogger("conformance").warning("unheard")


@task(name="conformance.parent", max_attempts=1)
def parent(fails: bool = False) -> str:
    """Submits a job from inside, where the ground is sync."""
    seen.append("parent begins")
    conn = ground[0].conn
    assert isinstance(conn, psycopg.Connection)
    note.submit(conn, "child")
    seen.append("parent ends")
    if fails:
        raise ValueError("after the submit")
    return "done"


@task(name="conformance.parent_async", max_attempts=1)
async def parent_async(fails: bool = False) -> str:
    """The same where it is async."""
    seen.append("parent begins")
    conn = ground[0].conn
    assert isinstance(conn, psycopg.AsyncConnection)
    await note_async.submit(conn, "child")
    seen.append("parent ends")
    if fails:
        raise ValueError("after the submit")
    return "done"


@task(name="conformance.complete", max_attempts=2)
def complete(value: int, then: str = "return") -> int:
    """Completes its job in a transaction of its own."""
    conn = ground[0].conn
    assert isinstance(conn, psycopg.Connection)
    seen.append(current_job().attempt)
    if then == "autocommit":
        current_job().complete(conn, value)
    with contextlib.suppress(ArithmeticError), conn.transaction():
        current_job().complete(conn, value)
        if then == "roll back":
            raise ArithmeticError
    if then == "raise":
        raise ValueError("after the commit")
    return -1


@task(name="conformance.complete_async", max_attempts=2)
async def complete_async(value: int, then: str = "return") -> int:
    """The same, async."""
    conn = ground[0].conn
    assert isinstance(conn, psycopg.AsyncConnection)
    seen.append(current_job().attempt)
    if then == "autocommit":
        await current_job().complete(conn, value)
    with contextlib.suppress(ArithmeticError):
        async with conn.transaction():
            await current_job().complete(conn, value)
            if then == "roll back":
                raise ArithmeticError
    if then == "raise":
        raise ValueError("after the commit")
    return -1


@task(name="conformance.cancel_me", max_attempts=3)
def cancel_me(then: str) -> str:
    """Asks for its own end, and goes on."""
    conn = ground[0].conn
    assert isinstance(conn, psycopg.Connection)
    seen.append(chancy.cancel(conn, current_job().id))
    if then == "raise":
        raise ValueError("in vain")
    return "done"


@task(name="conformance.cancel_me_async", max_attempts=3)
async def cancel_me_async(then: str) -> str:
    """The same, async."""
    conn = ground[0].conn
    assert isinstance(conn, psycopg.AsyncConnection)
    seen.append(await chancy.cancel(conn, current_job().id))
    if then == "raise":
        raise ValueError("in vain")
    return "done"


@task(name="conformance.slow", max_attempts=1, limits=[Limit.time(0.05)])
async def slow(seconds: float) -> str:
    """Has a time limit."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        seen.append("stopped")
        raise
    return "in time"


@task(name="conformance.unlimited", max_attempts=1)
async def unlimited(seconds: float) -> str:
    """Has none."""
    await asyncio.sleep(seconds)
    return "in time"


@task(name="conformance.slow_sync", max_attempts=1, limits=[Limit.time(0.05)])
def slow_sync(seconds: float) -> str:
    """Has a time limit, and a worker would run it in a child process."""
    time.sleep(seconds)
    return "in time"


@task(name="conformance.once", unique=Unique(key=lambda key: key))
def once(key: str, value: int = 0, snoozes: bool = False) -> int:
    """Is there once for each key. May snooze for an hour, the first time."""
    seen.append(value)
    if snoozes and len(seen) == 1:
        raise Snooze(timedelta(hours=1))
    return value


@task(name="conformance.until_started", unique=Unique(key=lambda key: key, until="started"))
def until_started(key: str, value: int = 0) -> int:
    """Waits once for each key, and snoozes the first time."""
    seen.append(value)
    if len(seen) == 1:
        raise Snooze(timedelta(hours=1))
    return value


def is_async(g: Ground) -> bool:
    """Whether the ground's connection is."""
    return isinstance(g.conn, psycopg.AsyncConnection)


def block(g: Ground, *acts: Callable[[], Any], roll_back: bool = False) -> Any:
    """What these verbs give, made in one transaction, which is committed or rolled back."""
    if isinstance(g.conn, psycopg.AsyncConnection):
        return _block_async(g.conn, acts, roll_back)
    made: list[Any] = []
    with contextlib.suppress(ArithmeticError), g.conn.transaction():
        made += [act() for act in acts]
        if roll_back:
            raise ArithmeticError
    return made


async def _block_async(conn: psycopg.AsyncConnection[Any], acts: tuple[Callable[[], Any], ...], roll_back: bool) -> Any:
    made: list[Any] = []
    with contextlib.suppress(ArithmeticError):
        async with conn.transaction():
            made += [await act() for act in acts]
            if roll_back:
                raise ArithmeticError
    return made


# Arguments


def gives(function: Task[..., Any], expected: Any, *args: Any, **kwargs: Any) -> Callable[[Ground], Steps]:
    """Submitted with these arguments it has this result."""

    def steps(g: Ground) -> Steps:
        job = yield function.submit(g.conn, *args, **kwargs)
        yield g.perform()
        assert (yield job.result(g.conn)) == expected

    return steps


@case
def arguments_by_position_and_by_name_reach_the_function(g: Ground) -> Steps:
    yield from gives(add, 456, 4, b=5, c=6)(g)


@case
def an_argument_left_out_has_its_default(g: Ground) -> Steps:
    yield from gives(add, 123, 1)(g)


@case
def what_is_stored_with_the_job_is_what_was_given_in_the_order_of_the_signature(g: Ground) -> Steps:
    for job, stored in [
        ((yield add.submit(g.conn, 1)), b'{"a":1}'),
        ((yield add.submit(g.conn, 1, c=3)), b'{"a":1,"c":3}'),
        ((yield add.submit(g.conn, c=4, b=5, a=6)), b'{"a":6,"b":5,"c":4}'),
    ]:
        assert (yield chancy.get(g.conn, job.id)).arguments == stored


@case
def an_argument_by_position_only_reaches_the_function(g: Ground) -> Steps:
    yield from gives(by_position, -1, 1, b=2)(g)


@case
def typed_arguments_arrive_as_what_they_were(g: Ground) -> Steps:
    values = (
        datetime(2026, 3, 29, 2, 30, tzinfo=UTC), date(2024, 2, 29), timedelta(days=2, microseconds=5),
        uuid.UUID(int=7), Decimal("0.10"), Colour.RED, Point(1, 2), Box([Point(3)]), b"\x00\xff", {"x", "y"},
        (1, "one"), {1: [0.5, 1.0]}, "b", None,
    )  # fmt: skip
    yield submit_many(g.conn, [typed.bind(*values)])  # type: ignore[arg-type]
    yield g.perform()
    assert seen == [values]
    assert [type(value) for value in seen[0]] == [type(value) for value in values]


@case
def any_text_arrives_as_it_was(g: Ground) -> Steps:
    for text in ("", "ža\u0000b\n\\\"'%s{}", "\U0001f600", "a" * 100_000):
        yield from gives(text_of, text, text)(g)


@case
def large_and_small_numbers_arrive_as_they_were(g: Ground) -> Steps:
    for number in (2**63 - 1, -(2**63), 0):
        yield from gives(note, number, number)(g)
    for value in (1e308, 5e-324, 0.1 + 0.2, -0.0):
        yield from gives(float_of, value, value)(g)


@case
def an_argument_of_no_particular_type_is_what_json_knows(g: Ground) -> Steps:
    yield from gives(note, [1, [2, "three"], {"four": None}], [1, [2, "three"], {"four": None}])(g)
    with pytest.raises(InvalidArguments, match=r"argument 'value'.*a tuple would arrive as a list, at \[1\]"):
        note.bind([1, (2, "three")])


@case
def a_list_changed_after_the_submit_is_the_old_one_in_the_job(g: Ground) -> Steps:
    items = [1, 2, 3]
    job = mutate.bind(items)
    items.append(99)
    yield submit_many(g.conn, [job])
    yield g.perform()
    assert seen[0] == [1, 2, 3, 4]


@case
def a_function_that_changes_its_arguments_gets_fresh_ones_at_the_next_attempt(g: Ground) -> Steps:
    items = [1, 2, 3]
    job = yield mutate.submit(g.conn, items)
    yield g.perform()
    assert seen == [[1, 2, 3, 4], [1, 2, 3, 4]]
    assert items == [1, 2, 3]
    assert (yield chancy.get(g.conn, job.id)).arguments == b'{"items":[1,2,3]}'


def refuses(message: str, function: Any, *args: Any, **kwargs: Any) -> Callable[[Ground], Steps]:
    """The submit raises `InvalidArguments` that says this, and nothing is stored."""

    def steps(g: Ground) -> Steps:
        with pytest.raises(InvalidArguments, match=message):
            yield function.submit(g.conn, *args, **kwargs)
        assert (yield chancy.jobs(g.conn)) == []

    return steps


@case
def an_argument_of_a_wrong_type_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'a'.*[Ee]xpected `int`, got `str`", add, "1")(g)


@case
def a_missing_argument_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'a'.*is missing", add)(g)


@case
def an_unknown_argument_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'd'.*no such argument", add, 1, d=2)(g)


@case
def too_many_arguments_are_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("3 given by position, at most 2", add, 1, 2, 3)(g)


@case
def an_argument_given_twice_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'a'.*given twice", add, 1, a=2)(g)


@case
def an_argument_that_cannot_be_encoded_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'value'", note, object())(g)


@case
def a_nan_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'value'.*NaN", float_of, math.nan)(g)
    yield from refuses("argument 'value'.*NaN", note, [math.inf])(g)


@case
def arguments_above_16_mebibytes_are_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'value'.*at most 16,777,216", text_of, "x" * 16 * 1024**2)(g)


@case
def options_that_cannot_go_into_a_row_are_refused(g: Ground) -> Steps:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001
    for options, message in (
        ({"priority": 101}, "priority"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"run_at": naive}, "time zone"),
        ({"run_at": datetime.now(UTC), "delay": timedelta(1)}, "either"),
        ({"queue": ""}, "queue"),
        ({"speed": 3}, "is no option"),
    ):
        with pytest.raises(InvalidArguments, match=message):
            yield note.using(**options).submit(g.conn, 1)
    assert (yield chancy.jobs(g.conn)) == []


@case
def an_option_is_what_it_is_and_not_what_its_class_says_of_it(g: Ground) -> Steps:
    mail = note.using(queue=Stream.MAIL)
    one = yield mail.submit(g.conn, 1)
    two, three = yield submit_many(g.conn, [mail.bind(2), mail.using(unique=Unique()).bind(3)])
    for job in (one, two, three):
        assert (yield job.refresh(g.conn)).queue == "mail"
    assert len((yield chancy.jobs(g.conn, queue=Stream.MAIL))) == 3
    assert len((yield chancy.jobs(g.conn, queue="mail"))) == 3


@case
def a_delay_is_a_timedelta_or_seconds(g: Ground) -> Steps:
    for delay in (3600, 3600.0, timedelta(hours=1)):
        job = yield snooze.using(delay=delay).submit(g.conn, 0)
        row = yield job.refresh(g.conn)
        assert abs(row.run_at - row.submitted_at - timedelta(hours=1)) < timedelta(seconds=5)


@case
def an_option_of_a_verb_that_does_not_fit_is_refused_by_its_name(g: Ground) -> Steps:
    for option, verb in (
        ("job_id", lambda: chancy.get(g.conn, True)),
        ("job_id", lambda: chancy.cancel(g.conn, 2**63)),
        ("job_id", lambda: chancy.delete(g.conn, -1)),
        ("attempts", lambda: chancy.requeue(g.conn, 1, attempts=2.5)),  # type: ignore[call-overload]
        ("limit", lambda: chancy.jobs(g.conn, limit=2**31)),
        ("before", lambda: chancy.jobs(g.conn, before="1")),  # type: ignore[call-overload]
        ("batch", lambda: chancy.jobs(g.conn, batch=0)),
        ("task", lambda: chancy.jobs(g.conn, task=5)),  # type: ignore[call-overload]
        ("queue", lambda: chancy.jobs(g.conn, queue="a\0")),
        ("state", lambda: chancy.jobs(g.conn, state="done")),  # type: ignore[call-overload]
        ("priority", lambda: chancy.edit(g.conn, 1, priority=5.6)),  # type: ignore[call-overload]
        ("run_at", lambda: chancy.edit(g.conn, 1, run_at=datetime.max.replace(tzinfo=UTC))),
        ("batch", lambda: chancy.cancel_many(g.conn, chancy.JobFilter(queue="q"), batch=-1)),
        ("jobs", lambda: submit_many(g.conn, [note])),
        ("jobs", lambda: submit_many(g.conn, note.bind(1))),
        ("batch_id", lambda: chancy.batch_progress(g.conn, 0)),
        ("name", lambda: chancy.run_now(g.conn, "\ud800")),
        ("timeout", lambda: Job(1, "t", "q", chancy.schema_in_use()).result(g.conn, timeout=math.nan)),
    ):
        with pytest.raises(InvalidOption) as caught:
            yield verb()
        assert caught.value.option == option
    assert (yield chancy.jobs(g.conn)) == []


@case
def a_value_of_a_subclass_arrives_as_its_base(g: Ground) -> Steps:
    at = Moment(2031, 5, 5, 12, tzinfo=UTC)
    job = yield at_of.submit(g.conn, at)
    yield g.perform()
    assert [type(value) for value in seen] == [datetime]
    assert (yield job.result(g.conn)) == at
    text = yield safe_of.submit(g.conn, Safe("<b>"))
    number = yield add.submit(g.conn, True, c=False)
    yield g.perform()
    assert (yield text.result(g.conn)) == "<b>"
    assert (yield number.result(g.conn)) == 120


@case
def what_would_arrive_as_something_else_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'point'.*a Point3 would arrive as a Point", takes_point, Point3(1))(g)
    yield from refuses("argument 'value'.*a bytes would arrive as a str", text_of, b"text")(g)
    yield from refuses("argument 'value'.*its keys would arrive as others", note, {1: 2})(g)


@case
def a_result_of_which_a_part_would_be_lost_fails_the_job_at_once(g: Ground) -> Steps:
    job = yield takes_point.submit(g.conn, Point(0))
    yield g.perform()
    row: JobRow = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.errors[0].kind) == (State.FAILED, 1, "InvalidResult")
    assert "a Point3 would arrive as a Point" in row.errors[0].message


@case
def a_coroutine_behind_a_plain_wrapper_is_awaited(g: Ground) -> Steps:
    job = yield wrapped.submit(g.conn, 1)
    yield g.perform()
    assert (yield job.result(g.conn, timeout=30)) == 2


@case
def a_task_stands_for_all_its_names(g: Ground) -> Steps:
    jobs = yield submit_many(
        g.conn, [msgspec.structs.replace(renamed.bind("a"), task="conformance.older"), renamed.bind("b")]
    )
    yield g.perform()
    ids = {job.id for job in jobs}
    assert {row.id for row in (yield chancy.jobs(g.conn, task=renamed))} == ids
    assert {row.id for row in (yield chancy.jobs(g.conn, task="conformance.older"))} == {jobs[0].id}
    assert (yield chancy.count(g.conn, chancy.JobFilter(task=renamed))) == {State.SUCCEEDED: 2}
    again = yield chancy.requeue_many(g.conn, chancy.JobFilter(task=renamed, state=State.SUCCEEDED))
    assert again.changed == 2
    yield g.perform()
    assert (yield chancy.delete_many(g.conn, chancy.JobFilter(task=renamed))).changed == 2


@case
def a_key_that_is_held_under_an_older_name_is_held(g: Ground) -> Steps:
    older = msgspec.structs.replace(renamed.bind("a"), task="conformance.older")
    (one,), two = yield block(g, lambda: submit_many(g.conn, [older]), lambda: renamed.submit(g.conn, "a"))
    assert (two.id, two.outcome) == (one.id, "existing")
    yield g.perform()
    three = yield renamed.submit(g.conn, "a")
    yield g.perform()
    assert (three.outcome, (yield three.refresh(g.conn)).task) == ("inserted", renamed.name)
    assert seen == ["a", "a"]


@case
def a_time_of_a_key_that_began_under_an_older_name_goes_on(g: Ground) -> Steps:
    hourly = renamed.using(unique=Unique(key="k", within=3600))
    (one,) = yield submit_many(g.conn, [msgspec.structs.replace(hourly.bind("a"), task="conformance.older")])
    yield g.perform()
    two = yield hourly.submit(g.conn, "a")
    assert (two.id, two.outcome) == (one.id, "existing")


@case
def what_is_equal_has_one_key_and_what_is_not_has_two(g: Ground) -> Steps:
    at = datetime(2031, 7, 1, 10, tzinfo=UTC)
    instants, values = at_of.using(unique=Unique()), note.using(unique=Unique())
    one, two, three, four, five, six = yield block(
        g,
        lambda: instants.submit(g.conn, at),
        lambda: instants.submit(g.conn, at.astimezone(timezone(timedelta(hours=2)))),
        lambda: values.submit(g.conn, 1),
        lambda: values.submit(g.conn, "1"),
        lambda: values.submit(g.conn, None),
        lambda: values.submit(g.conn, "null"),
    )
    assert (two.id, two.outcome) == (one.id, "existing")
    assert [job.outcome for job in (three, four, five, six)] == ["inserted"] * 4


# Results


@case
def a_result_has_the_type_that_the_function_promises(g: Ground) -> Steps:
    yield from gives(point_of, Point(5), 5)(g)


@case
def a_function_that_returns_nothing_has_none_as_its_result(g: Ground) -> Steps:
    job = yield progress.submit(g.conn, 1.0)
    yield g.perform()
    assert (yield job.result(g.conn)) is None
    assert (yield job.refresh(g.conn)).result == b"null"


@case
def a_coroutine_has_a_result_too(g: Ground) -> Steps:
    job = yield note_async.submit(g.conn, "x")
    yield g.perform()
    assert (yield job.result(g.conn)) == "x"


@case
def a_result_of_another_type_than_promised_fails_the_job_at_once(g: Ground) -> Steps:
    yield from result_is_invalid(g, liar, "Expected `int`, got `str`")


@case
def a_result_that_cannot_be_encoded_fails_the_job_at_once(g: Ground) -> Steps:
    yield from result_is_invalid(g, returns_object, "object")


@case
def a_result_that_is_not_a_number_fails_the_job_at_once(g: Ground) -> Steps:
    yield from result_is_invalid(g, returns_nan, "")


def result_is_invalid(g: Ground, function: Any, message: str) -> Steps:
    """No retry: the effects are there."""
    job = yield function.submit(g.conn)
    yield g.perform()
    row: JobRow = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.result) == (State.FAILED, 1, None)
    assert [error.kind for error in row.errors] == ["InvalidResult"]
    assert message in row.errors[0].message


@case
def the_result_of_a_failed_job_is_an_error_that_says_what_happened(g: Ground) -> Steps:
    job = yield fail.submit(g.conn, 9, "the reason")
    yield g.perform()
    with pytest.raises(JobFailed) as failed:
        yield job.result(g.conn)
    error = failed.value
    assert (error.job_id, error.task, error.state, error.attempt) == (job.id, fail.name, "failed", 3)
    assert (error.kind, error.message) == ("ValueError", "the reason")
    assert "in fail" in error.traceback
    assert "attempts.py" not in error.traceback


@case
def the_result_of_a_discarded_job_is_an_error(g: Ground) -> Steps:
    job = yield discard.submit(g.conn)
    yield g.perform()
    with pytest.raises(JobFailed, match="discarded in attempt 1: Discard: not worth it"):
        yield job.result(g.conn)


@case
def the_result_of_a_job_that_never_was_is_an_error(g: Ground) -> Steps:
    job: Job[Any] = Job(123_456, "conformance.note", "default", chancy.schema_in_use())
    with pytest.raises(UnknownJob, match="123456"):
        yield job.result(g.conn)


# Attempts


def attempts_of(g: Ground, function: Any, *args: Any) -> Any:
    """Submit it and perform it to its end; its row."""
    job = yield function.submit(g.conn, *args)
    yield g.perform()
    row = yield job.refresh(g.conn)
    return row


@case
def a_job_that_fails_is_tried_again_until_it_succeeds(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail, 2)
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 3, b"3", [1, 2, 3])
    assert [(error.attempt, error.kind, error.message) for error in row.errors] == [
        (1, "ValueError", "not yet"),
        (2, "ValueError", "not yet"),
    ]


@case
def a_coroutine_that_fails_is_tried_again_until_it_succeeds(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail_async, 2)
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 3, b"3", [1, 2, 3])


@case
def after_max_attempts_the_job_has_failed(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail, 99)
    assert (row.state, row.attempt, row.result, seen) == (State.FAILED, 3, None, [1, 2, 3])
    assert row.finished_at >= row.started_at


@case
def a_job_with_one_attempt_fails_at_the_first_error(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=1), 99)
    assert (row.state, row.attempt, seen) == (State.FAILED, 1, [1])


@case
def the_attempts_of_one_submit_may_be_more_than_those_of_the_task(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=5), 4)
    assert (row.state, row.attempt) == (State.SUCCEEDED, 5)


@case
def a_retry_asked_for_counts_as_an_attempt(g: Ground) -> Steps:
    row = yield from attempts_of(g, retry, 3600)
    assert (row.state, seen) == (State.FAILED, [1, 2])
    assert [(error.kind, error.message, error.traceback) for error in row.errors] == [
        ("Retry", "later, please", "")
    ] * 2


@case
def a_retry_without_a_delay_is_made_by_the_tasks_backoff(g: Ground) -> Steps:
    row = yield from attempts_of(g, retry)
    assert (row.state, seen) == (State.FAILED, [1, 2])


@case
def a_retry_function_decides_when_to_give_up(g: Ground) -> Steps:
    row = yield from attempts_of(g, choosy, "why")
    assert (row.state, row.attempt) == (State.FAILED, 2)
    assert seen == [(1, "RuntimeError('why')"), (2, "RuntimeError('why')")]


@case
def a_broken_retry_function_fails_the_job_and_says_so(g: Ground) -> Steps:
    row = yield from attempts_of(g, choosy, "broken")
    assert (row.state, row.attempt, row.errors[0].kind) == (State.FAILED, 1, "LookupError")
    assert "RuntimeError: broken" in row.errors[0].traceback


@case
def a_backoff_of_one_submit_goes_before_the_tasks_retry_function(g: Ground) -> Steps:
    quick = Backoff(base=timedelta(seconds=1))
    row = yield from attempts_of(g, choosy.using(retry=quick, max_attempts=4), "why")
    assert (row.state, row.attempt, seen) == (State.FAILED, 4, [])


@case
def the_newest_ten_errors_are_kept(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=12), 99)
    assert [error.attempt for error in row.errors] == list(range(3, 13))


@case
def an_error_says_where_when_and_by_whom(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=1), 9)
    (error,) = row.errors
    assert error.worker
    assert error.started_at is not None
    assert abs((error.started_at - datetime.now(UTC)).total_seconds()) < 60
    assert error.duration >= 0
    assert "raise ValueError(message)" in error.traceback


@case
def a_system_exit_is_an_error_like_others(g: Ground) -> Steps:
    row = yield from attempts_of(g, leave)
    assert (row.state, row.attempt, seen) == (State.FAILED, 2, ["leave", "leave"])
    assert row.errors[-1].kind == "SystemExit"


@case
def a_coroutine_that_cancels_itself_has_failed(g: Ground) -> Steps:
    row = yield from attempts_of(g, cancel_own_task)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "CancelledError")


@case
def a_long_message_is_cut_in_the_middle(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=1), 9, "a" * 9_000 + "z")
    message = row.errors[0].message
    assert len(message.encode()) <= 4096
    assert (message[0], message[-1]) == ("a", "z")


@case
def a_message_that_is_no_text_is_kept_as_far_as_it_can_be(g: Ground) -> Steps:
    row = yield from attempts_of(g, speechless)
    assert (row.state, row.errors[0].kind) == (State.FAILED, "Speechless")


@case
def a_nul_in_a_message_is_kept(g: Ground) -> Steps:
    row = yield from attempts_of(g, fail.using(max_attempts=1), 9, "a\0b")
    assert row.errors[0].message == "a\0b"


# Outcomes


@case
def a_job_that_snoozes_waits_and_has_used_no_attempt(g: Ground) -> Steps:
    row = yield from attempts_of(g, snooze, 1)
    assert (row.state, row.attempt, row.errors, row.worker, seen) == (State.SCHEDULED, 0, (), None, [1])
    assert timedelta(minutes=59) < row.run_at - datetime.now(UTC) < timedelta(minutes=61)


@case
def a_job_may_snooze_more_often_than_it_has_attempts(g: Ground) -> Steps:
    job = yield snooze.using(max_attempts=1).submit(g.conn, 3)
    yield g.perform()
    for _ in range(3):
        yield g.perform_snoozed(job)
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 1, b"4", [1, 1, 1, 1])


@case
def a_snoozed_job_can_be_cancelled(g: Ground) -> Steps:
    job = yield snooze.submit(g.conn, 1)
    yield g.perform()
    assert (yield job.cancel(g.conn)) is True
    assert (yield job.refresh(g.conn)).state is State.CANCELLED
    with pytest.raises(JobCancelled):
        yield job.result(g.conn)


@case
def a_discarded_job_is_over_whatever_attempts_are_left(g: Ground) -> Steps:
    row = yield from attempts_of(g, discard, 1)
    assert (row.state, row.attempt, seen) == (State.DISCARDED, 2, [1, 2])
    assert [error.kind for error in row.errors] == ["ValueError", "Discard"]


# What a handler sees


@case
def a_handler_knows_its_job(g: Ground) -> Steps:
    job = yield who.submit(g.conn)
    yield g.perform()
    assert seen == [(job.id, who.name, "q", 1, 4, False, False)]


@case
def a_handler_works_in_the_schema_of_its_job(g: Ground) -> Steps:
    job = yield who.submit(g.conn)
    yield g.perform()
    assert (yield job.result(g.conn)) == chancy.schema_in_use()


@case
def a_coroutine_knows_its_job_and_so_do_tasks_that_it_begins(g: Ground) -> Steps:
    job = yield who_async.submit(g.conn)
    yield g.perform()
    assert (yield job.result(g.conn)) == job.id


@case
def what_a_handler_sets_in_its_context_stays_there(g: Ground) -> Steps:
    first, second = yield submit_many(g.conn, [set_local.bind(), set_local.bind()])
    yield g.perform()
    assert (yield first.result(g.conn)) == (yield second.result(g.conn))
    assert local.get() == "nothing"
    with pytest.raises(chancy.ChancyError, match="no job is running"):
        current_job()


@case
def a_plain_function_may_run_a_loop_of_its_own(g: Ground) -> Steps:
    yield from gives(own_loop, "ran")(g)


@case
def what_a_job_logs_is_kept_by_attempt_if_its_task_asks_for_it(g: Ground) -> Steps:
    row = yield from attempts_of(g, speak, 2)
    entries = yield chancy.logs(g.conn, row.id)
    assert [(entry.attempt, entry.n, entry.message) for entry in entries] == [
        (attempt, n, f"{attempt} says {n - 1}\0") for attempt in (1, 2) for n in (1, 2)
    ]
    assert {(entry.level, entry.logger, entry.traceback) for entry in entries} == {("WARNING", "conformance", "")}
    assert all(timedelta(0) <= datetime.now(UTC) - entry.at < timedelta(minutes=1) for entry in entries)
    assert (yield chancy.logs(g.conn, row.id, after=(1, 1), limit=2)) == entries[1:3]
    row = yield from attempts_of(g, mutter)
    assert (yield chancy.logs(g.conn, row.id)) == []


@case
def of_a_job_that_logs_too_much_the_beginning_is_kept(g: Ground) -> Steps:
    row = yield from attempts_of(g, speak.using(max_attempts=1), 1_010)
    entries = yield chancy.logs(g.conn, row.id, limit=2_000)
    assert len(entries) == 1_001
    assert entries[-1].message.startswith("10 more records were not kept")


@case
def progress_is_a_fraction(g: Ground) -> Steps:
    row = yield from attempts_of(g, progress.using(max_attempts=1), 2.0)
    assert (row.state, row.errors[0].kind) == (State.FAILED, "InvalidOption")
    row = yield from attempts_of(g, progress, 0.5)
    assert (row.state, row.progress) == (State.SUCCEEDED, None)


@case
def a_handler_that_says_something_wrong_about_itself_is_told_what(g: Ground) -> Steps:
    no_connection = (
        "InvalidConnection: the first argument is your connection: expected a psycopg.Connection or "
        "psycopg.AsyncConnection"
    )
    for wrong in (wrong_in_a_thread, wrong_on_the_loop, wrong_in_a_process):
        job = yield wrong.submit(g.conn)
        yield g.perform()
        assert (yield job.result(g.conn)) == [
            *["InvalidOption: fraction: expected a fraction from 0 to 1"] * 9,
            *["InvalidOption: note: expected a text"] * 5,
            *[no_connection] * 4,
        ]


@case
def a_job_submitted_by_a_handler_runs_after_it(g: Ground) -> Steps:
    row = yield from attempts_of(g, parent_async if is_async(g) else parent)
    assert row.state is State.SUCCEEDED
    assert seen == ["parent begins", "parent ends", "child"]


@case
def a_job_submitted_by_a_handler_that_fails_afterwards_is_there(g: Ground) -> Steps:
    row = yield from attempts_of(g, parent_async if is_async(g) else parent, True)
    assert row.state is State.FAILED
    assert seen == ["parent begins", "parent ends", "child"]


def completed(g: Ground, value: int, then: str) -> Any:
    """The row of a job that completes itself."""
    row = yield from attempts_of(g, complete_async if is_async(g) else complete, value, then)
    return row


@case
def a_job_completed_in_the_handlers_transaction_has_that_result(g: Ground) -> Steps:
    row = yield from completed(g, 5, "return")
    assert (row.state, row.result, seen) == (State.SUCCEEDED, b"5", [1])


@case
def an_error_after_the_job_was_completed_changes_nothing(g: Ground) -> Steps:
    row = yield from completed(g, 5, "raise")
    assert (row.state, row.result, row.errors, seen) == (State.SUCCEEDED, b"5", (), [1])


@case
def a_completion_that_is_rolled_back_never_was(g: Ground) -> Steps:
    row = yield from completed(g, 5, "roll back")
    assert (row.state, row.result, seen) == (State.SUCCEEDED, b"-1", [1])


@case
def a_job_cannot_be_completed_in_autocommit(g: Ground) -> Steps:
    row = yield from completed(g, 5, "autocommit")
    assert (row.state, row.errors[-1].kind, seen) == (State.FAILED, InvalidConnection.__name__, [1, 2])


@case
def a_handler_that_asks_for_its_own_end_and_succeeds_has_succeeded(g: Ground) -> Steps:
    row = yield from attempts_of(g, cancel_me_async if is_async(g) else cancel_me, "return")
    assert (row.state, row.result, seen) == (State.SUCCEEDED, b'"done"', [True])


@case
def a_handler_that_asks_for_its_own_end_and_fails_is_cancelled(g: Ground) -> Steps:
    row = yield from attempts_of(g, cancel_me_async if is_async(g) else cancel_me, "raise")
    assert (row.state, row.attempt, seen) == (State.CANCELLED, 1, [True])
    assert [error.kind for error in row.errors] == ["ValueError"]


# Limits


@case
def a_coroutine_is_stopped_at_its_time_limit(g: Ground) -> Steps:
    began = time.monotonic()
    row = yield from attempts_of(g, slow, 30.0)
    assert time.monotonic() - began < 15
    assert (row.state, row.errors[-1].kind, seen) == (State.FAILED, "TimeLimitExceeded", ["stopped"])
    assert "its time limit is 0.05 s" in row.errors[-1].message


@case
def a_coroutine_within_its_time_limit_is_left_alone(g: Ground) -> Steps:
    row = yield from attempts_of(g, slow, 0.0)
    assert (row.state, seen) == (State.SUCCEEDED, [])


@case
def one_submit_may_have_limits_of_its_own(g: Ground) -> Steps:
    row = yield from attempts_of(g, unlimited.using(limits=[Limit.time(0.05)]), 30.0)
    assert row.errors[-1].kind == "TimeLimitExceeded"
    row = yield from attempts_of(g, slow.using(limits=[]), 0.1)
    assert row.state is State.SUCCEEDED


@case
def a_plain_function_that_takes_longer_than_its_time_limit_has_failed(g: Ground) -> Steps:
    row = yield from attempts_of(g, slow_sync, 0.1)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "TimeLimitExceeded")
    row = yield from attempts_of(g, slow_sync, 0.0)
    assert row.state is State.SUCCEEDED


# The other verbs


@case
def a_finished_job_is_shown_whole(g: Ground) -> Steps:
    job = yield who.using(priority=-3).submit(g.conn, 1)
    yield g.perform()
    row: JobRow = yield chancy.get(g.conn, job.id)
    assert (row.id, row.task, row.queue, row.state) == (job.id, who.name, "q", State.SUCCEEDED)
    assert (row.priority, row.attempt, row.max_attempts, row.crashes) == (-3, 1, 4, 0)
    assert (row.arguments, row.errors, row.cancel_at, row.progress) == (b'{"value":1}', (), None, None)
    assert row.worker is not None
    assert row.started_at is not None
    assert row.finished_at is not None
    assert row.submitted_at <= row.run_at <= row.started_at <= row.finished_at
    assert {at.tzinfo for at in (row.submitted_at, row.run_at, row.started_at, row.finished_at)} == {UTC}


@case
def the_instant_for_which_a_job_was_scheduled_is_kept_until_it_runs(g: Ground) -> Steps:
    at = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
    job, later = (yield note.using(run_at=at).submit(g.conn)), (yield note.using(delay=timedelta(1)).submit(g.conn))
    first, second = (yield job.refresh(g.conn)), (yield later.refresh(g.conn))
    assert first.run_at == at
    assert abs(second.run_at - second.submitted_at - timedelta(days=1)) < timedelta(seconds=1)


@case
def jobs_are_listed_newest_first_and_by_pages(g: Ground) -> Steps:
    made = yield submit_many(g.conn, [note.bind(number) for number in range(5)])
    ids = [job.id for job in made]
    first = yield chancy.jobs(g.conn, limit=3)
    assert [row.id for row in first] == ids[:1:-1]
    second = yield chancy.jobs(g.conn, limit=3, before=first[-1].id)
    assert [row.id for row in second] == ids[1::-1]
    assert (yield chancy.jobs(g.conn, limit=0)) == []


@case
def jobs_are_listed_by_queue_task_and_state(g: Ground) -> Steps:
    one = yield note.using(queue="a").submit(g.conn, 1)
    two = yield who.submit(g.conn)
    three = yield fail.submit(g.conn, 99)
    yield g.perform()
    for filters, expected in (({"queue": "a"}, one), ({"task": who.name}, two), ({"state": State.FAILED}, three)):
        rows = yield chancy.jobs(g.conn, **filters)
        assert [row.id for row in rows] == [expected.id]
    assert (yield chancy.jobs(g.conn, queue="a", state=State.FAILED)) == []


@case
def a_list_of_fewer_than_none_is_refused(g: Ground) -> Steps:
    with pytest.raises(ValueError, match="0 or more"):
        yield chancy.jobs(g.conn, limit=-1)


@case
def an_unknown_job_is_an_error_of_every_verb(g: Ground) -> Steps:
    for verb in (chancy.get, chancy.cancel, chancy.requeue):
        with pytest.raises(UnknownJob, match="987"):
            yield verb(g.conn, 987)


@case
def a_finished_job_cannot_be_cancelled(g: Ground) -> Steps:
    job = yield note.submit(g.conn, 1)
    yield g.perform()
    assert (yield chancy.cancel(g.conn, job.id)) is False
    assert (yield job.refresh(g.conn)).state is State.SUCCEEDED


@case
def a_requeued_job_runs_again_under_its_old_id(g: Ground) -> Steps:
    job = yield note.submit(g.conn, "again")
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id)) is True
    yield g.perform()
    assert seen == ["again", "again"]
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt) == (State.SUCCEEDED, 2)


@case
def a_requeued_job_keeps_its_errors_and_gets_more_attempts(g: Ground) -> Steps:
    job = yield fail.submit(g.conn, 4)
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id, attempts=2)) is True
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.max_attempts, seen) == (State.SUCCEEDED, 5, 5, [1, 2, 3, 4, 5])
    assert [error.attempt for error in row.errors] == [1, 2, 3, 4]


@case
def a_requeued_job_gets_the_attempts_that_its_task_declares(g: Ground) -> Steps:
    job = yield fail.using(max_attempts=1).submit(g.conn, 9)
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id)) is True
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.max_attempts) == (State.FAILED, 1 + fail.options.max_attempts)
    yield chancy.requeue_many(g.conn, chancy.JobFilter(task=fail, state=State.FAILED))
    assert (yield job.refresh(g.conn)).max_attempts == 1 + 2 * fail.options.max_attempts


@case
def a_job_that_waits_cannot_be_requeued(g: Ground) -> Steps:
    job = yield snooze.submit(g.conn, 1)
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id)) is False


@case
def a_requeue_with_no_attempts_is_refused(g: Ground) -> Steps:
    with pytest.raises(ValueError, match="attempts"):
        yield chancy.requeue(g.conn, 1, attempts=0)


@case
def many_jobs_are_submitted_in_their_order(g: Ground) -> Steps:
    made = yield submit_many(g.conn, [note.bind(number) for number in range(50)])
    assert [job.id for job in made] == sorted(job.id for job in made)
    yield g.perform()
    assert seen == list(range(50))
    for number, job in enumerate(made[:3]):
        assert (yield job.result(g.conn)) == number


@case
def many_may_be_none(g: Ground) -> Steps:
    assert (yield submit_many(g.conn, [])) == []


@case
def many_jobs_may_be_of_different_tasks_and_options(g: Ground) -> Steps:
    jobs: list[Any] = [note.using(queue="a", priority=5).bind(1), who.bind(), add.using(max_attempts=9).bind(1)]
    yield submit_many(g.conn, jobs)
    rows = yield chancy.jobs(g.conn)
    assert [(row.task, row.queue, row.priority, row.max_attempts) for row in reversed(rows)] == [
        (note.name, "a", 5, 3), (who.name, "q", 7, 4), (add.name, "default", 0, 9),
    ]  # fmt: skip


@case
def a_job_is_told_by_its_id_and_schema(g: Ground) -> Steps:
    job = yield note.submit(g.conn, 1)
    assert (job.task, job.queue, job.schema) == (note.name, "default", chancy.schema_in_use())
    assert job == Job(job.id, "other", "other", job.schema)
    assert job != Job(job.id + 1, job.task, job.queue, job.schema)
    assert len({job, Job(job.id, "other", "other", job.schema)}) == 1


# Transactions


@case
def a_job_whose_transaction_is_rolled_back_never_was(g: Ground) -> Steps:
    (job,) = yield block(g, lambda: note.submit(g.conn, "ghost"), roll_back=True)
    yield g.perform()
    assert seen == []
    with pytest.raises(UnknownJob):
        yield chancy.get(g.conn, job.id)


@case
def jobs_run_when_their_transaction_has_committed(g: Ground) -> Steps:
    def look() -> Any:
        seen.append("last word of the transaction")
        return note.submit(g.conn, 2)

    yield block(g, lambda: note.submit(g.conn, 1), look)
    yield g.perform()
    assert seen == ["last word of the transaction", 1, 2]


@case
def a_job_is_seen_by_its_own_transaction_before_the_commit(g: Ground) -> Steps:
    _, rows = yield block(g, lambda: note.submit(g.conn, 1), lambda: chancy.jobs(g.conn))
    assert [row.state for row in rows] == [State.READY]


@case
def waiting_for_a_job_of_ones_own_transaction_is_an_error(g: Ground) -> Steps:
    made: list[Any] = []

    def wait() -> Any:
        job: Job[Any] = Job(made[0], note.name, "default", chancy.schema_in_use(), transaction=made[1])
        return job.result(g.conn)

    def submit() -> Any:
        return _noted(note.submit(g.conn, 1), made)

    with pytest.raises(NotCommitted, match="commit first"):
        yield block(g, submit, wait)


def _noted(job: Any, made: list[Any]) -> Any:
    """Keep the id and transaction of a job, now or when it is awaited."""
    if isinstance(job, Job):
        made += [job.id, job.transaction]
        return job

    async def awaited() -> Any:
        return _noted(await job, made)

    return awaited()


@case
def a_cancel_that_is_rolled_back_never_was(g: Ground) -> Steps:
    job = yield snooze.submit(g.conn, 1)
    yield g.perform()
    assert (yield block(g, lambda: chancy.cancel(g.conn, job.id), roll_back=True)) == [True]
    assert (yield job.refresh(g.conn)).state is State.SCHEDULED


# Unique jobs

REPLACING = once.using(unique=Unique(key="k", on_conflict="replace"))
RAISING = once.using(unique=Unique(key="k", on_conflict="raise"))
BRIEF = timedelta(milliseconds=300)
"""Long enough for two verbs in a row, and short enough to be waited for."""


@case
def of_two_submits_with_one_key_the_second_gives_the_job_of_the_first(g: Ground) -> Steps:
    one, two = yield block(g, lambda: once.submit(g.conn, "k", 1), lambda: once.submit(g.conn, "k", 2))
    assert (one.outcome, two.outcome, two.id) == ("inserted", "existing", one.id)
    yield g.perform()
    assert seen == [1]
    assert (yield two.result(g.conn)) == 1


@case
def a_job_shows_its_key(g: Ground) -> Steps:
    job, plain = yield block(g, lambda: once.submit(g.conn, "k"), lambda: note.submit(g.conn, 1))
    assert (yield job.refresh(g.conn)).unique_key == "k"
    assert (yield plain.refresh(g.conn)).unique_key is None


@case
def jobs_with_other_keys_and_of_other_tasks_are_other_jobs(g: Ground) -> Steps:
    made = yield block(
        g,
        lambda: once.submit(g.conn, "a"),
        lambda: once.submit(g.conn, "b"),
        lambda: until_started.submit(g.conn, "a"),
        lambda: once.using(unique=None).submit(g.conn, "a"),
    )
    assert [job.outcome for job in made] == ["inserted"] * 4
    assert len({job.id for job in made}) == 4


@case
def without_a_key_function_all_arguments_are_the_key(g: Ground) -> Steps:
    every = once.using(unique=Unique())
    one, two, three = yield block(
        g,
        lambda: every.submit(g.conn, "k"),
        lambda: every.submit(g.conn, key="k", value=0),
        lambda: every.submit(g.conn, "k", 1),
    )
    assert (two.id, two.outcome, three.outcome) == (one.id, "existing", "inserted")


@case
def a_key_is_free_again_when_its_job_has_finished(g: Ground) -> Steps:
    one = yield once.submit(g.conn, "k", 1)
    yield g.perform()
    two = yield once.submit(g.conn, "k", 2)
    yield g.perform()
    assert (two.outcome, two.id != one.id, seen) == ("inserted", True, [1, 2])


@case
def a_key_is_held_while_its_job_has_begun_and_is_not_finished(g: Ground) -> Steps:
    one = yield once.submit(g.conn, "k", 1, snoozes=True)
    yield g.perform()
    two = yield once.submit(g.conn, "k", 2)
    assert (two.id, two.outcome, seen) == (one.id, "existing", [1])


@case
def a_key_that_is_held_until_the_start_is_free_from_the_first_attempt_on(g: Ground) -> Steps:
    one = yield until_started.submit(g.conn, "k", 1)
    yield g.perform()
    assert (yield one.refresh(g.conn)).state is State.SCHEDULED
    two, three = yield block(
        g, lambda: until_started.submit(g.conn, "k", 2), lambda: until_started.submit(g.conn, "k", 3)
    )
    assert (two.outcome, three.outcome, three.id) == ("inserted", "existing", two.id)
    yield g.perform()
    assert seen == [1, 2]
    yield g.perform_snoozed(one)
    assert seen == [1, 2, 1]


@case
def a_job_that_waits_can_be_replaced(g: Ground) -> Steps:
    late = REPLACING.using(delay=timedelta(hours=1))
    one, two = yield block(
        g,
        lambda: late.submit(g.conn, "k", 1),
        lambda: REPLACING.using(priority=3, max_attempts=7).submit(g.conn, "k", 2),
    )
    assert (two.id, two.outcome) == (one.id, "replaced")
    row = yield two.refresh(g.conn)
    assert (row.arguments, row.priority, row.max_attempts) == (b'{"key":"k","value":2}', 3, 7)
    assert abs(row.run_at - row.submitted_at - timedelta(hours=1)) < timedelta(seconds=5)
    yield g.perform()
    assert seen == [2]


@case
def a_replacing_submit_that_names_a_time_moves_the_job(g: Ground) -> Steps:
    at = datetime(2040, 1, 1, tzinfo=UTC)
    _, two = yield block(
        g, lambda: REPLACING.submit(g.conn, "k", 1), lambda: REPLACING.using(run_at=at).submit(g.conn, "k", 2)
    )
    assert (yield two.refresh(g.conn)).run_at == at


@case
def a_job_that_has_snoozed_can_be_replaced(g: Ground) -> Steps:
    one = yield REPLACING.submit(g.conn, "k", 1, snoozes=True)
    yield g.perform()
    two = yield REPLACING.submit(g.conn, "k", 2)
    assert (two.id, two.outcome) == (one.id, "replaced")
    yield g.perform_snoozed(two)
    assert seen == [1, 2]


@case
def a_submit_that_must_not_find_its_key_held_raises_and_adds_nothing(g: Ground) -> Steps:
    one = yield RAISING.submit(g.conn, "k", 1, snoozes=True)
    yield g.perform()
    with pytest.raises(DuplicateJob) as error:
        yield RAISING.submit(g.conn, "k", 2)
    assert (error.value.task, error.value.key, error.value.job_id) == (once.name, "k", one.id)
    assert [row.id for row in (yield chancy.jobs(g.conn))] == [one.id]


@case
def many_come_back_in_the_order_given_as_if_submitted_one_by_one(g: Ground) -> Steps:
    jobs = [once.bind("b", 1), note.bind(2), once.bind("a", 3), once.bind("b", 4), REPLACING.bind("k", 5),
            REPLACING.bind("k", 6)]  # fmt: skip
    made: list[Job[Any]] = yield submit_many(g.conn, jobs)
    assert [job.outcome for job in made] == ["inserted"] * 3 + ["existing", "inserted", "replaced"]
    assert (made[3].id, made[5].id) == (made[0].id, made[4].id)
    yield g.perform()
    assert seen == [1, 2, 3, 6]


@case
def many_of_which_one_raises_are_none(g: Ground) -> Steps:
    one = yield REPLACING.submit(g.conn, "k", 1, snoozes=True)
    yield g.perform()
    jobs = [REPLACING.bind("k", 2), once.bind("a"), note.bind(1), RAISING.bind("k", 3)]
    with pytest.raises(DuplicateJob) as error:
        yield submit_many(g.conn, jobs)
    assert error.value.job_id == one.id
    (row,) = yield chancy.jobs(g.conn)
    assert row.arguments == b'{"key":"k","value":1,"snoozes":true}'


@case
def of_one_call_two_that_must_not_meet_name_no_job(g: Ground) -> Steps:
    with pytest.raises(DuplicateJob, match="twice in this call") as error:
        yield submit_many(g.conn, [RAISING.bind("k", 1), RAISING.bind("k", 2)])
    assert error.value.job_id is None
    assert (yield chancy.jobs(g.conn)) == []


@case
def within_the_time_there_is_no_second_though_the_first_has_finished(g: Ground) -> Steps:
    brief = once.using(unique=Unique(key="k", within=BRIEF))
    one = yield brief.submit(g.conn, "k", 1)
    yield g.perform()
    two = yield once.using(unique=Unique(key="k", within=timedelta(hours=1))).submit(g.conn, "k", 2)
    assert (two.id, two.outcome, seen) == (one.id, "existing", [1])
    time.sleep(BRIEF.total_seconds() * 1.1)
    three = yield brief.submit(g.conn, "k", 3)
    yield g.perform()
    assert (three.outcome, seen) == ("inserted", [1, 3])


@case
def within_the_time_a_finished_job_is_not_replaced_and_raises(g: Ground) -> Steps:
    hour = timedelta(hours=1)
    one = yield once.using(unique=Unique(key="k", within=hour)).submit(g.conn, "k", 1)
    yield g.perform()
    two = yield once.using(unique=Unique(key="k", within=hour, on_conflict="replace")).submit(g.conn, "k", 2)
    assert (two.id, two.outcome) == (one.id, "existing")
    with pytest.raises(DuplicateJob):
        yield once.using(unique=Unique(key="k", within=hour, on_conflict="raise")).submit(g.conn, "k", 2)


@case
def a_submit_that_is_rolled_back_holds_neither_key_nor_time(g: Ground) -> Steps:
    hourly = once.using(unique=Unique(key="k", within=timedelta(hours=1)))
    yield once.submit(g.conn, "another", 0)
    yield block(g, lambda: hourly.submit(g.conn, "k", 1), roll_back=True)
    job = yield hourly.submit(g.conn, "k", 2)
    yield g.perform()
    assert (job.outcome, seen) == ("inserted", [0, 2])


@case
def a_submit_without_a_time_does_not_ask_for_that_of_another(g: Ground) -> Steps:
    yield once.using(unique=Unique(key="k", within=timedelta(hours=1))).submit(g.conn, "k", 1)
    yield g.perform()
    assert (yield once.submit(g.conn, "k", 2)).outcome == "inserted"


@case
def a_job_whose_key_is_live_again_is_not_requeued(g: Ground) -> Steps:
    one = yield once.submit(g.conn, "k", 1)
    yield g.perform()
    seen.clear()
    two = yield once.submit(g.conn, "k", 2, snoozes=True)
    yield g.perform()
    with pytest.raises(DuplicateJob) as error:
        yield chancy.requeue(g.conn, one.id)
    assert (error.value.key, error.value.job_id) == ("k", two.id)
    assert (yield one.refresh(g.conn)).state is State.SUCCEEDED
    yield g.perform_snoozed(two)
    assert (yield chancy.requeue(g.conn, one.id)) is True


@case
def a_job_whose_key_is_live_under_another_name_is_not_requeued(g: Ground) -> Steps:
    older = msgspec.structs.replace(renamed.bind("a"), task="conformance.older")
    (one,) = yield submit_many(g.conn, [older])
    yield g.perform()
    two = yield renamed.submit(g.conn, "a", snoozes=True)
    yield g.perform()
    with pytest.raises(DuplicateJob) as error:
        yield chancy.requeue(g.conn, one.id)
    assert (error.value.key, error.value.job_id) == ("a", two.id)
    which = chancy.JobFilter(task=renamed, state=State.SUCCEEDED)
    assert (yield chancy.requeue_many(g.conn, which)) == chancy.Swept(0, 1)
    yield chancy.cancel(g.conn, two.id)
    assert (yield chancy.requeue(g.conn, one.id)) is True


@case
def of_finished_jobs_with_one_key_under_two_names_one_is_requeued(g: Ground) -> Steps:
    older = msgspec.structs.replace(renamed.bind("a"), task="conformance.older")
    for job in (older, renamed.bind("a"), renamed.bind("b")):
        yield submit_many(g.conn, [job])
        yield g.perform()
    which = chancy.JobFilter(task=renamed, state=State.SUCCEEDED)
    assert (yield chancy.requeue_many(g.conn, which)) == chancy.Swept(2, 1)
    yield g.perform()
    assert sorted(row.attempt for row in (yield chancy.jobs(g.conn))) == [1, 2, 2]


@case
def a_key_function_belongs_to_the_task(g: Ground) -> Steps:
    with pytest.raises(InvalidArguments, match="a function belongs to @task"):
        yield once.using(unique=Unique(key=lambda key: key)).submit(g.conn, "k")


@case
def waiting_for_a_job_that_ones_own_transaction_has_found_is_an_error(g: Ground) -> Steps:
    found: list[Any] = []

    def wait() -> Any:
        job: Job[Any] = Job(found[0], once.name, "default", chancy.schema_in_use(), transaction=found[1])
        return job.result(g.conn)

    with pytest.raises(NotCommitted, match="commit first"):
        yield block(g, lambda: once.submit(g.conn, "k"), lambda: _noted(once.submit(g.conn, "k"), found), wait)


# Limits over all workers, and turns


@task(
    name="conformance.shared",
    limits=[Limit.concurrency(1), Limit.rate(1000, per=timedelta(seconds=1), key=lambda who: who), Limit.time(5)],
    group=lambda who: who,
    max_attempts=2,
)
def shared(who: str, fail: bool = False) -> str:
    """Has one of each."""
    seen.append(who)
    if fail:
        raise ValueError(who)
    return who


@case
def jobs_with_limits_over_all_workers_are_all_performed(g: Ground) -> Steps:
    jobs = yield submit_many(g.conn, [shared.bind(who) for who in "aabab"])
    yield g.perform()
    for job, who in zip(jobs, "aabab", strict=True):
        assert (yield job.result(g.conn)) == who
    assert sorted(seen) == list("aaabb")


@case
def a_retry_passes_its_limits_again(g: Ground) -> Steps:
    job = yield shared.submit(g.conn, "x", fail=True)
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, seen) == (State.FAILED, 2, ["x", "x"])


@case
def one_submit_may_name_another_group_and_a_limit_that_tasks_share(g: Ground) -> Steps:
    job = yield shared.using(group="g", limits=[Limit.concurrency(3, key="k")]).submit(g.conn, "y")
    yield g.perform()
    assert (yield job.result(g.conn)) == "y"


@case
def a_key_function_for_one_submit_is_refused(g: Ground) -> Steps:
    with pytest.raises(InvalidArguments, match="what goes into a row is data"):
        shared.using(limits=[Limit.concurrency(1, key=len)])
    assert (yield chancy.jobs(g.conn)) == []


@case
def a_requeued_job_passes_its_limits_again(g: Ground) -> Steps:
    job = yield shared.submit(g.conn, "z")
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id))
    yield g.perform()
    assert ((yield job.result(g.conn)), seen) == ("z", ["z", "z"])


@case
def a_limit_of_a_queue_can_be_set_and_lifted(g: Ground) -> Steps:
    yield chancy.limit(g.conn, "default", concurrency=1)
    jobs = yield submit_many(g.conn, [note.bind(n) for n in range(3)])
    yield g.perform()
    yield chancy.limit(g.conn, "default", concurrency=None)
    assert (yield jobs[2].refresh(g.conn)).state is State.SUCCEEDED
    with pytest.raises(ValueError, match="concurrency: expected 0 or more"):
        chancy.limit(g.conn, "default", concurrency=-1)


@case
def a_waiting_job_can_be_edited_and_a_finished_one_cannot(g: Ground) -> Steps:
    job = yield snooze.submit(g.conn, 1)
    yield g.perform()
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    assert (yield chancy.edit(g.conn, job.id, priority=7, run_at=later))
    row = yield job.refresh(g.conn)
    assert (row.priority, row.run_at, row.state) == (7, later, State.SCHEDULED)
    yield chancy.cancel(g.conn, job.id)
    assert not (yield chancy.edit(g.conn, job.id, priority=8))
    with pytest.raises(UnknownJob):
        yield chancy.edit(g.conn, 999_999, priority=1)


@case
def a_finished_job_can_be_deleted(g: Ground) -> Steps:
    job = yield note.submit(g.conn, 1)
    yield g.perform()
    assert (yield chancy.delete(g.conn, job.id))
    assert (yield chancy.jobs(g.conn)) == []
    with pytest.raises(UnknownJob):
        yield chancy.delete(g.conn, job.id)


@case
def jobs_are_counted_requeued_and_deleted_by_what_they_have_in_common(g: Ground) -> Steps:
    yield submit_many(g.conn, [note.bind(n) for n in range(4)])
    yield submit_many(g.conn, [note.using(queue="other").bind(n) for n in range(2)])
    yield g.perform()
    which = chancy.JobFilter(queue="default", task=note, state=State.SUCCEEDED)
    assert (yield chancy.count(g.conn, which)) == {State.SUCCEEDED: 4}
    told: list[int] = []
    swept = yield chancy.requeue_many(g.conn, which, batch=3, told=told.append)
    assert ((swept.changed, swept.left), told) == ((4, 0), [3, 4])
    yield g.perform()
    assert (yield chancy.count(g.conn)) == {State.SUCCEEDED: 6}
    swept = yield chancy.delete_many(g.conn, chancy.JobFilter(queue="other"))
    assert (swept.changed, (yield chancy.count(g.conn))) == (2, {State.SUCCEEDED: 4})


@task(name="conformance.called_back", max_attempts=2)
def called_back(counts: BatchCounts, note: str = "") -> int:
    """Notes how a batch has ended."""
    seen.append((note, counts))
    return counts.total


@task(name="conformance.called_back_once", unique=Unique(key=lambda key: key), queue="q", priority=3)
async def called_back_once(counts: BatchCounts, *, key: str, text: str = "") -> None:
    """Is there once for each key. Snoozes for an hour, if there were no jobs."""
    seen.append((key, text, counts.total))
    if not counts.total:
        raise Snooze(timedelta(hours=1))


def batched(g: Ground, *jobs: NewJob[Any], breaks: bool = False, within: bool = False, **callbacks: Any) -> Any:
    """Submit these in a batch, one by one and the last two together; if it `breaks`, raise and catch it outside."""
    if isinstance(g.conn, psycopg.AsyncConnection):
        return _batched_async(g.conn, jobs, breaks, within, callbacks)
    made: Any = None
    with contextlib.suppress(ArithmeticError), g.conn.transaction() if within else contextlib.nullcontext():
        with chancy.batch(g.conn, **callbacks) as made:
            for job in jobs[:-2]:
                made.submit(job)
            made.submit_many(jobs[-2:])
            if breaks:
                raise ArithmeticError
    return made


async def _batched_async(
    conn: psycopg.AsyncConnection[Any], jobs: tuple[NewJob[Any], ...], breaks: bool, within: bool, callbacks: Any
) -> Any:
    made: Any = None
    with contextlib.suppress(ArithmeticError):
        async with conn.transaction() if within else contextlib.nullcontext():
            async with chancy.batch(conn, **callbacks) as made:
                for job in jobs[:-2]:
                    await made.submit(job)
                await made.submit_many(jobs[-2:])
                if breaks:
                    raise ArithmeticError
    return made


@case
def the_end_of_a_batch_is_told_to_its_callbacks_once(g: Ground) -> Steps:
    batch = yield batched(
        g, *[add.bind(n) for n in range(5)], on_success=called_back, on_finished=callback(called_back, "at the end")
    )
    yield g.perform()
    yield g.perform()
    counts = BatchCounts(batch.id, 5, 5)
    assert sorted(seen) == [("", counts), ("at the end", counts)]


@case
def a_batch_in_which_a_job_fails_is_finished_and_no_success(g: Ground) -> Steps:
    batch = yield batched(
        g, note.bind(1), fail.bind(9), discard.bind(), fail.bind(1), on_success=called_back,
        on_finished=callback(called_back, "end"),
    )  # fmt: skip
    yield g.perform()
    assert [one for one in seen if isinstance(one, tuple)] == [("end", BatchCounts(batch.id, 4, 2, 1, 1, 0))]
    progress = yield batch.progress(g.conn)
    assert (progress.succeeded, progress.failed, progress.discarded, progress.cancelled) == (2, 1, 1, 0)


@case
def a_batch_without_jobs_is_over_at_once(g: Ground) -> Steps:
    batch = yield batched(g, on_success=called_back, on_finished=callback(called_back, note="end"))
    progress = yield chancy.batch_progress(g.conn, batch.id)
    assert (progress.total, progress.finished_at is None) == (0, False)
    yield g.perform()
    assert sorted(seen) == [("", BatchCounts(batch.id)), ("end", BatchCounts(batch.id))]


@case
def a_batch_says_how_far_it_is(g: Ground) -> Steps:
    batch = yield batched(g, add.bind(1), snooze.bind(9), discard.bind())
    jobs = yield chancy.jobs(g.conn, batch=batch.id)
    assert [(row.batch, row.task.rpartition(".")[2]) for row in jobs] == [
        (batch.id, name) for name in ("discard", "snooze", "add")
    ]
    yield g.perform()
    progress = yield batch.progress(g.conn)
    assert progress == chancy.BatchProgress(
        total=3, waiting=1, running=0, succeeded=1, failed=0, discarded=1, cancelled=0, finished_at=None
    )


@case
def a_batch_waits_for_a_job_that_snoozes(g: Ground) -> Steps:
    yield batched(g, add.bind(1), snooze.bind(1), on_finished=called_back)
    yield g.perform()
    assert not any(isinstance(one, tuple) for one in seen)
    (job,) = [row for row in (yield chancy.jobs(g.conn)) if row.task == "conformance.snooze"]
    yield g.perform_snoozed(Job(job.id, job.task, job.queue, chancy.schema_in_use()))
    assert [one for one in seen if isinstance(one, tuple)] == [("", BatchCounts(job.batch or 0, 2, 2))]


@case
def a_batch_whose_last_live_job_is_cancelled_is_over(g: Ground) -> Steps:
    batch = yield batched(g, add.bind(1), snooze.bind(9), on_success=called_back, on_finished=called_back)
    yield g.perform()
    (job,) = [row for row in (yield chancy.jobs(g.conn)) if row.task == "conformance.snooze"]
    assert (yield chancy.cancel(g.conn, job.id))
    yield g.perform()
    assert [one for one in seen if isinstance(one, tuple)] == [("", BatchCounts(batch.id, 2, 1, 0, 0, 1))]


@case
def a_requeued_job_does_not_end_its_batch_again(g: Ground) -> Steps:
    batch = yield batched(g, note.bind(1), on_finished=called_back)
    yield g.perform()
    (row,) = yield chancy.jobs(g.conn, batch=batch.id)
    assert (yield chancy.requeue(g.conn, row.id))
    yield g.perform()
    assert seen == [1, ("", BatchCounts(batch.id, 1, 1)), 1]
    assert (yield chancy.get(g.conn, row.id)).batch == batch.id


@case
def a_batch_whose_block_raises_has_never_been(g: Ground) -> Steps:
    batch = yield batched(g, note.bind(1), note.bind(2), breaks=True, on_finished=called_back)
    yield g.perform()
    assert ((yield chancy.jobs(g.conn)), seen) == ([], [])
    with pytest.raises(UnknownBatch, match=f"batch {batch.id} is not in schema"):
        yield batch.progress(g.conn)


@case
def a_batch_in_a_transaction_of_the_caller_is_undone_with_it(g: Ground) -> Steps:
    yield batched(g, note.bind(1), within=True, on_finished=called_back)
    yield batched(g, note.bind(2), within=True, breaks=True, on_finished=called_back)
    yield g.perform()
    assert [one if isinstance(one, int) else one[1].succeeded for one in seen] == [1, 1]


@case
def a_unique_job_that_was_there_already_is_not_of_the_batch(g: Ground) -> Steps:
    first = yield once.submit(g.conn, "k", snoozes=True)
    yield g.perform()
    yield batched(g, once.bind("k"), note.bind(1), on_finished=called_back)
    rows = yield chancy.jobs(g.conn)
    assert [(row.id, row.batch) for row in rows if row.unique_key] == [(first.id, None)]
    (batch,) = {row.batch for row in rows if row.task == "conformance.note"}
    assert (yield chancy.batch_progress(g.conn, batch)).total == 1


@case
def a_callback_has_the_options_of_its_task_and_its_other_arguments(g: Ground) -> Steps:
    text = 'a"\\\0é🦊'
    yield batched(g, add.bind(1), on_finished=callback(called_back_once, key="k", text=text))
    yield g.perform()
    (row,) = [row for row in (yield chancy.jobs(g.conn, batch=None)) if row.unique_key]
    assert (row.queue, row.priority, row.unique_key, row.batch, row.state) == ("q", 3, "k", None, State.SUCCEEDED)
    assert seen == [("k", text, 1)]


@case
def a_callback_that_is_unique_and_there_already_is_not_there_twice(g: Ground) -> Steps:
    yield called_back_once.submit(g.conn, BatchCounts(0), key="k")
    yield g.perform()
    on_success, on_finished = callback(called_back_once, key="k"), callback(called_back_once, key="other")
    yield batched(g, add.bind(1), on_success=on_success, on_finished=on_finished)
    yield g.perform()
    rows = yield chancy.jobs(g.conn, task="conformance.called_back_once")
    assert sorted(str(row.unique_key) for row in rows) == ["k", "other"]


@case
def a_callback_that_fails_is_retried_like_any_job(g: Ground) -> Steps:
    yield batched(g, add.bind(1), on_finished=callback(stumbles, 7))
    yield g.perform()
    assert seen == [(1, 7), (2, 7)]


@task(name="conformance.stumbles", max_attempts=2)
def stumbles(counts: BatchCounts, number: int) -> None:
    """Fails the first time."""
    seen.append((current_job().attempt, number))
    if current_job().attempt == 1:
        raise ValueError(counts)


@case
def a_callback_that_does_not_take_what_it_is_given_is_refused(g: Ground) -> Steps:
    with pytest.raises(InvalidArguments, match=r"argument 'number' of task conformance.stumbles: is missing"):
        yield batched(g, on_finished=stumbles)
    with pytest.raises(InvalidArguments, match=r"argument 'number' of task conformance.stumbles: Expected `int`"):
        callback(stumbles, "7")  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match=r"argument 'a' of task conformance.add: Expected `int`"):
        yield batched(g, on_success=add)
    with pytest.raises(ValueError, match="a callback of a batch is a task"):
        yield batched(g, on_success=len)
    with pytest.raises(InvalidArguments, match=r"'unique' .*its key is made of the counts"):
        callback(called_back.using(unique=Unique()))
    assert (yield chancy.jobs(g.conn)) == []


@case
def a_schedule_can_be_made_replaced_listed_and_forgotten(g: Ground) -> Steps:
    when = cron("0 9 * * *", timezone="UTC", missed="all")
    yield chancy.schedule(g.conn, "b", note.bind(1), every(days=1))
    yield chancy.schedule(g.conn, "a", note.bind(1), every(days=1))
    yield chancy.schedule(g.conn, "b", shared.bind("x"), when)
    first, second = yield chancy.schedules(g.conn)
    assert (first.name, first.task, first.when, first.declared) == ("a", note.name, every(days=1), False)
    assert (second.name, second.task, second.when, second.next_at) == ("b", shared.name, when, None)
    assert second.arguments == shared.bind("x").arguments
    (tick,) = second.upcoming(1)
    assert (tick.hour, tick.minute, tick > second.read_at) == (9, 0, True)
    assert (yield chancy.unschedule(g.conn, "b")) is True
    assert (yield chancy.unschedule(g.conn, "b")) is False
    assert [row.name for row in (yield chancy.schedules(g.conn))] == ["a"]
    assert (yield chancy.jobs(g.conn)) == []


@case
def a_schedule_can_be_told_to_run_now_unless_it_is_paused(g: Ground) -> Steps:
    with pytest.raises(UnknownSchedule):
        yield chancy.run_now(g.conn, "a")
    yield chancy.schedule(g.conn, "a", note.bind(1), every(days=1))
    yield chancy.pause(g.conn, schedule="a")
    with pytest.raises(SchedulePaused):
        yield chancy.run_now(g.conn, "a")
    (row,) = yield chancy.schedules(g.conn)
    assert (row.paused_until, row.upcoming(3)) == (WITHOUT_END, [])
    assert (yield chancy.resume(g.conn, schedule="a"))
    yield chancy.run_now(g.conn, "a")
    (row,) = yield chancy.schedules(g.conn)
    assert (row.paused_until, row.next_at <= row.read_at) == (None, True)
