"""What is done to a schedule."""

from __future__ import annotations

from starlette.responses import Response

import chancy
import chancy_ops
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops.web.visit import Visit

from .doing import known_as, leads, noted, text_of, until_said, when_of


async def run_now(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Have it tick now, besides its own times."""
    form = visit.posted()
    name = text_of(form, "name")
    await chancy.run_now(conn, name, schema=visit.schema)
    await noted(visit, conn, "run_now", schedule=name)
    return leads(visit, form, "ticks", "schedules")


async def pause(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Drop its ticks."""
    form = visit.posted()
    name, until = text_of(form, "name"), when_of(form, "until")
    await chancy_ops.pause(conn, schedule=name, until=until, schema=visit.schema)
    await noted(visit, conn, "pause", schedule=name, until=until_said(until))
    return leads(visit, form, "paused", "schedules")


async def resume(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Let it tick again."""
    form = visit.posted()
    name = text_of(form, "name")
    was = await chancy_ops.resume(conn, schedule=name, schema=visit.schema)
    if was:
        await noted(visit, conn, "resume", schedule=name)
    said = await known_as(visit, conn, "resumed" if was else "left", "schedule", name)
    return leads(visit, form, said, "schedules")


async def unschedule(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Forget it."""
    form = visit.posted()
    name = text_of(form, "name")
    was = await chancy.unschedule(conn, name, schema=visit.schema)
    if was:
        await noted(visit, conn, "unschedule", schedule=name)
    return leads(visit, form, "unscheduled" if was else "left", "schedules")
