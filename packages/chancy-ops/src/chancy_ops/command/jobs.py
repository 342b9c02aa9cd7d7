"""`chancy jobs` and `chancy job`: many jobs in a line each, and one with everything that is known about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
import msgspec

import chancy
from chancy import JobRow, State
from chancy.options.phrases import one_line
from chancy_ops.terminal.screen import Table, document, harmless, heading
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import lasting, written

from .steps import HEADINGS, rows_of
from .steps import described as step_described

STATES = click.Choice([state.value for state in State])
LOGS_SHOWN = 1_000


@command("jobs")
@click.option("--queue", metavar="NAME", help="Of this queue.")
@click.option("--task", metavar="NAME", help="Of this task.")
@click.option("--state", type=STATES, help="In this state.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=int, metavar="ID", help="The next page: jobs with smaller ids.")
def jobs(site: Site, queue: str | None, task: str | None, state: str | None, limit: int, before: int | None) -> None:
    """Jobs, newest first."""
    with site.connect() as conn:
        rows = chancy.jobs(
            conn,
            queue=queue,
            task=task,
            state=State(state) if state else None,
            limit=limit,
            before=before,
            schema=site.schema,
        )
    if site.json:
        return document({"jobs": [described(row) for row in rows]})
    Table(
        ("ID", "TASK", "QUEUE", "STATE", "ATTEMPT", "PRIORITY", "WHEN", "NOTE"),
        [
            (row.id, row.task, row.queue, row.state, attempts(row), row.priority, moment_of(row), note(row))
            for row in rows
        ],
    ).show()
    return None


def described(row: JobRow) -> dict[str, Any]:
    """The row as a JSON document, with the arguments and the result as they are stored."""
    return msgspec.structs.asdict(row) | {
        "arguments": msgspec.Raw(row.arguments),
        "result": None if row.result is None else msgspec.Raw(row.result),
        "errors": [msgspec.structs.asdict(error) for error in row.errors],
    }


def attempts(row: JobRow) -> str:
    """Which of how many."""
    return f"{row.attempt}/{row.max_attempts}"


def moment_of(row: JobRow) -> datetime:
    """When it finished, or began to run, or is due."""
    return row.finished_at or (row.started_at if row.state is State.RUNNING else None) or row.run_at


def note(row: JobRow) -> str:
    """Its progress, or how it went wrong last."""
    if row.state is State.RUNNING and row.cancel_at:
        return "asked to stop"
    if row.state is State.RUNNING and row.progress:
        return progress(row)
    if row.errors and row.state is not State.SUCCEEDED:
        last = row.errors[-1]
        return one_line(f"{last.kind}: {last.message}" if last.message else last.kind, 60)
    return ""


def progress(row: JobRow) -> str:
    """How far it says it is."""
    said = row.progress
    return "" if said is None else one_line(f"{said.fraction:.0%} {said.note}", 60)


@command("job")
@click.argument("job_id", metavar="ID", type=int)
def job(site: Site, job_id: int) -> None:
    """Everything about one job: arguments, result, each error with its traceback, timings, progress, steps, logs."""
    with site.connect() as conn:
        row = chancy.get(conn, job_id, schema=site.schema)
        steps = chancy.steps(conn, job_id, schema=site.schema)
        logs = chancy.logs(conn, job_id, limit=LOGS_SHOWN, schema=site.schema)
        now = site.now(conn)
    if site.json:
        said = [msgspec.structs.asdict(entry) for entry in logs]
        return document(described(row) | {"steps": list(map(step_described, steps)), "logs": said})
    facts = [
        ("job", str(row.id)),
        ("task", row.task),
        ("queue", row.queue),
        ("state", row.state.value),
        ("attempt", f"{row.attempt} of {row.max_attempts}"),
        ("priority", str(row.priority)),
        ("unique key", row.unique_key),
        ("batch", None if row.batch is None else str(row.batch)),
        ("worker", None if row.worker is None else str(row.worker)),
        ("crashes", f"{row.crashes} workers died while they ran it" if row.crashes else None),
        ("submitted", _instant(row.submitted_at, now)),
        ("due", _instant(row.run_at, now)),
        ("started", _instant(row.started_at, now)),
        ("finished", _instant(row.finished_at, now)),
        ("took", _took(row)),
        ("asked to stop", None if row.cancel_at is None else written(row.cancel_at)),
        ("progress", progress(row) or None),
    ]
    for label, fact in facts:
        if fact is not None:
            click.echo(f"{label:<14}{harmless(fact)}")
    _section("arguments", _json(row.arguments))
    if row.meta:
        _section("meta", _json(msgspec.json.encode(row.meta)))
    if row.result is not None:
        _section("result", _json(row.result))
    for error in row.errors:
        ran = f", after {lasting(error.duration)}" if error.started_at else ""
        on = f" on {error.worker}" if error.worker else ""
        trace = f", {error.trace}" if error.trace else ""
        text = error.traceback or (f"{error.kind}: {error.message}" if error.message else error.kind)
        _section(f"attempt {error.attempt} failed{on}{ran}{trace}", text.rstrip())
    if steps:
        heading("steps")
        Table(HEADINGS, rows_of(steps)).show()
    if logs:
        more = f", the first {LOGS_SHOWN:,}" if len(logs) == LOGS_SHOWN else ""
        heading(f"logs{more}")
        for entry in logs:
            text = f"{written(entry.at)} {entry.attempt} {entry.level:<8} {entry.logger}: {entry.message}"
            click.echo(harmless("\n".join(part.rstrip() for part in (text, entry.traceback) if part)))
    return None


def _instant(instant: datetime | None, now: datetime) -> str | None:
    if instant is None:
        return None
    seconds = (now - instant).total_seconds()
    how_far = f"{lasting(seconds)} ago" if seconds >= 0 else f"in {lasting(-seconds)}"
    return f"{written(instant)}, {how_far}"


def _took(row: JobRow) -> str | None:
    if row.started_at is None or row.finished_at is None:
        return None
    return lasting((row.finished_at - row.started_at).total_seconds())


def _section(title: str, text: str) -> None:
    heading(title)
    click.echo(harmless("\n".join(f"  {line}" for line in text.splitlines())))


def _json(payload: bytes) -> str:
    try:
        return msgspec.json.format(payload, indent=2).decode("utf-8", "backslashreplace")
    except RecursionError:  # a thousand deep, by another language
        return payload.decode("utf-8", "backslashreplace")
