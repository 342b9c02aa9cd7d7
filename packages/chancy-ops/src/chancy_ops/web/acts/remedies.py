"""What a person can do about the reason why a job does not run, as a button."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import chancy_ops
from chancy import JobRow
from chancy.options.phrases import one_line
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops import Reason, Why
from chancy_ops.web.access.users import Action
from chancy_ops.web.said import seen_of
from chancy_ops.web.visit import Visit


@dataclass(frozen=True, slots=True)
class Remedy:
    """A button: who may press it, and what it does."""

    right: Action
    path: str
    label: str
    fields: Mapping[str, str]


async def remedy_of(visit: Visit, conn: PsycopgAsyncConn, job: JobRow, why: Why) -> Remedy | None:
    """What would let the job begin, if one press does. At most one round trip."""
    match why.reason:
        case Reason.QUEUE_PAUSED:
            label = f"Resume queue {one_line(job.queue, 40)}"
            return Remedy(Action.PAUSE, "queue/resume", label, {"name": job.queue})
        case Reason.TASK_PAUSED:
            label = f"Resume task {one_line(job.task, 40)}"
            return Remedy(Action.PAUSE, "task/resume", label, {"name": job.task})
        case Reason.SCHEDULED | Reason.RETRY:
            return Remedy(Action.EDIT, f"jobs/{job.id}/edit", "Run it now", {"run_at": "0s", "seen": seen_of(job)})
        case Reason.LIMIT:
            queues = await chancy_ops.queues(conn, queue=job.queue, schema=visit.schema)
            if any(queue.limit is not None for queue in queues):
                label = f"Lift the limit of queue {one_line(job.queue, 40)}"
                return Remedy(Action.LIMIT, "queue/limit", label, {"name": job.queue, "concurrency": ""})
    return None
