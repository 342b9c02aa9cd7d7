"""Limits over all workers and turns between groups, at scale and with workers that die; each test prints what it saw."""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import time
from itertools import pairwise
from pathlib import Path

import gate_attack_tasks as attacked
import gate_patience_tasks as tasks
import pytest
from worker_help import all_finished, eventually, states

import chancy_ops
from chancy import Limit, submit_many
from chancy.run import send
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register

pytestmark = [pytest.mark.patience, pytest.mark.timeout(400)]


def fleet(site, size):
    queues = ["--queue", "default=100"]
    where = ["--dsn", site.dsn, "--schema", site.schema]
    return [site.run("-m", "chancy_worker", "gate_patience_tasks", *queues, *where) for _ in range(size)]


def add_all(site, jobs):
    for first in range(0, len(jobs), 5000):
        submit_many(site.conn, jobs[first : first + 5000], schema=site.schema)


def began(folder):
    lines = (Path(folder) / "began").read_text().split("\n")[:-1]
    return [(what, float(at)) for what, at in map(str.split, lines)]


async def test_never_more_than_three_of_a_key_while_workers_are_killed(site, tmp_path, say):
    took = {}
    for phase in ("unlimited", "limited", "killed"):
        task = tasks.unlimited if phase == "unlimited" else tasks.limited
        folder = tmp_path / phase
        folder.mkdir()
        jobs = [task.bind(str(folder), f"k{n % 50}", 0.002) for n in range(20_000)]
        workers = fleet(site, 8)
        await site.started(*workers)
        start = time.monotonic()
        add_all(site, jobs)
        kills = 0
        while site.one("SELECT EXISTS (SELECT FROM {}.job)"):
            await asyncio.sleep(0.5 if phase == "killed" else 0.05)
            if phase == "killed" and kills < 12 and site.one("SELECT count(*) FROM {}.job") > 2000:
                victim = random.choice([worker for worker in workers if worker.code is None])
                victim.signal(signal.SIGKILL)
                workers.append(*fleet(site, 1))
                kills += 1
            assert time.monotonic() - start < 300
        took[phase] = time.monotonic() - start
        for worker in workers:
            worker.end()
        say(f"{phase}: {took[phase]:.1f} s, {kills} kills, {states(site)}")
        assert not (folder / "too_many").exists()
        site.conn.execute(f"TRUNCATE {site.schema}.history, {site.schema}.worker, {site.schema}.dead_worker CASCADE")
    owned = site.one("SELECT count(*) FROM {}.slot AS slot WHERE chancy.is_owned(slot.job, slot.fence)")
    ratio = took["unlimited"] / took["limited"]
    say(f"limited / unlimited: {ratio:.2f}; slots still owned after the kills: {owned}")
    assert owned == 0
    assert ratio >= 0.5


async def test_a_hundred_thousand_that_wait_for_a_full_limit_keep_a_thousand_from_nothing(site, tmp_path, say):
    worker = send(site.conn, register("measured", 600), site.schema)
    look = play_round(worker, [], Wanted({"default": 100}, looking=("default",)))

    def milliseconds():
        took = []
        for _ in range(200):
            start = time.perf_counter()
            send(site.conn, look, site.schema)
            took.append((time.perf_counter() - start) * 1e3)
        return statistics.median(took)

    empty = milliseconds()
    add_all(site, [tasks.blocked.bind(600) for _ in range(100_000)])
    full = milliseconds()
    add_all(site, [tasks.free.bind(str(tmp_path)) for _ in range(1000)])
    submitted = time.time()
    fleet(site, 1)
    await eventually(lambda: (tmp_path / "began").exists() and len(began(tmp_path)) == 1000, 60)
    first, last = (at - submitted for _, at in (began(tmp_path)[0], began(tmp_path)[-1]))
    say(f"a claim that finds nothing: {empty:.2f} ms on an empty table, {full:.2f} ms with 100,000 parked")
    say(f"the first of 1,000 began {first:.2f} s after the submit (the worker's start included), the last {last:.2f} s")
    await eventually(lambda: site.count("running") == 1)
    assert full < 3 * empty


