"""What may be in a value, in a session and in a transaction, on each stack."""

from __future__ import annotations

import asyncio
import contextlib
import json

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy
from django.db import connections
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession
from stacks_tasks import word

import chancy
from chancy_testing import drain
from chancy_testing.attempts import on_a_loop_of_its_own
from stacks import ONE_OF_EACH, STACKS, alias_of, async_engine, engine, params, play

TEXT = "100% {} %s %(x)s %% \\ ' \" $1 :a ::int \0 \n é ž 日 🦊"


@pytest.mark.parametrize("stack", params(ONE_OF_EACH))
def test_whatever_is_in_a_text_arrives_as_it_was(stack, onlooker, chancy_dsn):
    def submit(actor):
        one = yield word.submit(actor.conn, TEXT)
        (other,) = yield chancy.submit_many(actor.conn, [word.using(queue="q %s {} é").bind(TEXT)])
        yield actor.commit()
        for job in one, other:
            row = yield chancy.get(actor.conn, job.id)
            assert json.loads(row.arguments)["text"] == TEXT
        drain(onlooker.conn)
        assert (yield other.result(actor.conn, timeout=20)) == TEXT
        assert [row.id for row in (yield chancy.jobs(actor.conn, queue="q %s {} é"))] == [other.id]

    play(stack, chancy_dsn, submit)


@pytest.mark.parametrize("stack", params(ONE_OF_EACH))
def test_large_arguments_and_many_jobs_pass(stack, onlooker, chancy_dsn):
    def submit(actor):
        large = yield word.submit(actor.conn, "é" * 2_500_000)
        jobs = yield chancy.submit_many(actor.conn, [word.bind("x", n) for n in range(5_000)])
        yield actor.commit()
        assert [job.id for job in jobs] == list(range(large.id + 1, large.id + 5_001))
        assert len((yield chancy.get(actor.conn, large.id)).arguments) > 5_000_000

    play(stack, chancy_dsn, submit)
    assert onlooker.jobs()[1:] == list(range(5_000))


def in_latin1(dsn):
    """Connections that do not speak UTF-8, each with what commits on it."""
    plain = psycopg2.connect(dsn)
    plain.set_client_encoding("LATIN1")
    yield plain, plain.commit
    for driver in "psycopg", "psycopg2":
        session = orm.Session(engine(driver, dsn, False, connect_args={"client_encoding": "LATIN1"}))
        yield session, session.commit
    alias = alias_of(dsn, "latin1", client_encoding="LATIN1")
    yield connections[alias], connections[alias].close


def test_json_is_escaped_for_a_session_that_does_not_speak_utf8(onlooker, chancy_dsn):
    for conn, commit in in_latin1(chancy_dsn):
        one = word.submit(conn, TEXT)
        (other,) = chancy.submit_many(conn, [word.bind(TEXT)])
        commit()
        for job in one, other:
            assert json.loads(job.refresh(onlooker.conn).arguments)["text"] == TEXT
        conn.close()


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_half_a_surrogate_pair_is_refused_before_anything_is_sent(stack, onlooker, chancy_dsn):
    def submit(actor):
        with pytest.raises(chancy.InvalidArguments):
            yield word.submit(actor.conn, "\ud800")
        yield word.submit(actor.conn, "after it", 1)

    play(stack, chancy_dsn, submit, autocommit=True)
    assert onlooker.jobs() == [1]


# SQLAlchemy's own.


def thing_of(onlooker):
    """The class of its table's rows."""

    class Base(orm.DeclarativeBase):
        pass

    schema, name = onlooker.thing.split(".")
    columns = {"id": orm.mapped_column(sqlalchemy.Integer, primary_key=True)}
    return type(name, (Base,), {"__tablename__": name, "__table_args__": {"schema": schema}, **columns})


def test_nothing_is_flushed_and_the_commit_takes_both(onlooker, chancy_dsn):
    with orm.Session(engine("psycopg", chancy_dsn, False)) as session:
        session.add(thing_of(onlooker)(id=5))
        word.submit(session, "", 5)
        assert session.new
        session.commit()
    assert (onlooker.things(), onlooker.jobs()) == ([5], [5])


def test_a_flush_that_fails_takes_the_job_along(onlooker, chancy_dsn):
    onlooker.conn.execute(f"CREATE UNIQUE INDEX ON {onlooker.thing} (id); INSERT INTO {onlooker.thing} VALUES (5)")
    with orm.Session(engine("psycopg", chancy_dsn, False)) as session:
        session.add(thing_of(onlooker)(id=5))
        word.submit(session, "", 5)
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            session.commit()
        with pytest.raises(sqlalchemy.exc.PendingRollbackError):
            word.submit(session, "", 6)
        session.rollback()
        word.submit(session, "", 7)
        session.commit()
    assert onlooker.jobs() == [7]


def test_sessions_that_cannot_begin_say_so_in_sqlalchemys_words(onlooker, chancy_dsn):
    made, thing = engine("psycopg", chancy_dsn, False), thing_of(onlooker)
    with orm.Session(made, autobegin=False) as session:
        with pytest.raises(sqlalchemy.exc.InvalidRequestError, match=r"please call session\.begin"):
            word.submit(session, "")
        with session.begin():
            word.submit(session, "", 1)
    with orm.Session(binds={thing: made}) as session:
        with pytest.raises(sqlalchemy.exc.UnboundExecutionError):
            word.submit(session, "")
        word.submit(session.connection(bind_arguments={"mapper": thing}), "", 2)
        session.commit()
    assert onlooker.jobs() == [1, 2]


