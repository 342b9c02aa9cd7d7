"""Jobs that leave something behind, or raise where nobody looks, and apps whose lifespan takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import chancy

LONG = 600
WHERE = os.environ.get("STUBBORN", "")
"""Where the lifespan waits: in, out, or on its way out in spite of being cancelled."""


if WHERE == "import":
    print("imports", flush=True)
    time.sleep(LONG)
if WHERE.startswith("/") and Path(WHERE).exists():
    raise ImportError("half of a deploy")


def say(word: str) -> None:
    print(word, file=sys.stderr, flush=True)


@contextlib.asynccontextmanager
async def lifespan() -> Any:
    say("enters")
    if WHERE == "in":
        try:
            await asyncio.sleep(LONG)
        finally:
            say("cleans up")
    yield
    say("leaves")
    if WHERE in ("out", "stubborn"):
        try:
            await asyncio.sleep(LONG)
        finally:
            say("cleans up")
            while WHERE == "stubborn":
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(LONG)


app = chancy.Chancy(lifespan=lifespan)


# What is left of a job, or what a job waits for that cannot be stopped


@chancy.task
def sleeps_in_our_thread() -> None:
    time.sleep(LONG)


@chancy.task
async def blocks_the_loop(begun: str) -> None:
    Path(begun).touch()
    time.sleep(LONG)


@chancy.task
async def sleeps_in_the_loops_executor() -> None:
    await asyncio.to_thread(time.sleep, LONG)


@chancy.task
async def sleeps_in_its_own_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1), time.sleep, LONG)


@chancy.task
def leaves_a_thread() -> str:
    threading.Thread(target=time.sleep, args=(LONG,), name="of a client library").start()
    return "done"


@chancy.task
def leaves_an_executor() -> str:
    ThreadPoolExecutor(1).submit(time.sleep, LONG)
    return "done"


@chancy.task
async def leaves_a_stubborn_coroutine() -> str:
    async def stays() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(LONG)

    asyncio.get_running_loop().left = asyncio.create_task(stays())  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    return "done"


@chancy.task
def leaves_a_process() -> str:
    import multiprocessing

    multiprocessing.get_context("fork").Process(target=_waits_for_its_end).start()
    return "done"


def _waits_for_its_end() -> None:
    """Until whoever has started it is gone: a test must not leave it behind."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.05)


# What goes through the loop


async def _exits(code: int) -> None:
    await asyncio.sleep(0.01)
    sys.exit(code)


async def _interrupts() -> None:
    await asyncio.sleep(0.01)
    raise KeyboardInterrupt


@chancy.task(max_attempts=1)
async def gathers_an_exit(code: int) -> None:
    await asyncio.gather(_exits(code), asyncio.sleep(LONG))


@chancy.task(max_attempts=1)
async def groups_an_exit(code: int) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_exits(code))


@chancy.task(max_attempts=1)
async def forgets_an_exit(code: int) -> str:
    task = asyncio.create_task(_exits(code))
    await asyncio.sleep(0.1)
    return f"{task.done()}"


@chancy.task(max_attempts=1)
async def calls_an_exit(code: int) -> str:
    asyncio.get_running_loop().call_soon(sys.exit, code)
    await asyncio.sleep(0.1)
    return "done"


@chancy.task(max_attempts=1)
async def gathers_an_interrupt(code: int) -> None:
    await asyncio.gather(_interrupts())


@chancy.task(max_attempts=1)
async def stops_the_loop(code: int) -> str:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.05)
    return "done"


@chancy.task(max_attempts=1)
def ends_the_process(code: int) -> None:
    os._exit(code)


@chancy.task(max_attempts=1)
async def waits(gate: str) -> str:
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return "let through"


# Processes that a job starts, and ends


@chancy.task(max_attempts=2)
def has_a_pool() -> list[int]:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:  # leaving the block terminates it
        return pool.map(abs, [-1, -2])


@chancy.task(max_attempts=2)
async def ends_a_process(number: int) -> bool:
    """By the signal, or by the KeyboardInterrupt that Python makes of one."""
    if (pid := os.fork()) == 0:
        time.sleep(LONG)
        os._exit(0)
    await asyncio.sleep(0.1)
    os.kill(pid, number)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return os.WTERMSIG(status) == number or (number == signal.SIGINT and os.WEXITSTATUS(status) == 1)


SIGNALS = [int(signal.SIGTERM), int(signal.SIGINT)]


WAYS = ["fork", "spawn", "forkserver"]


def _maps(way: str) -> list[int]:
    import multiprocessing

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(way)) as pool:
        return list(pool.map(abs, [-1, -2]))


@chancy.task(max_attempts=1)
def maps_in_thread(way: str) -> list[int]:
    return _maps(way)


@chancy.task(max_attempts=1, executor="process")
def maps_in_child(way: str) -> list[int]:
    return _maps(way)


async def _calls() -> int | None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
    return await process.wait()


@chancy.task(max_attempts=1)
async def calls_a_program() -> int | None:
    return await _calls()


@chancy.task(max_attempts=1, executor="process")
async def calls_a_program_in_child() -> int | None:
    return await _calls()
