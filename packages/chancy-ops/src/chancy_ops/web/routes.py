"""Which page and which act is where."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from starlette.responses import Response

from chancy.wires.connections import PsycopgAsyncConn

from .access.users import Action
from .pages import batches, doctor, failures, jobs, limits, overview, queues, schedules, tasks, workers
from .visit import Visit

Page: TypeAlias = Callable[[Visit], Awaitable[Response]]

PAGES: Mapping[str, Page] = {
    "/": overview.overview,
    "/jobs": jobs.jobs,
    "/jobs/{id:int}": jobs.job,
    "/failures": failures.failures,
    "/failure": failures.failure,
    "/queues": queues.queues,
    "/queue": queues.queue,
    "/tasks": tasks.tasks,
    "/task": tasks.task,
    "/schedules": schedules.schedules,
    "/limits": limits.limits,
    "/batches": batches.batches,
    "/batch": batches.batch,
    "/workers": workers.workers,
    "/doctor": doctor.doctor,
}


@dataclass(frozen=True, slots=True)
class Act:
    """What a form does, when it is posted: on a connection in a transaction, which is committed unless it raises."""

    right: Action
    """Without it nothing of this is done."""
    do: Callable[[Visit, PsycopgAsyncConn], Awaitable[Response]]
    """What is answered leads to a page: `visit.go(…)`."""


ACTS: Mapping[str, Act] = {}
"""By their paths. A page shows the form of an act in a template of its own name in the folder `acts`."""
