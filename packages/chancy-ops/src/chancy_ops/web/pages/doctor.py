"""What the doctor finds."""

from __future__ import annotations

from datetime import datetime

from starlette.responses import Response

import chancy_ops
from chancy_ops import Finding, Severity
from chancy_ops.overview import clock
from chancy_ops.web.visit import Visit

KEPT_FOR = 30.0
PATIENCE = 0.05
"""Seconds for which a page waits for what is found: where a doorbell seems dead the doctor listens for some seconds."""
ORDER = (Severity.ERROR, Severity.WARNING, Severity.OK)


async def doctor(visit: Visit) -> Response:
    """The worst first. It is examined once for all who look within half a minute; while it is, the page says so."""

    async def ask() -> tuple[list[Finding], datetime]:
        async with visit.desk.connections.untied() as conn:
            found = await chancy_ops.doctor(conn, schema=visit.schema)
            return found, await clock(conn, schema=visit.schema)

    seen = await visit.desk.shared.soon("doctor", KEPT_FOR, ask, PATIENCE)
    if seen is None:
        return visit.page("doctor.html", findings=None, unfinished=True)
    found, now = seen
    ordered = sorted(found, key=lambda finding: ORDER.index(finding.severity))
    return visit.page("doctor.html", findings=ordered, now=now)
