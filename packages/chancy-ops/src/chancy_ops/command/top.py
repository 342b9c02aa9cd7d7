"""`chancy top`: a live view."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from chancy import Progress
from chancy.options.phrases import one_line
from chancy_ops import QueueRow
from chancy_ops.flow import Frame, look, measure
from chancy_ops.terminal.faults import Refusal
from chancy_ops.terminal.keys import keys
from chancy_ops.terminal.screen import Table, document, heading, on_terminal
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import a_second, lasting, until, written

from .queues import described, described_queue

if TYPE_CHECKING:
    from rich.console import RenderableType

    from chancy.wires.connections import PsycopgConn


QUEUES = ("QUEUE", "READY", "WAITING", "SCHEDULED", "BLOCKED", "RUNNING", "IN/S", "OUT/S", "FAILED", "OLDEST", "PAUSED")


def tables(frame: Frame) -> list[tuple[str, Table]]:
    """The frame as titled tables."""
    names = sorted({row.name for row in frame.queues} | set(frame.submits) | set(frame.completions))
    by_name = {row.name: row for row in frame.queues}
    queues = [_queue_line(name, by_name.get(name), frame) for name in names]
    running = [
        (
            row.id, row.task, row.queue, row.attempt, row.worker, None if row.seconds is None else lasting(row.seconds),
            "asked to stop" if row.cancelling else _bar(row.progress),
        )
        for row in frame.running
    ]  # fmt: skip
    workers = [(row.id, row.name, row.version, row.running, ", ".join(row.queues)) for row in frame.workers]
    total = sum(row.running for row in frame.queues)
    shown = f"the {len(running)} longest of {total:,}" if total > len(running) else f"{len(running)}"
    return [
        (
            f"queues: {len(queues)}",
            Table(QUEUES, queues),
        ),
        (
            f"running: {shown}",
            Table(("ID", "TASK", "QUEUE", "ATTEMPT", "WORKER", "FOR", "PROGRESS"), running),
        ),
        (f"workers: {len(workers)}", Table(("ID", "WORKER", "VERSION", "RUNNING", "QUEUES"), workers)),
    ]


def _queue_line(name: str, row: QueueRow | None, frame: Frame) -> tuple[Any, ...]:
    rates = (a_second(frame.submits.get(name, 0)), a_second(frame.completions.get(name, 0)), frame.failed.get(name, 0))
    if row is None:
        return (name, 0, 0, 0, 0, 0, *rates, None, None)
    oldest = None if row.oldest_at is None else lasting((frame.at - row.oldest_at).total_seconds())
    paused = until(row.paused_until)
    return (name, row.ready, row.waiting, row.scheduled, row.blocked, row.running, *rates, oldest, paused)


def _bar(progress: Progress | None) -> str | None:
    if progress is None:
        return None
    done = round(min(max(progress.fraction, 0), 1) * 10)
    return one_line(f"{'█' * done}{'░' * (10 - done)} {progress.fraction:.0%} {progress.note}", 60)


def _title(site: Site, frame: Frame) -> str:
    return f"chancy, schema {site.schema}, {written(frame.at)}"


@command("top")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Look each S seconds.",
)
@click.option("--once", is_flag=True, help="Print one frame, after two looks, and end.")
def top(site: Site, every: float, once: bool) -> None:
    """Watch queues, running jobs and workers, until q or Ctrl-C.

    IN/S and OUT/S are jobs a second that came (submitted, requeued) and left (finished, deleted); FAILED are those that
    failed in the last ten minutes. A look reads every live job: with a million of them say --every 5.
    """
    once = once or site.json
    if not once and not (on_terminal() and sys.stdin.isatty()):
        raise Refusal("this is no terminal; --once prints one frame")
    with site.connect() as conn:
        first = measure(conn, schema=site.schema)
        time.sleep(every if once else 0.2)
        frame = look(conn, site.schema, first)
        if site.json:
            return document(
                {
                    "at": frame.at,
                    "submits": frame.submits,
                    "completions": frame.completions,
                    "failed": frame.failed,
                    "queues": [described_queue(row) for row in frame.queues],
                    "running": frame.running,
                    "workers": [described(row) for row in frame.workers],
                }
            )
        if once:
            click.echo(_title(site, frame))
            for title, table in tables(frame):
                heading(title)
                table.show()
            return None
        with contextlib.suppress(KeyboardInterrupt):
            _watch(site, conn, frame, every)
    return None


def _watch(site: Site, conn: PsycopgConn, frame: Frame, every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    with keys() as pressed, Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while True:
            live.update(_rendered(site, frame), refresh=True)
            if pressed(every) in ("q", "Q"):
                return
            frame = look(conn, site.schema, frame.flow)


def _rendered(site: Site, frame: Frame) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"{_title(site, frame)}    q ends it", style="dim")]
    for title, table in tables(frame):
        parts += [Text(f"\n{title}", style="bold"), table.rich()]
    return Group(*parts)
