"""What people did."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import Response

import chancy_ops
from chancy_ops.overview import clock
from chancy_ops.web.access.users import Action
from chancy_ops.web.asked import first, read
from chancy_ops.web.visit import Visit

SHOWN = 100


async def audit(visit: Visit) -> Response:
    """The newest first: of one person, of one verb, or all."""
    if not visit.may(Action.AUDIT):
        raise HTTPException(403, f"{visit.user.name} has no right to {Action.AUDIT}.")
    asked = visit.asked
    before = read(asked, "before", int)
    async with visit.looking() as conn:
        rows = await chancy_ops.audit(
            conn, who=asked.get("who"), did=asked.get("verb"), before=before, limit=SHOWN + 1, schema=visit.schema
        )
        now = await clock(conn, schema=visit.schema)
    shown, last = first(rows, SHOWN)
    return visit.page("audit.html", rows=shown, now=now, asked=asked, older=last and last.id, before=before)
