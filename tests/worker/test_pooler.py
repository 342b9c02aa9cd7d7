"""Behind PgBouncer in transaction mode: the same promises, by polling, and nothing left in anybody's session."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from datetime import timedelta

import psycopg
import pytest
from bouncer_help import Bouncer
from worker_help import (
    FAST,
    MORTAL,
    ONLY_WOKEN,
    SOON_MISSED,
    Site,
    all_finished,
    blocking_until,
    eventually,
    kill_one_of_two,
    states,
    working,
)
from worker_tasks import add, add_in_thread, gates, nap, pass_gate, record, succeed_at, wait_for_file

import chancy
from chancy import State, cancel, submit_many
from chancy.model import Statement
from chancy_testing.server.postgres import Postgres
from chancy_testing.server.schemas import KEY
from chancy_worker import Timing, Worker, WorkerConfig
from chancy_worker.connection.link import Link
from chancy_worker.connection.sessions import LentSession
from chancy_worker.doorbell import polling
from chancy_worker.doorbell.polling import Poll
from chancy_worker.parts.retention import drop_briefly
from chancy_worker.rounds.claimer import Claimer

SESSION_LOCKS = """
    SELECT locks.objid FROM pg_locks AS locks JOIN pg_stat_activity AS session USING (pid)
    WHERE locks.locktype = 'advisory' AND locks.classid <> {key} AND session.state = 'idle'
""".replace("{key}", str(KEY))
"""What an idle session holds is no lock of a transaction. The fixtures' own lock does not count."""
EXTENDED_BEYOND = "SELECT min(expires_at) > %s + %s * interval '1 s' FROM {}.worker"
ADVISORY = f"SELECT * FROM pg_locks WHERE locktype = 'advisory' AND classid <> {KEY}"

OF_A_SESSION = """
    SELECT array_agg(name || '=' || setting ORDER BY name),
        (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels())
    FROM pg_settings WHERE name NOT LIKE 'plpgsql.%' AND name <> 'application_name'
"""
"""A session has plpgsql's settings once it has used it; PgBouncer itself cares for the application_name."""


@pytest.fixture
def bouncer(chancy_dsn):
    with Bouncer(chancy_dsn) as bouncer:
        yield bouncer


def warnings(caplog):
    said = [r.getMessage() for r in caplog.records if r.name == "chancy.worker" and r.levelname == "WARNING"]
    return [text for text in said if not text.startswith("the event loop is blocked")]  # as by a busy machine


def session_locks(site):
    """In between two looks of one statement a transaction may end: a session's lock would be there in both."""
    return set(site.conn.execute(SESSION_LOCKS)) & set(site.conn.execute(SESSION_LOCKS))


async def sessions_of(bouncer):
    """What each of the pooler's server connections looks like to one who borrows it, all of them at once."""
    async with contextlib.AsyncExitStack() as stack:
        found = {}
        for _ in range(bouncer.size):
            conn = await psycopg.AsyncConnection.connect(bouncer.dsn, prepare_threshold=None)
            await stack.enter_async_context(conn)
            (pid,) = await (await conn.execute("SELECT pg_backend_pid()")).fetchone()
            settings, prepared, listening = await (await conn.execute(OF_A_SESSION)).fetchone()
            found[pid] = {*settings, f"{prepared} prepared", f"listens to {listening}"}
    assert len(found) == bouncer.size
    return list(found.values())


def different(before, after):
    return set().union(*(before[0] ^ settings for settings in after))


async def test_async_sync_retried_and_delayed_jobs_run_behind_pgbouncer_with_one_warning(site, bouncer, caplog):
    async with working(site.app(dsn=bouncer.dsn)):
        jobs = site.submit(
            add.bind(1, 2),
            add_in_thread.bind(3, 4),
            succeed_at.bind(3),
            add.using(delay=timedelta(milliseconds=300)).bind(5, 6),
        )
        await all_finished(site)
    rows = [site.row(job) for job in jobs]
    assert [(row.state, row.attempt, row.result) for row in rows] == [
        (State.SUCCEEDED, 1, b"3"),
        (State.SUCCEEDED, 1, b"7"),
        (State.SUCCEEDED, 3, b"3"),
        (State.SUCCEEDED, 1, b"11"),
    ]
    assert rows[3].started_at >= rows[3].run_at
    (said,) = warnings(caplog)
    assert "polls" in said
    assert "--dsn" in said
    assert "--pooler session" in said
    assert "\n" not in said


