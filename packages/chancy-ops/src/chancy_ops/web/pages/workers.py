"""Workers: those that are believed alive, and what they run."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response

import chancy_ops
from chancy.states import State
from chancy_ops import JobLine
from chancy_ops.matching import JobFilter
from chancy_ops.overview import clock
from chancy_ops.web.asked import first
from chancy_ops.web.visit import Visit

JOBS_SHOWN = 500
PAGE = 200


async def workers(visit: Visit) -> Response:
    """All of them, by name, with their running jobs."""
    after = visit.asked.get("after", "")
    async with visit.looking() as conn:
        found = await chancy_ops.workers(conn, schema=visit.schema)
        running = await chancy_ops.search(conn, JobFilter(state=State.RUNNING), limit=JOBS_SHOWN, schema=visit.schema)
        now = await clock(conn, schema=visit.schema)
    shown, last = first([row for row in found if (row.name, row.id) > _place(after)], PAGE)
    more = last and f"{last.id}:{last.name}"
    return visit.page("workers.html", workers=shown, jobs=by_worker(running), now=now, more=more)


def by_worker(running: Iterable[JobLine]) -> dict[int, list[JobLine]]:
    """What each runs."""
    jobs: dict[int, list[JobLine]] = {}
    for job in running:
        if job.worker is not None:
            jobs.setdefault(job.worker, []).append(job)
    return jobs


def _place(after: str) -> tuple[str, int]:
    id_, _, name = after.partition(":")
    return (name, int(id_)) if id_.isdecimal() else ("", 0)
