"""A job exists exactly when the transaction says so, and the caller's connection is left as it was."""

from __future__ import annotations

import psycopg
import psycopg2
import pytest
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import set_json_loads
from psycopg.types.string import StrDumper

import chancy
from chancy import submit_many, task

TEXT = "naïve Ж 日本 \U0001f40d \x00 \\u00e9 \" ' {},NULL"


class Stop(Exception):
    pass


@task
def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name


@task
async def greet_later(name: str) -> str:
    return name


def names_stored(database):
    return [greet.signature.decode_arguments(job.arguments)[0][0] for job in reversed(chancy.jobs(database.conn))]


async def test_a_job_is_seen_by_others_when_its_transaction_commits_and_not_before(caller, database):
    conn = await caller.connect()
    job = await caller.now(greet.submit(conn, "a"))
    assert conn.info.transaction_status is TransactionStatus.INTRANS
    assert database.ids() == []
    await caller.now(conn.commit())
    assert database.ids() == [job.id]


async def test_a_rolled_back_job_never_existed(caller, database):
    conn = await caller.connect()
    await caller.now(greet.submit(conn, "a"))
    await caller.now(conn.rollback())
    assert database.ids() == []


async def test_a_job_is_gone_with_the_exception_that_left_the_connection_block(caller, database):
    with pytest.raises(Stop):
        async with caller.entered(await caller.connect()) as conn:
            await caller.now(greet.submit(conn, "a"))
            raise Stop
    assert database.ids() == []


async def test_a_job_is_gone_with_the_exception_that_left_the_transaction_block(caller, database):
    conn = await caller.connect(autocommit=True)
    with pytest.raises(Stop):
        async with caller.entered(conn.transaction()):
            await caller.now(greet.submit(conn, "a"))
            raise Stop
    assert conn.info.transaction_status is TransactionStatus.IDLE
    assert database.ids() == []


async def test_a_job_is_gone_with_its_savepoint_and_its_neighbours_stay(caller, database):
    conn = await caller.connect()
    first = await caller.now(greet.submit(conn, "first"))
    with pytest.raises(Stop):
        async with caller.entered(conn.transaction()):
            await caller.now(greet.submit(conn, "gone"))
            raise Stop
    last = await caller.now(greet.submit(conn, "last"))
    await caller.now(conn.commit())
    assert database.ids() == [first.id, last.id]


async def test_a_job_submitted_in_autocommit_is_there_at_once(caller, database):
    conn = await caller.connect(autocommit=True)
    job = await caller.now(greet.submit(conn, "a"))
    assert conn.info.transaction_status is TransactionStatus.IDLE
    assert conn.autocommit is True
    assert database.ids() == [job.id]


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_in_pipeline_mode_the_transaction_still_decides(caller, database, end):
    conn = await caller.connect()
    async with caller.entered(conn.pipeline()):
        await caller.now(conn.execute("SELECT 1"))
        job = await caller.now(greet.submit(conn, "a"))
        after = await caller.one(conn, "SELECT 2")
        assert database.ids() == []
        await caller.now(getattr(conn, end)())
    assert after == (2,)
    assert database.ids() == ([job.id] if end == "commit" else [])


async def test_rows_as_dictionaries_are_the_callers_business(caller, database):
    conn = await caller.connect(row_factory=dict_row)
    job = await caller.now(greet.submit(conn, "a"))
    assert (await caller.now(job.refresh(conn))).id == job.id
    assert conn.row_factory is dict_row
    assert await caller.one(conn, "SELECT 1 AS one") == {"one": 1}
    await caller.now(conn.commit())
    assert database.ids() == [job.id]


@pytest.mark.parametrize("encoding", ["utf8", "latin1", "sql_ascii"])
async def test_text_arrives_bit_for_bit_whatever_the_client_encoding(caller, database, encoding):
    conn = await caller.connect(client_encoding=encoding)
    before = conn.info.encoding
    job = await caller.now(greet.submit(conn, TEXT))
    seen = await caller.now(job.refresh(conn))
    assert greet.signature.decode_arguments(seen.arguments) == ((TEXT,), {"loud": False})
    await caller.now(submit_many(conn, [greet.bind(TEXT)]))
    assert conn.info.encoding == before
    await caller.now(conn.commit())
    assert names_stored(database) == [TEXT, TEXT]


