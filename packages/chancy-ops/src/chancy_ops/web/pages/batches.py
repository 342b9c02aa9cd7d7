"""Batches: the newest, and how far one is."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import Response

import chancy
import chancy_ops
from chancy_ops.matching import JobFilter
from chancy_ops.overview import clock
from chancy_ops.web.access.users import Action
from chancy_ops.web.asked import first, read
from chancy_ops.web.visit import Visit

PAGE = 50
JOBS_SHOWN = 20
OUTCOMES = ("waiting", "running", "succeeded", "failed", "discarded", "cancelled")


async def batches(visit: Visit) -> Response:
    """Fifty at a time."""
    before = read(visit.asked, "before", int)
    async with visit.looking() as conn:
        found = await chancy_ops.batches(conn, before=before, limit=PAGE + 1, schema=visit.schema)
        now = await clock(conn, schema=visit.schema)
    shown, last = first(found, PAGE)
    return visit.page("batches.html", batches=shown, now=now, older=last and last.id, before=before)


async def batch(visit: Visit) -> Response:
    """One, by its id: its jobs by what has become of them."""
    id_ = read(visit.asked, "id", int)
    if id_ is None:
        raise HTTPException(404)
    async with visit.looking() as conn:
        progress = await chancy.batch_progress(conn, id_, schema=visit.schema)
        rows = await chancy_ops.batches(conn, before=id_ + 1, limit=1, schema=visit.schema)
        found = await chancy_ops.search(conn, JobFilter(batch=id_), limit=JOBS_SHOWN, schema=visit.schema)
        now = await clock(conn, schema=visit.schema)
    return visit.page(
        "batch.html", id=id_, batch=rows[0] if rows else None, progress=progress, found=found, now=now,
        outcomes=[(outcome, getattr(progress, outcome)) for outcome in OUTCOMES],
        ended=sum(getattr(progress, outcome) for outcome in OUTCOMES[2:]), may_read=visit.may(Action.READ),
    )  # fmt: skip
