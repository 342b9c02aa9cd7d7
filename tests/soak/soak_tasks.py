"""The tasks of the soak. Each leaves a line at its begin and at its end, in a file that no fault can touch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg

from chancy import (
    Backoff,
    Limit,
    MemoryLimitExceeded,
    Snooze,
    TimeLimitExceeded,
    Unique,
    current_job,
    result_of,
    task,
)

SOON = Backoff(base=timedelta(milliseconds=200), factor=1, jitter=0.5)
LINES = "CHANCY_SOAK_LINES"
"""The environment variable that names the file, and marks every process of a soak."""
MIB = 1024**2


@contextlib.contextmanager
def told() -> Iterator[None]:
    """A line at the begin of the block and one at its end, however that comes, but for a SIGKILL."""
    say("begin")
    try:
        yield
    except BaseException:
        say("raise")
        raise
    say("return")


def say(event: str) -> None:
    """Whoever else writes: O_APPEND."""
    me = current_job()
    file = os.open(os.environ[LINES], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{me.id} {me.attempt} {me.fence} {event} {os.getpid()} {time.time():.6f}\n".encode())
    os.close(file)


def until_its_limit(attempt: int, error: BaseException) -> timedelta | None:
    """Give up at the limit; try again after a fault."""
    del attempt
    over = isinstance(error, (MemoryLimitExceeded, TimeLimitExceeded))
    return None if over else timedelta(milliseconds=200)


@task(retry=SOON)
async def noop(key: int) -> None:
    with told():
        pass


@task(retry=SOON)
async def nap(key: int) -> None:
    with told():
        await asyncio.sleep(0.1)


@task(retry=SOON)
def nap_in_thread(key: int) -> None:
    with told():
        time.sleep(0.1)


@task(retry=SOON)
async def linger(key: int) -> None:
    with told():
        await asyncio.sleep(3)


@task(retry=SOON)
def linger_in_thread(key: int) -> None:
    with told():
        time.sleep(3)


@task(retry=SOON, executor="process")
def nap_in_process(key: int) -> None:
    with told():
        time.sleep(0.1)


@task(retry=SOON)
async def fail_always(key: int) -> None:
    with told():
        raise ValueError("as always")


@task(retry=SOON)
def fail_first(key: int) -> None:
    with told():
        if current_job().attempt < 2:
            raise ValueError("not at first")


@task(retry=SOON)
async def snooze(key: int) -> None:
    with told():
        if current_job().fence < 3:
            raise Snooze(timedelta(seconds=1))


@task(retry=until_its_limit, max_attempts=20, limits=[Limit.memory(256 * MIB)])
def hog(key: int) -> None:
    with told():
        bytearray(512 * MIB)


@task(retry=until_its_limit, max_attempts=20, limits=[Limit.time(1)])
async def hang(key: int) -> None:
    with told():
        await asyncio.sleep(100)


@task(retry=until_its_limit, max_attempts=20, limits=[Limit.time(1)])
def hang_in_process(key: int) -> None:
    with told():
        time.sleep(100)


@task(max_attempts=3)
async def poison(key: int) -> None:
    with told():
        os.kill(os.getpid(), signal.SIGKILL)


MOST = 3
RATE = 10


@task(retry=SOON, limits=[Limit.concurrency(MOST, key=lambda key: key % 5)])
async def limited(key: int) -> None:
    with told():
        await asyncio.sleep(0.2)


@task(retry=SOON, limits=[Limit.rate(RATE, per=timedelta(seconds=1))])
def rated(key: int) -> None:
    with told():
        pass


@task(retry=SOON, group=lambda key: key % 4)
async def in_turn(key: int) -> None:
    with told():
        await asyncio.sleep(0.05)


@task(retry=SOON, unique=Unique(key=lambda key: key % 40))
async def only(key: int) -> None:
    with told():
        await asyncio.sleep(0.2)


@task(retry=SOON)
async def large(key: int, payload: str) -> int:
    with told():
        await asyncio.sleep(0.05)
        return len(payload)


@task(retry=SOON, executor="process")
def large_in_process(key: int, payload: str) -> str:
    with told():
        return payload[: MIB // 4]


@task(retry=SOON, executor="process")
def fork_in_process(key: int) -> None:
    """What the job has forked runs on into whatever has called it, and ends there."""
    with told():
        if os.fork() == 0:
            sys.exit(3)


@task(retry=SOON)
def fork_in_thread(key: int) -> None:
    with told():
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)


@task(retry=SOON)
async def exit_in_subtask(key: int) -> None:
    with told():
        await asyncio.gather(asyncio.sleep(0.01), asyncio.create_task(_exit()))


async def _exit() -> None:
    sys.exit(2)


EFFECT = "INSERT INTO effect (job, fence) VALUES (%s, %s)"


@task(retry=SOON, max_attempts=20)
async def effect(key: int) -> None:
    me = current_job()
    with told():
        async with await psycopg.AsyncConnection.connect(os.environ["CHANCY_DSN"], connect_timeout=10) as conn:
            await conn.execute(EFFECT, [me.id, me.fence])
            await asyncio.sleep(0.05)
            await me.complete(conn)
            await asyncio.sleep(0.02)


@task(retry=SOON, max_attempts=20)
def effect_in_thread(key: int) -> None:
    me = current_job()
    with told():
        with psycopg.connect(os.environ["CHANCY_DSN"], connect_timeout=10) as conn:
            conn.execute(EFFECT, [me.id, me.fence])
            time.sleep(0.05)
            me.complete(conn)
            time.sleep(0.02)


STEP_EFFECT = "INSERT INTO step_effect (job, name) VALUES (%s, %s)"
STEPS = 4


async def write(conn: psycopg.AsyncConnection, name: str) -> str:
    await conn.execute(STEP_EFFECT, [current_job().id, name])
    await asyncio.sleep(0.02)
    return name


@task(retry=SOON, max_attempts=20)
async def in_steps(key: int) -> int:
    """Steps whose effects are in their transactions, and a sleep between them."""
    me, dsn = current_job(), os.environ["CHANCY_DSN"]
    with told():
        async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=10, autocommit=True) as conn:
            for number in range(STEPS):
                async with conn.transaction():
                    await me.step(conn, f"step {number}", write, conn, f"step {number}")
                if number == STEPS // 2:
                    await me.sleep(conn, "rest", timedelta(milliseconds=300))
        return STEPS


PARTS = 4
"""Of each graph, and one that joins them."""


@task(retry=SOON, max_attempts=20)
async def flow(key: int) -> int:
    """Returns a graph, one part of which has a step, and none of which is a job of the producer's."""
    with told():
        parts = [result_of(part.bind(of=key, number=number)) for number in range(PARTS)]
        return result_of(joined.bind(of=key, parts=parts))


