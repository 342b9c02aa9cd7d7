"""The tasks that the cases submit."""

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
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import msgspec

import chancy
from chancy import Discard, Limit, Retry, Snooze, Unique, current_job, task
from conformance.cases import ground, seen
from conformance.grounds import transaction


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
    conn: Any = ground[0].conn
    note.submit(conn, "child")
    seen.append("parent ends")
    if fails:
        raise ValueError("after the submit")
    return "done"


@task(name="conformance.parent_async", max_attempts=1)
async def parent_async(fails: bool = False) -> str:
    """The same where it is async."""
    seen.append("parent begins")
    conn: Any = ground[0].conn
    await note_async.submit(conn, "child")
    seen.append("parent ends")
    if fails:
        raise ValueError("after the submit")
    return "done"


@task(name="conformance.complete", max_attempts=2)
def complete(value: int, then: str = "return") -> int:
    """Completes its job in a transaction of its own."""
    conn: Any = ground[0].conn
    seen.append(current_job().attempt)
    if then == "autocommit":
        current_job().complete(conn, value)
    with contextlib.suppress(ArithmeticError), transaction(conn):
        current_job().complete(conn, value)
        if then == "roll back":
            raise ArithmeticError
    if then == "raise":
        raise ValueError("after the commit")
    return -1


@task(name="conformance.complete_async", max_attempts=2)
async def complete_async(value: int, then: str = "return") -> int:
    """The same, async."""
    conn: Any = ground[0].conn
    seen.append(current_job().attempt)
    if then == "autocommit":
        await current_job().complete(conn, value)
    with contextlib.suppress(ArithmeticError):
        async with transaction(conn):
            await current_job().complete(conn, value)
            if then == "roll back":
                raise ArithmeticError
    if then == "raise":
        raise ValueError("after the commit")
    return -1


@task(name="conformance.cancel_me", max_attempts=3)
def cancel_me(then: str) -> str:
    """Asks for its own end, and goes on."""
    conn: Any = ground[0].conn
    seen.append(chancy.cancel(conn, current_job().id))
    if then == "raise":
        raise ValueError("in vain")
    return "done"


@task(name="conformance.cancel_me_async", max_attempts=3)
async def cancel_me_async(then: str) -> str:
    """The same, async."""
    conn: Any = ground[0].conn
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
