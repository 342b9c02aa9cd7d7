"""Tasks with limits over all workers, and groups that take turns; each checks for itself that it is not one too many."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from chancy import Limit, Unique, task

now_running: dict[str, int] = {}
most: dict[str, int] = {}
began: list[tuple[str, float]] = []


async def counted(*keys: str, seconds: float = 0.01) -> None:
    began.append((keys[0], time.time()))
    for key in keys:
        now_running[key] = now_running.get(key, 0) + 1
        most[key] = max(most.get(key, 0), now_running[key])
    try:
        await asyncio.sleep(seconds)
    finally:
        for key in keys:
            now_running[key] -= 1


@task(limits=[Limit.concurrency(3)])
async def three(seconds: float = 0.01) -> None:
    await counted("three", seconds=seconds)


@task(limits=[Limit.concurrency(2, key=lambda customer: customer)])
async def two_a_customer(customer: str, seconds: float = 0.01) -> None:
    await counted(customer, seconds=seconds)


@task(limits=[Limit.concurrency(3), Limit.concurrency(1, key=lambda customer: customer)])
async def one_a_customer_of_three(customer: str, seconds: float = 0.01) -> None:
    await counted(customer, "all", seconds=seconds)


@task(limits=[Limit.rate(5, per=timedelta(seconds=0.5))])
async def five_in_half_a_second() -> None:
    await counted("rate", seconds=0)


@task(group=lambda tenant: tenant)
async def in_turn(tenant: str, number: int) -> None:
    await counted(tenant, seconds=0)


@task(limits=[Limit.concurrency(1)], max_attempts=3)
async def alone(fail: bool = False) -> None:
    await counted("alone")
    if fail:
        raise ValueError


gate = asyncio.Event()


@task
async def at_gate() -> None:
    now_running["gate"] = now_running.get("gate", 0) + 1
    most["gate"] = max(most.get("gate", 0), now_running["gate"])
    await gate.wait()
    await asyncio.sleep(0.01)
    now_running["gate"] -= 1


@task(unique=Unique(key=lambda order: order, until="started", within=timedelta(hours=1)))
async def once(order: int) -> None: ...


@task(limits=[Limit.concurrency(1, key=lambda a: a), Limit.rate(1, per=timedelta(seconds=1), key=lambda b: b)])
async def by_two_keys(a: int, b: int) -> None: ...


@task(
    limits=[Limit.rate(9, per=timedelta(minutes=1), key=lambda who: who), Limit.concurrency(5)], group=lambda who: who
)
async def everything(who: str) -> None: ...


@task(limits=[Limit.rate(1, per=timedelta(hours=1), key=lambda who: who)])
async def once_an_hour(who: str) -> None: ...


@task(limits=[Limit.concurrency(2, key="shared")])
async def shared_one() -> None: ...


@task(limits=[Limit.concurrency(2, key="shared")])
async def shared_two() -> None: ...
