"""How an idle worker hears of work."""

import asyncio
import select
from types import SimpleNamespace

import worker_tasks
from worker_help import ONLY_WOKEN, all_finished, eventually, working

from chancy import Queue
from chancy.model import Statement
from chancy_worker import WorkerConfig
from chancy_worker.connection.link import Link
from chancy_worker.doorbell.doorbell import Doorbell
from chancy_worker.doorbell.ear import Ear


async def test_a_wakeup_that_was_read_together_with_an_answer_is_heard_when_the_worker_goes_to_sleep(site):
    woken = asyncio.Event()
    ear = Ear(site.schema, ["default"])
    link = Link(site.dsn, site.schema, "claim", deadline=8)
    link.on_connect, link.on_notify = ear.listen, lambda notify: ear.rung(notify) and woken.set()
    await link.connect()
    site.conn.execute("SELECT pg_notify(%s, 'default')", [site.schema])
    await eventually(lambda: received(link.conn.pgconn))
    assert not woken.is_set()
    await asyncio.wait_for(link.wait(woken), 5)
    await link.close()


def received(pgconn):
    """Whether libpq has read something from the socket, as it does while it reads an answer."""
    ready, _, _ = select.select([pgconn.socket], [], [], 0)
    if ready:
        pgconn.consume_input()
    return bool(ready)


async def test_what_anybody_says_on_the_channel_of_cancels_spoils_no_round(site):
    cancelled = []
    link, own = (Link(site.dsn, site.schema, purpose, deadline=8) for purpose in ("claim", "bell"))
    slots = SimpleNamespace(cancel=cancelled.extend)
    Doorbell(link, own, ["default"], alike=(), lease=SimpleNamespace(id=7), slots=slots)
    await link.connect()
    for word in ("7 all", "7 ", "7 -1", "7", "", "x y z", "8 1", "7 12"):
        site.conn.execute("SELECT pg_notify(%s, %s)", [f"{site.schema}.cancel", word])
    assert await link.send(Statement("SELECT 1", {}, lambda rows: rows[0][0])) == 1  # they come with the answer
    await eventually(lambda: received(link.conn.pgconn) or cancelled)
    await asyncio.wait_for(link.wait(asyncio.Event(), 0.1), 5)
    assert cancelled == [12]
    await link.close()


async def test_a_worker_that_has_room_for_fewer_jobs_than_queues_finds_the_only_job_in_any_of_them(site):
    queues = [Queue(f"q{n}") for n in range(8)]
    async with working(site.app(queues=queues), WorkerConfig(timing=ONLY_WOKEN, threads=1)):
        await eventually(lambda: site.workers())
        for queue in queues:
            site.submit(worker_tasks.add_in_thread.using(queue=queue.name).bind(1, 2))
            await all_finished(site)


async def test_workers_that_share_one_of_their_queues_hear_of_all_of_them(site):
    """Whatever the order of the keys: each of these worker's queues has one above and one below that of the shared."""
    keys = dict(site.rows("SELECT q, {}.bell_key(q) FROM (SELECT 'q' || n AS q FROM generate_series(1, 40) AS n) AS q"))
    low, middle, high = sorted({key: queue for queue, key in keys.items()}.items())[:3]
    shared, others = middle[1], [low[1], high[1]]
    config = WorkerConfig(timing=ONLY_WOKEN)
    async with (
        working(site.app(queues=[Queue(shared)]), config),
        working(site.app(queues=[Queue(shared), *map(Queue, others)]), config),
    ):
        await eventually(lambda: len(site.workers()) == 2)
        await asyncio.sleep(2)  # both have lain down
        for queue in [*others, shared] * 2:
            site.submit(worker_tasks.add.using(queue=queue).bind(1, 2))
            await all_finished(site)
