"""Steps at scale, with workers that die: what is in a step's transaction is there once."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter

import pytest
import step_tasks as tasks
from worker_help import all_finished, states

import chancy

pytestmark = [pytest.mark.patience, pytest.mark.timeout(500)]
JOBS, KILLS = 600, 20


def fleet(site, size):
    where = ["--dsn", site.dsn, "--schema", site.schema]
    return [site.run("-m", "chancy_worker", "step_tasks", "--queue", "default", *where) for _ in range(size)]


async def test_of_600_jobs_of_8_steps_each_effect_in_a_transaction_is_there_once_whatever_dies(site, say):
    site.conn.execute(tasks.MAKE_EFFECTS)
    workers = fleet(site, 3)
    await site.started(*workers)
    start, kills = time.monotonic(), 0
    kinds = [tasks.order, tasks.order_in_thread]
    jobs = []
    for number in range(JOBS):
        jobs += site.submit(kinds[number % 2].bind(site.dsn))
        if number % (JOBS // KILLS) == JOBS // KILLS - 1:
            await asyncio.sleep(random.uniform(0.3, 1.0))
            victim = workers.pop(random.randrange(len(workers)))
            victim.signal(signal.SIGKILL)
            workers += fleet(site, 1)
            kills += 1
    await all_finished(site, 300)
    seen = Counter(site.conn.execute("SELECT job, name FROM public.step_effect").fetchall())
    inside = {effect: times for effect, times in seen.items() if effect[1].startswith("book")}
    outside = {effect: times for effect, times in seen.items() if effect not in inside}
    crashes = {job.id: site.row(job).crashes for job in jobs}
    again = sum(times - 1 for times in outside.values())
    say(
        f"{time.monotonic() - start:.0f} s, {kills} kills, {sum(crashes.values())} attempts lost, {states(site)}; "
        f"{len(inside):,} of {JOBS * 5:,} effects in transactions, each {set(inside.values())} times; "
        f"{len(outside):,} of {JOBS * 2:,} outside, {again} of them again"
    )
    assert kills == KILLS
    assert states(site) == {"succeeded": JOBS}
    assert inside == {(job.id, f"book {number}"): 1 for job in jobs for number in range(5)}
    assert outside.keys() == {(job.id, name) for job in jobs for name in ("charge", "ship")}
    assert {effect: times for effect, times in outside.items() if times > 1 + crashes[effect[0]]} == {}
    kept = Counter(step.name for job in jobs[:50] for step in chancy.steps(site.conn, job.id, schema=site.schema))
    assert set(kept.values()) == {50}
