"""What the guide of other stacks says: peewee, Tortoise, Piccolo, proxies; and memory in place of a database."""

from __future__ import annotations

import contextlib

import piccolo.engine.postgres
import playhouse.postgres_ext
import psycopg
import psycopg2
import pytest
import tortoise
import tortoise.fields
import tortoise.transactions
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession
from stacks_tasks import add

import chancy
from chancy_testing import eager
from chancy_testing.attempts import on_a_loop_of_its_own
from stacks import for_asyncpg


@pytest.mark.parametrize("kind", ["PostgresqlExtDatabase", "Psycopg3Database"])
def test_peewee(kind, onlooker, chancy_dsn):
    place = for_asyncpg(chancy_dsn)
    db = getattr(playhouse.postgres_ext, kind)(place.pop("database"), **place)
    with contextlib.suppress(ZeroDivisionError), db.atomic():
        db.execute_sql(onlooker.insert(1))
        add.submit(db.connection(), 1)
        raise ZeroDivisionError
    assert (onlooker.things(), onlooker.jobs()) == ([], [])
    with db.atomic():
        db.execute_sql(onlooker.insert(2))
        add.submit(db.connection(), 2)
    assert (onlooker.things(), onlooker.jobs()) == ([2], [2])
    with pytest.raises(chancy.InvalidConnection, match=r"inside `with db\.atomic\(\):` give `db\.connection\(\)`"):
        add.submit(db, 1)
    db.close()


class Thing(tortoise.Model):
    id = tortoise.fields.IntField(primary_key=True)


@pytest.mark.parametrize("scheme", ["asyncpg", "psycopg"])
def test_tortoise(scheme, onlooker, chancy_dsn):
    place = for_asyncpg(chancy_dsn)
    engine = f"tortoise.backends.{scheme}"
    credentials = {**place, "port": int(place.get("port", 5432)), "password": place.get("password", "")}

    async def run():
        connections = {"default": {"engine": engine, "credentials": credentials}}
        await tortoise.Tortoise.init(config={"connections": connections, "apps": {"things": {"models": [__name__]}}})
        with contextlib.suppress(ZeroDivisionError):
            async with tortoise.transactions.in_transaction("default") as transaction:
                await transaction.execute_script(onlooker.insert(1))
                await add.submit(transaction._connection, 1)
                raise ZeroDivisionError
        assert (onlooker.things(), onlooker.jobs()) == ([], [])
        async with tortoise.transactions.in_transaction("default") as transaction:
            await transaction.execute_script(onlooker.insert(2))
            await add.submit(transaction._connection, 2)
            with pytest.raises(chancy.InvalidConnection, match=r"see docs/guides/other-stacks\.md"):
                await add.submit(transaction, 1)
        await tortoise.Tortoise.close_connections()

    on_a_loop_of_its_own(run())
    assert (onlooker.things(), onlooker.jobs()) == ([2], [2])


def test_piccolo(onlooker, chancy_dsn):
    async def run():
        database = piccolo.engine.postgres.PostgresEngine(config=for_asyncpg(chancy_dsn))
        with contextlib.suppress(ZeroDivisionError):
            async with database.transaction() as transaction:
                await transaction.connection.execute(onlooker.insert(1))
                await add.submit(transaction.connection, 1)
                raise ZeroDivisionError
        assert (onlooker.things(), onlooker.jobs()) == ([], [])
        async with database.transaction() as transaction:
            await transaction.connection.execute(onlooker.insert(2))
            await add.submit(transaction.connection, 2)

    on_a_loop_of_its_own(run())
    assert (onlooker.things(), onlooker.jobs()) == ([2], [2])


class Proxy:
    """As what instruments connections wraps them in: it passes for what it holds."""

    def __init__(self, held):
        object.__setattr__(self, "held", held)

    @property
    def __class__(self):
        return type(self.held)

    def __getattr__(self, name):
        return getattr(self.held, name)


@pytest.mark.parametrize("driver", [psycopg, psycopg2], ids=["psycopg", "psycopg2"])
def test_a_proxy_is_what_it_passes_for(driver, onlooker, chancy_dsn):
    with contextlib.closing(driver.connect(chancy_dsn)) as conn:
        add.submit(Proxy(conn), 1)
        conn.commit()
    assert onlooker.jobs() == [1]


# In memory.


def test_in_memory_a_session_may_be_bound_to_nothing():
    with eager() as backend:
        session = orm.Session()
        job = add.submit(session, 1, 2)
        assert job.result(session) == 3
        with chancy.batch(session) as batch:
            batch.submit_many([add.bind(1), add.bind(2)])
        assert chancy.batch_progress(session, batch.id).succeeded == 2
        assert [each.result for each in backend.jobs] == [3, 1, 2]
        assert not session.in_transaction()


def test_in_memory_an_async_session_may_be_bound_to_nothing():
    async def run():
        session = AsyncSession()
        job = await add.submit(session, 1, 2)
        assert await job.result(session) == 3
        async with chancy.batch(session) as batch:
            await batch.submit(add.bind(4))
        assert (await batch.progress(session)).succeeded == 1

    with eager():
        on_a_loop_of_its_own(run())


def test_in_memory_what_is_no_connection_is_refused_all_the_same():
    with eager(), pytest.raises(chancy.InvalidConnection, match="the first argument is your connection"):
        add.submit(7, 1)  # type: ignore[call-overload]
