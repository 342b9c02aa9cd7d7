"""`chancy check`: whether the code can perform what waits in the database. For CI, before a deploy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from chancy.registry import registered
from chancy_ops.deploy import Found, compare
from chancy_ops.terminal.faults import DONE, NOT_DONE, Refusal
from chancy_ops.terminal.modules import load
from chancy_ops.terminal.screen import Table, document
from chancy_ops.terminal.site import Site, command


@command("check")
@click.argument("modules", metavar="MODULE...", nargs=-1, required=True)
@click.option(
    "--limit", type=click.IntRange(min=0), default=10_000, show_default=True, help="Arguments to read, of each task."
)
def check(site: Site, modules: tuple[str, ...], limit: int) -> int:
    """Compare a module's tasks with what waits in the database: what a deploy of this code would break.

    Jobs (ready, scheduled, running) and schedules of tasks that the code does not know, and jobs whose arguments do not
    fit the task's signature any more. Where several programs share a schema, name the modules of all of them.
    """
    for module in modules:
        load(module)
    if not registered():
        raise Refusal(f"{', '.join(modules)} has no task; decorate a function with @chancy.task")
    with site.connect() as conn:
        results = compare(conn, limit, schema=site.schema)
    if site.json:
        document({"fine": all(each.fine for each in results), "tasks": [_described(each) for each in results]})
    else:
        Table(
            ("TASK", "SEVERITY", "FOUND"),
            [(each.task, "ok" if each.fine else "error", each.sentence(limit)) for each in results],
            long="fold",
        ).show()
    return DONE if all(each.fine for each in results) else NOT_DONE


def _described(found: Found) -> dict[str, Any]:
    return {"task": found.task, "fine": found.fine} | asdict(found)