def test_a_session_within_a_transaction_of_its_caller_does_not_end_it(onlooker, chancy_dsn):
    with engine("psycopg", chancy_dsn, False).connect() as conn, conn.begin() as outer:
        with orm.Session(conn, join_transaction_mode="create_savepoint") as session:
            job = word.submit(session, "", 1)
            session.commit()
            with pytest.raises(chancy.NotCommitted):
                job.result(session, timeout=20)
        outer.rollback()
    assert onlooker.jobs() == []


def test_waiting_expires_no_object_of_a_session(onlooker, chancy_dsn):
    """The transaction in which it has looked is ended between two looks."""

    async def wait():
        made = async_engine("asyncpg", chancy_dsn, False)
        async with AsyncSession(made, expire_on_commit=False) as session:
            thing = thing_of(onlooker)(id=3)
            session.add(thing)
            job = await word.submit(session, "done", 1)
            await session.commit()
            waits = asyncio.ensure_future(job.result(session, timeout=60))
            await asyncio.sleep(0.1)
            async with await psycopg.AsyncConnection.connect(chancy_dsn, autocommit=True) as conn:
                await drain(conn)
            assert await waits == "done"
            assert thing.id == 3
        await made.dispose()

    on_a_loop_of_its_own(wait())


def test_a_connection_that_streams_its_results_takes_jobs(onlooker, chancy_dsn):
    for driver in "psycopg", "psycopg2":
        made = engine(driver, chancy_dsn, True, execution_options={"stream_results": True})
        with orm.Session(made) as session, made.connect() as conn:
            word.submit(session, "100%", 1)
            word.submit(conn.execution_options(yield_per=10), "100%", 1)
    assert onlooker.jobs() == [1] * 4


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_one_snapshot_never_sees_a_job_finish(level, driver, onlooker, chancy_dsn):
    job = word.submit(onlooker.conn, "x")
    with orm.Session(engine(driver, chancy_dsn, False, isolation_level=level)) as session:
        with pytest.raises(chancy.NotCommitted, match=f"a {level.lower()} transaction never sees"):
            job.result(session, timeout=20)


def test_a_sync_session_over_an_async_driver_works_within_run_sync(onlooker, chancy_dsn):
    """As in the environment of Alembic, which migrates so."""
    name = f"{onlooker.schema}_alembic"

    async def run():
        made = async_engine("asyncpg", chancy_dsn, False)
        async with made.begin() as conn:
            assert await conn.run_sync(lambda sync: chancy.migrate(sync, schema=name)) == ["0001_start"]
        async with AsyncSession(made) as session:
            await session.run_sync(lambda sync: word.submit(sync, "", 4))
            await session.commit()
        await made.dispose()

    try:
        on_a_loop_of_its_own(run())
    finally:
        onlooker.conn.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
    assert onlooker.jobs() == [4]


def test_sqlalchemy_tells_its_events_of_what_is_sent(onlooker, chancy_dsn):
    made, texts = engine("psycopg", chancy_dsn, False), []
    sqlalchemy.event.listen(made, "before_cursor_execute", lambda *args: texts.append(args[2]))
    with orm.Session(made) as session:
        word.submit(session, "x")
    assert len(texts) == 1
    assert onlooker.schema in texts[0]


# What ends, and what is in between.


@pytest.mark.parametrize("stack", params(ONE_OF_EACH))
def test_a_connection_that_the_server_has_ended_fails_in_its_stacks_words_and_is_replaced(stack, onlooker, chancy_dsn):
    ends = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE query LIKE '%stacks end me%' AND pid <> pg_backend_pid()"

    def submit(actor):
        yield actor.execute("SELECT 'stacks end me'")
        assert onlooker.conn.execute(ends).fetchone()[0] >= 1
        with pytest.raises(Exception, match=r"terminat|clos|connection") as failed:
            yield word.submit(actor.conn, "x", 1)
        assert not isinstance(failed.value, AssertionError)
        if stack.name.startswith(("SQLAlchemy", "Django")):
            if stack.name.startswith("Django"):
                actor.conn.close_if_unusable_or_obsolete()  # as at the end of each request
            else:
                yield actor.rollback()
            yield word.submit(actor.conn, "x", 2)

    play(stack, chancy_dsn, submit, autocommit=stack.name.startswith("Django"))


def test_django_counts_what_is_sent_and_refuses_a_broken_block(onlooker, chancy_dsn):
    from django.db.transaction import TransactionManagementError, atomic
    from django.test.utils import CaptureQueriesContext

    alias = alias_of(chancy_dsn, "counted")
    conn = connections[alias]
    with CaptureQueriesContext(conn) as queries:
        word.submit(conn, "x", 1)
    assert len(queries) == 1
    with contextlib.suppress(ZeroDivisionError), atomic(using=alias):
        with contextlib.suppress(ZeroDivisionError), atomic(using=alias, savepoint=False):
            raise ZeroDivisionError
        with pytest.raises(TransactionManagementError):
            word.submit(conn, "x", 2)
        raise ZeroDivisionError
    conn.close()
    assert onlooker.jobs() == [1]


def test_django_on_the_event_loop_says_so(chancy_schema, chancy_dsn):
    from django.core.exceptions import SynchronousOnlyOperation

    conn = connections[alias_of(chancy_dsn, "looped")]

    async def view():
        with pytest.raises(SynchronousOnlyOperation):
            word.submit(conn, "x")

    on_a_loop_of_its_own(view())


def test_codecs_of_the_application_do_not_reach_what_asyncpg_sends_for_us(onlooker, chancy_dsn):
    from stacks import for_asyncpg

    async def run():
        conn = await asyncpg.connect(**for_asyncpg(chancy_dsn))
        await conn.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        job = await word.submit(conn, TEXT)
        assert json.loads((await job.refresh(conn)).arguments)["text"] == TEXT
        await conn.close()

    on_a_loop_of_its_own(run())
