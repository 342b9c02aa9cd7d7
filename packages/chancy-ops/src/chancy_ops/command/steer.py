"""`chancy edit`, `pause`, `resume` and `limit`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

import chancy
import chancy_ops
from chancy_ops.pauses import STRANGE, is_known
from chancy_ops.terminal.faults import DONE, NOT_DONE
from chancy_ops.terminal.screen import answer, harmless
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import age, instant, written

if TYPE_CHECKING:
    from chancy.wires.connections import PsycopgConn


@command("edit", needs="operator")
@click.argument("job_id", metavar="ID", type=int)
@click.option("--priority", type=int, help="From -100 to 100; larger runs sooner.")
@click.option("--run-at", callback=instant, metavar="INSTANT", help="Due at this instant: 2026-11-25T18:00Z.")
@click.option("--delay", callback=age, metavar="AGE", help="Due so long from now: 90s, 10m, 2h, 3d.")
def edit(site: Site, job_id: int, priority: int | None, run_at: datetime | None, delay: timedelta | None) -> int:
    """Change when a waiting job is due, or its priority.

    A job that waits is ready or scheduled; one that runs or is finished is left alone.
    """
    if run_at is not None and delay is not None:
        raise click.UsageError("give either --run-at or --delay")
    if priority is None and run_at is None and delay is None:
        raise click.UsageError("say what to change: --priority, --run-at or --delay")
    with site.connect() as conn, conn.transaction():
        due = run_at if delay is None else site.now(conn) + delay
        done = chancy_ops.edit(conn, job_id, priority=priority, run_at=due, schema=site.schema)
        if done:
            site.note(conn, "edit", job=job_id, priority=priority, run_at=due)
        row = chancy.get(conn, job_id, schema=site.schema)
    told = {"id": row.id, "done": done, "state": row.state, "priority": row.priority, "run_at": row.run_at}
    if done:
        said = f"job {row.id} has priority {row.priority} and is due at {written(row.run_at)}"
    else:
        said = f"job {row.id} is {row.state} and was left alone: only jobs that wait can be edited"
    answer(site.json, told, said)
    return DONE if done else NOT_DONE


def _named(queue: str | None, task: str | None, schedule: str | None) -> tuple[str, str]:
    named = {"queue": queue, "task": task, "schedule": schedule}
    given = [(kind, name) for kind, name in named.items() if name is not None]
    if len(given) != 1:
        raise click.UsageError("name one: QUEUE, --task or --schedule")
    return given[0]


def _warn_of(site: Site, conn: PsycopgConn, kind: str, name: str) -> None:
    """Say so if nobody knows the name. It is done all the same: it may be a name of tomorrow."""
    if not is_known(conn, kind, name, schema=site.schema):
        said = f"chancy: is {kind} {name} misspelt? {STRANGE[kind]}"
        click.echo(harmless(said), err=True)


@command("pause", needs="operator")
@click.argument("queue", required=False)
@click.option("--task", metavar="NAME", help="A task, in whatever queue.")
@click.option("--schedule", metavar="NAME", help="A schedule.")
@click.option("--until", callback=instant, metavar="INSTANT", help="It goes on by itself then: 2026-11-25T18:00Z.")
@click.option(
    "--for", "length", callback=age, metavar="AGE", help="It goes on by itself after so long: 90s, 10m, 2h, 3d."
)
def pause(
    site: Site,
    queue: str | None,
    task: str | None,
    schedule: str | None,
    until: datetime | None,
    length: timedelta | None,
) -> None:
    """Let no job of a queue or task begin, or a schedule not tick.

    Until it is resumed, or the time that is given is over. What runs, runs on.
    """
    kind, name = _named(queue, task, schedule)
    if until is not None and length is not None:
        raise click.UsageError("give either --until or --for")
    with site.connect() as conn, conn.transaction():
        until = until if length is None else site.now(conn) + length
        chancy_ops.pause(conn, queue, task=task, schedule=schedule, until=until, schema=site.schema)
        what: dict[str, Any] = {kind: name, "until": until}
        site.note(conn, "pause", **what)
        _warn_of(site, conn, kind, name)
    end = "it is resumed" if until is None else written(until)
    answer(site.json, {kind: name, "paused": True, "until": until}, f"{kind} {name} is paused until {end}")


@command("resume", needs="operator")
@click.argument("queue", required=False)
@click.option("--task", metavar="NAME", help="A task, in whatever queue.")
@click.option("--schedule", metavar="NAME", help="A schedule.")
def resume(site: Site, queue: str | None, task: str | None, schedule: str | None) -> None:
    """Let what is paused go on: a queue, a task or a schedule."""
    kind, name = _named(queue, task, schedule)
    with site.connect() as conn, conn.transaction():
        was = chancy_ops.resume(conn, queue, task=task, schedule=schedule, schema=site.schema)
        if was:
            what: dict[str, Any] = {kind: name}
            site.note(conn, "resume", **what)
        _warn_of(site, conn, kind, name)
    said = f"{kind} {name} goes on" if was else f"{kind} {name} was not paused"
    answer(site.json, {kind: name, "paused": False, "was_paused": was}, said)


def _most(ctx: click.Context, param: click.Parameter, text: str) -> int | None:
    if text != "none" and not text.isdecimal():
        raise click.BadParameter(f"expected a number or none, got {text!r}", ctx, param)
    return None if text == "none" else int(text)


@command("limit", needs="operator")
@click.argument("queue")
@click.argument("most", metavar="N|none", callback=_most)
def limit(site: Site, queue: str, most: int | None) -> None:
    """Let at most so many jobs of a queue run at a time.

    Over all workers, and from now on: what runs, runs on. 0 lets nothing begin, none lifts the limit.
    """
    with site.connect() as conn, conn.transaction():
        chancy_ops.limit(conn, queue, concurrency=most, schema=site.schema)
        site.note(conn, "limit", queue=queue, concurrency=most)
        _warn_of(site, conn, "queue", queue)
    said = f"queue {queue} has no limit" if most is None else f"queue {queue} runs at most {most} at a time"
    answer(site.json, {"queue": queue, "limit": most}, said)
