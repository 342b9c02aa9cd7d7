"""A hundred thousand failed jobs are requeued under load; the test prints what the claims saw of it."""

from __future__ import annotations

import statistics
import time

import pytest
import worker_tasks
from worker_help import states

from chancy.run import send
from chancy_worker.attempts.verdict import succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register

pytestmark = [pytest.mark.patience, pytest.mark.timeout(400)]

MANY = 100_000
FAILED = """
    INSERT INTO {0}.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, run_at,
        submitted_at, finished_at, arguments, errors, error_kind)
    SELECT nextval(pg_get_serial_sequence('{0}.job', 'id')), 'worker_tasks.add', 'old', 0, 'failed', 3, 3, 3, 0, now(),
        now(), now(), '{{"a":1,"b":2}}', '[{{"attempt":3,"kind":"OSError","message":"gone"}}]', 'OSError'
    FROM generate_series(1, %s)
    RETURNING id
"""
REQUEUE = """
import sys, psycopg, chancy_ops
from chancy_ops import JobFilter
from chancy import State
dsn, schema = sys.argv[1:]
with psycopg.connect(dsn, autocommit=True) as conn:
    which = JobFilter(state=State.FAILED, error="OSError")
    print(sum(chancy_ops.count(conn, which, schema=schema).values()), flush=True)
    print(chancy_ops.requeue_many(conn, which, schema=schema), flush=True)
"""


def rounds(site, worker, goes_on):
    """Submit twenty, claim them, complete them with the next claim; how long each claim took, in milliseconds."""
    took, verdicts = [], []
    wanted = Wanted({"default": 100}, looking=("default",))
    while goes_on():
        site.submit(*[worker_tasks.add.bind(1, 2) for _ in range(20)])
        began = time.perf_counter()
        answer = send(site.conn, play_round(worker, verdicts, wanted), site.schema)
        took.append((time.perf_counter() - began) * 1000)
        verdicts = [succeeded(job, b"3") for job in answer.claimed]
        time.sleep(0.002)
    return took


def p99(took):
    return statistics.quantiles(took, n=100)[98]


def test_a_hundred_thousand_are_requeued_and_claims_go_on_undisturbed(site, say):
    site.rows(FAILED, MANY)
    site.conn.execute("ANALYZE")
    worker = send(site.conn, register("measured", 3600), site.schema)
    end = time.monotonic() + 5
    rounds(site, worker, lambda: time.monotonic() < end)  # warm
    end = time.monotonic() + 15
    before = rounds(site, worker, lambda: time.monotonic() < end)
    began = time.monotonic()
    process = site.run("-c", REQUEUE, site.dsn, site.schema)
    during = rounds(site, worker, lambda: process.code is None)
    took = time.monotonic() - began
    end = time.monotonic() + 15
    after = rounds(site, worker, lambda: time.monotonic() < end)
    assert process.text.splitlines() == ["10000", f"Swept(changed={MANY}, left=0, stopped=False)"]
    assert site.rows("SELECT count(*) FROM {0}.job WHERE queue = 'old'") == [(MANY,)]
    say(
        f"{MANY:,} requeued in {took:.1f} s; claims p50/p99/max in ms: before {told(before)}, meanwhile {told(during)}, "
        f"afterwards {told(after)}; {states(site)}"
    )
    assert p99(during) < 2 * max(p99(before), p99(after))


def told(took):
    return f"{statistics.median(took):.1f}/{p99(took):.1f}/{max(took):.1f} ({len(took)})"
