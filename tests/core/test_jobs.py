"""What operators and waiters do: look, wait, cancel, requeue, migrate."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from every_verb import LOOKS, VERBS, WRITES, Things, fill
from psycopg.conninfo import make_conninfo

import chancy
import chancy_ops
from chancy import InvalidArguments, JobCancelled, JobFailed, NotCommitted, State, UnknownJob, submit_many, task
from chancy.migrations.migrate import printed, steps

NAMES = [step.name for step in steps()]


@task
def count(number: int = 0) -> int:
    return number


LONG = timedelta(seconds=20)


async def test_a_job_is_shown_as_it_is(caller, database):
    conn = await caller.connect(autocommit=True)
    job = await caller.now(count.using(queue="q", priority=-7, max_attempts=9).submit(conn, 5))
    row = await caller.now(chancy.get(conn, job.id))
    assert (row.task, row.queue, row.priority, row.max_attempts, row.attempt) == (count.name, "q", -7, 9, 0)
    assert (row.state, row.arguments, row.result, row.errors) == (State.READY, b'{"number":5}', None, ())
    assert row.submitted_at == row.run_at
    assert row.run_at.tzinfo is UTC


async def test_pages_of_jobs_have_every_job_once_live_or_finished_newest_first(caller, database):
    conn = await caller.connect(autocommit=True)
    made = await caller.now(submit_many(conn, [count.bind(i) for i in range(7)]))
    database.finish(made[3].id, result="3")
    seen, before = [], None
    while page := await caller.now(chancy.jobs(conn, limit=3, before=before)):
        seen += [row.id for row in page]
        before = page[-1].id
    assert seen == [job.id for job in reversed(made)]
    assert [row.id for row in await caller.now(chancy.jobs(conn, state=State.SUCCEEDED))] == [made[3].id]
    assert await caller.now(chancy.jobs(conn, task="another")) == []
    assert await caller.now(chancy.jobs(conn, queue="another")) == []


async def test_a_cancelled_job_is_history_and_can_be_requeued_under_its_id(caller, database):
    conn = await caller.connect(autocommit=True)
    job = await caller.now(count.submit(conn))
    assert await caller.now(job.cancel(conn)) is True
    assert await caller.now(job.cancel(conn)) is False
    assert (await caller.now(job.refresh(conn))).state is State.CANCELLED
    with pytest.raises(JobCancelled):
        await caller.now(job.result(conn, timeout=LONG))
    assert await caller.now(chancy.requeue(conn, job.id)) is True
    assert await caller.now(chancy.requeue(conn, job.id)) is False
    assert (await caller.now(job.refresh(conn))).state is State.READY
    assert database.ids() == [job.id]


async def test_a_requeued_job_keeps_its_attempts_and_errors_and_gets_more(caller, database):
    conn = await caller.connect(autocommit=True)
    job = await caller.now(count.submit(conn))
    database.finish(job.id, "failed", None, '[{"attempt": 1, "kind": "ValueError", "message": "no"}]')
    assert await caller.now(chancy.requeue(conn, job.id, attempts=5)) is True
    row = await caller.now(job.refresh(conn))
    assert (row.attempt, row.max_attempts, row.errors[0].kind, row.result) == (1, 6, "ValueError", None)
    assert database.rows("SELECT claims FROM {}.job") == [(1,)]


async def test_what_no_row_can_hold_is_refused_before_the_transaction_is_spoilt(caller, database):
    conn = await caller.connect()
    job = await caller.now(count.submit(conn, 1))
    for refused in (
        lambda: chancy.requeue(conn, job.id, attempts=0),
        lambda: chancy.jobs(conn, limit=-1),
        lambda: chancy.jobs(conn, state="done"),
        lambda: count.using(delay=timedelta.max),
    ):
        with pytest.raises((ValueError, chancy.InvalidArguments)):
            refused()
    assert [row.id for row in await caller.now(chancy.jobs(conn, state="ready"))] == [job.id]


async def test_a_cancel_counts_only_when_its_transaction_commits(caller, database):
    job = count.submit(database.conn)
    conn = await caller.connect()
    assert await caller.now(job.cancel(conn)) is True
    await caller.now(conn.rollback())
    assert database.ids() == [job.id]


@pytest.mark.parametrize("verb", ["get", "cancel", "requeue"])
async def test_a_job_that_is_not_there_is_unknown(caller, verb):
    with pytest.raises(UnknownJob, match="job 4711"):
        await caller.now(getattr(chancy, verb)(await caller.connect(), 4711))


async def test_a_result_is_what_the_function_returned(caller, database):
    job = count.submit(database.conn)
    database.finish(job.id, result="42")
    assert await caller.now(job.result(await caller.connect(), timeout=LONG)) == 42


def test_a_result_is_waited_for_in_a_read_committed_transaction(database):
    job = count.submit(database.conn)
    conn, got = database.connect(), []
    waiter = threading.Thread(target=lambda: got.append(job.result(conn, timeout=LONG)))
    waiter.start()
    database.finish(job.id, result="42")
    waiter.join(20)
    assert got == [42]


async def test_cancelling_the_wait_leaves_job_and_connection_alone(database):
    job = count.submit(database.conn)
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job.result(conn), 0.05)
        assert (await job.refresh(conn)).state is State.READY


async def test_a_failed_job_raises_with_the_remote_traceback(caller, database):
    job = count.submit(database.conn)
    database.finish(
        job.id, "failed", None, '[{"attempt": 1, "kind": "ValueError", "message": "no", "traceback": "Trace"}]'
    )
    with pytest.raises(JobFailed, match=r"ValueError: no\n\nTrace") as caught:
        await caller.now(job.result(await caller.connect(), timeout=LONG))
    assert (caught.value.kind, caught.value.state, caught.value.attempt) == ("ValueError", "failed", 1)


async def test_a_wait_ends_at_its_timeout(caller, database):
    job = count.submit(database.conn)
    with pytest.raises(TimeoutError, match="still ready"):
        await caller.now(job.result(await caller.connect(), timeout=timedelta(milliseconds=30)))


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("savepoint", [False, True])
async def test_waiting_for_a_job_of_this_very_transaction_is_refused(caller, database, autocommit, savepoint):
    conn = await caller.connect(autocommit=autocommit)
    async with caller.entered(conn.transaction()):
        if savepoint:
            async with caller.entered(conn.transaction()):
                job = await caller.now(count.submit(conn))
        else:
            job = await caller.now(count.submit(conn))
        with pytest.raises(NotCommitted, match="commit first"):
            await caller.now(job.result(conn, timeout=timedelta(seconds=1)))


async def test_waiting_for_a_job_of_a_rolled_back_savepoint_is_waiting_for_none(caller, database):
    conn = await caller.connect()
    async with caller.entered(conn.transaction()):
        async with caller.entered(conn.transaction()):
            job = await caller.now(count.submit(conn))
            raise psycopg.Rollback
    with pytest.raises(UnknownJob):
        await caller.now(job.result(conn, timeout=LONG))


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize("older", [False, True], ids=["job before the snapshot", "job after the snapshot"])
async def test_waiting_in_one_snapshot_is_refused(caller, database, level, older):
    conn = await caller.connect()
    await caller.now(conn.set_isolation_level(level))
    if older:
        await caller.now(conn.execute("SELECT 1"))
    job = count.submit(database.conn)
    with pytest.raises(NotCommitted, match="never sees what others commit"):
        await caller.now(job.result(conn, timeout=timedelta(seconds=1)))


LOCKED = """
    SELECT DISTINCT relation::regclass::text, state FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE pid = %s AND locktype = 'relation' AND relation::regclass::text ~ ANY (%s)
