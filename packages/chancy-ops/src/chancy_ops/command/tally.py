"""`chancy throughput`: what workers have done, and how fast."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, get_args

import click

import chancy_ops
from chancy_ops import Throughput
from chancy_ops.tally import By, Span
from chancy_ops.terminal.screen import Table, document
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import a_second, instant_or_age, lasting, moment

SINCE = "Since then: 2h, 2026-11-25T18:00Z.  [default: 1h]"


@command("throughput")
@click.option("--since", callback=instant_or_age, metavar="INSTANT|AGE", help=SINCE)
@click.option("--until", callback=instant_or_age, metavar="INSTANT|AGE", help="Before then.")
@click.option(
    "--by", type=click.Choice(get_args(By)), default="task", show_default=True, help="A line for each of what."
)
@click.option("--every", type=click.Choice(get_args(Span)), help="A line for each of these, too.")
@click.option("--queue", metavar="NAME", help="Of this queue.")
@click.option("--task", metavar="NAME", help="Of this task.")
def throughput(
    site: Site,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    by: By,
    every: Span | None,
    queue: str | None,
    task: str | None,
) -> None:
    """What workers have done, and how fast, as they have counted: what finished most comes first.

    OUT are jobs that finished, OUT/S how many a second, FAILED those of them that failed, and ERRORS attempts that
    ended in an error. WAIT is from when a job was due until it began, RUN is of an attempt: half of them stayed below
    P50, 95 of 100 below P95.
    """
    with site.connect() as conn:
        now = site.now(conn)
        rows = chancy_ops.throughput(
            conn,
            since=timedelta(hours=1) if since is None else since,
            until=moment(until, now),
            by=by,
            every=every,
            queue=queue,
            task=task,
            schema=site.schema,
        )
    if every is None:
        rows.sort(key=lambda row: (-row.finished, row.queue or "", row.task or ""))
    if site.json:
        return document({"throughput": [described(row) for row in rows]})
    names = [name for name in ("queue", "task") if name in by]
    Table(
        (
            *(["SINCE"] if every else []), *(name.upper() for name in names),
            "OUT", "OUT/S", "FAILED", "ERRORS", "WAIT P50", "P95", "RUN P50", "P95", "P99",
        ),
        [
            (
                *([row.since] if every else []), *(getattr(row, name) for name in names),
                row.finished, a_second(row.rate), row.failed, row.errors, _took(row.wait.p50), _took(row.wait.p95),
                _took(row.run.p50), _took(row.run.p95), _took(row.run.p99),
            )
            for row in rows
        ],
    ).show()  # fmt: skip
    return None


def _took(seconds: float | None) -> str | None:
    return None if seconds is None else lasting(seconds)


def described(row: Throughput) -> dict[str, Any]:
    """A row as a JSON document, without its histograms. Durations are seconds."""
    return {
        "since": row.since,
        "until": row.until,
        "queue": row.queue,
        "task": row.task,
        "outcomes": {str(outcome): number for outcome, number in row.outcomes.items()},
        "finished": row.finished,
        "rate": row.rate,
        "failed": row.failed,
        "errors": row.errors,
        "wait": asdict(row.wait),
        "run": asdict(row.run),
    }
