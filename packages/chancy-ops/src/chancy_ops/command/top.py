"""`chancy top`: a live view."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

import chancy_ops
from chancy import Progress
from chancy.model import Rows, Statement
from chancy.phrases import one_line
from chancy.run import perform
from chancy_ops import QueueRow, WorkerRow

from .faults import Refusal
from .queues import described
from .screen import Table, document, heading, on_terminal
from .site import Site, clock, command
from .times import is_endless, lasting, written

if TYPE_CHECKING:
    from rich.console import RenderableType

    from chancy.wires.connections import PsycopgConn

RUNNING_SHOWN = 30

RUNNING = """
    SELECT job.id, job.task, job.queue, job.attempt, worker.name,
        extract(epoch FROM {schema}.clock() - job.started_at)::double precision, job.cancel_at IS NOT NULL,
        convert_to(job.progress::text, 'UTF8')
    FROM {schema}.job AS job
    LEFT JOIN {schema}.worker AS worker ON worker.id = job.worker
    WHERE job.state = 'running'
    ORDER BY job.started_at, job.id
    LIMIT %(most)s::integer
"""
# New jobs are those with larger ids than any before: both tables are looked up by their keys. How many have left is not
# counted, since nothing finds the newest of ten million finished jobs: it is what came less what has become more.
FLOW = """
    WITH new AS (
        SELECT queue, count(*) AS new FROM (
            SELECT queue FROM {schema}.job WHERE id > %(newest)s::bigint
            UNION ALL
            SELECT queue FROM {schema}.history WHERE id > %(newest)s::bigint
        ) AS each
        GROUP BY queue
    ),
    live AS (
        SELECT queue, count(*) AS live FROM {schema}.job GROUP BY queue
    )
    SELECT
        greatest((SELECT max(id) FROM {schema}.job), (SELECT max(id) FROM {schema}.history), 0),
        coalesce(json_object_agg(queue, coalesce(live, 0)), '{}'),
        coalesce(json_object_agg(queue, coalesce(new, 0)), '{}')
    FROM live FULL JOIN new USING (queue)
"""


@dataclass(frozen=True, slots=True)
class Flow:
    """What there is at one moment, to be compared with what there is at the next."""

    seen_at: float
    """By the clock that never goes back."""
    newest: int
    """The largest id."""
    live: dict[str, int]
    """By queue."""
    new: dict[str, int]
    """Since the moment before."""

    def rates(self, before: Flow) -> tuple[dict[str, float], dict[str, float]]:
        """Jobs a second that came and that left, by queue. What is requeued comes, what is deleted leaves."""
        seconds = max(self.seen_at - before.seen_at, 0.001)
        came: dict[str, float] = {}
        left: dict[str, float] = {}
        for queue in sorted(self.live | before.live):
            new = self.new.get(queue, 0)
            out = new + before.live.get(queue, 0) - self.live.get(queue, 0)
            came[queue], left[queue] = (new - min(out, 0)) / seconds, max(out, 0) / seconds
        return came, left


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A job that runs."""

    id: int
    task: str
    queue: str
    attempt: int
    worker: str | None
    seconds: float | None
    cancelling: bool
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Frame:
    """What is seen at one look. Rates are jobs a second since the look before."""

    at: datetime
    flow: Flow
    queues: list[QueueRow]
    submits: dict[str, float]
    completions: dict[str, float]
    running: list[RunningRow]
    workers: list[WorkerRow]


def look(conn: PsycopgConn, schema: str, before: Flow) -> Frame:
    """One frame, in five round trips; reads every live job."""
    flow = measure(conn, schema, before.newest)
    submits, completions = flow.rates(before)
    running: Any = perform(conn, Statement(RUNNING, {"most": RUNNING_SHOWN}, _parse_running), schema)
    return Frame(
        at=clock(conn, schema),
        flow=flow,
        queues=chancy_ops.queues(conn, schema=schema),
        submits=submits,
        completions=completions,
        running=running,
        workers=chancy_ops.workers(conn, schema=schema),
    )


def measure(conn: PsycopgConn, schema: str, newest: int | None = None) -> Flow:
    """What there is, and what is newer than that id. One round trip, which reads every live job."""

    def parse(rows: Rows) -> Flow:
        ((found, live, new),) = rows
        return Flow(time.monotonic(), found, _by_queue(live), _by_queue(new))

    flow: Any = perform(conn, Statement(FLOW, {"newest": newest}, parse), schema)
    assert isinstance(flow, Flow)
    return flow


_by_queue = msgspec.json.Decoder(dict[str, int]).decode


def _parse_running(rows: Rows) -> list[RunningRow]:
    read = msgspec.json.Decoder(Progress).decode
    return [
        RunningRow(id_, task, queue, attempt, worker, seconds, cancelling, None if said is None else read(said))
        for id_, task, queue, attempt, worker, seconds, cancelling, said in rows
    ]


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
            Table(("QUEUE", "READY", "WAITING", "SCHEDULED", "RUNNING", "IN/S", "OUT/S", "OLDEST", "PAUSED"), queues),
        ),
        (
            f"running: {shown}",
            Table(("ID", "TASK", "QUEUE", "ATTEMPT", "WORKER", "FOR", "PROGRESS"), running),
        ),
        (f"workers: {len(workers)}", Table(("ID", "WORKER", "VERSION", "RUNNING", "QUEUES"), workers)),
    ]


def _queue_line(name: str, row: QueueRow | None, frame: Frame) -> tuple[Any, ...]:
    rates = (_rate(frame.submits.get(name, 0)), _rate(frame.completions.get(name, 0)))
    if row is None:
        return (name, 0, 0, 0, 0, *rates, None, None)
    oldest = None if row.oldest_at is None else lasting((frame.at - row.oldest_at).total_seconds())
    paused = None
    if row.paused_until is not None:
        paused = "yes" if is_endless(row.paused_until) else written(row.paused_until)
    return (name, row.ready, row.waiting, row.scheduled, row.running, *rates, oldest, paused)


def _rate(a_second: float) -> str:
    return f"{a_second:,.0f}" if a_second >= 10 or a_second == 0 else f"{a_second:.1f}"


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

    IN/S and OUT/S are jobs a second that came (submitted, requeued) and left (finished, deleted). A look reads every
    live job: with a million of them say --every 5.
    """
    once = once or site.json
    if not once and not (on_terminal() and sys.stdin.isatty()):
        raise Refusal("this is no terminal; --once prints one frame")
    with site.connect() as conn:
        first = measure(conn, site.schema)
        time.sleep(every if once else 0.2)
        frame = look(conn, site.schema, first)
        if site.json:
            return document(
                {
                    "at": frame.at,
                    "submits": frame.submits,
                    "completions": frame.completions,
                    "queues": frame.queues,
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


@contextlib.contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Keys as they are pressed, without echo: a function that waits so many seconds for one.

    The terminal is as it was afterwards, also when the process is told to end.
    """
    try:
        import termios
        import tty
    except ImportError:  # Windows: Ctrl-C alone ends it

        def wait(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield wait
        return
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    told = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        tty.setcbreak(stdin)

        def pressed(seconds: float) -> str:
            ready, _, _ = select.select([stdin], [], [], seconds)
            return os.read(stdin, 1).decode("latin-1") if ready else ""

        yield pressed
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, told)
