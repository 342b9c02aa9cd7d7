"""What `doctor` asks about the job that waits longest although it could run."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from chancy.model import Statement, Steps
from chancy.options.phrases import one_line, span
from chancy.wires.literals import of_texts

from .findings import Finding, Patience, Severity
from .fleet import Fleet

WAITING = Patience(timedelta(minutes=5), timedelta(hours=1))
"""Of a job that could run."""

OLDEST = """
    SELECT id FROM {schema}.job
    WHERE state = 'ready' AND parked IS NULL AND queue = %(queue)s::text AND task = %(task)s::text
        AND run_at = %(at)s::timestamptz
    ORDER BY id LIMIT 1
"""
LET_IN = """
    SELECT waits.run_at, look.queue, waits.task, waits.job
    FROM unnest(%(queues)s::text[]) AS look (queue) CROSS JOIN LATERAL {schema}.oldest_with_room(look.queue) AS waits
    WHERE waits.run_at IS NOT NULL
    ORDER BY waits.run_at
"""


class Able(NamedTuple):
    """A job that could run."""

    at: datetime
    queue: str
    task: str
    job: int | None = None
    """Its id, where it is known by now."""


def waiting(fleet: Fleet, patience: Patience = WAITING) -> Steps[list[Finding]]:
    """How long the oldest job waits that could run: not paused, its limits have room, and a worker would take it. At
    most two round trips.
    """
    could = fleet.able_work
    able = [Able(work.oldest_at, work.queue, work.task) for work in could if work.oldest_at]
    open_ = {(work.queue, work.task) for work in could}
    if open_:
        params: dict[str, object] = {"queues": of_texts(sorted({queue for queue, _ in open_}))}
        let_in = Statement(LET_IN, params, lambda rows: [Able(*row) for row in rows], name="let_in")
        able += [each for each in (yield let_in) if (each.queue, each.task) in open_]
    if not able:
        return [Finding("waiting", Severity.OK, "no job waits that could run.")]
    oldest = min(able, key=lambda each: each.at)
    severity = patience.with_age(fleet.now - oldest.at)
    message = f"the oldest job that could run has been due for {span(fleet.now - oldest.at)}"
    if severity is Severity.OK:
        return [Finding("waiting", severity, f"{message}.")]
    if (job := oldest.job) is None:
        params = {"queue": oldest.queue, "task": oldest.task, "at": oldest.at}
        job = yield Statement(OLDEST, params, lambda rows: rows[0][0] if rows else None, name="oldest")
    if job is None:
        return [Finding("waiting", Severity.OK, f"{message}, and was claimed just now.")]
    message += f": job {job} of task {one_line(oldest.task)} in queue '{one_line(oldest.queue)}'."
    remedy = f"Ask `chancy why {job}`; if the workers are busy, start more."
    return [Finding("waiting", severity, message, remedy)]
