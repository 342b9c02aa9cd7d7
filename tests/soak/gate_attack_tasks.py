"""Tasks under limits of every kind, which take from nothing to a tenth of a second."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

from chancy import Limit, task


async def work() -> None:
    if random.random() < 0.5:
        await asyncio.sleep(random.choice([0.001, 0.005, 0.1]))


@task(limits=[Limit.concurrency(3, key=lambda key: key)], max_attempts=100)
async def three_a_key(key: int) -> None:
    await work()


@task(limits=[Limit.rate(20, per=timedelta(seconds=1), key=lambda key: key)], max_attempts=100)
async def twenty_a_second(key: int) -> None:
    await work()


@task(limits=[Limit.concurrency(2, key=lambda key: key), Limit.rate(50, per=timedelta(seconds=1))], max_attempts=100)
async def two_a_key_and_fifty_a_second(key: int) -> None:
    await work()


@task(limits=[Limit.concurrency(60)], max_attempts=100)
async def sixty(key: int) -> None:
    await work()


@task(limits=[Limit.concurrency(5, key="varying")], max_attempts=100)
async def varying(key: int) -> None:
    await work()


@task(queue="limited", max_attempts=100)
async def of_a_limited_queue(key: int) -> None:
    await work()


@task(max_attempts=100)
async def plain(key: int) -> None:
    await work()
