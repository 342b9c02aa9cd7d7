"""`chancy queues` and `chancy workers`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import chancy_ops
from chancy.options.phrases import size
from chancy_ops import QueueRow, WorkerRow
from chancy_ops.tally import lately
from chancy_ops.terminal.screen import Table, document
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import a_second, lasting, until


@command("queues")
def queues(site: Site) -> None:
    """The queues, and what waits in them: those that have live jobs or workers, or are paused or limited.

    READY are jobs that are due; WAITING those of them that wait for a limit or for their turn; BLOCKED are jobs that
    wait for other jobs; OLDEST is for how long
    the longest waiting of the others has been due. OUT/S are jobs a second that finished in the last ten minutes, and
    FAILED those of them that failed, as workers have counted. LIMIT is what `chancy limit` has set.
    """
    with site.connect() as conn:
        rows, now = chancy_ops.queues(conn, schema=site.schema), site.now(conn)
        done = lately(conn, schema=site.schema)
    if site.json:
        return document({"queues": [described_queue(row) | asdict(done[row.name]) for row in rows]})
    Table(
        (
            "QUEUE", "READY", "WAITING", "SCHEDULED", "BLOCKED", "RUNNING", "WORKERS", "LIMIT", "OUT/S", "FAILED",
            "OLDEST", "PAUSED",
        ),
        [
            (
                row.name, row.ready, row.waiting, row.scheduled, row.blocked, row.running, row.workers, row.limit,
                a_second(done[row.name].rate), done[row.name].failed,
                None if row.oldest_at is None else lasting((now - row.oldest_at).total_seconds()),
                until(row.paused_until),
            )
            for row in rows
        ],
    ).show()  # fmt: skip
    return None


@command("workers")
def workers(site: Site) -> None:
    """The workers that are believed alive.

    LEASE is until when, unless the worker extends it; CLOCK by how much its own clock is ahead of the database's.
    MEMORY is what was resident in its process and its child processes when it last said so, where the system says it
    (Linux).
    """
    with site.connect() as conn:
        rows, now = chancy_ops.workers(conn, schema=site.schema), site.now(conn)
    if site.json:
        return document({"workers": [described(row) for row in rows]})
    Table(
        ("ID", "WORKER", "VERSION", "RUNNING", "SINCE", "LEASE", "WAKEUPS", "CLOCK", "MEMORY", "QUEUES", "TASKS"),
        [
            (
                row.id, row.name, row.version, row.running, row.started_at,
                lasting((row.expires_at - now).total_seconds()), "doorbell" if row.listens else "by the clock",
                None if row.clock_ahead is None else f"{row.clock_ahead.total_seconds():+.3f} s",
                None if row.memory is None else size(row.memory + (row.memory_of_children or 0)),
                ", ".join(row.queues), len(row.tasks),
            )
            for row in rows
        ],
    ).show()  # fmt: skip
    return None


def described_queue(row: QueueRow) -> dict[str, Any]:
    """A queue as a JSON document."""
    counts = {name: getattr(row, name) for name in ("ready", "scheduled", "waiting", "blocked")}
    more = [name for name, count in counts.items() if count.more]
    return asdict(row) | {name: int(count) for name, count in counts.items()} | {"more": more}


def described(row: WorkerRow) -> dict[str, Any]:
    """A worker as a JSON document."""
    return asdict(row) | {"clock_ahead": None if row.clock_ahead is None else row.clock_ahead.total_seconds()}
