"""Twenty tasks that come out in every way, under one plain module name for worker processes, too; and how what was
counted is compared with the rows."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

import chancy_ops
from chancy import Backoff, Discard, Snooze, current_job, task

AT_ONCE = Backoff(base=timedelta(milliseconds=20), factor=1, jitter=0)
TASKS = 20


async def come_out(n: int) -> int:
    """As the number says."""
    me = current_job()
    if n % 97 == 0:
        await asyncio.sleep(1)
    if n % 11 == 1 and me.attempt == 1:
        raise ValueError("once")
    if n % 13 == 2:
        raise KeyError(n)
    if n % 17 == 3:
        raise Discard("never")
    if n % 19 == 4 and me.id % 2 and me.fence == 1:
        raise Snooze(timedelta(milliseconds=10))
    return n


tasks = [
    task(name=f"tally_tasks.t{number}", retry=AT_ONCE, max_attempts=2, queue=f"q{number % 4}" if number else "default")(
        come_out
    )
    for number in range(TASKS)
]

QUEUES = ["default", "q0", "q1", "q2", "q3"]

ROWS = """
    SELECT queue, task, state::text, count(*), sum(attempt) FROM {}.history GROUP BY 1, 2, 3
"""
UNSAID = """
    SELECT count(*) FROM {}.history WHERE worker = ANY (%s) AND finished_at > %s - interval '11 seconds'
"""


def compared(site):
    """By queue, task and state what the rows have and the tally has not; and of attempts the same, by queue and task."""
    rows = chancy_ops.throughput(site.conn, since=86_400, by="queue and task", schema=site.schema)
    ends, attempts = {}, {}
    for queue, name, state, jobs, tries in site.rows(ROWS):
        ends[queue, name, state] = jobs
        attempts[queue, name] = attempts.get((queue, name), 0) + tries
    for row in rows:
        for outcome, n in row.outcomes.items():
            if outcome in ("succeeded", "failed", "discarded", "cancelled"):
                ends[row.queue, row.task, str(outcome)] = ends.get((row.queue, row.task, str(outcome)), 0) - n
            if outcome in ("succeeded", "failed", "discarded", "cancelled", "retried", "died"):
                attempts[row.queue, row.task] = attempts.get((row.queue, row.task), 0) - n
    return {key: n for key, n in ends.items() if n}, {key: n for key, n in attempts.items() if n}


def kill(site, process):
    """At once; the ids of its lease, and the database's time."""
    leases = [lease for lease, pid in site.workers().items() if pid == process.pid]
    process.signal(signal.SIGKILL)
    process.popen.wait()
    return leases, site.one("SELECT {}.clock()")


def unsaid(site, deaths):
    """How many jobs those that were killed may have ended without having said so."""
    return sum(site.one(UNSAID, leases, at) for leases, at in deaths)
