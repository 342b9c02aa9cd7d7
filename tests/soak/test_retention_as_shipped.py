"""A day of a million finished jobs is dropped while a worker is at work; each test prints what it saw."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise

import gate_patience_tasks as tasks
import psycopg
import pytest
from test_gates_as_shipped import began
from worker_help import eventually

import chancy_ops
from chancy import Keep, days
from chancy_worker.connection.link import Link
from chancy_worker.connection.sessions import LentSession, OwnSession
from chancy_worker.parts.retention import drop_briefly, drop_overdue, overdue

pytestmark = [pytest.mark.patience, pytest.mark.timeout(400)]

FILL = """
    INSERT INTO chancy.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, run_at,
        submitted_at, started_at, finished_at, arguments, result, keep_days)
    SELECT nextval('chancy.job_id_seq'), 'gate_patience_tasks.free', 'default', 0, 'succeeded', 1, 3, 1, 0, at, at, at,
        at, '{"folder": "/tmp"}', 'null', %s
    FROM (SELECT current_date - 50 + interval '12 hours' AS at FROM generate_series(1, 1000000)) AS finished
"""
EVERY = 0.005
LONGEST = 0.2


@pytest.fixture
def load(site, tmp_path):
    """A job every 5 ms until the test is over."""
    stop = threading.Event()

    def submit():
        with psycopg.connect(site.dsn, autocommit=True) as conn:
            while not stop.wait(EVERY):
                tasks.free.submit(conn, str(tmp_path))

    producer = threading.Thread(target=submit)
    producer.start()
    yield
    stop.set()
    producer.join()


def longest_gap(site, folder, since, until):
    """Between two claims, and between two starts of a function, in seconds."""
    rows = site.rows("SELECT DISTINCT started_at FROM {}.any_job WHERE started_at >= to_timestamp(%s)", since)
    claims = sorted(at.timestamp() for (at,) in rows)
    starts = sorted(at for _, at in began(folder))
    return [
        max(late - early for early, late in pairwise(at for at in moments if since <= at <= until))
        for moments in (claims, starts)
    ]


@pytest.mark.parametrize("time_of_its_own", [False, True], ids=["schema's own", "30 days"])
@pytest.mark.parametrize("reading", [False, True], ids=["alone", "beside a reader"])
@pytest.mark.parametrize("session", [OwnSession, LentSession], ids=["own session", "behind a pooler"])
async def test_a_million_jobs_are_dropped_and_claims_go_on(
    site, tmp_path, say, monkeypatch, load, session, reading, time_of_its_own
):
    monkeypatch.setenv("CHANCY_SCHEMA", "chancy")
    if time_of_its_own:
        chancy_ops.keep(site.conn, "default", Keep(succeeded=days(30)), schema="chancy")
    parent = "history_30d" if time_of_its_own else "history_default"
    await site.started(site.run("-m", "chancy_worker", "gate_patience_tasks", "--dsn", site.dsn, "--schema", "chancy"))
    await eventually(lambda: (tmp_path / "began").exists() and len(began(tmp_path)) > 500)
    # Its worker has looked for what is overdue, and does so in an hour again.
    site.conn.execute("SELECT chancy.make_partitions(current_date - 50, current_date - 50)")
    site.conn.execute(FILL, [30 if time_of_its_own else 0])
    await asyncio.sleep(2)

    link = Link(site.dsn, "chancy", "upkeep", deadline=8, lock_timeout="2s", session=session)
    await link.connect()
    drop = drop_briefly if session is LentSession else drop_overdue
    assert [part for _, part, _ in await link.send(overdue()) if part == parent] == [parent]
    before, start = time.time() - 2, time.time()
    if reading:
        with psycopg.connect(site.dsn) as reader:
            reader.execute("SELECT count(*) FROM chancy.history WHERE id < 0")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await drop(link)
            await asyncio.sleep(0.5)
    await drop(link)
    took = time.time() - start
    assert site.one("SELECT count(*) FROM {}.history WHERE finished_at < now() - interval '1 day'") == 0
    await asyncio.sleep(1)
    await link.close()
    quiet = longest_gap(site, tmp_path, before, start)
    during = longest_gap(site, tmp_path, start, start + took + 0.5)
    say(
        f"dropped in {took:.2f} s; longest gap between claims {during[0] * 1e3:.0f} ms, between starts "
        f"{during[1] * 1e3:.0f} ms; in the two seconds before {quiet[0] * 1e3:.0f} and {quiet[1] * 1e3:.0f} ms"
    )
    assert max(during) < LONGEST
