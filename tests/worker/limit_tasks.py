"""Tasks that go over their limits, each in its own way, and tasks that run in child processes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from chancy import Discard, Limit, Retry, Snooze, current_job, task

log = logging.getLogger("limit_tasks")
GIB = 1024**3
HUNGRY = [Limit(Limit.Type.MEMORY, 1 * 1024**3)]
ONE_SECOND = [Limit(Limit.Type.TIME, 1)]


@task(max_attempts=1, limits=HUNGRY)
def eat(how: str) -> str:
    if how == "bytearray":
        bytearray(2 * GIB)
    elif how == "numpy":
        import numpy as np

        np.zeros(2 * GIB // 8)[:] = 1
    elif how == "list":
        kept = []
        while True:
            kept.append(bytes(1024 * 1024))
    elif how == "shared":
        with mmap.mmap(-1, 2 * GIB) as shared:
            for page in range(0, 11 * GIB // 10, 4096):
                shared[page] = 1
            time.sleep(100)  # a busy worker sees it late
    elif how == "swallow":
        blocks = []
        while True:
            try:
                blocks.append(bytes(8 * 1024 * 1024))
            except MemoryError:
                time.sleep(0.001)
    return "full"


@task(max_attempts=1, limits=[Limit.time(1)])
def last(how: str) -> str:
    if how == "loop":
        while True:
            pass
    elif how == "sleep":
        time.sleep(100)
    elif how == "gil":
        # A pure function of C that never lets the GIL go.
        ctypes.PyDLL(None).sleep(100)
    return "over"


@task(max_attempts=1, limits=ONE_SECOND)
async def last_async(how: str) -> str:
    if how == "await":
        await asyncio.sleep(100)
    elif how == "swallow":
        for _ in range(20):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)
        return "went on"
    elif how == "block":
        time.sleep(2.5)
        await asyncio.sleep(0)
    return "over"


@task(executor="process")
def pid() -> int:
    return os.getpid()


@task(executor="process")
def pid_slowly() -> int:
    time.sleep(0.02)
    return os.getpid()


@task(executor="process")
async def pid_async() -> int:
    await asyncio.sleep(0)
    return os.getpid()


@task(executor="process")
def add_in_process(a: int, b: int) -> int:
    return a + b


@task(executor="process", max_attempts=2)
def end_in_process(how: str) -> Any:
    if how == "snooze" and not current_job().fence > 1:
        raise Snooze(__import__("datetime").timedelta(0))
    if how == "discard":
        raise Discard("nobody needs it")
    if how == "retry" and current_job().attempt == 1:
        raise Retry(__import__("datetime").timedelta(0), reason="not yet")
    if how == "raise":
        raise ValueError("of the child\x00")
    if how == "result":
        return object()
    return how


@task(executor="process")
def about_me_in_process() -> list[Any]:
    me = current_job()
    return [me.id, me.task, me.queue, me.attempt, me.max_attempts]


@task(executor="process")
def tell(gate: str) -> str:
    log.warning("hello from the child, job %d", current_job().id)
    current_job().progress(0.5, "half")
    while not Path(gate).exists():
        time.sleep(0.01)
    return "told"


@task(executor="process", max_attempts=1)
def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.Signals[how])


@task(executor="process")
def wait_in_process(gate: str, pids: str) -> str:
    """Starts a program of its own, and waits for the gate."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    with Path(pids).open("a") as file:
        file.write(f"{os.getpid()} {program.pid}\n")
    while not Path(gate).exists():
        time.sleep(0.01)
    program.kill()
    return "let through"


@task(executor="process")
def submit_in_process(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        return pid.submit(conn).id


@task(max_attempts=1)
def cooperative(gate: str) -> str:
    while not Path(gate).exists():
        if current_job().cancelled:
            return "saw it"
        time.sleep(0.01)
    return "gate"


@task(max_attempts=2)
def heed(how: str) -> str:
    """Looks whether somebody wants it to stop, and then ends as it is told."""
    while not current_job().cancelled:
        time.sleep(0.01)
    ends = {"snoozes": Snooze(0), "retries": Retry(), "fails": ValueError("stopped"), "discards": Discard("stopped")}
    if how in ends:
        raise ends[how]
    return "all the same"


@task
async def effect(dsn: str, table: str, how: str) -> str:
    """Writes its effect and its completion in one transaction; then it goes on in different ways."""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute(f"INSERT INTO {table} VALUES (%s)", [current_job().id])
        await current_job().complete(conn, "from inside")
        if how == "rollback":
            await conn.rollback()
            return "rolled back"
    if how == "raise":
        raise ValueError("after the commit")
    return "returned"


@task
def effect_in_thread(dsn: str, table: str) -> str:
    with psycopg.connect(dsn) as conn:
        conn.execute(f"INSERT INTO {table} VALUES (%s)", [current_job().id])
        current_job().complete(conn, "from a thread")
    return "returned"
