"""`chancy jobs` and `chancy job`: many jobs in a line each, and one with everything that is known about it."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any

import click
import msgspec

import chancy
import chancy_ops
from chancy import JobRow, State
from chancy.flows.flow import with_holes
from chancy.options.phrases import one_line
from chancy.run import perform
from chancy_ops import JobFilter, JobLine
from chancy_ops.searching import whole_jobs
from chancy_ops.terminal.screen import Table, document, harmless, heading
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import instant_or_age, lasting, moment, written

from .steps import HEADINGS, rows_of
from .steps import described as step_described

STATES = click.Choice([state.value for state in State])
SINCE = "Finished (or if live, submitted) since then: 2h, 2026-11-25T18:00Z."
LOGS_SHOWN = 1_000


@command("jobs")
@click.option("--queue", metavar="NAME", help="Of this queue.")
@click.option("--task", metavar="NAME", help="Of this task.")
@click.option("--state", type=STATES, help="In this state.")
@click.option("--batch", type=int, metavar="ID", help="Of this batch.")
@click.option("--error", metavar="KIND", help="Whose last error was of this kind: ValueError, WorkerDied.")
@click.option("--fingerprint", metavar="FINGERPRINT", help="Whose last error was like this: see `chancy failures`.")
@click.option("--text", metavar="TEXT", help="With this text in the JSON of their arguments or errors.")
@click.option("--since", callback=instant_or_age, metavar="INSTANT|AGE", help=SINCE)
@click.option("--until", callback=instant_or_age, metavar="INSTANT|AGE", help="Before then.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=int, metavar="ID", help="The next page: jobs behind this one.")
def jobs(
    site: Site,
    /,
    text: str | None,
    limit: int,
    before: int | None,
    state: str | None,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    **asked: Any,
) -> None:
    """Jobs, newest first; those that failed, were discarded or cancelled, if these are asked for, by when that was.

    A look ends after half a second, and says how far it came.
    """
    with site.connect() as conn:
        now = site.now(conn)
        which = JobFilter(
            state=State(state) if state else None, since=moment(since, now), until=moment(until, now), **asked
        )
        if site.json:
            whole: Any = perform(conn, whole_jobs(which, limit, words=text, before=before), site.schema)
            hiding = chancy_ops.hiding(conn, {row.task for row in whole}, schema=site.schema)
            return document({"jobs": [described(hiding.job(row)) for row in whole], "looked_to": whole.looked_to})
        lines = chancy_ops.search(conn, which, words=text, limit=limit, before=before, schema=site.schema)
    Table(
        ("ID", "TASK", "QUEUE", "STATE", "ATTEMPT", "PRIORITY", "WHEN", "NOTE"),
        [
            (line.id, line.task, line.queue, line.state, attempts(line), line.priority, moment_of(line), note(line))
            for line in lines
        ],
    ).show()
    if lines.looked_to is not None:
        back_to = "" if lines.looked_back_to is None else f", which is back to {written(lines.looked_back_to)}"
        click.echo(f"Looked for half a second{back_to}; --before {lines.looked_to} looks further.", err=True)
    return None


def described(row: JobRow) -> dict[str, Any]:
    """The row as a JSON document, with arguments and result as they are stored, but for secrets; where a job waits for
    the results of others, `{"result_of": ID}` stands for them.
    """
    return msgspec.structs.asdict(row) | {
        "arguments": msgspec.Raw(with_holes(row.arguments, row.needs, _hole)),
        "result": None if row.result is None else msgspec.Raw(row.result),
        "errors": [msgspec.structs.asdict(error) for error in row.errors],
    }


def _hole(need: int, is_outcome: bool) -> bytes:
    return msgspec.json.encode({"outcome_of" if is_outcome else "result_of": need})


def attempts(row: JobRow | JobLine) -> str:
    """Which of how many."""
    return f"{row.attempt}/{row.max_attempts}"


def moment_of(row: JobLine) -> datetime:
    """When it finished, or began to run, or is due."""
    return row.finished_at or (row.started_at if row.state is State.RUNNING else None) or row.run_at


def note(row: JobLine) -> str:
    """Its progress, or how it went wrong last."""
    if row.state is State.RUNNING and row.cancel_at:
        return "asked to stop"
    if row.state is State.RUNNING and row.progress:
        return progress(row)
    if row.error and row.state is not State.SUCCEEDED:
        return one_line(f"{row.error}: {row.message}" if row.message else row.error, 60)
    return ""


def progress(row: JobRow | JobLine) -> str:
    """How far it says it is."""
    said = row.progress
    return "" if said is None else one_line(f"{said.fraction:.0%} {said.note}", 60)


@command("job")
@click.argument("job_id", metavar="ID", type=int)
def job(site: Site, job_id: int) -> None:
    """Everything about one job: arguments, result, each error with its traceback, timings, progress, steps, logs."""
    with site.connect() as conn:
        row = chancy.get(conn, job_id, schema=site.schema)
        row = chancy_ops.hiding(conn, [row.task], schema=site.schema).job(row)
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
    _section("arguments", _arguments(row))
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


def _arguments(row: JobRow) -> str:
    said: dict[str, str] = {}
    mark = secrets.token_hex(8)  # no text of the arguments

    def say(need: int, is_outcome: bool) -> bytes:
        place = f'"{mark}-{len(said)}"'
        said[place] = f"from job {need}'s {'outcome' if is_outcome else 'result'}"
        return place.encode()

    text = _json(with_holes(row.arguments, row.needs, say))
    for place, words in said.items():
        text = text.replace(place, words)
    return text


def _json(payload: bytes) -> str:
    try:
        return msgspec.json.format(payload, indent=2).decode("utf-8", "backslashreplace")
    except RecursionError:  # a thousand deep, by another language
        return payload.decode("utf-8", "backslashreplace")