"""


@pytest.fixture
async def waiting(caller, database, monkeypatch):
    """Waits for a job on a connection, and tells after each look what its session holds."""
    job = count.submit(database.conn)
    seen = []

    async def wait(conn):
        pid, pauses = conn.info.backend_pid, []

        def look(seconds):
            pauses.append(seconds)
            seen.append(database.rows(LOCKED.replace("{", "{{"), pid, [f"{database.schema}.{t}" for t in (".*",)]))
            if len(pauses) == 3:
                database.finish(job.id, result="42")

        async def look_async(seconds):
            look(seconds)

        monkeypatch.setattr("chancy.run.time.sleep", look)
        monkeypatch.setattr("chancy.run.asyncio.sleep", look_async)
        return await caller.now(job.result(conn, timeout=60))

    wait.seen = seen
    return wait


async def test_a_wait_on_an_idle_connection_holds_nothing_between_its_looks(caller, database, waiting):
    conn = await caller.connect()
    assert await waiting(conn) == 42
    assert waiting.seen == [[], [], []]


async def test_a_wait_in_autocommit_holds_nothing_between_its_looks(caller, waiting):
    assert await waiting(await caller.connect(autocommit=True)) == 42
    assert waiting.seen == [[], [], []]


async def test_a_wait_inside_a_transaction_holds_nothing_of_the_history_and_leaves_it_open(caller, database, waiting):
    conn = await caller.connect()
    kept = await caller.now(count.submit(conn))
    await caller.now(conn.commit())
    async with caller.entered(conn.transaction()):
        other = await caller.now(count.submit(conn))
        assert await waiting(conn) == 42
        held = {table for rows in waiting.seen for table, state in rows}
        assert f"{database.schema}.job" in held
        assert not [table for table in held if "history" in table]
    assert {kept.id, other.id} <= set(database.ids())


async def test_a_wait_that_began_no_transaction_ends_none(caller, database, waiting):
    conn = await caller.connect()
    mine = await caller.now(count.submit(conn))
    assert await waiting(conn) == 42
    await caller.now(conn.commit())
    assert mine.id in database.ids()


async def test_a_job_of_later_is_scheduled_by_the_databases_clock(caller, database):
    conn = await caller.connect(autocommit=True)
    at = datetime(2099, 1, 1, tzinfo=UTC)
    dated = await caller.now(count.using(run_at=at).submit(conn))
    delayed = await caller.now(count.using(delay=timedelta(hours=1)).submit(conn))
    row = await caller.now(dated.refresh(conn))
    assert (row.run_at, row.state) == (at, State.SCHEDULED)
    row = await caller.now(delayed.refresh(conn))
    assert row.run_at - row.submitted_at == timedelta(hours=1)
    assert len(await caller.now(chancy.jobs(conn, state=State.SCHEDULED))) == 2


@pytest.mark.parametrize("priority", [-100, 100])
def test_the_ends_of_the_priority_range_are_in_it(database, priority):
    assert count.using(priority=priority).submit(database.conn).refresh(database.conn).priority == priority


def test_a_job_that_has_used_up_every_attempt_there_is_can_be_requeued(database):
    job = count.submit(database.conn)
    database.finish(job.id, "failed")
    database.rows("UPDATE {}.history SET attempt = 32767, max_attempts = 32767 RETURNING 1")
    assert chancy.requeue(database.conn, job.id, attempts=3)
    row = job.refresh(database.conn)
    assert (row.attempt, row.max_attempts) == (32_764, 32_767)


def test_other_languages_submit_with_one_sql_function(database):
    other = database.connect()
    other.execute("SET search_path = pg_temp")
    text = f"""SELECT "{database.schema}".submit('{count.name}', '{{"number": 7}}', queue => 'q', priority => 5)"""
    (job_id,) = other.execute(text).fetchone()
    assert database.ids() == []
    other.commit()
    row = chancy.get(database.conn, job_id)
    assert (row.queue, row.priority, row.max_attempts, row.state) == ("q", 5, 3, State.READY)
    assert count.signature.decode_arguments(row.arguments) == ((7,), {})


@pytest.fixture
def patient(monkeypatch):
    """However long a busy machine needs for the first of several migrations, the others wait for it."""
    module = sys.modules["chancy.migrations.migrate"]
    monkeypatch.setattr(module, "LOCK", module.LOCK.replace("'3s'", "'60s'"))


@pytest.fixture
def empty(database):
    """The name of a schema that is not there yet."""
    name = f"{database.schema}_new"
    yield name
    database.conn.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


async def test_a_second_migration_does_nothing(caller, empty):
    conn = await caller.connect()
    assert await caller.now(chancy.migrate(conn, schema=empty)) == NAMES
    assert await caller.now(chancy.migrate(conn, schema=empty)) == []
    assert conn.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


@pytest.mark.usefixtures("patient")
def test_of_two_migrations_at_once_one_does_the_work(database, empty):
    gate, applied = threading.Barrier(2), []

    def run(conn):
        gate.wait()
        applied.append(chancy.migrate(conn, schema=empty))

    threads = [threading.Thread(target=run, args=(database.connect(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(applied) == [[], NAMES]


EXISTS = "SELECT to_regnamespace(%s) IS NOT NULL"


async def test_a_migration_inside_a_transaction_is_a_part_of_it(caller, database, empty):
    conn = await caller.connect()
    before = await caller.one(conn, "SHOW lock_timeout")
    assert await caller.now(chancy.migrate(conn, schema=empty)) == NAMES
    assert await caller.one(conn, "SHOW lock_timeout") == before
    assert database.conn.execute(EXISTS, [empty]).fetchone() == (False,)
    await caller.now(conn.rollback())
    assert database.conn.execute(EXISTS, [empty]).fetchone() == (False,)


async def test_a_migration_on_a_connection_that_cannot_is_refused_in_words(caller, empty):
    conn = await caller.connect()
    await caller.now(conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    with pytest.raises(chancy.InvalidConnection, match="READ COMMITTED, and this one is repeatable read"):
        await caller.now(chancy.migrate(conn, schema=empty))
    with pytest.raises(psycopg.Error):
        await caller.now(conn.execute("SELECT 1/0"))
    with pytest.raises(chancy.InvalidConnection, match="roll it back first"):
        await caller.now(chancy.migrate(conn, schema=empty))
    await caller.now(conn.rollback())
    async with caller.entered(conn.pipeline()):
        with pytest.raises(chancy.InvalidConnection, match="pipeline mode"):
            await caller.now(chancy.migrate(conn, schema=empty))
    await caller.now(conn.close())
    with pytest.raises(chancy.InvalidConnection, match="is closed"):
        await caller.now(chancy.migrate(conn, schema=empty))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_of_many_migrations_under_any_isolation_one_does_the_work(database, empty, level):
    gate, applied = threading.Barrier(6), []

    def run(conn):
        gate.wait()
        applied.append(chancy.migrate(conn, schema=empty))

    conns = [database.connect(autocommit=True) for _ in range(6)]
    for conn in conns:
        conn.execute(f"SET default_transaction_isolation = '{level}'")
    threads = [threading.Thread(target=run, args=(conn,)) for conn in conns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(applied) == [[], [], [], [], [], NAMES]


def test_a_renamed_schema_is_seen_and_put_right(database, empty):
    chancy.migrate(database.conn, schema=f"{empty}_was")
    try:
        database.conn.execute(f'ALTER SCHEMA "{empty}_was" RENAME TO "{empty}"')
        (found,) = chancy_ops.doctor(database.conn, schema=empty)
        assert f"was '{empty}_was' when it was migrated, and its functions still name that" in found.message
        (applied,) = chancy.migrate(database.conn, schema=empty)
        assert f"{empty}_was" in applied
        assert chancy.migrate(database.conn, schema=empty) == []
        (job,) = submit_many(database.conn, [count.using(unique=chancy.Unique()).bind(1)], schema=empty)
        assert database.ids(empty) == [job.id]
    finally:
        database.conn.execute(f'DROP SCHEMA IF EXISTS "{empty}_was" CASCADE')


NOTHING = Things(*[chancy.Job(1, count.name, "default", "nothing")] * 5, batch=1)
TELLS = {"doctor", "migrate"}
"""Verbs that have something to say of a schema that is not there, and do not raise."""


@pytest.mark.parametrize("name", sorted(VERBS.keys() - TELLS))
async def test_every_verb_says_that_the_schema_is_not_there(caller, name):
    conn = await caller.connect(autocommit=True)
    chancy.configure(schema="nothing")
    with pytest.raises(chancy.SchemaOutdated, match="migrate --schema nothing") as caught:
        await caller.now(VERBS[name](conn, NOTHING))
    assert caught.value.found is None


async def test_a_verb_says_what_the_schema_lacks(caller, database):
    conn = await caller.connect(autocommit=True)
    database.conn.execute(f'ALTER TABLE "{database.schema}".job DROP COLUMN batch CASCADE')
    with pytest.raises(chancy.SchemaOutdated, match="lacks what this version of Chancy needs"):
        await caller.now(chancy.jobs(conn))


def test_a_function_that_a_trigger_of_the_users_misses_is_not_told_as_ours(database):
    database.conn.execute(
        "CREATE FUNCTION public.broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM nil(); END'"
    )
    database.conn.execute(
        f'CREATE TRIGGER broken BEFORE INSERT ON "{database.schema}".job FOR EACH ROW EXECUTE FUNCTION public.broken()'
    )
    try:
        with pytest.raises(psycopg.errors.UndefinedFunction):
            count.submit(database.conn)
    finally:
        database.conn.execute("DROP FUNCTION public.broken CASCADE")


def command(*arguments, **environment):
    known = {name: value for name, value in os.environ.items() if not name.startswith(("CHANCY", "PG"))}
    run = [sys.executable, "-m", "chancy", "migrate", *arguments]
    return subprocess.run(run, env=known | environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_printed_migration_makes_a_schema_that_works(database, empty):
    done = command("--print", "--schema", empty)
    assert done.returncode == 0
    database.conn.execute(done.stdout)
    assert chancy.migrate(database.conn, schema=empty) == []
    (job,) = submit_many(database.conn, [count.bind(1)], schema=empty)
    assert database.ids(empty) == [job.id]


def test_a_printed_migration_gives_up_as_any_other_while_one_is_under_way(database, empty):
    with database.connect() as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtext('chancy migrate'), hashtext(%s))", [empty])
        with pytest.raises(psycopg.errors.LockNotAvailable):
            database.conn.execute(printed(empty).encode())
        database.conn.rollback()
    assert database.conn.execute(EXISTS, [empty]).fetchone() == (False,)


def test_a_printed_migration_whose_reader_has_gone_is_no_error():
    read, write = os.pipe()
    os.close(read)
    run = [sys.executable, "-m", "chancy", "migrate", "--print"]
    done = subprocess.run(run, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert done.stderr == ""


def test_where_all_tables_are_published_every_verb_works(database):
    name = f"{database.schema}_published"
    database.conn.execute(f'CREATE DATABASE "{name}"')
    try:
        with psycopg.connect(make_conninfo(database.dsn, dbname=name), autocommit=True) as conn:
            chancy.configure(schema="chancy")
            conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
            chancy.migrate(conn)
            things = fill(conn, "chancy")
            conn.execute("CREATE TABLE other (number integer)")
            conn.execute("INSERT INTO other VALUES (1)")
            with pytest.raises(psycopg.Error, match="replica identity"):
                conn.execute("DELETE FROM other")
            for verb in (LOOKS | WRITES).values():
                verb(conn, things)
    finally:
        database.conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_the_command_migrates(database, empty):
    done = command("--schema", empty, CHANCY_DSN=database.dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert NAMES[0] in done.stdout


@pytest.mark.parametrize("dsn", ["host=127.0.0.1 port=1", "no dsn at all", "postgresql://127.0.0.1:port/x"])
def test_a_wrong_dsn_is_one_line_that_says_what_to_do_and_exit_code_2(dsn):
    failed = command("--dsn", dsn)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("chancy: ")
    assert failed.stderr.count("\n") == 1
    assert "--dsn" in failed.stderr


@pytest.mark.parametrize("name", ["Mixed", "select", "_a_b", "x" * 48])
def test_an_odd_schema_name_works(database, name):
    try:
        chancy.migrate(database.conn, schema=name)
        (job,) = submit_many(database.conn, [count.bind(1)], schema=name)
        assert job.cancel(database.conn) is True
    finally:
        database.conn.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


@pytest.mark.parametrize("name", ["", "1a", "a$b", "a$$b", "a-b", 'a"b', "a'b", "a b", "ä", "x" * 49, "a\n", "pg_a"])
def test_a_schema_name_that_could_not_stand_in_sql_is_refused(name):
    with pytest.raises(chancy.ChancyError, match="cannot be the name"):
        chancy.configure(schema=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": 101},
        {"priority": -101},
        {"priority": 1.5},
        {"priority": "1"},
        {"max_attempts": 0},
        {"max_attempts": True},
        {"queue": ""},
        {"queue": "a\0"},
        {"queue": 5},
        {"run_at": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"run_at": "tomorrow"},
        {"delay": "5"},
        {"delay": True},
        {"limits": ["time"]},
        {"retry": lambda attempt, error: None},
        {"unique": True},
        {"delay": timedelta(1), "run_at": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_an_option_that_cannot_go_into_a_row_is_refused_by_name(changes):
    with pytest.raises(InvalidArguments) as caught:
        count.using(**changes)
    assert caught.value.argument == next(iter(changes))
