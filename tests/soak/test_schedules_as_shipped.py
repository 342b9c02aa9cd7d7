"""Each tick once, while its workers are killed: ten minutes, or as many as CHANCY_SCHEDULE_MINUTES says."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from pathlib import Path

import pytest
import schedule_patience_tasks as tasks
from worker_help import eventually, states

import chancy
from chancy import every

MINUTES = float(os.environ.get("CHANCY_SCHEDULE_MINUTES", "10"))

pytestmark = [pytest.mark.patience, pytest.mark.timeout(MINUTES * 60 + 200)]

# What was submitted, whatever became of it: a job that is taken back from a dead worker has another run_at.
LOG = """
    CREATE TABLE {schema}.submitted (task text, tick timestamptz, at timestamptz);
    CREATE FUNCTION {schema}.log_submitted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO {schema}.submitted VALUES (NEW.task, NEW.run_at, NEW.submitted_at);
        RETURN NULL;
    END $$;
    CREATE TRIGGER log_submitted AFTER INSERT ON {schema}.job FOR EACH ROW EXECUTE FUNCTION {schema}.log_submitted();
"""


def start(site, number):
    """The first of them has a clock of its own that is wrong."""
    script = [str(Path(tasks.__file__))] if number == 0 else ["-m", "chancy_worker"]
    return site.run(*script, "schedule_patience_tasks", "--dsn", site.dsn, "--schema", site.schema)


def ticks(site, task):
    rows = site.rows("SELECT tick, at FROM {}.submitted WHERE task = %s ORDER BY tick, at", task.name)
    return [tick.timestamp() for tick, _ in rows], sorted((at - tick).total_seconds() for tick, at in rows)


async def test_each_tick_once_while_three_workers_are_killed_and_one_has_the_wrong_time(site, say):
    site.conn.execute(LOG.replace("{schema}", site.schema))
    chancy.schedule(site.conn, "made", tasks.made.bind(), every(seconds=1, missed="all"), schema=site.schema)
    workers = [start(site, number) for number in range(3)]
    await site.started(*workers)
    end = time.monotonic() + MINUTES * 60
    kills = stops = 0
    while time.monotonic() < end:
        await asyncio.sleep(random.uniform(0.5, 6))
        victims = range(3) if random.random() < 0.05 else [random.randrange(3)]
        for number in victims:
            workers[number].signal(signal.SIGKILL)
            workers[number].end()
            kills += 1
        if len(victims) == 3:
            stops += 1
            await asyncio.sleep(random.uniform(1, 30))
        await asyncio.sleep(random.uniform(0, 2))
        for number in victims:
            workers[number] = start(site, number)
    await site.started(*workers)
    await asyncio.sleep(20)
    for worker in workers:
        worker.signal(signal.SIGTERM)
    await eventually(lambda: all(worker.code == 0 for worker in workers), 40)
    assert "its own clock is 3600 s ahead" in workers[0].text
    say(f"{kills} kills, {stops} times nobody was there; jobs: {states(site)}")
    for task, step in ((tasks.declared, 1), (tasks.made, 1), (tasks.on_time, 2)):
        found, lags = ticks(site, task)
        doubled = len(found) - len(set(found))
        missing = (found[-1] - found[0]) / step + 1 - len(set(found))
        say(
            f"{task.name.rpartition('.')[2]}: {len(found)} ticks, {doubled} doubled, {missing:.0f} missing, after "
            f"p50 {statistics.median(lags) * 1e3:.0f} ms, p90 {lags[len(lags) * 9 // 10] * 1e3:.0f} ms, max {lags[-1]:.1f} s"
        )
        assert not doubled
        assert all(tick % step == 0 for tick in found)
        if task is not tasks.on_time:  # of what was missed while nobody was there, the latest only
            assert not missing
            assert found[-1] > time.time() - 60
