"""One `Chancy` serves many requests and threads: each entering has a connection of its own, and closes no other's."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

from chancy import Chancy, InvalidDSN, InvalidOption, Queue, task


@task
def note(number: int) -> None: ...


@pytest.fixture
def app(database):
    return Chancy(database.dsn, schema=database.schema)


def is_open(face):
    return not face.conn.closed


async def test_requests_that_overlap_keep_their_own_connections(app, database):
    """In each order of entering and leaving, of `with` blocks in tasks of their own."""
    first_in, second_in, second_out = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def first():
        async with app as face:
            first_in.set()
            await second_in.wait()
        assert face.conn.closed  # and not the other's
        second_out.set()

    async def second():
        await first_in.wait()
        async with app as face:
            second_in.set()
            await second_out.wait()
            await face.submit(note.bind(2))
        assert face.conn.closed

    await asyncio.gather(first(), second())
    assert len(database.ids()) == 1
    assert app._open == {}


def test_threads_that_overlap_keep_their_own_connections(app, database):
    barrier, left = threading.Barrier(2), threading.Event()

    def first():
        with app:
            barrier.wait(10)
        left.set()

    def second():
        with app as face:
            barrier.wait(10)
            assert left.wait(10)
            face.submit(note.bind(2))
        assert face.conn.closed

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result(20)
    assert len(database.ids()) == 1
    assert app._open == {}


def test_a_generator_that_threads_of_a_pool_go_on_with_leaves_what_it_has_entered(app):
    """As web frameworks run a dependency that yields: its two halves in any thread, each in a context of its own."""

    def dependency():
        with app as face:
            yield face

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        first, second = dependency(), dependency()
        a = one.submit(contextvars.copy_context().run, next, first).result(10)
        b = other.submit(contextvars.copy_context().run, next, second).result(10)
        assert one.submit(contextvars.copy_context().run, next, first, None).result(10) is None
        assert (is_open(a), is_open(b)) == (False, True)
        other.submit(contextvars.copy_context().run, next, second, None).result(10)
        assert not is_open(b)


async def test_an_async_generator_that_another_task_finishes_leaves_what_it_has_entered(app):
    async def fixture():
        async with app as face:
            yield face

    first, second = fixture(), fixture()
    a = await asyncio.create_task(anext(first))
    b = await asyncio.create_task(anext(second))
    await asyncio.create_task(first.aclose())
    assert (is_open(a), is_open(b)) == (False, True)
    await asyncio.create_task(second.aclose())
    assert not is_open(b)


async def test_stacks_of_exits_in_tasks_that_overlap_leave_what_they_have_entered(app):
    entered, left = asyncio.Event(), asyncio.Event()

    async def first():
        async with contextlib.AsyncExitStack() as stack:
            face = await stack.enter_async_context(app)
            await entered.wait()
        assert not is_open(face)
        left.set()

    async def second():
        async with contextlib.AsyncExitStack() as stack:
            face = await stack.enter_async_context(app)
            entered.set()
            await left.wait()
            assert is_open(face)

    await asyncio.gather(first(), second())
    assert app._open == {}


async def test_both_faces_of_one_object_are_open_at_a_time(app):
    async with app as later:
        with app as now:
            assert (type(now).__name__, type(later).__name__) == ("SyncChancy", "AsyncChancy")
        assert (is_open(now), is_open(later)) == (False, True)
        app.__enter__()
    assert later.conn.closed
    app.__exit__(None, None, None)
    assert app._open == {}


def test_a_block_within_a_block_of_the_same_object_ends_first(app):
    with app as outer:
        with app as inner:
            assert inner.conn is not outer.conn
        assert (is_open(inner), is_open(outer)) == (False, True)
    assert not is_open(outer)


async def test_a_block_that_raises_closes_its_own_connection(app):
    async with app as kept:
        with pytest.raises(ZeroDivisionError):
            async with app as face:
                raise ZeroDivisionError
        assert (is_open(face), is_open(kept)) == (False, True)


def test_what_is_no_list_of_queues_is_refused_and_a_generator_is_one():
    assert [queue.name for queue in Chancy(queues=(Queue(name) for name in "ab")).queues] == ["a", "b"]
    with pytest.raises(InvalidOption, match="queues: expected a list of Queue, got 'mail'"):
        Chancy(queues="mail")
    with pytest.raises(InvalidOption, match="dsn: expected a connection string of libpq, got a dict") as caught:
        Chancy({"password": "secret"})
    assert "secret" not in str(caught.value)


async def test_a_function_gives_the_connection_string_for_each_connection(database):
    asked = []

    def dsn():
        asked.append(threading.current_thread())
        return database.dsn

    app = Chancy(dsn, schema=database.schema)
    assert asked == []
    with app, app as inner:
        assert is_open(inner)
    async with app as face:
        await face.submit(note.bind(1))
    assert asked[:2] == [threading.current_thread()] * 2
    assert len(asked) == 3
    assert asked[2] is not threading.current_thread()
    assert app.conninfo == database.dsn


def test_what_a_function_gives_is_read_like_any_connection_string():
    assert Chancy(lambda: "postgresql+asyncpg://app@db/shop").conninfo == "postgresql://app@db/shop"
    with pytest.raises(InvalidOption, match="dsn: expected a connection string of libpq, got a NoneType"):
        _ = Chancy(lambda: None).conninfo
    with pytest.raises(InvalidDSN):
        _ = Chancy(lambda: "mysql://db").conninfo


URLS = {
    "postgresql+psycopg://app:p%40ss@db:5433/shop": "user=app password=p@ss host=db port=5433 dbname=shop",
    "postgresql+psycopg2://app@db/shop?sslmode=verify-full": "user=app host=db dbname=shop sslmode=verify-full",
    "postgresql+asyncpg://app@db/shop?ssl=require": "user=app host=db dbname=shop sslmode=require",
    "postgresql+asyncpg://app@db/shop?ssl=True&command_timeout=5": "user=app host=db dbname=shop sslmode=require",
    "postgresql+asyncpg://db/shop?prepared_statement_cache_size=0&timeout=7": "host=db dbname=shop connect_timeout=7",
    "postgresql+psycopg://app@/shop?host=/var/run/pg": "user=app host=/var/run/pg dbname=shop",
    "postgresql+asyncpg://app@/shop?host=a:5432&host=b:5433": "user=app host=a,b port=5432,5433 dbname=shop",
    "postgresql+psycopg2://app@/shop?host=a,b&port=1,2": "user=app host=a,b port=1,2 dbname=shop",
    "postgresql+psycopg://db/shop?options=-c%20jit%3Doff": "host=db dbname=shop options='-c jit=off'",
    "postgres+psycopg://db": "host=db",
}


@pytest.mark.parametrize("url", ["sqlite:///jobs.db", "mysql+pymysql://app@db/shop", "redis://localhost"])
def test_a_url_that_leads_to_another_database_is_refused_by_its_name(url):
    with pytest.raises(
        InvalidDSN, match=f"it leads to {url.partition(':')[0].partition('+')[0]}, and jobs are rows of"
    ):
        with Chancy(url):
            pass


def test_an_engine_is_refused_with_what_to_give_of_it():
    with pytest.raises(InvalidOption, match="got an Engine: give its `url`"):
        Chancy(sqlalchemy.create_engine("postgresql+psycopg://"))


@pytest.mark.parametrize("url", URLS)
def test_a_url_of_sqlalchemy_means_to_libpq_what_it_means_to_its_driver(url):
    assert conninfo_to_dict(Chancy(url).conninfo) == conninfo_to_dict(URLS[url])
    assert conninfo_to_dict(Chancy(sqlalchemy.make_url(url)).conninfo)["host"] == conninfo_to_dict(URLS[url])["host"]


def test_a_url_whose_option_is_misspelt_is_refused():
    with pytest.raises(InvalidDSN):
        _ = Chancy("postgresql+asyncpg://db/shop?sslmod=require").conninfo
