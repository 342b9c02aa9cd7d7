"""A worker's connections: watched, with a deadline on every wait, and made anew, not too often."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import socket
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import limit_tasks
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from worker_help import (
    FAST,
    MORTAL,
    PID,
    Proxy,
    Site,
    all_finished,
    blocking_until,
    eventually,
    holds_the_bell,
    warm_up,
    worker_with,
    working,
)
from worker_tasks import add, gates, pass_gate, succeed_at

import chancy
from chancy import State
from chancy.model import Statement
from chancy.wires.dsn import understood
from chancy_testing.server.postgres import Postgres
from chancy_worker import Timing, WorkerConfig, cli, processes
from chancy_worker.connection import addresses, link, recovery
from chancy_worker.connection.link import Link
from chancy_worker.doorbell.ear import Ear
from chancy_worker.life import watchdog
from chancy_worker.life.lease import Lease
from chancy_worker.life.watchdog import Watchdog

NEVER_BY_THE_CLOCK = Timing(lease=300, extend=100, rescue=100, look=100)
"""A worker that uses its connections when it has to, and otherwise not for as long as a test lasts."""


@contextlib.contextmanager
def server_of_its_own(tmp_path):
    """It may be stopped, and set to what others would not like."""
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        try:
            yield server, site
        finally:
            site.close()


def one(sql):
    return Statement(sql, {}, lambda rows: rows[0][0])


async def end(site, name):
    """End this session of the worker, and wait for the one that takes its place."""
    (before,) = site.conn.execute(PID, [name]).fetchone()
    site.conn.execute("SELECT pg_terminate_backend(%s)", [before])
    await eventually(lambda: [pid for (pid,) in site.conn.execute(PID, [name]) if pid != before])


# Sessions that end


async def test_an_idle_worker_whose_sessions_are_ended_one_by_one_has_them_again_at_once_and_is_not_deaf(site):
    async with working(site.app(), WorkerConfig(timing=NEVER_BY_THE_CLOCK)):
        await eventually(lambda: holds_the_bell(site))
        for name in ("chancy bell", "chancy claim", "chancy life"):
            await end(site, name)
            await eventually(lambda: holds_the_bell(site))
            (job,) = site.submit(add.bind(1, 2))
            await eventually(lambda job=job: site.row(job).finished_at)
            await eventually(lambda: holds_the_bell(site))


async def test_a_busy_worker_whose_sessions_are_ended_one_by_one_has_them_again_at_once(site):
    async with working(site.app(concurrency=1), WorkerConfig(timing=NEVER_BY_THE_CLOCK)) as worker:
        (job,) = site.submit(pass_gate.bind("busy"))
        await eventually(lambda: worker.busy)
        await eventually(lambda: site.conn.execute(PID, ["chancy bell"]).fetchone())
        for name in ("chancy bell", "chancy claim", "chancy life"):
            await end(site, name)
        gates["busy"].set()
        await all_finished(site)
    assert (site.row(job).state, site.row(job).attempt) == (State.SUCCEEDED, 1)


async def test_who_waits_on_a_link_is_told_that_its_connection_has_ended(site):
    waiting = Link(site.dsn, site.schema, "waiting", deadline=8)
    await waiting.connect()
    wait = asyncio.create_task(waiting.wait(asyncio.Event()))
    await asyncio.sleep(0)
    site.conn.execute("SELECT pg_terminate_backend(%s)", [waiting.conn.info.backend_pid])
    with pytest.raises(link.Ended, match="closed the connection"):
        await asyncio.wait_for(wait, 10)
    assert waiting.conn is None


async def test_a_link_without_a_connection_can_wait_too(site):
    told = asyncio.Event()
    waiting = Link(site.dsn, site.schema, "waiting", deadline=8)
    await waiting.wait(told, 0.01)
    told.clear()
    asyncio.get_running_loop().call_soon(told.set)
    await waiting.wait(told)


# How often


@pytest.mark.long
async def test_a_worker_that_is_let_in_but_may_not_write_tries_again_ever_less_often_and_says_so_once(tmp_path, caplog):
    """A standby, or a server under maintenance: to connect is no success."""
    with server_of_its_own(tmp_path) as (_, site):
        async with Proxy(site.dsn) as proxy, working(site.app(dsn=proxy.dsn)):
            (job,) = site.submit(add.bind(1, 2))
            await eventually(lambda: site.row(job).finished_at)
            site.conn.execute("SET default_transaction_read_only = off")
            site.conn.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            site.conn.execute("SELECT pg_reload_conf()")
            before = proxy.met
            await asyncio.sleep(3)
            tries = proxy.met - before
            said = [record.getMessage() for record in caplog.records if "lost the database" in record.getMessage()]
            site.conn.execute("ALTER SYSTEM RESET default_transaction_read_only")
            site.conn.execute("SELECT pg_reload_conf()")
            (job,) = site.submit(add.bind(1, 2))
            await eventually(lambda: site.row(job).finished_at)
            await eventually(lambda: "the database is back, after" in caplog.text)
    # In 3 s claim, bell, lease, rescue and upkeep try at once, and after 0.05, 0.1, 0.2, 0.4, 0.8 and 1.6 s, less a quarter.
    assert 0 < tries <= 5 * 7, tries
    assert len(said) == 1, said


async def test_a_proxy_that_hangs_up_is_called_at_ever_longer_pauses_by_each_connection(site):
    async with Proxy(site.dsn) as proxy, working(site.app(dsn=proxy.dsn)):
        (job,) = site.submit(add.bind(1, 2))
        await eventually(lambda: site.row(job).finished_at)
        await eventually(lambda: holds_the_bell(site))
        proxy.closes, before = True, proxy.met
        proxy.cut()
        await asyncio.sleep(2)
        tries = proxy.met - before
        proxy.closes = False
        (job,) = site.submit(add.bind(1, 2))
        await eventually(lambda: site.row(job).finished_at)
    assert 0 < tries <= 5 * 6, tries  # as above, in 2 s


def test_pauses_grow_until_an_attempt_was_of_use_and_who_has_worked_for_long_has_none(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(recovery, "time", SimpleNamespace(monotonic=lambda: now))
    mine, begins = recovery.Recovery("test"), []

    def fail():
        nonlocal now
        now += mine.failed(recovery.Trouble.LOST, "no")
        begins.append(now)

    for _ in range(12):
        fail()
    assert begins[0] == 1000
    pauses = [after - before for before, after in itertools.pairwise(begins)]
    assert all(0.75 * wanted <= pause <= 1.25 * wanted for wanted, pause in zip([0.1, 0.2, 0.4], pauses, strict=False))
    assert all(0.75 * 5 <= pause <= 1.25 * 5 for pause in pauses[-4:])
    assert mine.lasts == now - 1000
    mine.over()
    fail()
    assert begins[-1] - begins[-2] < 0.2  # it has connected just now
    mine.over()
    now += 60
    before = now
    fail()
    assert begins[-1] == before


async def test_parents_that_cannot_declare_their_dead_make_one_attempt_at_a_time(site):
    async with Proxy(site.dsn) as proxy:
        proxy.closes = True
        parent = processes.Processes([], 5, proxy.dsn, site.schema)
        dead = [asyncio.create_task(parent._declare_dead(f"host:{pid}")) for pid in range(20)]
        await asyncio.sleep(1.5)
        tries = proxy.met
        proxy.closes = False
        await asyncio.wait_for(asyncio.gather(*dead), 20)
    assert 0 < tries <= 6, tries


# Deadlines


@pytest.mark.parametrize("word", [b"set_config", b"LISTEN", b"now()"], ids=["set up", "listen", "ask"])
async def test_every_wait_for_a_server_that_has_fallen_silent_ends_at_the_deadline(site, word):
    ear = Ear(site.schema, ["default"])
    async with Proxy(site.dsn) as proxy:
        proxy.deaf_to = word
        # What is answered has its time.
        asking = Link(proxy.dsn, site.schema, "test", deadline=0.3 if word == b"set_config" else 15)

        def hurry(conn, at):
            conn.deadline = 0.3 if proxy.deaf_to == at else 15

        async def listen(conn):
            hurry(conn, b"LISTEN")
            await ear.listen(conn)

        async def ask():
            await asking.connect()
            hurry(asking.conn, b"now()")
            await asking.send(one("SELECT now()"))

        asking.on_connect = listen
        with pytest.raises(psycopg.OperationalError, match=r"no answer within 0\.3 s"):
            await asyncio.wait_for(ask(), 10)
        assert proxy.deaf == 1
        assert asking.conn is None
        proxy.deaf_to, asking.deadline = None, 15
        await ask()
        await asking.close()


async def test_a_worker_whose_listen_was_never_answered_works_again(site, chancy_dsn):
    async with Proxy(chancy_dsn) as proxy, working(site.app(dsn=proxy.dsn), WorkerConfig(timing=Timing())) as worker:
        await eventually(lambda: holds_the_bell(site))
        worker._engine.link.deadline = 1  # from its next connection on
        proxy.deaf_to = b"LISTEN"
        (pid,) = site.conn.execute(PID, ["chancy claim"]).fetchone()
        site.conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        await eventually(lambda: proxy.deaf)
        proxy.deaf_to = None
        (job,) = site.submit(add.bind(1, 2))
        await eventually(lambda: site.row(job).finished_at)


async def test_a_call_is_cut_at_its_deadline_also_where_no_file_can_be_opened(site):
    asking = Link(site.dsn, site.schema, "test", deadline=15)
    await asking.connect()
    await asking.send(one("SELECT set_config('statement_timeout', '0', false)"))
    asking.conn.deadline = 0.5
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    call = asyncio.create_task(asking.send(one("SELECT pg_sleep(30)::text")))
    await asyncio.sleep(0)
    try:
        resource.setrlimit(
            resource.RLIMIT_NOFILE,
            (max(map(int, (entry.name for entry in Path("/proc/self/fd").iterdir()))) + 4, before[1]),
        )
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(call, 10)
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_who_is_cancelled_while_a_server_is_silent_is_held_up_by_it_for_a_second(site):
    async with Proxy(site.dsn) as proxy:
        asking = Link(proxy.dsn, site.schema, "test", deadline=60)
        await asking.connect()
        proxy.mute = True
        call = asyncio.create_task(asking.send(one("SELECT now()")))
        await asyncio.sleep(0.1)
        call.cancel()
        done, _ = await asyncio.wait([call], timeout=20)  # of the 60
        assert done
        await asking.close()


async def test_who_was_cancelled_may_use_the_connection_for_longer_than_the_cancel_might_have_taken(site, monkeypatch):
    monkeypatch.setattr(link, "TO_CANCEL_SECONDS", 30)
    asking, loop = Link(site.dsn, site.schema, "test", deadline=60), asyncio.get_running_loop()
    await asking.connect()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await asking.send(one("SELECT pg_sleep(30)::text"))
    call = asyncio.create_task(asking.send(one("SELECT pg_sleep(0.5)::text")))
    await asyncio.sleep(0.1)
    time_of_day = loop.time
    monkeypatch.setattr(loop, "time", lambda: time_of_day() + 40)  # so it has taken longer
    await call
    monkeypatch.undo()
    await asking.close()


# Names


async def test_a_host_whose_name_takes_for_ever_is_given_up_and_holds_nothing_up(site, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: gate.wait(60))
    monkeypatch.setattr(addresses, "TO_RESOLVE_SECONDS", 0.2)
    try:
        with pytest.raises(psycopg.OperationalError, match=r"'db\.example' was not found within"):
            await asyncio.wait_for(Link("host=db.example", "chancy", "test", deadline=8).connect(), 10)
    finally:
        gate.set()


async def test_a_host_without_an_address_is_an_error_of_psycopg(site):
    for host in ("no-such-host.invalid", "a..b"):
        with pytest.raises(psycopg.OperationalError, match=host):
            await Link(f"host={host}", "chancy", "test", deadline=8).connect()


@pytest.fixture
def service(tmp_path, monkeypatch):
    """Writes what the service "shop" is."""

    def write(**told):
        (tmp_path / "services").write_text("[shop]\n" + "".join(f"{name}={told[name]}\n" for name in told), "utf-8")

    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    return write


async def test_what_a_service_says_holds_but_for_what_the_string_says_itself(site, service, monkeypatch):
    async with Proxy(site.dsn) as proxy:
        place = conninfo_to_dict(proxy.dsn)
        service(
            **place
            | {
                "host": "db.example",
                "dbname": "no_such_database",
                "application_name": "theirs",
                "options": "-cwork_mem=77kB",
            }
        )
        asked = []

        def here(name, *_, **__):
            asked.append((name, threading.current_thread() is threading.main_thread()))
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", place["port"]))]

        monkeypatch.setattr(socket, "getaddrinfo", here)
        dsn = f"service=shop dbname={place['dbname']}"
        for number, conninfo in enumerate((dsn, dsn.partition(" ")[2])):
            asking = Link(conninfo, site.schema, "test", deadline=8)
            await asking.connect()
            assert await asking.send(one("SELECT current_setting('application_name')")) == "chancy test"
            assert await asking.send(one("SELECT current_setting('work_mem')")) == "77kB"
            await asking.close()
            assert proxy.met == number + 1
            monkeypatch.setenv("PGSERVICE", "shop")
    assert set(asked) == {("db.example", False)}


async def test_a_host_of_a_service_whose_name_takes_for_ever_holds_nothing_up(site, service, monkeypatch):
    gate = threading.Event()
    service(host="db.example")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: gate.wait(60))
    monkeypatch.setattr(addresses, "TO_RESOLVE_SECONDS", 0.2)
    try:
        with pytest.raises(psycopg.OperationalError, match="service 'shop' was not found within"):
            await asyncio.wait_for(Link("service=shop", "chancy", "test", deadline=8).connect(), 10)
    finally:
        gate.set()


async def test_a_service_that_there_is_not_is_an_error_of_psycopg(site, service):
    service(host="127.0.0.1")
    with pytest.raises(psycopg.OperationalError, match='definition of service "store" not found'):
        await Link("service=store", "chancy", "test", deadline=8).connect()


async def test_the_first_of_several_hosts_that_lets_us_in_is_taken(site):
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # nobody else has it meanwhile
    nobody = closed.getsockname()[1]
    async with Proxy(site.dsn) as proxy:
        place = conninfo_to_dict(proxy.dsn)
        rest = {key: value for key, value in place.items() if key not in ("host", "port")}
        for more in (
            {"host": "localhost,127.0.0.1", "port": f"{nobody},{place['port']}"},
            {"host": "/no/such/folder,localhost", "port": place["port"]},
            {"host": "a.example,b.example", "hostaddr": "127.0.0.1,127.0.0.1", "port": f"{nobody},{place['port']}"},
            {"host": "127.0.0.1", "port": place["port"], "target_session_attrs": "read-write"},
            {"host": "127.0.0.1", "port": place["port"], "target_session_attrs": "prefer-standby"},
        ):
            asking = Link(make_conninfo("", **rest, **more), site.schema, "test", deadline=8)
            await asking.connect()
            assert await asking.send(one("SELECT 1")) == 1
            await asking.close()
        with pytest.raises(psycopg.OperationalError, match=str(nobody)):
            await Link(make_conninfo("", **rest, host="127.0.0.1", port=nobody), "chancy", "test", deadline=8).connect()
    closed.close()


# The default executor of the loop is the handlers'


@contextlib.asynccontextmanager
async def no_thread_to_be_had():
    """As handlers do that call `asyncio.to_thread` for long."""
    gate = threading.Event()
    started = threading.Semaphore(0)

    def wait():
        started.release()
        gate.wait(60)

    threads = min(32, (os.cpu_count() or 1) + 4)
    waits = [asyncio.ensure_future(asyncio.to_thread(wait)) for _ in range(threads + 8)]
    await eventually(lambda: started._value == threads)
    try:
        yield
    finally:
        gate.set()
        await asyncio.gather(*waits)


async def test_a_worker_reconnects_while_handlers_hold_all_threads_of_the_default_executor(site, chancy_dsn):
    async with Proxy(chancy_dsn) as proxy, working(site.app(dsn=make_conninfo(proxy.dsn, host="localhost"))):
        await eventually(lambda: holds_the_bell(site))
        async with no_thread_to_be_had():
            proxy.cut()
            (job,) = site.submit(add.bind(1, 2))
            await eventually(lambda: site.row(job).finished_at)
            assert list(site.workers()) == [1]


@pytest.mark.long
async def test_a_child_process_is_started_and_ends_while_handlers_hold_all_threads_of_the_default_executor(site):
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, children=1, recycle=1)):
        async with no_thread_to_be_had():
            jobs = site.submit(*[limit_tasks.pid.bind() for _ in range(3)])
            await all_finished(site)
    assert {(site.row(job).state, site.row(job).attempt) for job in jobs} == {(State.SUCCEEDED, 1)}


# Stopping without a database


@contextlib.asynccontextmanager
async def stopping(site, dsn, config):
    """A worker that is told to stop at the end of the block, and has to have ended some seconds later."""
    worker = worker_with(site.app(dsn=dsn), config)
    run = asyncio.create_task(worker.start())
    try:
        await eventually(site.workers)
        yield worker
    finally:
        worker.stop()
        done, _ = await asyncio.wait([run], timeout=12)
        if not done:
            worker.stop()
            await asyncio.wait([run], timeout=60)
    assert done
    run.result()


async def test_an_idle_worker_whose_database_is_away_stops_at_once(site, chancy_dsn, caplog):
    async with Proxy(chancy_dsn) as proxy:
        async with stopping(site, proxy.dsn, WorkerConfig(grace=60)):
            await eventually(lambda: holds_the_bell(site))
            proxy.closes = True
            proxy.cut()
            await eventually(lambda: "lost the database (" in caplog.text)


async def test_an_idle_worker_whose_database_says_nothing_stops_at_once(site, chancy_dsn):
    async with Proxy(chancy_dsn) as proxy:
        async with stopping(site, proxy.dsn, WorkerConfig(timing=replace(MORTAL, round=2), grace=60)):
            await eventually(lambda: holds_the_bell(site))
            proxy.mute = True
            await asyncio.sleep(1.5)  # the heart beats, and gets no answer


async def test_a_worker_stops_whose_round_is_not_answered_and_gives_back_what_that_has_claimed(site, chancy_dsn):
    async with Proxy(chancy_dsn) as proxy:
        timing = replace(NEVER_BY_THE_CLOCK, round=100)
        async with stopping(site, proxy.dsn, WorkerConfig(timing=timing, grace=100)):
            await warm_up(site)
            proxy.mute_from = b"worker_tasks.add"
            (job,) = site.submit(add.bind(1, 2))
            await eventually(lambda: b"worker_tasks.add" in proxy.swallowed)
            assert site.row(job).state is State.RUNNING
            proxy.mute, proxy.mute_from = False, None
    assert (site.row(job).state, site.row(job).attempt) == (State.READY, 0)
    assert site.workers() == {}


async def test_a_worker_whose_heart_beats_in_vain_when_it_stops_gives_back_what_it_holds(site, chancy_dsn):
    async with Proxy(chancy_dsn) as proxy:
        timing = replace(NEVER_BY_THE_CLOCK, extend=1, round=100)
        async with stopping(site, proxy.dsn, WorkerConfig(timing=timing, grace=1)):
            await eventually(lambda: holds_the_bell(site))
            proxy.deaf_to = b"clock_ahead"
            await eventually(lambda: proxy.deaf)
            proxy.deaf_to = None
    assert site.workers() == {}


async def test_a_worker_with_running_jobs_whose_database_is_away_stops_within_its_grace(
    site, chancy_dsn, caplog, monkeypatch
):
    monkeypatch.setattr("chancy_worker.worker.TO_WRITE", 60)
    async with Proxy(chancy_dsn) as proxy:
        async with stopping(site, proxy.dsn, WorkerConfig(grace=1)) as worker:
            site.submit(pass_gate.bind("never"))
            await eventually(lambda: worker.busy)
            proxy.closes = True
            proxy.cut()
            await eventually(lambda: "lost the database (" in caplog.text)
    assert "1 verdicts could not be written" in caplog.text


# Beginning with a server that says nothing


@pytest.mark.parametrize("word", [b"server_encoding", b"pg_advisory_xact_lock"], ids=["first", "later"])
async def test_a_migration_at_the_start_waits_for_no_silent_server_for_ever(site, monkeypatch, word):
    monkeypatch.setattr(cli, "TO_MIGRATE_SECONDS", 0.5)
    async with Proxy(site.dsn) as proxy:
        proxy.deaf_to = word
        with pytest.raises(psycopg.OperationalError, match=r"no answer within 0\.5 s"):
            await asyncio.wait_for(cli.brought_up_to_date(site.app(dsn=proxy.dsn)), 20)
        proxy.deaf_to = None
        monkeypatch.undo()
        await cli.brought_up_to_date(site.app(dsn=proxy.dsn))


async def test_a_parent_of_processes_waits_for_no_silent_server_for_ever(site, monkeypatch):
    monkeypatch.setattr(link, "MANNERS", {**link.MANNERS, "connect_timeout": 2})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = site.app(dsn=f"host=127.0.0.1 port={silent.getsockname()[1]}")
        with pytest.raises(psycopg.OperationalError, match="timeout expired"):
            await asyncio.wait_for(cli.reached(app), 20)


# Sessions of any setting

KEY = "chancy.bell_key('default')"
SETTINGS = {
    "DateStyle": "German",
    "IntervalStyle": "iso_8601",
    "TimeZone": "America/St_Johns",
    "array_nulls": "off",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "search_path": "pg_temp",
    "statement_timeout": "300ms",
    "lock_timeout": "1ms",
    "idle_session_timeout": "200ms",
    "idle_in_transaction_session_timeout": "200ms",
    "default_transaction_isolation": "serializable",
    "transaction_timeout": "500ms",
}


@pytest.mark.long
@pytest.mark.parametrize("pooler", ["session", "transaction"])
async def test_a_worker_works_and_keeps_its_lease_whatever_its_role_is_set_to(tmp_path, pooler, caplog):
    with server_of_its_own(tmp_path) as (_, site):
        site.conn.execute("CREATE ROLE strange SUPERUSER LOGIN")
        known = {name for (name,) in site.conn.execute("SELECT lower(name) FROM pg_settings")}
        for name, value in SETTINGS.items():
            if name.lower() in known:
                site.conn.execute(f"ALTER ROLE strange SET {name} = '{value}'")
        # Somebody else is at the bell, so the worker waits in line for up to two seconds at a time.
        site.conn.execute(f"SELECT pg_advisory_lock('chancy'::regnamespace::oid::integer, {KEY})")
        app = site.app(dsn=make_conninfo(site.dsn, user="strange"), keep=timedelta(days=3))
        config = WorkerConfig(timing=FAST, grace=1, pooler=pooler)

        def until():
            return site.one("SELECT expires_at FROM {}.worker")

        async with working(app, config):
            site.submit(
                add.bind(1, 2),
                succeed_at.bind(2),
                add.using(delay=timedelta(milliseconds=300)).bind(3, 4),
                limit_tasks.pid.bind(),
            )
            await all_finished(site)
            lease = site.workers()
            await asyncio.sleep(1)
            assert pooler == "transaction" or "bell:" not in caplog.text
            seen = until()
            blocking_until(lambda: until() >= seen + timedelta(seconds=2))  # its lease is extended all the same
            (job,) = site.submit(add.bind(1, 2))
            await eventually(lambda: site.row(job).finished_at)
            assert site.workers() == lease
    assert "could not be extended" not in caplog.text


# The thread beside the loop


@contextlib.contextmanager
def proxy_elsewhere(dsn):
    """A proxy in a thread of its own: the loop of the test is going to be blocked."""
    loop, proxy, over = asyncio.new_event_loop(), Proxy(dsn), asyncio.Event()
    ready = threading.Event()

    async def serve():
        async with proxy:
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


def watching(dsn, schema):
    lease = Lease("test", MORTAL, lambda: None)
    lease.id = 1
    return Watchdog(dsn, schema, lease)


async def test_a_watchdog_that_gets_no_answer_tries_again_and_holds_up_nobody_at_the_end(site, monkeypatch):
    monkeypatch.setattr(watchdog, "TO_EXTEND_SECONDS", 0.4)
    with proxy_elsewhere(site.dsn) as proxy:
        proxy.deaf_to = b"clock_ahead"
        dog = watching(proxy.dsn, site.schema)
        with dog:
            blocking_until(lambda: proxy.deaf >= 2)
            assert dog._thread.is_alive()
            began = time.monotonic()
        assert time.monotonic() - began < 5


async def test_a_watchdog_lives_through_any_error(site, monkeypatch):
    """A log that cannot be written, a server that is no Postgres, an answer that cannot be read."""
    tried = []

    def broken(*_, **__):
        tried.append(1)
        raise NotImplementedError("can't parse timestamptz with DateStyle 'German'")

    monkeypatch.setattr(watchdog, "extend", broken)
    monkeypatch.setattr(watchdog.log, "error", broken)
    dog = watching(site.dsn, site.schema)
    with dog:
        blocking_until(lambda: len(tried) >= 3)
        assert dog._thread.is_alive()
    dog._thread.join(5)
    assert not dog._thread.is_alive()


async def test_a_function_is_asked_for_the_connection_string_at_each_connect_and_again_when_it_fails(site):
    given = iter([site.dsn, ZeroDivisionError("no token"), "mysql://app:s3cr3t@db", site.dsn])

    def dsn():
        assert threading.current_thread() is not threading.main_thread()
        match next(given):
            case str(text):
                return understood(text)
            case error:
                raise error

    asking = Link(dsn, site.schema, "test", deadline=8)
    await asking.connect()
    with pytest.raises(
        psycopg.OperationalError, match="the function given as dsn has raised ZeroDivisionError: no token"
    ):
        await asking.connect()
    with pytest.raises(psycopg.OperationalError, match="has raised InvalidDSN") as caught:
        await asking.connect()
    assert "s3cr3t" not in str(caught.value)
    await asking.connect()
    assert asking.conn is not None
    await asking.close()


async def test_a_worker_takes_a_function_for_the_connection_string(site):
    asked = []

    def dsn():
        asked.append(1)
        return site.dsn

    async with working(replace(site.app(), dsn=dsn)):
        (job,) = site.submit(add.bind(1, 2))
        await all_finished(site)
    assert site.row(job).state == "succeeded"
    assert len(asked) >= 4
