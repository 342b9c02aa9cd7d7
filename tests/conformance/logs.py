"""What a job logs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import chancy
from conformance.attempts import attempts_of
from conformance.cases import case
from conformance.grounds import Ground, Steps
from conformance.tasks import mutter, speak


@case
def what_a_job_logs_is_kept_by_attempt_if_its_task_asks_for_it(g: Ground) -> Steps:
    row = yield from attempts_of(g, speak, 2)
    entries = yield chancy.logs(g.conn, row.id)
    assert [(entry.attempt, entry.n, entry.message) for entry in entries] == [
        (attempt, n, f"{attempt} says {n - 1}\0") for attempt in (1, 2) for n in (1, 2)
    ]
    assert {(entry.level, entry.logger, entry.traceback) for entry in entries} == {("WARNING", "conformance", "")}
    assert all(timedelta(0) <= datetime.now(UTC) - entry.at < timedelta(minutes=1) for entry in entries)
    assert (yield chancy.logs(g.conn, row.id, after=(1, 1), limit=2)) == entries[1:3]
    row = yield from attempts_of(g, mutter)
    assert (yield chancy.logs(g.conn, row.id)) == []


@case
def of_a_job_that_logs_too_much_the_beginning_is_kept(g: Ground) -> Steps:
    row = yield from attempts_of(g, speak.using(max_attempts=1), 1_010)
    entries = yield chancy.logs(g.conn, row.id, limit=2_000)
    assert len(entries) == 1_001
    assert entries[-1].message.startswith("10 more records were not kept")
