"""Limits over all workers: how many places each has, and which jobs have them."""

from __future__ import annotations

from starlette.responses import Response

import chancy_ops
from chancy_ops.overview import clock
from chancy_ops.web.asked import first
from chancy_ops.web.pages.queues import at_a_glance
from chancy_ops.web.visit import Visit

PAGE = 100


async def limits(visit: Visit) -> Response:
    """Those of tasks that jobs have come to, a hundred at a time; and those of queues."""
    after = visit.asked.get("after")
    async with visit.looking() as conn:
        found = await chancy_ops.limits(conn, after=after, limit=PAGE + 1, schema=visit.schema)
        queues = [] if after else await at_a_glance(conn, visit.schema)
        now = await clock(conn, schema=visit.schema)
    shown, last = first(found, PAGE)
    limited = [row for row in queues if row.limit is not None]
    return visit.page("limits.html", limits=shown, queues=limited, now=now, more=last and last.name, after=after)