async def test_the_callers_search_path_is_neither_used_nor_changed(caller, database):
    conn = await caller.connect(autocommit=True)
    await caller.now(conn.execute("CREATE TEMP TABLE job (id int); CREATE TEMP TABLE any_job (id int)"))
    await caller.now(conn.execute("SET search_path = pg_temp, information_schema"))
    job = await caller.now(greet.submit(conn, "a"))
    assert await caller.now(job.cancel(conn)) is True
    assert await caller.now(chancy.requeue(conn, job.id)) is True
    assert await caller.one(conn, "SHOW search_path") == ("pg_temp, information_schema",)
    assert await caller.one(conn, "SELECT count(*) FROM job") == (0,)
    assert database.ids() == [job.id]


@pytest.mark.parametrize("level", [IsolationLevel.SERIALIZABLE, IsolationLevel.REPEATABLE_READ])
async def test_a_serializable_transaction_can_submit(caller, database, level):
    conn = await caller.connect()
    await caller.now(conn.set_isolation_level(level))
    job = await caller.now(greet.submit(conn, "a"))
    shown = await caller.one(conn, "SHOW transaction_isolation")
    assert shown == (level.name.replace("_", " ").lower(),)
    await caller.now(conn.commit())
    assert conn.isolation_level is level
    assert database.ids() == [job.id]


async def test_what_the_caller_registered_stays_and_does_not_reach_chancys_rows(caller, database):
    class Shouting(StrDumper):
        def dump(self, obj):
            return super().dump(obj.upper())

    class Bang(psycopg.adapt.Loader):
        def load(self, data):
            return "!" + bytes(data).decode()

    conn = await caller.connect()
    conn.adapters.register_dumper(str, Shouting)
    for name in ("int8", "int2", "text", "timestamptz", "bytea", "json"):
        conn.adapters.register_loader(name, Bang)
    job = await caller.now(greet.submit(conn, "a"))
    seen = await caller.now(job.refresh(conn))
    assert (seen.id, seen.task, seen.queue, seen.priority) == (job.id, greet.name, "default", 0)
    assert isinstance(job.id, int)
    shown = await caller.now((await caller.now(conn.execute("SELECT %s::text, 1::int8", ["a"]))).fetchone())
    assert shown == ("!A", "!1")


async def test_chancy_registers_nothing_on_the_callers_connection(caller, database):
    conn = await caller.connect()
    set_json_loads(lambda data: ("loaded by the caller", bytes(data)), conn)
    await caller.now(greet.submit(conn, "a"))
    assert await caller.one(conn, "SELECT '{}'::json") == (("loaded by the caller", b"{}"),)
    with pytest.raises(psycopg.ProgrammingError, match="cannot adapt"):
        import msgspec

        await caller.now(conn.execute("SELECT %s", [msgspec.Raw(b"1")]))


def test_a_job_is_submitted_beside_psycopg2_in_one_process(database):
    old = psycopg2.connect(database.dsn)
    try:
        with old.cursor() as cursor:
            cursor.execute("SELECT 1")
            conn = database.connect()
            job = greet.submit(conn, "a")
            conn.commit()
            assert cursor.fetchone() == (1,)
        greet.submit(old, "b")
        assert old.status == psycopg2.extensions.STATUS_BEGIN
    finally:
        old.close()
    assert database.ids() == [job.id]


@pytest.mark.parametrize("verb", ["submit", "submit_many", "get", "migrate"])
def test_what_is_no_connection_is_refused_by_name(verb):
    calls = {
        "submit": lambda: greet.submit("host=x", "a"),
        "submit_many": lambda: submit_many("host=x", [greet.bind("a")]),
        "get": lambda: chancy.get("host=x", 1),
        "migrate": lambda: chancy.migrate("host=x"),
    }
    with pytest.raises(chancy.InvalidConnection, match="got str: connect with it first"):
        calls[verb]()