async def test_a_rate_is_kept_by_eight_workers_for_a_minute_and_used(site, tmp_path, say):
    add_all(site, [tasks.rated.bind(str(tmp_path)) for _ in range(3_500)])
    await site.started(*fleet(site, 8))
    await asyncio.sleep(5)
    start = time.time()
    await asyncio.sleep(60)
    starts = sorted(at for _, at in began(tmp_path))
    claims = [
        at.timestamp()
        for (at,) in site.rows("SELECT started_at FROM {}.any_job WHERE started_at IS NOT NULL ORDER BY 1")
    ]
    by_handlers = min(late - early for early, late in zip(starts, starts[50:], strict=False))
    by_claims = min(late - early for early, late in zip(claims, claims[50:], strict=False))
    used = sum(start <= at < start + 60 for at in starts) / (50 * 60)
    say(f"51 in a row took at least {by_claims:.4f} s by claims, {by_handlers:.4f} s by handlers; used {used:.3f}")
    assert by_claims >= 1  # what the functions see is later by what the machine is busy with
    assert used >= 0.9


async def test_a_tenant_with_one_job_is_not_kept_waiting_by_one_with_a_hundred_thousand(site, tmp_path, say):
    add_all(site, [tasks.of_a_tenant.bind(str(tmp_path), "A") for _ in range(100_000)])
    await site.started(*fleet(site, 2))
    await eventually(lambda: (tmp_path / "began").exists() and len(began(tmp_path)) > 2000, 60)
    at = time.time()
    add_all(site, [tasks.of_a_tenant.bind(str(tmp_path), "B")])
    await eventually(lambda: any(what == "B" for what, _ in began(tmp_path)), 20)
    waited = next(when for what, when in began(tmp_path) if what == "B") - at
    count = sum(what == "B" for what, _ in began(tmp_path))
    add_all(site, [tasks.of_a_tenant.bind(str(tmp_path), "B") for _ in range(1000)])
    await eventually(lambda: sum(what == "B" for what, _ in began(tmp_path)) == count + 1000, 60)
    order = [what for what, _ in sorted(began(tmp_path), key=lambda line: line[1])]
    places = [place for place, what in enumerate(order) if what == "B"][1:]
    gaps = [late - early for early, late in pairwise(places)]
    say(
        f"B's only job began after {waited:.3f} s; then a B every {statistics.mean(gaps):.2f} jobs, at most {max(gaps)} apart"
    )
    assert waited < 1.5
    assert statistics.mean(gaps) < 2.2


async def test_a_limit_that_is_lowered_and_raised_holds_from_the_next_claim(site, tmp_path, say):
    seen = []
    await site.started(*fleet(site, 4))
    add_all(site, [tasks.unlimited.bind(str(tmp_path), "", 0.05) for _ in range(4000)])
    for most in (40, 5, 20, 0, 10):
        chancy_ops.limit(site.conn, "default", concurrency=most, schema=site.schema)
        await asyncio.sleep(1.5)
        highest = 0
        for _ in range(100):
            highest = max(highest, site.count("running"))
            await asyncio.sleep(0.005)
        seen.append((most, highest))
    chancy_ops.limit(site.conn, "default", concurrency=None, schema=site.schema)
    await all_finished(site, 60)
    say(f"limit and most that ran: {seen}; {states(site)}")
    assert all(highest <= most for most, highest in seen)
    assert all(highest >= most * 0.8 for most, highest in seen)


LOGGED = """
    CREATE TABLE {0}.begun (gate text, most integer, seconds double precision, at timestamptz);
    CREATE FUNCTION {0}.log_begin() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO {0}.begun
        SELECT gate.name, gate.most, gate.per, NEW.started_at
        FROM json_to_recordset(NEW.gates::json->'gates') AS gate (name text, most integer, per double precision)
        WHERE gate.per IS NOT NULL;
        RETURN NULL;
    END $$;
    CREATE TRIGGER log_begin AFTER UPDATE ON {0}.job FOR EACH ROW
        WHEN (OLD.state = 'ready' AND NEW.state = 'running' AND NEW.gates IS NOT NULL) EXECUTE FUNCTION {0}.log_begin();
"""
TOO_MANY = """
    SELECT gate.name, count(*)::integer, max(gate.most)
    FROM {0}.job AS job
    CROSS JOIN LATERAL json_to_recordset(job.gates::json->'gates')
        AS gate (name text, most integer, per double precision)
    WHERE job.state = 'running' AND gate.per IS NULL
    GROUP BY gate.name HAVING count(*) > max(gate.most)
"""
TOO_FAST = """
    SELECT gate, at, later FROM (
        SELECT gate, seconds, at, lead(at, most) OVER (PARTITION BY gate, most ORDER BY at) AS later FROM {0}.begun
    ) AS each
    WHERE later < at + seconds * interval '1 s'
"""
ATTACK_SECONDS, KILL_SECONDS = 75.0, 2.0


