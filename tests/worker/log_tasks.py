"""Tasks that log and say how far they are, in every place where a task can run."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from worker_tasks import AT_ONCE, gates

from chancy import Snooze, current_job, task

log = logging.getLogger("app.logs")
MANY = 100_000


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no words")


WORDS: dict[str, Any] = {
    "nul": "a\x00b",
    "surrogate": "a\ud800b",
    "long": "x" * 1024**2,
    "broken": Broken(),
}


def speak(times: int) -> None:
    for number in range(times):
        log.info("job %d says %d", current_job().id, number)


@task(keep_logs=True)
async def speak_on_loop(times: int) -> None:
    for number in range(times):
        log.info("job %d says %d", current_job().id, number)
        await asyncio.sleep(0)


@task(keep_logs=True)
def speak_in_thread(times: int) -> None:
    speak(times)


@task(keep_logs=True, executor="process")
def speak_in_process(times: int) -> None:
    speak(times)


@task(keep_logs=True, executor="process")
async def speak_async_in_process(times: int) -> None:
    await asyncio.to_thread(speak, times)


@task
def speak_unkept(times: int) -> None:
    speak(times)


@task(executor="process")
def speak_unkept_in_process(times: int) -> None:
    speak(times)


async def speak_through_others() -> None:
    """A task and a thread that copy the context, and a thread that does not."""
    log.info("itself")
    await asyncio.create_task(asyncio.to_thread(log.info, "its thread"))
    stranger = threading.Thread(target=log.info, args=["a stranger"])
    stranger.start()
    stranger.join()
    logging.getLogger("chancy.worker").info("not its own")


speak_through_others_on_loop = task(keep_logs=True, name="log_tasks.through_others")(speak_through_others)


@task(keep_logs=True, executor="process")
async def speak_through_others_in_process() -> None:
    await speak_through_others()


@task(keep_logs=True, retry=AT_ONCE, max_attempts=3)
def speak_and_fail() -> None:
    log.info("attempt %d", current_job().attempt)
    try:
        raise ValueError("not yet")
    except ValueError:
        log.exception("it failed")
        if current_job().attempt < 3:
            raise


@task(keep_logs=True)
def speak_and_snooze() -> None:
    log.info("claim %d", current_job().fence)
    if current_job().fence < 3:
        raise Snooze(timedelta(0))


def speak_strangely() -> None:
    for what in WORDS.values():
        log.info("%s", what)
    log.info(WORDS["broken"])
    log.info("%d", "no number")
    try:
        raise ValueError(WORDS["surrogate"] + "\x00" + WORDS["long"])
    except ValueError:
        log.exception("an error")


@task(keep_logs=True)
def speak_strangely_in_thread() -> None:
    speak_strangely()


@task(keep_logs=True, executor="process")
def speak_strangely_in_process() -> None:
    speak_strangely()


@task(keep_logs=True)
def speak_too_much(kept: int = MANY) -> float:
    began = time.perf_counter()
    speak(kept)
    return time.perf_counter() - began


@task
def speak_too_much_unkept(kept: int = MANY) -> float:
    began = time.perf_counter()
    speak(kept)
    return time.perf_counter() - began


@task(keep_logs=True, executor="process")
def speak_too_much_in_process(kept: int) -> None:
    speak(kept)


@task(keep_logs=True)
def speak_large(times: int) -> None:
    for _ in range(times):
        log.info("%s", "y" * 3_000)


@task(keep_logs=True)
async def speak_at_gate(gate: str, before: int, after: int) -> None:
    speak(before)
    await gates[gate].wait()
    speak(after)


@task(keep_logs=True)
async def speak_until(gate: str) -> None:
    """In other processes."""
    number = 0
    while not Path(gate).exists():
        log.info("%d", number)
        number += 1
        await asyncio.sleep(0.005)
    log.info("the end")


@task(executor="process")
async def who_async_in_process() -> int:
    await asyncio.sleep(0)
    return current_job().id


def tell_often(gate: str, pause: float) -> int:
    """How often it has said how far it is."""
    told = 0
    while not Path(gate).exists():
        told += 1
        current_job().progress(told / (told + 1), f"{told}")
        time.sleep(pause)
    return told


@task
async def tell_on_loop(gate: str) -> int:
    told = 0
    while not Path(gate).exists():
        for _ in range(100):
            told += 1
            current_job().progress(told / (told + 1), f"{told}")
        await asyncio.sleep(0)
    return told


@task
def tell_in_thread(gate: str) -> int:
    return tell_often(gate, 0)


@task(executor="process")
def tell_in_process(gate: str) -> int:
    return tell_often(gate, 0)


@task
def tell_strangely(gate: str) -> None:
    current_job().progress(True, "a\x00b\ud800" + 2_000 * "z")
    while not Path(gate).exists():
        time.sleep(0.01)


def said_wrongly() -> list[str]:
    me, told = current_job(), []
    words: list[Any] = [("x",), (None,), (2,), (float("nan"),), (0.5, None), (0.5, 5)]
    for say, given in [*((me.progress, word) for word in words), (me.complete, (None,)), (me.complete, ("dsn",))]:
        try:
            say(*given)
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
    return told


@task
async def say_wrongly_on_loop() -> list[str]:
    return said_wrongly()


@task
def say_wrongly_in_thread() -> list[str]:
    return said_wrongly()


@task(executor="process")
def say_wrongly_in_process() -> list[str]:
    return said_wrongly()
