"""What there is: the queues with what waits in them, the workers that are believed alive, and the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from chancy.model import Rows, Statement
from chancy.options.plain import text
from chancy.verb import verb
from chancy.wires.literals import FINITE

from .counting import MOST_COUNTED, Count, capped


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue, now. Instants are UTC."""

    name: str
    ready: Count
    """Due jobs, also those that wait for a limit or for their turn."""
    scheduled: Count
    running: int
    waiting: Count
    """Of the ready ones, those that wait for a limit or for their turn."""
    blocked: Count
    """Those that wait for other jobs."""
    oldest_at: datetime | None
    """When the longest waiting ready job was due, of those that no limit and no turn keeps waiting."""
    paused_until: datetime | None
    """`WITHOUT_END` is until somebody resumes it; None is not paused."""
    limit: int | None
    """How many may run at a time, over all workers, as set by `chancy_ops.limit`."""
    workers: int
    """Live workers that take it."""


QUEUES = """
    SELECT queue, ready, scheduled, running, waiting, waiting_ahead, more_waiting, blocked, oldest_at, {until},
        concurrency, workers
    FROM {schema}.look_at_queues(%(most)s::integer, %(queue)s::text)
""".replace("{until}", FINITE.replace("{instant}", "paused_until"))


@verb
def queues(*, queue: str | None = None, schema: str | None = None) -> Statement[list[QueueRow]]:
    """All queues that have live jobs or workers, or are paused or limited, by name; or one of them. One round trip,
    which counts up to 10,000 jobs of a queue. Raises `InvalidOption`.
    """
    return look_at_queues(None if queue is None else text("queue", queue))


def look_at_queues(queue: str | None = None, most: int = MOST_COUNTED) -> Statement[list[QueueRow]]:
    """All of them, or one: of each up to so many jobs are counted."""
    return Statement(QUEUES, {"most": most, "queue": queue}, partial(_parse_queues, most), name="queues")


def _parse_queues(most: int, rows: Rows) -> list[QueueRow]:
    return [
        QueueRow(
            name, capped(due + waiting, most, more), capped(ahead + waiting_ahead, most, more), running,
            capped(waiting, most, more), capped(blocked, most), oldest_at and oldest_at.astimezone(UTC),
            until and until.astimezone(UTC), limit, workers,
        )
        for name, due, ahead, running, waiting, waiting_ahead, more, blocked, oldest_at, until, limit, workers in rows
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker process that is believed alive. Instants are UTC."""

    id: int
    name: str
    """Host and process id, as it calls itself."""
    started_at: datetime
    expires_at: datetime
    """Until when it is believed alive, unless it extends that."""
    running: int
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    version: str
    """Of chancy-worker; empty of one that is older than what it could say this to."""
    listens: bool
    """At the doorbell; otherwise it looks for work by the clock, as behind PgBouncer."""
    clock_ahead: timedelta | None
    """How far the worker's clock was ahead of the database's at its last extension, a `timedelta`. A few ms are the
    network's.
    """
    memory: int | None
    """Bytes that were resident in its process when it said so, at its last heartbeat; None is unknown, as of systems
    other than Linux.
    """
    memory_of_children: int | None
    """The same of its child processes together, and of their fork server: what these share is counted in each."""
    memory_at: datetime | None
    """When it said so. Of a worker whose event loop is blocked that may be long ago."""


WORKERS = """
    SELECT worker.id, worker.name, worker.started_at, worker.expires_at,
        (SELECT count(*) FROM {schema}.job AS job WHERE job.worker = worker.id AND job.state = 'running'),
        coalesce(offer.queues, '{}'), coalesce(offer.tasks, '{}'), coalesce(offer.version, ''),
        coalesce(offer.listens, true), worker.clock_ahead, worker.memory, worker.memory_of_children,
        worker.memory_at
    FROM {schema}.worker AS worker
    LEFT JOIN {schema}.offer AS offer ON offer.worker = worker.id
    WHERE worker.expires_at > {schema}.clock()
    ORDER BY worker.name, worker.id
"""


@verb
def workers(*, schema: str | None = None) -> Statement[list[WorkerRow]]:
    """All workers whose lease has not run out, by name. One round trip."""
    return Statement(WORKERS, {}, _parse_workers, name="workers")


def _parse_workers(rows: Rows) -> list[WorkerRow]:
    return [
        WorkerRow(
            id_, name, started_at.astimezone(UTC), expires_at.astimezone(UTC), running, tuple(queues), tuple(tasks),
            version, listens, None if ahead is None else timedelta(seconds=ahead), memory, of_children,
            memory_at and memory_at.astimezone(UTC),
        )
        for id_, name, started_at, expires_at, running, queues, tasks, version, listens, ahead, memory, of_children,
            memory_at in rows
    ]  # fmt: skip


CLOCK = "SELECT {schema}.clock()"


@verb
def clock(*, schema: str | None = None) -> Statement[datetime]:
    """The time of day in this schema, in UTC. One round trip."""
    return time_of_day()


def time_of_day() -> Statement[datetime]:
    """The same, among others."""
    return Statement(CLOCK, {}, lambda rows: rows[0][0].astimezone(UTC), name="clock")
