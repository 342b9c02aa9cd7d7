"""Schedules: when they tick, and what became of it."""

from __future__ import annotations

from datetime import datetime

from starlette.responses import Response

import chancy
from chancy import Cron, ScheduleRow
from chancy_ops.overview import clock
from chancy_ops.web.asked import first
from chancy_ops.web.shown import length
from chancy_ops.web.visit import Visit

TICKS_SHOWN = 5
PAGE = 200


async def schedules(visit: Visit) -> Response:
    """All of them, with their next five ticks."""
    after = visit.asked.get("after", "")
    async with visit.looking() as conn:
        found = await chancy.schedules(conn, schema=visit.schema)
        now = await clock(conn, schema=visit.schema)
    shown, last = first([row for row in found if row.name > after], PAGE)
    rows = [(row, recurrence(row), *upcoming(row)) for row in shown]
    return visit.page("schedules.html", rows=rows, now=now, more=last and last.name)


def recurrence(row: ScheduleRow) -> str:
    """A cron expression with its zone, or an interval."""
    ticks = row.when
    return f"{ticks.expression} {ticks.timezone}" if isinstance(ticks, Cron) else f"every {length(ticks.interval)}"


def upcoming(row: ScheduleRow) -> tuple[list[datetime], str]:
    """The next ticks; or none, and why nobody here can say."""
    try:
        return row.upcoming(TICKS_SHOWN), ""
    except (ValueError, ImportError) as error:
        return [], str(error)
