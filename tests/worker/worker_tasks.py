"""The tasks of these tests, under one plain module name for the test's own process and for worker processes.

Gates: an asyncio event by name (`gates`) inside the test's process, a file that appears for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import weakref
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from chancy import Backoff, Discard, Retry, Snooze, Unique, current_job, schema_in_use, task

AT_ONCE = Backoff(base=timedelta(milliseconds=20), factor=1, jitter=0)

notes: list[Any] = []
"""What handlers in this process have noted down; emptied before each test."""
gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
dsn = os.environ.get("CHANCY_DSN", "")


@dataclass
class Point:
    x: int
    near: set[int]
    wait: timedelta


@task
async def add(a: int, b: int) -> int:
    return a + b


@task
def add_in_thread(a: int, b: int) -> int:
    return a + b


@task
async def point(given: Point) -> Point:
    return Point(given.x + 1, given.near | {0}, given.wait * 2)


@task
async def note(what: str) -> None:
    notes.append(what)


@task
def note_in_thread(what: str) -> None:
    notes.append(what)


@task(retry=AT_ONCE)
async def succeed_at(attempt: int) -> int:
    if current_job().attempt < attempt:
        raise ValueError(f"not at attempt {current_job().attempt}")
    return attempt


@task(retry=AT_ONCE)
async def ask_for_retry(after_ms: int) -> str:
    if current_job().attempt == 1:
        raise Retry(timedelta(milliseconds=after_ms), reason="not yet")
    return "second"


@task
async def snooze(times: int) -> int:
    notes.append("snooze")
    if len(notes) <= times:
        raise Snooze(timedelta(milliseconds=20))
    return current_job().attempt


@task
async def discard() -> None:
    raise Discard("nobody needs it")


@task(max_attempts=1)
async def raise_with(message: str) -> None:
    raise ValueError(message)


@task(retry=AT_ONCE)
async def raise_in_turn() -> None:
    raise KeyError if current_job().attempt == 1 else ValueError


@task
async def about_me() -> list[Any]:
    me = current_job()
    return [me.id, me.task, me.queue, me.attempt, me.max_attempts, me.lease_lost]


@task
def about_me_in_thread() -> int:
    return current_job().id


@task
async def submit_a_note(what: str) -> int:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        return (await note.submit(conn, what)).id


@task
async def pass_gate(name: str) -> str:
    await gates[name].wait()
    return name


@task
async def first_waits(name: str) -> str:
    """The first attempt waits for the gate, come what may; later ones return at once."""
    me = current_job()
    if me.attempt > 1:
        return "second"
    while not gates[name].is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await gates[name].wait()
        notes.append(me.lease_lost)
    return "first"


@task(max_attempts=1)
async def end_badly(gate: str, how: str) -> Any:
    await gates[gate].wait()
    if how == "nul":
        raise ValueError("a\x00b")
    if how == "surrogate":
        raise ValueError("a\ud800b")
    return object()


@task(max_attempts=3)
async def fail_at_gate(gate: str) -> None:
    await gates[gate].wait()
    raise ValueError("at the gate")


@task(max_attempts=3)
def fail_in_thread(begun: str, gate: str) -> None:
    Path(begun).touch()
    deadline = time.monotonic() + 20
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    raise ValueError("at the gate")


# For worker processes.


def write_line(path: str, line: object) -> None:
    """Appended at once, whoever else writes: O_APPEND."""
    with Path(path).open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


@task
async def record(path: str) -> None:
    write_line(path, current_job().id)


@task
def record_in_thread(path: str, gate: str) -> None:
    write_line(path, current_job().id)
    while not Path(gate).exists():
        time.sleep(0.01)


@task
async def record_slowly(path: str, seconds: float) -> None:
    await asyncio.sleep(seconds)
    write_line(path, current_job().id)


@task
async def wait_for_file(path: str, record_in: str = "") -> int:
    if record_in:
        write_line(record_in, f"{current_job().id} {current_job().attempt}")
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    return current_job().attempt


@task
def wait_for_file_in_thread(path: str) -> int:
    ready = asyncio.run(wait_for_file.function(path))
    return int(ready)


@task
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task
async def kill_my_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
async def swallow_cancellation(path: str) -> None:
    while not Path(path).exists():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)


@task
async def note_lease_lost(notes_in: str, gate: str) -> str:
    me = current_job()
    try:
        while not Path(gate).exists():
            await asyncio.sleep(0.01)
    finally:
        if me.lease_lost:
            write_line(notes_in, f"attempt {me.attempt} lost {me.lease_lost}")
    return f"attempt {me.attempt}"


_here = 0


@task
async def count_neighbours(milliseconds: int) -> int:
    """How many of its kind ran when it began, itself included."""
    global _here
    _here += 1
    found = _here
    await asyncio.sleep(milliseconds / 1000)
    _here -= 1
    return found


@task
async def see_running() -> int:
    """Hold the loop for a moment, as a job that is about to kill its worker might, and count what then runs."""
    time.sleep(0.3)
    with psycopg.connect(dsn) as conn:
        table = sql.Identifier(schema_in_use(), "job")
        row = conn.execute(sql.SQL("SELECT count(*) FROM {} WHERE state = 'running'").format(table)).fetchone()
    return int(row[0]) if row else 0


# In what order jobs begin. A thread and a child tell by a file, which has one line for each.


@task
async def begin(path: str, seconds: float) -> None:
    write_line(path, current_job().id)
    await asyncio.sleep(seconds)


@task
def begin_in_thread(path: str, seconds: float) -> None:
    write_line(path, current_job().id)
    time.sleep(seconds)


@task(executor="process")
def begin_in_child(path: str, seconds: float) -> None:
    write_line(path, current_job().id)
    time.sleep(seconds)


@task
async def submits_a_misfit() -> None:
    add.signature.decode_arguments(b'{"a":1}')


@task(unique=Unique())
async def once_by_all(a: int, b: int = 2) -> None: ...


@task
async def complete_at_gate(name: str) -> None:
    """In a transaction of its own, so that the verdict of its worker finds no row."""
    await gates[name].wait()
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await current_job().complete(conn)


@task
async def weigh(text: str) -> int:
    return len(text)


class Burden:
    """What an attempt has in its hands."""


burdens: list[weakref.ref[Burden]] = []


def _burden() -> Burden:
    burdens.append(weakref.ref(burden := Burden()))
    return burden


@task(max_attempts=1)
async def carries(how: str) -> None:
    burden = _burden()
    if how == "waits":
        await asyncio.sleep(600)
    raise ValueError(how, id(burden)) from KeyError(how)


@task(max_attempts=1)
def carries_in_thread(how: str) -> None:
    burden = _burden()
    raise ValueError(how, id(burden)) from KeyError(how)
