"""What three workers count against the rows, at the size of a day; and what that costs in space. Prints what it saw."""

from __future__ import annotations

import random
import signal
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import tally_tasks
from psycopg import sql
from worker_help import all_finished, eventually

import chancy_ops
from chancy.run import send
from chancy.tally.tally import bucket_of
from chancy_worker import Timing
from chancy_worker.life.lease import register
from chancy_worker.parts import tally as part
from chancy_worker.tally.tally import Cell

pytestmark = [pytest.mark.patience, pytest.mark.timeout(900)]

JOBS = 200_000


async def test_of_200_000_jobs_only_what_killed_workers_had_not_said_is_missing(site, say):
    def spawn():
        return site.spawn(concurrency=100, timing=Timing(), grace=0.0, queues=tally_tasks.QUEUES)

    for begin in range(0, JOBS, 10_000):
        site.submit(*[tally_tasks.tasks[n % 20].bind(n) for n in range(begin, begin + 10_000)])
    workers = [spawn() for _ in range(3)]
    await site.started(*workers)
    chance, deaths, stopped = random.Random(7), [], 0
    for turn in range(6):
        left = site.one("SELECT count(*) FROM {}.job")
        await eventually(lambda left=left: site.one("SELECT count(*) FROM {}.job") < max(left - JOBS // 10, 1), 300)
        victim = workers.pop(chance.randrange(3))
        if turn % 2:
            victim.signal(signal.SIGTERM)  # its running jobs go back
            stopped += 1
        else:
            deaths.append(tally_tasks.kill(site, victim))
        workers.append(spawn())
    await all_finished(site, 600)
    for worker in workers:
        worker.signal(signal.SIGTERM)
    await eventually(lambda: site.workers() == {} or all(worker.code is not None for worker in workers), 60)
    ends, attempts = tally_tasks.compared(site)
    most = tally_tasks.unsaid(site, deaths)
    outcomes = {}
    for row in chancy_ops.throughput(site.conn, since=86_400, by="nothing", schema=site.schema):
        outcomes = {str(outcome): n for outcome, n in row.outcomes.items()}
    say(f"counted {outcomes}")
    say(f"{len(deaths)} killed, {stopped} stopped; missing {sum(ends.values())} of {JOBS} ends, of at most {most}")
    assert min([*ends.values(), *attempts.values(), 0]) == 0  # none is counted twice
    assert 0 <= sum(ends.values()) <= most
    assert outcomes["snoozed"]
    assert outcomes["retried"]
    assert outcomes["released"]
    assert outcomes["died"]


A_DAY = 720_000


def test_a_day_of_720_000_jobs_of_20_tasks_on_8_workers_takes_20_megabytes_by_minute_and_one_by_hour(site, say):
    chance = random.Random(3)
    leases = [send(site.conn, register("w", 10**6), site.schema) for _ in range(8)]
    clock = sql.SQL("CREATE OR REPLACE FUNCTION {} RETURNS timestamptz LANGUAGE sql STABLE AS {}")
    name = sql.SQL("{}()").format(sql.Identifier(site.schema, "clock"))
    turns = 24 * 360
    a_turn = A_DAY / turns / 8
    with psycopg.connect(site.dsn, autocommit=True) as conn:
        conn.execute("SET synchronous_commit = off")
        for turn in range(turns):
            at = datetime(2026, 11, 25, tzinfo=UTC) + timedelta(seconds=10 * turn)
            conn.execute(clock.format(name, f"SELECT '{at.isoformat()}'::timestamptz"))
            for lease in leases:
                cells = {}
                for _ in range(int(a_turn) + (chance.random() < a_turn % 1)):
                    number = min(int(chance.paretovariate(0.7)) - 1, 19)
                    outcome = "succeeded" if chance.random() < 0.97 else "failed"
                    key = f"q{number % 5}", f"shop.tasks.task_{number}", outcome
                    cell = cells.setdefault(key, Cell())
                    cell.jobs += 1
                    cell.waited += 0.01
                    cell.ran += 0.05
                    for histogram, mean in ((cell.waits, 0.01), (cell.runs, 0.05 * (number + 1))):
                        bucket = bucket_of(chance.expovariate(1 / mean))
                        histogram[bucket] = histogram.get(bucket, 0) + 1
                if cells:
                    send(conn, part.say(lease, turn + 1, cells), site.schema)
            if turn % 6 == 5:
                send(conn, part.fold(), site.schema)
        conn.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(site.schema, "tally_minute")))
        size = "SELECT pg_total_relation_size('{}.tally_%s')"
        rows = "SELECT count(*) FROM {}.tally_%s"
        for span, most in (("minute", 20), ("hour", 1), ("day", 1)):
            if span != "minute":
                conn.execute(f'VACUUM FULL "{site.schema}".tally_{span}')
            took = site.one(size % span) / 1e6
            say(f"{span}: {site.one(rows % span)} rows, {took:.2f} MB")
            assert took <= most
