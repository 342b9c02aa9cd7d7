"""The overview: what comes out, what waits, what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.responses import Response

import chancy_ops
from chancy.states import State
from chancy.tally.tally import Tallied
from chancy_ops import JobLine, QueueRow, Throughput, WorkerRow
from chancy_ops.matching import JobFilter
from chancy_ops.overview import clock
from chancy_ops.tally import minutes
from chancy_ops.web.charts import bars
from chancy_ops.web.pages.queues import at_a_glance
from chancy_ops.web.pages.workers import by_worker
from chancy_ops.web.visit import Visit

MINUTES = 60
MOST_QUEUES = 50
SELDOMER = 4
"""What was done is asked for so many times more seldom than what there is: workers say it every ten seconds."""
MOST_CELLS = 200
"""Running jobs that are shown, the newest."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look."""

    now: datetime
    queues: list[QueueRow]
    minutes: list[Throughput]
    tasks: list[Throughput]
    workers: list[WorkerRow]
    running: list[JobLine]


async def overview(visit: Visit) -> Response:
    """The same for everybody, so it is asked once for all."""
    seen = await visit.desk.shared.get("overview", visit.desk.every * 0.9, lambda: look(visit))
    return visit.page_of(
        seen,
        "overview.html",
        lambda: {
            "seen": seen,
            "now": seen.now,
            "queues": longest_due(seen.queues),
            "cells": by_worker(seen.running),
            "chart": bars(seen.minutes, seen.now, MINUTES),
        },
    )


def longest_due(queues: Sequence[QueueRow]) -> Sequence[QueueRow]:
    """All of them, or if they are many, those in which something has been due for the longest; by name."""
    ordered = sorted(queues, key=lambda row: (row.oldest_at is None, row.oldest_at, row.name))
    return sorted(ordered[:MOST_QUEUES], key=lambda row: row.name)


async def look(visit: Visit) -> Seen:
    """Six round trips, none of which reads more than it shows: what was done beside what there is."""
    schema, hour = visit.schema, timedelta(minutes=MINUTES)

    async def done() -> tuple[list[Throughput], list[Throughput]]:
        async with visit.looking() as conn:
            tasks = await chancy_ops.throughput(conn, since=hour, by="task", schema=schema)
            tasks.sort(key=lambda row: (-row.finished - row.outcomes.get(Tallied.RETRIED, 0), row.task or ""))
            return await minutes(conn, hour, schema=schema), tasks

    async def there() -> tuple[datetime, list[QueueRow], list[WorkerRow], list[JobLine]]:
        async with visit.looking() as conn:
            return (
                await clock(conn, schema=schema),
                await at_a_glance(conn, schema),
                await chancy_ops.workers(conn, schema=schema),
                await chancy_ops.search(conn, JobFilter(state=State.RUNNING), limit=MOST_CELLS, schema=schema),
            )

    counted = visit.desk.shared.get("done", visit.desk.every * SELDOMER, done)
    (flow, tasks), (now, queues, workers, running) = await asyncio.gather(counted, there())
    return Seen(now, queues, flow, tasks, workers, running)
