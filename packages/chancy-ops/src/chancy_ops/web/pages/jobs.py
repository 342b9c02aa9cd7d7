"""Jobs: those that fit, in a line each; and one, with everything that is known about it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from itertools import islice

import msgspec
from starlette.responses import Response

import chancy
import chancy_ops
from chancy.model import Found
from chancy.registry import registered
from chancy.states import State
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops import JobLine
from chancy_ops.counting import count_jobs
from chancy_ops.graphs import branches
from chancy_ops.matching import JobFilter
from chancy_ops.overview import clock
from chancy_ops.web.access.users import Action
from chancy_ops.web.acts.remedies import remedy_of
from chancy_ops.web.asked import FILTERS, filter_asked, read
from chancy_ops.web.connections import answer_of
from chancy_ops.web.shared import Shared
from chancy_ops.web.shown import readable
from chancy_ops.web.visit import Visit

SHOWN = 50
LOGS_SHOWN = 500
BRANCHES_SHOWN = 500
"""Lines of a graph."""
GLANCE = 0.02
COUNTED_FOR = 5.0
"""Seconds for which counts are shown again."""


async def jobs(visit: Visit) -> Response:
    """Those that fit. A look that finds little ends after half a second, and says how far it came."""
    asked = dict(visit.asked)
    may_read = visit.may(Action.READ)
    may_search = may_read and visit.desk.redact is None
    words = asked.get("text") if may_search else None
    before = read(asked, "before", int)
    async with visit.looking() as conn:
        now = await clock(conn, schema=visit.schema)
    which = filter_asked(asked, now)

    async def list_them() -> Found[JobLine]:
        async with visit.looking() as conn:
            return await chancy_ops.search(conn, which, words=words, limit=SHOWN, before=before, schema=visit.schema)

    async def count_them() -> dict[State, chancy_ops.Count] | None:
        return await counted(visit, asked, now) if words is None and before is None else None

    found, counts = await asyncio.gather(list_them(), count_them())
    said = {name: asked[name] for name in FILTERS if name in asked} | ({"text": words} if words else {})
    older = found.looked_to if found.looked_to is not None else found[-1].id if len(found) == SHOWN else None
    return visit.page(
        "jobs.html", found=found, now=now, asked=asked, said=said, which=which, states=list(State), counts=counts,
        older=older, before=before, may_read=may_read, may_search=may_search,
    )  # fmt: skip


async def glance(conn: PsycopgAsyncConn, which: JobFilter, schema: str) -> dict[State, chancy_ops.Count]:
    """How many there are, by state, as far as a fiftieth of a second tells: of many it says so many at least."""
    return await answer_of(conn, count_jobs(which, seconds=GLANCE), schema)


async def counted(visit: Visit, asked: dict[str, str], now: datetime) -> dict[State, chancy_ops.Count]:
    """How many there are in each state, of those that fit all else."""
    others = {name: asked[name] for name in FILTERS if name in asked and name != "state"}
    which = filter_asked(others, now)

    async def ask() -> dict[State, chancy_ops.Count]:
        async with visit.looking() as conn:
            return await glance(conn, which, visit.schema)

    shared: Shared = visit.desk.shared
    return await shared.get(("count", *sorted(others.items())), COUNTED_FOR, ask)


async def job(visit: Visit) -> Response:
    """One job, why it does not run, and what it has said."""
    job_id: int = visit.request.path_params["id"]
    schema = visit.schema
    async with visit.looking() as conn:
        row = await chancy.get(conn, job_id, schema=schema)
        why = await chancy_ops.why(conn, job_id, schema=schema)
        steps = await chancy.steps(conn, job_id, schema=schema)
        logs = await chancy.logs(conn, job_id, limit=LOGS_SHOWN, schema=schema)
        graph = await chancy_ops.graph(conn, job_id, schema=schema) if row.needs or row.becomes else None
        now = await clock(conn, schema=schema)
        remedy = await remedy_of(visit, conn, row, why)
        hiding = await visit.hiding(conn, [row.task])
    row, why = hiding.job(row), replace(why, sentence=hiding.words("error", row.task, why.sentence))
    logs = [shown_entry(hiding, row.task, entry) for entry in logs]
    lines = [] if graph is None else list(islice(branches(graph), BRANCHES_SHOWN + 1))
    return visit.page(
        "job.html", job=row, why=why, steps=steps, logs=logs, more_logs=len(logs) == LOGS_SHOWN, graph=graph,
        branches=lines[:BRANCHES_SHOWN], more_branches=len(lines) > BRANCHES_SHOWN, now=now,
        live=row.finished_at is None, remedy=remedy, known=row.task in registered(), may_read=visit.may(Action.READ),
        arguments=readable(row.arguments), result=None if row.result is None else readable(row.result),
        meta=readable(msgspec.json.encode(row.meta)) if row.meta else "",
        step_results=[
            "" if step.result is None else hiding.words("step", row.task, readable(step.result[:200])) for step in steps
        ],
    )  # fmt: skip


def shown_entry(hiding: chancy_ops.Hiding, task: str, entry: chancy.LogEntry) -> chancy.LogEntry:
    """A line of the log, as it may be shown."""
    return msgspec.structs.replace(
        entry, message=hiding.words("log", task, entry.message), traceback=hiding.words("log", task, entry.traceback)
    )