async def test_no_session_lock_is_ever_taken_behind_pgbouncer(site, bouncer):
    site.conn.execute(f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-05')")
    seen = []
    async with working(site.app(dsn=bouncer.dsn), WorkerConfig(timing=Timing(upkeep=0.1, look=0.2), grace=1)):
        await eventually(lambda: site.one("SELECT to_regclass('{}.history_20200105')") is None)
        for _ in range(10):
            jobs = site.submit(*[add.bind(i, i) for i in range(10)])
            await eventually(lambda jobs=jobs: site.row(jobs[-1]).finished_at)
            await asyncio.sleep(0.05)  # it is idle
            seen.append(session_locks(site))
    assert seen == [set()] * 10
    assert site.conn.execute(ADVISORY).fetchall() == []


async def test_nothing_of_the_worker_is_left_in_a_session_that_another_client_borrows(site, bouncer):
    before = await sessions_of(bouncer)
    async with working(site.app(dsn=bouncer.dsn)):
        for _ in range(5):
            site.submit(*[succeed_at.bind(2) for _ in range(20)])
            await all_finished(site)
            assert different(before, await sessions_of(bouncer)) == set()
    assert different(before, await sessions_of(bouncer)) == set()
    assert {"0 prepared", "listens to 0", "enable_seqscan=on", "lock_timeout=0", "statement_timeout=0"} <= before[0]


async def test_a_watchdog_behind_pgbouncer_keeps_the_lease_and_leaves_no_setting(site, bouncer, caplog):
    before = await sessions_of(bouncer)
    async with working(site.app(dsn=bouncer.dsn), SOON_MISSED):
        (job,) = site.submit(add.bind(1, 2))
        await eventually(lambda: site.row(job).finished_at)
        lease = set(site.workers())
        (expires,) = site.rows("SELECT expires_at FROM {}.worker")
        blocking_until(lambda: site.one(EXTENDED_BEYOND, expires[0], MORTAL.lease))  # longer than its lease
        assert set(site.workers()) == lease
    assert "could not be extended" not in caplog.text
    assert different(before, await sessions_of(bouncer)) == set()


async def test_pooler_session_overrules_the_detection(site, chancy_dsn, caplog):
    """The doorbell works, since PgBouncer in session mode gives each client a session of its own."""
    config = WorkerConfig(timing=ONLY_WOKEN, grace=1, pooler="session")
    with Bouncer(chancy_dsn, size=10, mode="session") as bouncer:
        async with working(site.app(dsn=bouncer.dsn), config):
            await eventually(lambda: site.conn.execute(SESSION_LOCKS).fetchall())
            for _ in range(3):
                (job,) = site.submit(add.bind(1, 2))
                await eventually(lambda job=job: site.row(job).finished_at)
    assert warnings(caplog) == []


async def test_pooler_transaction_polls_on_a_direct_connection_too(site, caplog):
    config = WorkerConfig(timing=ONLY_WOKEN, grace=1, pooler="transaction")
    async with working(site.app(), config):
        for _ in range(3):
            (job,) = site.submit(add.bind(1, 2))
            await eventually(lambda job=job: site.row(job).finished_at)
            assert session_locks(site) == set()
    assert warnings(caplog) == []  # who asks for it knows


async def test_a_direct_connection_is_recognised_and_has_its_doorbell(site, caplog):
    async with working(site.app(), WorkerConfig(timing=ONLY_WOKEN, grace=1)):
        await eventually(lambda: site.conn.execute(SESSION_LOCKS).fetchall())
    assert warnings(caplog) == []


async def test_a_word_for_the_pooler_that_there_is_not_is_refused(site):
    with pytest.raises(ValueError, match="'auto', 'session' or 'transaction'"):
        await Worker(site.app(), WorkerConfig(pooler="statement")).start()


async def test_an_idle_worker_behind_pgbouncer_looks_less_and_less_often_and_starts_a_job_within_the_poll(
    site, bouncer, monkeypatch
):
    pauses, looks = [], []
    idle, wake = Poll.idle, Claimer.wake

    def pausing(poll, queues):
        pauses.append(poll._pause)
        idle(poll, queues)

    def looking(claimer, queues=None):
        looks.append(queues)
        wake(claimer, queues)

    monkeypatch.setattr(Poll, "idle", pausing)
    monkeypatch.setattr(Claimer, "wake", looking)
    growing = [0.05, 0.1, 0.2, 0.4, 0.8, polling.LONGEST_SECONDS]
    with psycopg.connect(bouncer.dsn, autocommit=True, prepare_threshold=None) as conn:
        async with working(site.app(dsn=bouncer.dsn), WorkerConfig(timing=ONLY_WOKEN, grace=1)):
            await eventually(lambda: polling.LONGEST_SECONDS in pauses)
            assert pauses[-len(growing) :] == growing
            before, since = len(looks), len(pauses)
            (job,) = submit_many(conn, [add.bind(1, 2)], schema=site.schema)
            await eventually(lambda: site.row(job).finished_at)
            assert len(looks) <= before + 2  # the next one, whose own pause may be over at once
            # There was work: it looks often again.
            await eventually(lambda: polling.LONGEST_SECONDS in pauses[since:])
            assert pauses[since:] == growing


async def test_a_running_job_is_cancelled_behind_pgbouncer(site, bouncer):
    async with working(site.app(dsn=bouncer.dsn)):
        (job,) = site.submit(pass_gate.bind("never"))
        await eventually(lambda: site.count("running") == 1)
        with psycopg.connect(bouncer.dsn, prepare_threshold=None) as conn:
            assert cancel(conn, job.id, schema=site.schema)
        await eventually(lambda: site.row(job).state is State.CANCELLED)  # by a heartbeat


async def test_a_locked_row_and_a_missing_partition_are_overcome_behind_pgbouncer(site, bouncer):
    """A round that fails leaves a connection that the next one can use."""
    async with working(site.app(dsn=bouncer.dsn)):
        (locked,) = site.submit(pass_gate.bind("locked"))
        await eventually(lambda: site.count("running") == 1)
        partitions = (
            "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relname ~ '^history_[0-9]+$'"
        )
        for (name,) in site.conn.execute(partitions, [site.schema]).fetchall():
            site.conn.execute(f'DROP TABLE "{site.schema}"."{name}"')
        with psycopg.connect(site.dsn) as other:
            other.execute(f'SELECT FROM "{site.schema}".job WHERE id = %s FOR UPDATE', [locked.id])
            gates["locked"].set()
            site.submit(*[add.bind(i, i) for i in range(50)])
            await eventually(lambda: site.count("succeeded") == 50)
        await all_finished(site)
    assert set(site.rows("SELECT state::text, attempt FROM {}.history")) == {("succeeded", 1)}


@pytest.mark.long
async def test_a_handler_that_blocks_the_loop_finds_no_lock_held_by_a_round_of_its_own_worker(site, bouncer):
    """A round is one packet: with a COMMIT of its own it would wait for the loop, and the loop here for its lock."""
    site.conn.execute("SET lock_timeout = '5s'")
    async with working(site.app(dsn=bouncer.dsn)):
        site.submit(*[nap.bind(i / 2000) for i in range(1_000)])
        while site.one("SELECT EXISTS (SELECT FROM {}.job)"):
            site.conn.execute(f'BEGIN; LOCK TABLE "{site.schema}".history IN ACCESS EXCLUSIVE MODE; COMMIT')
            await asyncio.sleep(0.0005)


async def test_a_statement_behind_pgbouncer_ends_on_the_server_at_its_deadline(site, bouncer):
    link = Link(bouncer.dsn, site.schema, "late", deadline=1, session=LentSession)
    await link.connect()
    link.conn.deadline = 10  # the client's side: it would cut the connection at the same moment
    with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
        await link.send(Statement("SELECT pg_sleep(5)", {}, lambda rows: None))
    assert (
        await link.send(Statement("SELECT 'it''s 100 %% usable'", {}, lambda rows: rows[0][0])) == "it's 100 % usable"
    )
    await link.close()


async def test_the_jobs_of_a_worker_killed_behind_pgbouncer_run_again(site, bouncer, tmp_path):
    gate = tmp_path / "gate"
    pooled = Site(bouncer.dsn, site.schema, tmp_path)
    try:
        first = pooled.spawn()
        await site.started(first)
        jobs = site.submit(*[wait_for_file.bind(str(gate)) for _ in range(5)])
        await eventually(lambda: site.count("running") == 5)
        second = pooled.spawn()
        await site.started(second)
        first.signal(signal.SIGKILL)
        gate.touch()
        await all_finished(site)
    finally:
        pooled.close()
    assert {(site.row(job).state, site.row(job).attempt) for job in jobs} == {(State.SUCCEEDED, 2)}


@pytest.mark.long
async def test_two_workers_behind_three_server_connections_run_each_job_exactly_once(site, bouncer, tmp_path):
    out = tmp_path / "ran"
    site.submit(*[record.bind(str(out)) for _ in range(500)])
    pooled = Site(bouncer.dsn, site.schema, tmp_path)
    try:
        workers = [pooled.spawn(timing=FAST), pooled.spawn(timing=FAST)]
        await site.started(*workers)
        site.submit(*[record.bind(str(out)) for _ in range(500)])
        await all_finished(site)
    finally:
        pooled.close()
    ran = out.read_text().split()
    assert len(ran) == len(set(ran)) == 1_000
    assert states(site) == {"succeeded": 1_000}
    assert {site.row(int(id_)).attempt for id_ in ran[::50]} == {1}


@pytest.mark.long
async def test_a_dead_child_of_processes_behind_pgbouncer_is_replaced_and_one_warning_is_enough_for_all(
    site, bouncer, tmp_path
):
    before = await sessions_of(bouncer)
    place = ["--dsn", bouncer.dsn, "--schema", site.schema]
    parent = site.work("worker_tasks", "--processes", "2", "--migrate", *place)
    await kill_one_of_two(site, parent, tmp_path / "gate")
    assert len(re.findall(r"WARNING.*pooler", parent.text)) == 1
    assert different(before, await sessions_of(bouncer)) == set()
    assert site.conn.execute(ADVISORY).fetchall() == []


async def test_migrate_works_through_pgbouncer(site, bouncer):
    schema = f"{site.schema}_b"
    try:
        with psycopg.connect(bouncer.dsn) as conn:
            assert chancy.migrate(conn, schema=schema)
            assert chancy.migrate(conn, schema=schema) == []
        assert site.conn.execute(ADVISORY).fetchall() == []
    finally:
        site.conn.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def test_an_open_reader_of_history_holds_up_the_drop_of_a_partition_and_no_completion_behind_pgbouncer(
    site, bouncer
):
    site.conn.execute(f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-02')")
    link = Link(bouncer.dsn, site.schema, "upkeep", deadline=60, lock_timeout="60s", session=LentSession)
    await link.connect()
    with psycopg.connect(site.dsn) as reader:
        reader.execute(f'SELECT count(*) FROM "{site.schema}".history')
        async with working(site.app(dsn=bouncer.dsn)):
            jobs = site.submit(*[nap.bind(i / 100) for i in range(50)])
            with pytest.raises(psycopg.errors.LockNotAvailable):
                async with asyncio.timeout(15):  # its own lock_timeout, and not that of the link
                    await drop_briefly(link)
            await eventually(lambda: site.count("succeeded") == 50)
    assert {site.row(job).attempt for job in jobs} == {1}
    await drop_briefly(link)
    await link.close()
    assert site.one("SELECT to_regclass('{}.history_20200101')") is None


async def test_one_process_at_a_time_drops_partitions_whether_behind_pgbouncer_or_not(site, bouncer):
    site.conn.execute(f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-01')")
    link = Link(bouncer.dsn, site.schema, "upkeep", deadline=8, session=LentSession)
    await link.connect()
    with psycopg.connect(site.dsn, autocommit=True) as other:  # as a worker with a session of its own does
        other.execute("SELECT pg_advisory_lock(%s::regnamespace::oid::integer, -1)", [site.schema])
        await drop_briefly(link)
        assert site.one("SELECT to_regclass('{}.history_20200101')") is not None
        # The end of a session is noticed a moment after its client has closed it.
        other.execute("SELECT pg_advisory_unlock(%s::regnamespace::oid::integer, -1)", [site.schema])
    await drop_briefly(link)
    await link.close()
    assert site.one("SELECT to_regclass('{}.history_20200101')") is None


@pytest.mark.long
async def test_a_worker_behind_pgbouncer_lives_through_a_crash_of_postgres(tmp_path):
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        with Bouncer(server.dsn) as bouncer:
            try:
                pooled = Site(bouncer.dsn, "chancy", tmp_path)
                worker = pooled.spawn()
                await site.started(worker)
                site.submit(*[nap.bind(0.02) for _ in range(1_000)])
                await eventually(lambda: site.count("succeeded") > 50)
                server.stop(immediate=True)
                await asyncio.sleep(0.5)
                server.start()
                site.conn = psycopg.connect(server.dsn, autocommit=True)
                await all_finished(site, 60)
                assert states(site) == {"succeeded": 1_000}
                assert worker.code is None
            finally:
                pooled.close()
                site.close()