async def test_no_gate_lets_in_one_too_many_while_workers_are_killed_and_limits_change(site, say):
    """Seen from the rows, at one moment after the other: each look is a snapshot."""
    site.conn.execute(LOGGED.format(site.schema))
    queues = ["--queue", "default=60", "--queue", "limited=20"]
    where = ["--dsn", site.dsn, "--schema", site.schema]

    def start(size):
        return [site.run("-m", "chancy_worker", "gate_attack_tasks", *queues, *where) for _ in range(size)]

    workers = start(4)
    await site.started(*workers)
    submitted = looks = kills = 0
    bound = limit = 10
    chancy_ops.limit(site.conn, "limited", concurrency=limit, schema=site.schema)
    begin = killed_at = changed_at = time.monotonic()
    while (now := time.monotonic()) < begin + ATTACK_SECONDS:
        assert site.rows(TOO_MANY.replace("{0}", site.schema)) == []
        running = site.one("SELECT count(*) FROM {}.job WHERE state = 'running' AND queue = 'limited'")
        assert running <= bound, (running, bound, limit)
        bound = limit if running <= limit else bound
        looks += 1
        if now > changed_at + 1:
            changed_at = now
            most = random.choice([1, 2, 5, 8])
            if site.one("SELECT count(*) FROM {}.job") < 6_000:
                vary = attacked.varying.using(limits=[Limit.concurrency(most, key="varying")])
                keys = [int(random.paretovariate(1)) % 40 for _ in range(1500)]
                jobs = [attacked.three_a_key.bind(key) for key in keys]
                jobs += [attacked.twenty_a_second.bind(key % 5) for key in keys[:60]]
                jobs += [attacked.two_a_key_and_fifty_a_second.bind(key) for key in keys[:40]]
                jobs += [attacked.sixty.bind(key) for key in keys[:600]] + [vary.bind(key) for key in keys[:80]]
                jobs += [attacked.of_a_limited_queue.bind(key) for key in keys[:150]]
                jobs += [attacked.plain.bind(key) for key in keys[:100]]
                random.shuffle(jobs)
                submit_many(site.conn, jobs, schema=site.schema)
                submitted += len(jobs)
            limit = random.choice([0, 1, 3, 10, 25])
            bound = max(bound, limit)
            chancy_ops.limit(site.conn, "limited", concurrency=limit, schema=site.schema)
        if now > killed_at + KILL_SECONDS:
            killed_at = now
            victim = random.choice([worker for worker in workers if worker.code is None])
            victim.signal(signal.SIGKILL)
            workers += start(1)
            kills += 1
        await asyncio.sleep(0.002)
    chancy_ops.limit(site.conn, "limited", concurrency=None, schema=site.schema)
    while site.one("SELECT EXISTS (SELECT FROM {}.job)"):
        assert site.rows(TOO_MANY.replace("{0}", site.schema)) == []
        looks += 1
        assert time.monotonic() < begin + ATTACK_SECONDS + 150, states(site)
        await asyncio.sleep(0.005)
    took = time.monotonic() - begin
    owned = site.one(
        "SELECT count(*) FROM {0}.slot AS slot WHERE {0}.is_owned(slot.job, slot.fence)".replace("{0}", site.schema)
    )
    say(f"{submitted} jobs in {took:.0f} s, {kills} kills, {looks} looks, {states(site)}; slots still owned: {owned}")
    assert (states(site), owned) == ({"succeeded": submitted}, 0)
    assert site.rows(TOO_FAST.replace("{0}", site.schema)) == []
