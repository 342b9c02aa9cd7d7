"""`chancy schedules` and `chancy run-now`."""

from __future__ import annotations

from typing import Any

import click
import msgspec

import chancy
import chancy_ops
from chancy_ops import Hiding
from chancy_ops.terminal.screen import Table, answer, document
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import until


@command("schedules")
def schedules(site: Site) -> None:
    """The schedules, and when they tick.

    LAST is the last tick that got a job, and JOB its id; NOTE what went otherwise than planned, the last time that
    something did.
    """
    with site.connect() as conn:
        rows = chancy.schedules(conn, schema=site.schema)
        hiding = chancy_ops.hiding(conn, {row.task for row in rows}, schema=site.schema)
    if site.json:
        return document({"schedules": [described(row, hiding) for row in rows]})
    Table(
        ("SCHEDULE", "TASK", "TICKS", "NEXT", "LAST", "JOB", "NOTE"),
        [
            (
                row.name,
                row.task,
                when(row),
                f"paused {until(row.paused_until)}" if row.paused_until else row.next_at,
                row.last_at,
                row.last_job,
                row.note,
            )
            for row in rows
        ],
    ).show()
    return None


def described(row: chancy.ScheduleRow, hiding: Hiding) -> dict[str, Any]:
    """The row as a JSON document, without secrets, and the instant at which it was read."""
    told = msgspec.structs.asdict(row) | {"arguments": msgspec.Raw(hiding.arguments(row.task, row.arguments))}
    return {name: value for name, value in told.items() if name != "read_at"}


def when(row: chancy.ScheduleRow) -> str:
    """A cron expression with its zone, or an interval."""
    ticks = row.when
    return f"{ticks.expression} {ticks.timezone}" if isinstance(ticks, chancy.Cron) else f"every {ticks.interval}"


@command("run-now", needs="operator")
@click.argument("schedule")
def run_now(site: Site, schedule: str) -> None:
    """Have a schedule tick now, besides its own times. A worker sees to it within seconds."""
    with site.connect() as conn, conn.transaction():
        chancy.run_now(conn, schedule, schema=site.schema)
        site.note(conn, "run_now", schedule=schedule)
    answer(site.json, {"schedule": schedule}, f"schedule {schedule} ticks with the next look of a worker")
