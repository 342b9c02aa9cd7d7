"""Queues: all of them, and one with what waits in it, what has come out, and what is set for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.responses import Response

import chancy_ops
from chancy.states import State
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops import QueueRow
from chancy_ops.matching import JobFilter
from chancy_ops.overview import clock, look_at_queues
from chancy_ops.tally import LATELY, Lately, lately_of, minutes
from chancy_ops.web.asked import first
from chancy_ops.web.charts import bars, steps
from chancy_ops.web.connections import answer_of
from chancy_ops.web.visit import Visit

MINUTES = 60
JOBS_SHOWN = 20
PAGE = 200
AT_A_GLANCE = 1_000


async def queues(visit: Visit) -> Response:
    """All that have live jobs or workers, or are paused or limited; two hundred at a time, by name."""
    after = visit.asked.get("after", "")

    async def ask() -> tuple[list[QueueRow], Mapping[str, Lately], datetime]:
        async with visit.looking() as conn:
            rows = await at_a_glance(conn, visit.schema)
            done = lately_of(await chancy_ops.throughput(conn, since=LATELY, by="queue", schema=visit.schema))
            return rows, done, await clock(conn, schema=visit.schema)

    rows, done, now = await visit.desk.shared.get("queues", visit.desk.every * 0.9, ask)
    shown, last = first([row for row in rows if row.name > after], PAGE)
    return visit.page("queues.html", queues=shown, done=done, now=now, more=last and last.name)


async def at_a_glance(conn: PsycopgAsyncConn, schema: str) -> list[QueueRow]:
    """All queues, with what waits in them up to a thousand: each may be asked for alone."""
    return await answer_of(conn, look_at_queues(most=AT_A_GLANCE), schema)


async def queue(visit: Visit) -> Response:
    """One queue, by its name."""
    name, schema, hour = named(visit), visit.schema, timedelta(minutes=MINUTES)
    async with visit.looking() as conn:
        now = await clock(conn, schema=schema)
        rows = await chancy_ops.queues(conn, queue=name, schema=schema)
        flow = await minutes(conn, hour, queue=name, schema=schema)
        tasks = await chancy_ops.throughput(conn, since=hour, by="task", queue=name, schema=schema)
        depths = await chancy_ops.depths(conn, name, since=hour, schema=schema)
        kept = await chancy_ops.retention(conn, queue=name, schema=schema)
        workers = await chancy_ops.workers(conn, schema=schema)
        running = await chancy_ops.search(
            conn, JobFilter(queue=name, state=State.RUNNING), limit=JOBS_SHOWN, schema=schema
        )
    return visit.page(
        "queue.html", name=name, queue=rows[0] if rows else None, now=now,
        chart=bars(flow, now, MINUTES), depth=steps(depths, now, MINUTES), tasks=tasks, kept=kept,
        workers=[each for each in workers if name in each.queues], running=running,
    )  # fmt: skip


def named(visit: Visit) -> str:
    """Which one is asked for."""
    if "name" not in visit.asked:
        raise HTTPException(404)
    return visit.asked["name"]
