"""Tasks: all that are known, and one with what it has done, what waits for it, and what it declares."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from starlette.responses import Response

import chancy_ops
from chancy.model import Found
from chancy.registry import registered
from chancy.states import State
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops import FailureRow
from chancy_ops.matching import JobFilter
from chancy_ops.overview import clock
from chancy_ops.tally import minutes
from chancy_ops.web.access.users import Action
from chancy_ops.web.charts import bars
from chancy_ops.web.pages.queues import named
from chancy_ops.web.visit import Visit

MINUTES = 60
FAILURES_SHOWN = 10
SPANS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "30 days": timedelta(days=30)}
PAGE = 500


async def tasks(visit: Visit) -> Response:
    """All that a worker has declared, or that have done something in the last day."""
    day = timedelta(days=1)
    async with visit.looking() as conn:
        declared = await chancy_ops.tasks(conn, schema=visit.schema)
        done = await chancy_ops.throughput(conn, since=day, by="task", schema=visit.schema)
        now = await clock(conn, schema=visit.schema)
    rows = {row.name: row for row in declared}
    by_task = {row.task: row for row in done if row.task is not None}
    names = sorted(rows.keys() | by_task.keys())
    return visit.page("tasks.html", names=names[:PAGE], more=len(names) > PAGE, rows=rows, done=by_task, now=now)


async def task(visit: Visit) -> Response:
    """One task, by one of its names."""
    name, schema, hour = named(visit), visit.schema, timedelta(minutes=MINUTES)
    which = JobFilter(task=name)

    async def failing(conn: PsycopgAsyncConn) -> Found[FailureRow]:
        return await chancy_ops.failures(conn, task=name, limit=FAILURES_SHOWN, schema=schema)

    async def doing(conn: PsycopgAsyncConn) -> dict[str, Any]:
        now = await clock(conn, schema=schema)
        declared = await chancy_ops.tasks(conn, task=name, schema=schema)
        flow = await minutes(conn, hour, task=name, schema=schema)
        days = []
        for said, since in SPANS.items():
            rows = await chancy_ops.throughput(conn, since=since, by="task", task=name, schema=schema)
            days.append((said, rows[0] if rows else None))
        running = await chancy_ops.search(conn, JobFilter(task=name, state=State.RUNNING), limit=20, schema=schema)
        workers = await chancy_ops.workers(conn, schema=schema)
        return {
            "now": now, "declared": declared[0] if declared else None, "chart": bars(flow, now, MINUTES), "days": days,
            "running": running, "workers": [each for each in workers if name in each.tasks],
        }  # fmt: skip

    done, failures = await visit.at_once(doing, failing)
    known = registered().get(name)
    return visit.page(
        "task.html", **done, name=name, which=which, failures=failures, known=known,
        arguments=() if known is None else known.signature.names, may_read=visit.may(Action.READ),
    )  # fmt: skip
