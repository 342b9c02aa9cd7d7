"""Jobs: those that fit, in a line each; and one, with everything that is known about it."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import msgspec
from starlette.responses import Response

import chancy
import chancy_ops
from chancy.states import State
from chancy_ops.graphs import branches
from chancy_ops.overview import clock
from chancy_ops.web.access.users import Action
from chancy_ops.web.asked import FILTERS, filter_asked, read
from chancy_ops.web.shared import Shared
from chancy_ops.web.shown import readable
from chancy_ops.web.visit import Visit

SHOWN = 50
LOGS_SHOWN = 500
BRANCHES_SHOWN = 500
"""Lines of a graph."""
COUNTED_FOR = 5.0
"""Seconds for which counts are shown again."""


async def jobs(visit: Visit) -> Response:
    """Those that fit. A look that finds little ends after half a second, and says how far it came."""
    asked = dict(visit.asked)
    may_read = visit.may(Action.READ)
    words = asked.get("text") if may_read else None
    before = read(asked, "before", int)
    async with visit.looking() as conn:
        now = await clock(conn, schema=visit.schema)
        which = filter_asked(asked, now)
        found = await chancy_ops.search(conn, which, words=words, limit=SHOWN, before=before, schema=visit.schema)
    counts = None
    if words is None and before is None:
        counts = await counted(visit, asked, now)
    said = {name: asked[name] for name in FILTERS if name in asked} | ({"text": words} if words else {})
    older = found.looked_to if found.looked_to is not None else found[-1].id if len(found) == SHOWN else None
    return visit.page(
        "jobs.html", found=found, now=now, asked=asked, said=said, which=which, states=list(State), counts=counts,
        older=older, before=before, may_read=may_read,
    )  # fmt: skip


async def counted(visit: Visit, asked: dict[str, str], now: datetime) -> dict[State, chancy_ops.Count]:
    """How many there are in each state, of those that fit all else."""
    others = {name: asked[name] for name in FILTERS if name in asked and name != "state"}
    which = filter_asked(others, now)

    async def ask() -> dict[State, chancy_ops.Count]:
        async with visit.looking() as conn:
            return await chancy_ops.count(conn, which, schema=visit.schema)

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
    lines = [] if graph is None else list(islice(branches(graph), BRANCHES_SHOWN + 1))
    return visit.page(
        "job.html", job=row, why=why, steps=steps, logs=logs, more_logs=len(logs) == LOGS_SHOWN, graph=graph,
        branches=lines[:BRANCHES_SHOWN], more_branches=len(lines) > BRANCHES_SHOWN, now=now,
        live=row.finished_at is None, may_read=visit.may(Action.READ),
        arguments=readable(row.arguments), result=None if row.result is None else readable(row.result),
        meta=readable(msgspec.json.encode(row.meta)) if row.meta else "",
        step_results=["" if step.result is None else readable(step.result[:200]) for step in steps],
    )  # fmt: skip