def comes_to(key: int) -> int:
    """The result of a graph."""
    return sum(key + number for number in range(PARTS))


@task(retry=SOON, max_attempts=20)
async def part(of: int, number: int) -> int:
    if number:
        await asyncio.sleep(0.02 * number)
        return of + number
    me, dsn = current_job(), os.environ["CHANCY_DSN"]
    async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=10, autocommit=True) as conn:
        async with conn.transaction():
            await me.step(conn, "part", write, conn, "part")
        await me.sleep(conn, "rest", timedelta(milliseconds=200))
    return of


@task(retry=SOON, max_attempts=20)
def joined(of: int, parts: list[int]) -> int:
    return sum(parts)


NODES = [part.name, joined.name]


EVERY = {
    each.function.__name__: each
    for each in (
        noop, nap, nap_in_thread, nap_in_process, linger, linger_in_thread, fail_always, fail_first, snooze,
        large, large_in_process, fork_in_process, fork_in_thread, exit_in_subtask,
        limited, rated, in_turn, only, hog, hang, hang_in_process, poison, effect, effect_in_thread,
        in_steps, flow,
    )
}  # fmt: skip
"""Each kind of job."""
EFFECTS = {"effect", "effect_in_thread"}
OVER_A_LIMIT = {"hog": "MemoryLimitExceeded", "hang": "TimeLimitExceeded", "hang_in_process": "TimeLimitExceeded"}
PLAIN = sorted(EVERY.keys() - EFFECTS - OVER_A_LIMIT.keys() - {"poison"})