async def test_handles_come_back_in_the_order_in_which_the_jobs_were_given(caller, database):
    conn = await caller.connect(autocommit=True)
    given = [greet.using(priority=i % 7, queue=f"q{i % 3}").bind(f"n{i}") for i in range(500)]
    jobs = await caller.now(submit_many(conn, given))
    stored = dict(database.rows("SELECT id, arguments ->> 'name' FROM {}.job"))
    assert [stored[job.id] for job in jobs] == [f"n{i}" for i in range(500)]
    assert [job.queue for job in jobs] == [f"q{i % 3}" for i in range(500)]
    assert [job.id for job in jobs] == sorted(stored)


async def test_many_jobs_are_there_all_or_none(caller, database):
    conn = await caller.connect()
    await caller.now(submit_many(conn, [greet.bind("a"), greet_later.bind("b")]))
    await caller.now(conn.rollback())
    assert database.ids() == []
    await caller.now(submit_many(conn, [greet.bind("a"), greet_later.bind("b")]))
    await caller.now(conn.commit())
    assert len(database.ids()) == 2


async def test_submitting_no_jobs_sends_nothing(caller):
    conn = await caller.connect()
    assert await caller.now(submit_many(conn, [])) == []
    assert conn.info.transaction_status is TransactionStatus.IDLE


async def test_one_transaction_fills_two_schemas_and_each_handle_knows_its_own(caller, database):
    other = f"{database.schema}_b"
    chancy.migrate(database.conn, schema=other)
    try:
        conn = await caller.connect()
        (here,) = await caller.now(submit_many(conn, [greet.bind("here")]))
        (there,) = await caller.now(submit_many(conn, [greet.bind("there")], schema=other))
        assert (here.schema, there.schema) == (database.schema, other)
        assert b"there" in (await caller.now(there.refresh(conn))).arguments
        assert b"here" in (await caller.now(here.refresh(conn))).arguments
        await caller.now(there.cancel(conn))
        await caller.now(conn.commit())
        assert (database.ids(), database.ids(other)) == ([here.id], [])
    finally:
        database.conn.execute(f'DROP SCHEMA "{other}" CASCADE')


def test_the_schema_in_use_is_the_given_then_the_attempts_then_the_configured_then_the_environments(monkeypatch):
    from chancy.schema import attempt_schema, schema_in_use

    monkeypatch.setenv("CHANCY_SCHEMA", "from_environment")
    chancy.configure(schema=None)
    assert schema_in_use() == "from_environment"
    chancy.configure(schema="configured")
    assert schema_in_use() == "configured"
    token = attempt_schema.set("attempts")
    try:
        assert schema_in_use() == "attempts"
        assert schema_in_use("given") == "given"
    finally:
        attempt_schema.reset(token)
    monkeypatch.delenv("CHANCY_SCHEMA")
    chancy.configure(schema=None)
    assert schema_in_use() == "chancy"


async def test_a_failed_submit_leaves_the_callers_transaction_failed(caller, database):
    conn = await caller.connect()
    with pytest.raises(chancy.SchemaOutdated):
        await caller.now(submit_many(conn, [greet.bind("a")], schema="never_migrated"))
    assert conn.info.transaction_status is TransactionStatus.INERROR
    await caller.now(conn.rollback())


def test_the_sync_face_submits_in_a_transaction_of_its_own(database):
    with chancy.Chancy(database.dsn, schema=database.schema) as app:
        job = app.submit(greet.bind("a"))
        assert database.ids() == [job.id]
        assert app.migrate() == []
    assert app.conn.closed


async def test_the_async_face_submits_in_a_transaction_of_its_own(database):
    async with chancy.Chancy(database.dsn, schema=database.schema) as app:
        jobs = await app.submit_many([greet.bind("a"), greet.bind("b")])
        assert database.ids() == [job.id for job in jobs]
        assert await app.migrate() == []
    assert app.conn.closed


def test_a_connection_keeps_its_row_factory_in_the_cursors_that_it_makes(database):
    conn = database.connect(row_factory=dict_row)
    greet.submit(conn, "a")
    assert conn.cursor().row_factory is dict_row
    assert database.conn.row_factory is tuple_row
