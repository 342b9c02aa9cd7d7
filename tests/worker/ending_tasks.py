"""Every way in which a job can end that anybody has thought of, and what its row has to say then.

`WAYS` are plain functions, for every place; `AWAITED` are for those that can await. An expectation is the state, and
after a failure the kind of its error.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from worker_tasks import write_line

import chancy
from chancy import Backoff, Discard, Retry, Snooze, current_job, task

WAYS: dict[str, tuple[Callable[[], Any], str]] = {}
AWAITED: dict[str, tuple[Callable[[], Awaitable[Any]], str]] = {}
PLACES = ["loop", "wait", "thread", "child", "async_child"]


def ends(expected: str):
    def note(function):
        WAYS[function.__name__] = function, expected
        return function

    return note


def ends_awaiting(expected: str):
    def note(function):
        AWAITED[function.__name__] = function, expected
        return function

    return note


def raising(name: str, error: Callable[[], BaseException], expected: str) -> None:
    def function():
        raise error()

    WAYS[name] = function, expected


def returning(name: str, value: Callable[[], Any], expected: str) -> None:
    WAYS[name] = value, expected


# What it raises


class Base(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")


class Deadly(Exception):
    def __str__(self):
        raise SystemExit(9)


class NotEvenText(Exception):
    def __str__(self):
        return 7  # noqa: PLE0307 - which is what it is for


class OddText(str):
    __slots__ = ()

    def isascii(self):
        raise SystemExit(3)

    encode = __len__ = __str__ = isascii


class SaysOddly(Exception):
    def __str__(self):
        return OddText("odd")


class OddlyNamed(Exception):
    pass


OddlyNamed.__qualname__ = OddText("OddlyNamed")


class NulName(Exception):
    pass


NulName.__qualname__ = "Nul\0\ud800Name"


class Secretive(type):
    def __getattribute__(cls, name):
        if name in ("__qualname__", "__name__"):
            raise SystemExit(4)
        return super().__getattribute__(name)


class OfASecretiveClass(Exception, metaclass=Secretive):
    pass


class Classless(Exception):
    @property
    def __class__(self):
        raise SystemExit(5)


class Pretender(Exception):
    @property
    def __class__(self):
        return Snooze


class Incomparable(Exception):
    def __eq__(self, other):
        raise SystemExit(6)

    __hash__ = __bool__ = __len__ = __eq__


class Traceless(Exception):
    @property
    def __traceback__(self):
        raise SystemExit(7)


class BadNotes(Exception):
    @property
    def __notes__(self):
        raise SystemExit(8)


class LateRetry(Retry):
    @property
    def after(self):
        raise SystemExit(10)

    @after.setter
    def after(self, value):
        pass


def spoilt(outcome: Exception, **fields: object) -> Exception:
    vars(outcome).update(fields)
    return outcome


def circle() -> Exception:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def its_own_cause() -> Exception:
    error = ValueError("it")
    error.__cause__ = error.__context__ = error
    return error


def three_thousand_causes() -> Exception:
    error = ValueError("first")
    for number in range(3000):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    return error


SHARED = ValueError("one object, raised by many")

raising("exit", lambda: SystemExit(3), "failed SystemExit")
raising("interrupt", KeyboardInterrupt, "failed KeyboardInterrupt")
raising("base", Base, "failed Base")
raising("generator_exit", GeneratorExit, "failed GeneratorExit")
raising("cancelled", asyncio.CancelledError, "failed CancelledError")
raising("stop_iteration", StopIteration, "failed StopIteration|failed RuntimeError")
raising("stop_async_iteration", StopAsyncIteration, "failed StopAsyncIteration|failed RuntimeError")
raising("timeout", TimeoutError, "failed TimeoutError")
raising("mute", Mute, "failed Mute")
raising("deadly", Deadly, "failed Deadly")
raising("not_even_text", NotEvenText, "failed NotEvenText")
raising("says_oddly", SaysOddly, "failed SaysOddly")
raising("oddly_named", OddlyNamed, "failed OddlyNamed")
raising("nul_name", NulName, "failed Nul\0\\ud800Name")
raising("secretive", OfASecretiveClass, "failed OfASecretiveClass")
raising("classless", Classless, "failed Classless")
raising("pretender", Pretender, "failed Pretender")
raising("incomparable", Incomparable, "failed Incomparable")
raising("traceless", Traceless, "failed Traceless")
raising("bad_notes", BadNotes, "failed BadNotes")
raising("circle", circle, "failed ValueError")
raising("its_own_cause", its_own_cause, "failed ValueError")
raising("three_thousand_causes", three_thousand_causes, "failed ValueError")
raising("shared", lambda: SHARED, "failed ValueError")
raising("memory", MemoryError, "failed MemoryError")
raising("surrogate", lambda: ValueError("\ud800 \0 \x1b[31m"), "failed ValueError")
raising("fifty_megabytes", lambda: ValueError("x" * 50_000_000), "failed ValueError")
raising(
    "group", lambda: ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [KeyError()])]), "failed ExceptionGroup"
)
raising(
    "base_group", lambda: BaseExceptionGroup("g", [SystemExit(), Base(), asyncio.CancelledError()]),
    "failed BaseExceptionGroup",
)  # fmt: skip


@ends("failed RecursionError")
def recursion():
    return recursion()


@ends("failed UnicodeDecodeError")
def unicode():
    b"\xff".decode()


@ends("failed SystemExit")
def while_handling():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(2)


# What it asks for. An attempt that is the last is failed by `Retry`, too.

raising("retry_number", lambda: Retry(600), "failed Retry")
raising("retry_nan", lambda: Retry(math.nan), "failed ValueError")
raising("retry_infinity", lambda: Retry(math.inf), "failed Retry")
raising("retry_text", lambda: Retry("later"), "failed TypeError")
raising("retry_past", lambda: Retry(-5), "failed Retry")
raising("retry_spoilt", lambda: spoilt(Retry(), after="later"), "failed Retry")
raising("retry_late", LateRetry, "failed LateRetry")
raising("snooze_number", lambda: Snooze(3000), "scheduled")
raising("snooze_huge_number", lambda: Snooze(10**400), "scheduled")
raising("snooze_infinity", lambda: Snooze(math.inf), "scheduled")
raising("snooze_longest", lambda: Snooze(timedelta.max), "scheduled")
raising("snooze_nan", lambda: Snooze(math.nan), "failed ValueError")
raising("snooze_text", lambda: Snooze("30"), "failed TypeError")
raising("snooze_none", lambda: Snooze(None), "failed TypeError")
raising("snooze_spoilt", lambda: spoilt(Snooze(1), delay="soon"), "failed TypeError")
raising("snooze_without_delay", lambda: vars(snooze := Snooze(1)).clear() or snooze, "failed AttributeError")
raising("discard", Discard, "discarded Discard")
raising("discard_object", lambda: Discard(object()), "discarded Discard")


# What it returns

returning("nothing", lambda: None, "succeeded")
returning("not_a_number", lambda: math.nan, "failed InvalidResult")
returning("an_object", object, "failed InvalidResult")
returning("a_megabyte", lambda: "x" * 2**20, "succeeded")
returning("quotes", lambda: '"\\' * 2**18, "succeeded")
returning("too_much", lambda: "x" * (17 * 2**20), "failed InvalidResult")
returning("a_large_number", lambda: 10**5000, "failed InvalidResult")
returning("a_lone_surrogate", lambda: "\ud800", "failed InvalidResult")
returning("a_generator", lambda: (number for number in range(3)), "failed InvalidResult")
returning("a_coroutine", lambda: asyncio.sleep(0), "failed InvalidResult")
returning("an_exception", lambda: SystemExit(1), "failed InvalidResult")


class AnAwaitable:
    def __await__(self):
        raise SystemExit(11)


returning("an_awaitable", AnAwaitable, "failed InvalidResult")


@ends("failed InvalidResult")
def an_async_generator():
    async def generate():
        yield 1

    return generate()


@ends("failed InvalidResult")
def too_deep():
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


@ends("failed InvalidResult")
def itself():
    found: list[Any] = []
    found.append(found)
    return found


# What it does besides


@ends("succeeded")
def closes_standard_output():
    sys.stdout.close()


@ends("succeeded")
def leaves_a_thread():
    threading.Thread(target=time.sleep, args=(3,), name="left by a job").start()


@ends("succeeded")
def leaves_a_thread_that_raises():
    threading.excepthook = sys.exit
    threading.Thread(target=sys.exit, args=(object(),)).start()


@ends("succeeded|failed ValueError")  # the latter where another job has closed the standard error
def warns():
    warnings.warn("of a job", stacklevel=1)


@ends("succeeded")
def changes_its_context():
    for variable in contextvars.copy_context():
        variable.set(None)


@ends("succeeded")
def forks():
    if (pid := os.fork()) == 0:
        os._exit(7)
    os.waitpid(pid, 0)


@ends("succeeded|failed TypeError")  # the latter where another job has broken the records
def logs_what_cannot_be_said():
    logging.getLogger("app").warning("%d %s", "no number", Mute())


@ends("succeeded")
def puts_hooks():
    sys.unraisablehook = sys.excepthook = lambda *_: sys.exit(1)


@ends_awaiting("failed SystemExit")
async def gathers():
    await asyncio.gather(_exits(), asyncio.sleep(10))


@ends_awaiting("failed SystemExit")
async def groups():
    async with asyncio.TaskGroup() as group:
        group.create_task(_exits())


@ends_awaiting("failed KeyboardInterrupt")
async def gathers_an_interrupt():
    await asyncio.gather(_interrupts())


@ends_awaiting("succeeded")
async def forgets_a_task():
    asyncio.get_running_loop()._forgotten = asyncio.create_task(_exits())  # type: ignore[attr-defined]
    await asyncio.sleep(0.1)


@ends_awaiting("succeeded")
async def calls_exit_soon():
    asyncio.get_running_loop().call_soon(sys.exit, 2)
    await asyncio.sleep(0.1)


@ends_awaiting("succeeded")
async def calls_exit_at_its_end():
    asyncio.current_task().add_done_callback(sys.exit)


@ends_awaiting("succeeded")
async def stops_the_loop():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.05)


@ends_awaiting("failed RuntimeError")
async def closes_the_loop():
    asyncio.get_running_loop().close()


@ends_awaiting("succeeded")
async def cancels_itself_and_returns():
    asyncio.current_task().cancel()


@ends_awaiting("succeeded")
async def cancels_itself_and_takes_it_back():
    asyncio.current_task().cancel()
    asyncio.current_task().uncancel()


@ends_awaiting("failed CancelledError")
async def cancels_itself_and_waits():
    asyncio.current_task().cancel()
    await asyncio.sleep(10)


@ends_awaiting("succeeded")
async def cancels_itself_later():
    asyncio.get_running_loop().call_later(0.05, asyncio.current_task().cancel)


@ends_awaiting("failed RuntimeError")
async def names_its_task_oddly():
    asyncio.current_task().set_name(Mute())


@ends_awaiting("failed GeneratorExit")
async def is_closed():
    async def generate():
        yield 1
        raise AssertionError

    async for _ in generate():
        raise GeneratorExit


@ends_awaiting("succeeded")
async def swallows_a_cancel():
    task = asyncio.create_task(asyncio.sleep(10))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return


@ends_awaiting("failed TimeoutError")
async def runs_out_of_its_own_time():
    async with asyncio.timeout(0.01):
        await asyncio.sleep(10)


@ends_awaiting("failed ExceptionGroup")
async def fails_in_a_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(unicode))


async def _exits():
    await asyncio.sleep(0.01)
    sys.exit(2)


async def _interrupts():
    await asyncio.sleep(0.01)
    raise KeyboardInterrupt


@task(name="endings.loop", max_attempts=1)
async def in_loop(how: str, runs: str) -> Any:
    return await _end(how, runs)


@task(name="endings.wait", max_attempts=1)
async def in_wait(how: str, runs: str) -> Any:
    await asyncio.sleep(0.001)
    return await _end(how, runs)


@task(name="endings.thread", max_attempts=1)
def in_thread(how: str, runs: str) -> Any:
    write_line(runs, f"{current_job().id}")
    return WAYS[how][0]()


@task(name="endings.child", max_attempts=1, executor="process")
def in_child(how: str, runs: str) -> Any:
    write_line(runs, f"{current_job().id}")
    return WAYS[how][0]()


@task(name="endings.async_child", max_attempts=1, executor="process")
async def in_async_child(how: str, runs: str) -> Any:
    await asyncio.sleep(0.001)
    return await _end(how, runs)


async def _end(how: str, runs: str) -> Any:
    write_line(runs, f"{current_job().id}")
    return WAYS[how][0]() if how in WAYS else await AWAITED[how][0]()


TASKS = {"loop": in_loop, "wait": in_wait, "thread": in_thread, "child": in_child, "async_child": in_async_child}


# What breaks the worker's own ways of saying something, for all that come after it


class _Broken(logging.Handler):
    def handle(self, record):
        raise SystemExit(f"no {record.name}")


@task(name="endings.breaks_the_log", max_attempts=1)
def breaks_the_log() -> str:
    logging.getLogger("chancy.worker").addHandler(_Broken())
    logging.getLogger("chancy.job").addFilter(_Broken().handle)
    sys.stderr.close()
    return "broken"


@task(name="endings.breaks_the_records", max_attempts=1)
async def breaks_the_records() -> str:
    logging.setLogRecordFactory(sys.exit)
    return "broken"


@task(name="endings.closes_descriptors", max_attempts=1)
def closes_descriptors() -> str:
    for number in range(3):
        os.close(number)
    return "closed"


@task(name="endings.closes_descriptors_in_child", max_attempts=1, executor="process")
def closes_descriptors_in_child() -> str:
    return closes_descriptors.function()


# To see whether the slots are as they were


@task(name="endings.occupies_the_loop")
async def occupies_the_loop(gate: str) -> None:
    while not Path(gate).exists():
        await asyncio.sleep(0.01)


@task(name="endings.occupies_a_thread")
def occupies_a_thread(gate: str) -> None:
    while not Path(gate).exists():
        time.sleep(0.01)


@task(name="endings.occupies_a_child", executor="process")
def occupies_a_child(gate: str) -> None:
    occupies_a_thread.function(gate)


# What `retry=` makes of it: two attempts, if it says so


def _raise(error: BaseException) -> Any:
    raise error


async def _decides_later() -> timedelta:
    return timedelta(0)


RETRIES: dict[str, tuple[Callable[[int, BaseException], Any], str]] = {
    "seconds": (lambda attempt, error: 3000 * attempt, "scheduled ValueError"),
    "no_seconds": (lambda attempt, error: 0, "failed ValueError"),
    "a_fraction": (lambda attempt, error: 1e-3, "failed ValueError"),
    "the_past": (lambda attempt, error: -5, "failed ValueError"),
    "infinity": (lambda attempt, error: math.inf, "scheduled ValueError"),
    "the_longest": (lambda attempt, error: timedelta.max, "scheduled ValueError"),
    "none": (lambda attempt, error: None, "failed ValueError"),
    "nan": (lambda attempt, error: math.nan, "failed ValueError"),
    "a_text": (lambda attempt, error: "5 s", "failed TypeError"),
    "true": (lambda attempt, error: True, "failed TypeError"),
    "a_backoff": (lambda attempt, error: Backoff(), "failed TypeError"),
    "a_coroutine": (lambda attempt, error: _decides_later(), "failed TypeError"),
    "raises": (lambda attempt, error: _raise(LookupError("no such rule")), "failed LookupError"),
    "raises_the_same": (lambda attempt, error: _raise(error), "failed ValueError"),
    "exits": (lambda attempt, error: sys.exit(2), "failed SystemExit"),
    "interrupts": (lambda attempt, error: _raise(KeyboardInterrupt()), "failed KeyboardInterrupt"),
    "is_cancelled": (lambda attempt, error: _raise(asyncio.CancelledError()), "failed CancelledError"),
    "is_closed": (lambda attempt, error: _raise(GeneratorExit()), "failed GeneratorExit"),
    "stops": (lambda attempt, error: _raise(StopIteration()), "failed StopIteration"),
    "snoozes": (lambda attempt, error: _raise(Snooze(5)), "failed Snooze"),
}


async def _fails() -> None:
    raise ValueError("to be judged")


def _fails_in_thread() -> None:
    raise ValueError("to be judged")


JUDGED = {
    (how, place): task(name=f"endings.retry_{how}_{place}", max_attempts=2, retry=decide, executor=executor)(function)
    for how, (decide, _) in RETRIES.items()
    for place, function, executor in (
        ("loop", _fails, None), ("thread", _fails_in_thread, None), ("child", _fails_in_thread, "process"),
    )
}  # fmt: skip


app = chancy.Chancy(queues=[chancy.Queue("default", 20)])
