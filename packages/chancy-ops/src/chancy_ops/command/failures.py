"""`chancy failures`: what goes wrong, each bug in a line."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

import click

import chancy_ops
from chancy.options.phrases import one_line
from chancy_ops.terminal.screen import Table, document
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import instant_or_age, moment, written


@command("failures")
@click.option(
    "--since", callback=instant_or_age, metavar="INSTANT|AGE", help="Failed since then: 2h, 2026-11-25T18:00Z."
)
@click.option("--until", callback=instant_or_age, metavar="INSTANT|AGE", help="Failed before then.")
@click.option("--queue", metavar="NAME", help="Of this queue.")
@click.option("--task", metavar="NAME", help="Of this task.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="At most so many lines.")
def failures(
    site: Site,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    queue: str | None,
    task: str | None,
    limit: int,
) -> None:
    """What goes wrong, each bug in a line: failed and discarded jobs, the most frequent first.

    They have the same kind of error, from the same place, with the same message but for numbers, ids and what is
    quoted. FIRST and LAST are when they finished, JOB is the newest. `chancy requeue --fingerprint FINGERPRINT` makes
    all of a line ready again.
    """
    with site.connect() as conn:
        now = site.now(conn)
        found = chancy_ops.failures(
            conn,
            since=moment(since, now),
            until=moment(until, now),
            queue=queue,
            task=task,
            limit=limit,
            schema=site.schema,
        )
    if site.json:
        return document({"failures": [asdict(row) for row in found], "looked_back_to": found.looked_back_to})
    Table(
        ("FINGERPRINT", "COUNT", "FIRST", "LAST", "JOB", "TASKS", "ERROR"),
        [
            (
                row.fingerprint, row.count, row.first_at, row.last_at, row.job, ", ".join(row.tasks),
                one_line(f"{row.kind}: {row.message}" if row.message else row.kind, 80),
            )
            for row in found
        ],
    ).show()  # fmt: skip
    if found.looked_back_to is not None:
        click.echo(f"There are more; counted are those that finished since {written(found.looked_back_to)}.", err=True)
    return None
