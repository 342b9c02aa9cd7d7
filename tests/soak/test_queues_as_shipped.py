"""Several queues in one worker against one alone, and the order in which jobs begin; each test prints what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import pytest
import worker_tasks
from queue_patience_tasks import doze, seen
from test_order import PLACES, begun, overtaken
from worker_help import at_work, eventually

from chancy import Chancy, Queue, submit_many
from chancy_ops.pauses import pause
from chancy_ops.queue import limit
from chancy_worker import Worker, WorkerConfig

pytestmark = [pytest.mark.patience, pytest.mark.timeout(500)]

EMPTY_FOR = 0.02
"""Seconds that a slot may be empty while something could run in it; or, on a machine that is busy with other things,
half as long again as in a queue that is alone."""
LAG = 0.008
"""A sampler that comes later than this has been kept waiting, like the worker: what was empty then does not count."""


@contextlib.asynccontextmanager
async def working(site, queues):
    seen.__init__()
    worker = Worker(Chancy(site.dsn, schema=site.schema, queues=queues), WorkerConfig(grace=1))
    async with at_work(worker):
        yield worker


async def sample(until):
    before = time.monotonic()
    while not until():
        await asyncio.sleep(0.002)
        now = time.monotonic()
        if now - before > LAG:
            seen.lagged_at = now
        before = now


async def drain(site, queues, jobs):
    """The seconds that these jobs take by queue, from the worker's start; and the longest that a slot was empty."""
    totals = {queue: len(lengths) for queue, lengths in jobs.items()}
    for queue, lengths in jobs.items():
        submit_many(site.conn, [doze.using(queue=queue).bind(seconds) for seconds in lengths], schema=site.schema)
    took, began = {}, time.monotonic()

    def done():
        for queue, total in totals.items():
            if seen.ended[queue] == total:
                took.setdefault(queue, time.monotonic() - began)
        return len(took) == len(totals)

    async with working(site, queues):
        await sample(done)
        await eventually(lambda: site.one("SELECT count(*) FROM {}.job WHERE queue = ANY (%s)", list(jobs)) == 0)
    return took, seen.longest()


@pytest.mark.parametrize("slots", [1, 10, 100])
@pytest.mark.parametrize("number", [2, 5, 50])
async def test_a_queue_beside_others_takes_as_long_as_alone(site, say, number, slots):
    """The others are empty, paused, at an operator's limit, full of long jobs, or small; in this order."""
    lengths = random.Random(slots)
    jobs = {"work": [lengths.choice([0.005, 0.02, 0.05, 0.12]) for _ in range(40 * slots)]}
    alone, empty_alone = await drain(site, [Queue("work", slots)], jobs)
    kinds = ["empty", "paused", "limited", "long", "small"]
    others = [(kinds[n % 5], f"{kinds[n % 5]}{n}") for n in range(number - 1)]
    queues = [Queue("work", slots)]
    for kind, name in others:
        queues.append(Queue(name, 1 if kind == "small" else 10))
        held = {"paused": [0.01] * 20, "limited": [0.5] * 20, "long": [30.0] * 20}.get(kind, [])
        if kind == "paused":
            pause(site.conn, name, schema=site.schema)
        elif kind == "limited":
            limit(site.conn, name, concurrency=1, schema=site.schema)
        elif kind == "small" and number < 50:
            jobs[name] = [0.03] * 30
        submit_many(site.conn, [doze.using(queue=name).bind(seconds) for seconds in held], schema=site.schema)
    beside, empty = await drain(site, queues, jobs)
    ratio = beside["work"] / alone["work"]
    say(
        f"{number} queues, {slots} slots: alone {alone['work']:.2f} s, beside {beside['work']:.2f} s ({ratio:.2f}); "
        f"a slot was empty for {empty_alone * 1000:.0f} and {empty * 1000:.0f} ms at the most"
    )
    assert ratio <= 1.15
    assert empty <= max(EMPTY_FOR, 1.5 * empty_alone)


@pytest.mark.parametrize("number", [2, 5, 50])
async def test_jobs_that_are_spread_over_queues_take_as_long_as_in_one(site, say, number):
    """As many slots in all, and as many jobs of the same lengths."""
    lengths = [random.Random(n).choice([0.005, 0.02, 0.05]) for n in range(4000)]
    alone, empty_alone = await drain(site, [Queue("work", 100)], {"work": lengths})
    parts = {f"q{n}": lengths[n::number] for n in range(number)}
    spread, empty = await drain(site, [Queue(name, 100 // number) for name in parts], parts)
    ratio = max(spread.values()) / alone["work"]
    say(
        f"{number} queues: {max(spread.values()):.2f} s, one: {alone['work']:.2f} s ({ratio:.2f}); a slot was empty for "
        f"{empty * 1000:.0f} and {empty_alone * 1000:.0f} ms at the most"
    )
    assert ratio <= 1.15 * (100 / number) / (100 // number)
    assert empty <= max(EMPTY_FOR, 1.5 * empty_alone)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("slots", [1, 10])
@pytest.mark.parametrize("beside", ["alone", "beside a busy queue"])
async def test_three_hundred_jobs_of_random_length_begin_in_order(site, tmp_path, say, place, slots, beside):
    lengths, path = random.Random(slots), tmp_path / "begun"
    jobs = site.submit(
        *[PLACES[place].using(queue="line").bind(str(path), lengths.uniform(0.001, 0.12)) for _ in range(300)]
    )
    if beside != "alone":
        for _ in range(5):
            site.submit(*[worker_tasks.nap.using(queue="busy").bind(0.004) for _ in range(5000)])
    async with working(site, [Queue("line", slots), Queue("busy", 10)]):
        await eventually(lambda: site.one("SELECT count(*) FROM {}.job WHERE queue = 'line'") == 0, 120)
    most = overtaken(jobs, begun(path))
    say(f"{place}, {slots} slots, {beside}: one was overtaken by {most}")
    assert most <= (0 if slots == 1 else slots)
