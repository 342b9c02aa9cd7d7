"""Which page and which act is where."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from chancy.wires.connections import PsycopgAsyncConn

from .access.users import Action
from .acts import jobs as on_job
from .acts import schedules as on_schedule
from .acts import steering, submits, sweeps
from .pages import audit, batches, doctor, failures, jobs, limits, overview, queues, schedules, tasks, workers
from .visit import Visit


class _JobId(Convertor[int]):
    """The id of a job in a path: of five thousand digits Python makes no number."""

    regex = "[0-9]{1,100}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("job", _JobId())

Page: TypeAlias = Callable[[Visit], Awaitable[Response]]

PAGES: Mapping[str, Page] = {
    "/": overview.overview,
    "/jobs": jobs.jobs,
    "/jobs/{id:job}": jobs.job,
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
    "/audit": audit.audit,
    "/sweep": sweeps.sweep_page,
    "/task/submit": submits.submit_form,
    "/jobs/{id:job}/again": submits.again_form,
}


@dataclass(frozen=True, slots=True)
class Act:
    """What a form does, when it is posted: on a connection in a transaction, which is committed unless it raises."""

    right: Action
    """Without it nothing of this is done."""
    do: Callable[[Visit, PsycopgAsyncConn], Awaitable[Response]]
    """What is answered leads to a page: `visit.go(…)`."""


ACTS: Mapping[str, Act] = {
    "/jobs/{id:job}/cancel": Act(Action.CANCEL, on_job.cancel),
    "/jobs/{id:job}/requeue": Act(Action.REQUEUE, on_job.requeue),
    "/jobs/{id:job}/edit": Act(Action.EDIT, on_job.edit),
    "/jobs/{id:job}/delete": Act(Action.DELETE, on_job.delete),
    "/jobs/{id:job}/signal": Act(Action.SIGNAL, on_job.signal),
    "/jobs/{id:job}/forget": Act(Action.SIGNAL, on_job.forget),
    "/task/submit": Act(Action.SUBMIT, submits.submit),
    "/task/pause": Act(Action.PAUSE, steering.pause_task),
    "/task/resume": Act(Action.PAUSE, steering.resume_task),
    "/queue/pause": Act(Action.PAUSE, steering.pause_queue),
    "/queue/resume": Act(Action.PAUSE, steering.resume_queue),
    "/queue/limit": Act(Action.LIMIT, steering.limit),
    "/queue/keep": Act(Action.KEEP, steering.keep),
    "/schedule/run": Act(Action.SCHEDULE, on_schedule.run_now),
    "/schedule/pause": Act(Action.SCHEDULE, on_schedule.pause),
    "/schedule/resume": Act(Action.SCHEDULE, on_schedule.resume),
    "/schedule/unschedule": Act(Action.SCHEDULE, on_schedule.unschedule),
    "/sweep": Act(Action.SWEEP, sweeps.sweep),
    "/sweep/stop": Act(Action.SWEEP, sweeps.stop),
    "/sweep/ticked": Act(Action.LOOK, sweeps.ticked),
}
"""By their paths. A page shows the form of an act in a template of its own name in the folder `acts`."""
