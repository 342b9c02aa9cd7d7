"""What batches call back, and members that end in each way there is."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import worker_tasks

from chancy import Backoff, BatchCounts, Discard, Snooze, Unique, current_job, task

told: list[tuple[str, BatchCounts]] = []
"""What callbacks in this process were told; emptied before each test."""


@task
async def tell(counts: BatchCounts, note: str = "") -> None:
    told.append((note, counts))


@task(max_attempts=20)
async def write_down(counts: BatchCounts, path: str) -> None:
    worker_tasks.write_line(path, f"{counts.batch} {counts.total} {counts.succeeded} {counts.failed}")


@task(unique=Unique(key="tell once"))
async def tell_once(counts: BatchCounts) -> None:
    told.append(("once", counts))


@task(max_attempts=2, retry=Backoff(base=timedelta(milliseconds=20), factor=1, jitter=0))
async def end_somehow(number: int) -> int:
    """Of ten: one fails, one is discarded, one is retried, one snoozes."""
    me = current_job()
    if number % 10 == 1 or (number % 10 == 2 and me.attempt == 1):
        raise ValueError(number)
    if number % 10 == 3:
        raise Discard(str(number))
    if number % 10 == 4 and (number, "snoozed") not in worker_tasks.notes:
        worker_tasks.notes.append((number, "snoozed"))
        raise Snooze(timedelta(milliseconds=20))
    return number


@task
async def complete_in_my_transaction(gate: str) -> None:
    async with await psycopg.AsyncConnection.connect(worker_tasks.dsn) as conn:
        await current_job().complete(conn)
    await worker_tasks.gates[gate].wait()


def meet(parties: int) -> Any:
    """A barrier in this process."""
    return asyncio.Barrier(parties)


barrier: Any = None


@task
async def end_together() -> None:
    await barrier.wait()
