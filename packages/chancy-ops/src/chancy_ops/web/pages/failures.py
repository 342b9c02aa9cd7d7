"""Failures: each bug in a line, and one of them."""

from __future__ import annotations

from datetime import datetime

from starlette.exceptions import HTTPException
from starlette.responses import Response

import chancy
import chancy_ops
from chancy import JobRow
from chancy.model import Found
from chancy.states import State
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops import JobLine
from chancy_ops.jobs import BROKEN
from chancy_ops.matching import JobFilter
from chancy_ops.overview import clock
from chancy_ops.searching import lines_in
from chancy_ops.web.access.users import Action
from chancy_ops.web.asked import window_asked
from chancy_ops.web.connections import answer_of
from chancy_ops.web.pages.jobs import glance
from chancy_ops.web.visit import Visit

GROUPS_SHOWN = 100
JOBS_SHOWN = 20


async def failures(visit: Visit) -> Response:
    """What has failed or was discarded, by what went wrong, the most frequent first."""
    asked, schema = visit.asked, visit.schema
    async with visit.looking() as conn:
        now = await clock(conn, schema=schema)
        since, until = window_asked(asked, now)
        found = await chancy_ops.failures(
            conn, since=since, until=until, queue=asked.get("queue"), task=asked.get("task"), limit=GROUPS_SHOWN,
            schema=schema,
        )  # fmt: skip
    return visit.page("failures.html", found=found, asked=asked, now=now, may_read=visit.may(Action.READ))


async def failure(visit: Visit) -> Response:
    """All that one bug has done, by its fingerprint."""
    fingerprint, schema = visit.asked.get("fingerprint"), visit.schema
    if fingerprint is None:
        raise HTTPException(404)
    which = JobFilter(fingerprint=fingerprint)

    async def list_them(conn: PsycopgAsyncConn) -> tuple[datetime, Found[JobLine], JobRow | None]:
        now = await clock(conn, schema=schema)
        found = await answer_of(conn, lines_in(which, BROKEN, JOBS_SHOWN), schema)
        if not found:  # such as are tried again, or have been cancelled since
            found = await chancy_ops.search(conn, which, limit=JOBS_SHOWN, schema=schema)
        return now, found, await chancy.get(conn, found[0].id, schema=schema) if found else None

    (now, found, sample), counts = await visit.at_once(list_them, lambda conn: glance(conn, which, schema))
    error = None
    if sample is not None:
        error = next((each for each in reversed(sample.errors) if each.fingerprint == fingerprint), None)
    broken = [state for state in (State.FAILED, State.DISCARDED) if counts.get(state)]
    return visit.page(
        "failure.html", fingerprint=fingerprint, counts=counts, found=found, error=error, sample=sample, now=now,
        broken=broken, may_read=visit.may(Action.READ),
    )  # fmt: skip
