"""Batches: in whose transaction they are, and what is kept of a callback until the end."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta

import psycopg
import pytest

import chancy
from chancy import Backoff, BatchCounts, ChancyError, InvalidConnection, Limit, Unique, UnknownBatch, callback, task


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task(
    queue="q",
    priority=7,
    max_attempts=9,
    limits=[Limit.time(60), Limit.concurrency(3, key=lambda site: site), Limit.rate(9, per=timedelta(seconds=5))],
    retry=Backoff(base=timedelta(seconds=3)),
    group=lambda site: site,
    unique=Unique(key=lambda site, text: [site, text], until="started", within=timedelta(hours=2)),
)
def publish(counts: BatchCounts, site: str, *, text: str = "") -> None: ...


@contextlib.asynccontextmanager
async def batch_on(caller, conn, **callbacks):
    """The block of either driver, with its verbs to be awaited."""
    async with caller.entered(chancy.batch(conn, **callbacks)) as batch:
        yield batch


def everything(database):
    return [database.rows(query) for query in ("SELECT id, batch FROM {}.job ORDER BY id", "SELECT id FROM {}.batch")]


async def test_in_autocommit_the_block_is_a_transaction(caller, database):
    conn = await caller.connect(autocommit=True)
    async with batch_on(caller, conn) as batch:
        one = await caller.now(batch.submit(add.bind(1)))
        many = await caller.now(batch.submit_many([add.bind(n) for n in range(3)]))
        assert everything(database) == [[], []]
    assert everything(database) == [[(job.id, batch.id) for job in (one, *many)], [(batch.id,)]]
    assert conn.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


async def test_an_error_in_the_block_leaves_nothing_in_autocommit(caller, database):
    conn = await caller.connect(autocommit=True)
    with pytest.raises(ZeroDivisionError):
        async with batch_on(caller, conn) as batch:
            await caller.now(batch.submit(add.bind(1)))
            raise ZeroDivisionError
    assert everything(database) == [[], []]


async def test_without_autocommit_nothing_is_committed_for_the_caller(caller, database):
    conn = await caller.connect()
    for end in (conn.rollback, conn.commit):
        async with batch_on(caller, conn) as batch:
            job = await caller.now(batch.submit(add.bind(1)))
        assert everything(database) == [[], []]
        await caller.now(end())
    assert everything(database) == [[(job.id, batch.id)], [(batch.id,)]]


async def test_in_a_transaction_of_the_caller_the_block_is_a_part_of_it(caller, database):
    conn = await caller.connect(autocommit=True)
    async with caller.entered(conn.transaction()):
        async with batch_on(caller, conn) as batch:
            job = await caller.now(batch.submit(add.bind(1)))
        assert everything(database) == [[], []]
    assert everything(database) == [[(job.id, batch.id)], [(batch.id,)]]


async def test_after_an_error_in_the_block_the_callers_transaction_has_the_jobs_and_no_batch(caller, database):
    conn = await caller.connect()
    with contextlib.suppress(ZeroDivisionError):
        async with batch_on(caller, conn) as batch:
            job = await caller.now(batch.submit(add.bind(1)))
            raise ZeroDivisionError
    await caller.now(conn.commit())
    assert everything(database) == [[(job.id, None)], []]
    with pytest.raises(UnknownBatch, match="rolled back"):
        await caller.now(batch.progress(conn))


async def test_what_a_savepoint_has_taken_back_is_not_of_the_batch(caller, database):
    conn = await caller.connect()
    async with batch_on(caller, conn) as batch:
        with contextlib.suppress(ZeroDivisionError):
            async with caller.entered(conn.transaction()):
                await caller.now(batch.submit(add.bind(1)))
                raise ZeroDivisionError
        await caller.now(batch.submit(add.bind(2)))
    assert (await caller.now(batch.progress(conn))).total == 1


async def test_a_batch_takes_no_jobs_after_its_block(caller):
    conn = await caller.connect(autocommit=True)
    async with batch_on(caller, conn) as batch:
        pass
    with pytest.raises(ChancyError, match="is complete: submit its jobs inside the block"):
        batch.submit(add.bind(1))
    with pytest.raises(ChancyError, match="is complete"):
        batch.submit_many([add.bind(1)])


def test_what_is_no_connection_is_refused():
    with pytest.raises(InvalidConnection, match=r"got str"):
        chancy.batch("dsn")


async def test_a_callback_gets_the_row_that_a_submit_would_have_given_it(caller, database):
    conn = await caller.connect(autocommit=True)
    given = publish.using(delay=timedelta(minutes=5))
    text = 'ü🦊\\"\0\n'
    async with batch_on(caller, conn, on_success=callback(given, "a", text=text)) as batch:
        pass
    submitted = given.using(queue="direct").bind(BatchCounts(batch.id), "a", text=text + "2")
    await caller.now(chancy.submit_many(conn, [submitted]))
    one, other = database.rows(
        "SELECT queue, arguments::text, task, priority, max_attempts, run_at - submitted_at, retry::text, limits::text, "
        "gates::text, parked, unique_until, state::text, batch FROM {}.job ORDER BY id"
    )
    assert (one[0], other[0]) == ("q", "direct")
    counts = {"batch": batch.id, "total": 0, "succeeded": 0, "failed": 0, "discarded": 0, "cancelled": 0}
    assert json.loads(one[1]) == {"counts": counts, "site": "a", "text": text}
    assert one[2:] == other[2:]
    assert one[5] == timedelta(minutes=5)
    assert database.rows("SELECT count(*) FROM {}.unique_window") == [(2,)]


async def test_a_callback_is_carried_whole_over_a_connection_that_does_not_speak_utf8(caller, database):
    conn = await caller.connect(autocommit=True, client_encoding="latin1")
    async with batch_on(caller, conn, on_finished=callback(publish, "ü🦊", text="é\u20ac")):
        pass
    ((arguments, key),) = database.rows("SELECT arguments, unique_key FROM {}.job")
    assert (arguments["site"], arguments["text"], json.loads(key)) == ("ü🦊", "é\u20ac", ["ü🦊", "é\u20ac"])


async def test_jobs_of_a_batch_are_found_by_it(caller):
    conn = await caller.connect(autocommit=True)
    async with batch_on(caller, conn) as batch:
        one, two = await caller.now(batch.submit_many([add.bind(1), add.bind(2)]))
    other = await caller.now(add.submit(conn, 3))
    rows = await caller.now(chancy.jobs(conn, batch=batch.id))
    assert [(row.id, row.batch) for row in rows] == [(two.id, batch.id), (one.id, batch.id)]
    assert (await caller.now(other.refresh(conn))).batch is None


async def test_a_batch_may_be_in_another_schema_than_the_default(caller, database, chancy_schema):
    conn = await caller.connect(autocommit=True)
    chancy.configure(schema="nowhere")
    async with caller.entered(chancy.batch(conn, schema=chancy_schema)) as batch:
        job = await caller.now(batch.submit(add.bind(1)))
    assert (batch.schema, job.schema) == (chancy_schema, chancy_schema)
    assert (await caller.now(batch.progress(conn))).waiting == 1
    assert (await caller.now(chancy.batch_progress(conn, batch.id, schema=chancy_schema))).waiting == 1
