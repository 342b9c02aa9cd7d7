"""`chancy submit`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import click

import chancy
from chancy_ops.terminal.modules import find_task, parsed
from chancy_ops.terminal.screen import document
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import age, instant


@command("submit", needs="operator")
@click.argument("name", metavar="TASK")
@click.argument("arguments", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--module", "modules", multiple=True, metavar="MODULE", help="Import this first; then TASK is a name.")
@click.option("--queue", metavar="NAME", help="Into this queue.")
@click.option("--priority", type=int, help="From -100 to 100; larger runs sooner.")
@click.option("--delay", callback=age, metavar="AGE", help="Due so much later: 90s, 10m, 2h, 3d.")
@click.option("--run-at", callback=instant, metavar="INSTANT", help="Due at this instant: 2026-11-25T18:00Z.")
@click.option("--max-attempts", type=int, metavar="N", help="The first counts.")
def submit(
    site: Site,
    name: str,
    arguments: tuple[str, ...],
    modules: tuple[str, ...],
    queue: str | None,
    priority: int | None,
    delay: timedelta | None,
    run_at: datetime | None,
    max_attempts: int | None,
) -> None:
    """Submit a job, and print its id.

    TASK is MODULE:FUNCTION, or a task's name with --module. Each VALUE is read as the task's signature has it: x=1 is
    a number where the annotation says int, and a text where it says str; lists, dicts and objects are JSON. KEY:=JSON
    is JSON whatever the annotation: note:=null.
    """
    given: Any = {
        option: value
        for option, value in (
            ("queue", queue),
            ("priority", priority),
            ("delay", delay),
            ("run_at", run_at),
            ("max_attempts", max_attempts),
        )
        if value is not None
    }
    task = find_task(name, modules)
    by_position, by_name = parsed(task, arguments)
    new = task.using(**given).bind(*by_position, **by_name)
    with site.connect() as conn, conn.transaction():
        (made,) = chancy.submit_many(conn, [new], schema=site.schema)
        if made.outcome is not chancy.SubmitOutcome.EXISTING:
            site.note(conn, "submit", job=made.id, task=made.task)
    outcome = str(made.outcome)
    if site.json:
        return document({"id": made.id, "task": made.task, "queue": made.queue, "outcome": outcome})
    click.echo(made.id)
    if made.outcome is chancy.SubmitOutcome.EXISTING:
        click.echo(f"chancy: job {made.id} has the same key and was there already", err=True)
    return None
