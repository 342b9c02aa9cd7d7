"""How an idle worker hears of work."""

import asyncio
import select

import psycopg
from worker_help import eventually

from chancy_worker.wakeups import Ear


async def test_a_wakeup_that_was_read_together_with_an_answer_is_heard_when_the_worker_goes_to_sleep(site):
    woken = asyncio.Event()
    ear = Ear(site.schema, ["default"], woken.set, lambda: 1, lambda ids: None)
    async with await psycopg.AsyncConnection.connect(site.dsn, autocommit=True) as conn:
        await ear.listen(conn)
        site.conn.execute("SELECT pg_notify(%s, 'default')", [site.schema])
        await eventually(lambda: received(conn.pgconn))
        assert not woken.is_set()
        with ear.open(conn):
            await asyncio.wait_for(woken.wait(), 5)


def received(pgconn):
    """Whether libpq has read something from the socket, as it does while it reads an answer."""
    ready, _, _ = select.select([pgconn.socket], [], [], 0)
    if ready:
        pgconn.consume_input()
    return bool(ready)
