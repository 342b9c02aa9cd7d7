"""What a probe and a service manager are told, while it is true and when it no longer is."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time

import psycopg
import pytest
import worker_tasks as tasks
from worker_help import FAST, MORTAL, SOON_MISSED, Proxy, Site, eventually, probed, until_answered, worker_with, working

import chancy
from chancy import State
from chancy_testing.server.postgres import Postgres
from chancy_worker import WorkerConfig
from chancy_worker.life import health
from chancy_worker.rounds.questions import Questions

pytestmark = pytest.mark.any_postgres


async def test_a_worker_is_ready_live_and_answers_nothing_else(site, port):
    async with working(site.app(), WorkerConfig(timing=MORTAL, grace=1, health_port=port)):
        assert await until_answered(port, 200) == "200 OK\n"
        assert await probed(port, "/live") == (200, "200 OK\n")
        assert await probed(port, "/jobs") == (404, "404 Not Found\n")
        await asyncio.sleep(2 * MORTAL.lease)
        await until_answered(port, 200)  # not at once, where this process has just stood still itself


async def test_a_full_worker_is_ready(site, port, monkeypatch):
    monkeypatch.setattr("chancy_worker.life.health.LONGEST_TURN", 2.5)
    async with working(site.app(concurrency=1), WorkerConfig(timing=FAST, grace=1, health_port=port)):
        site.submit(tasks.pass_gate.bind("never"))
        await eventually(lambda: site.count("running") == 1)
        await asyncio.sleep(4)
        assert await until_answered(port, 200) == "200 OK\n"


@pytest.mark.long
async def test_a_worker_is_live_and_not_ready_while_its_database_is_away(tmp_path, port):
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        async with working(site.app(), WorkerConfig(timing=FAST, grace=1, health_port=port)):
            await until_answered(port, 200)
            server.stop()
            said = await until_answered(port, 503)
            assert "the database cannot be reached" in said
            assert (await probed(port, "/live"))[0] == 200
            server.start()
            await until_answered(port, 200)
        site.close()


async def test_a_worker_whose_rounds_hang_is_not_ready(site, chancy_dsn, port, monkeypatch):
    monkeypatch.setattr("chancy_worker.life.health.LONGEST_TURN", 1)
    async with Proxy(chancy_dsn) as proxy:
        async with working(site.app(dsn=proxy.dsn), WorkerConfig(timing=MORTAL, grace=1, health_port=port)):
            await until_answered(port, 200)
            proxy.mute = True
            said = await until_answered(port, 503)
            assert "the claim loop has not turned" in said or "the lease is over" in said
            proxy.mute = False
            proxy.cut()
            await until_answered(port, 200)


async def test_the_parent_of_processes_answers_for_all_of_them(site, port):
    parent = site.work(
        "worker_tasks", "--processes", "2", "--dsn", site.dsn, "--schema", site.schema,
        "--health-port", str(port),
    )  # fmt: skip
    await until_answered(port, 200)
    pid = next(iter(site.workers().values()))
    os.kill(pid, signal.SIGSTOP)
    said = await until_answered(port, 503)
    assert "does not answer" in said
    os.kill(pid, signal.SIGCONT)
    await until_answered(port, 200)
    parent.signal(signal.SIGTERM)
    await eventually(lambda: parent.code == 0)


@pytest.mark.long
async def test_the_parent_of_processes_feeds_systemds_watchdog_and_replaces_a_worker_that_hangs(
    site, tmp_path, monkeypatch
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + (name := f"chancy-test-{os.getpid()}"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        parent = site.work("worker_tasks", "--processes", "2", "--dsn", site.dsn, "--schema", site.schema)
        said = {await asyncio.to_thread(manager.recv, 100) for _ in range(3)}
        assert said == {b"READY=1", b"WATCHDOG=1"}
        await eventually(lambda: len(site.workers()) == 2, 60)
        hanging, other = site.workers().values()
        os.kill(hanging, signal.SIGSTOP)
        await eventually(lambda: f"worker process {hanging} hangs" in parent.text, 60)
        await eventually(lambda: len(set(site.workers().values()) - {hanging}) == 2, 60)
        assert f"worker process {hanging} died with code -9" in parent.text
        assert other in site.workers().values()
        parent.signal(signal.SIGTERM)
        await eventually(lambda: parent.code == 0, 60)
        words = [b""]
        while words[-1] != b"STOPPING=1":
            words.append(await asyncio.to_thread(manager.recv, 100))
        assert set(words[1:-1]) == {b"WATCHDOG=1"}


async def test_who_connects_and_says_nothing_or_nonsense_leaves_no_trace(site, port, caplog):
    """A load balancer that looks whether somebody listens."""
    said = [b"", b"\r\n", b"GET\r\n", b"\x16\x03\x01\0\xff\n", b"GET " + b"x" * 200_000, b"GET /ready HTTP/1.1\r\n"]
    async with working(site.app(), WorkerConfig(timing=MORTAL, grace=1, health_port=port)):
        await until_answered(port, 200)
        for words in said * 3:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            if len(words) < 100:
                with contextlib.suppress(OSError):
                    await writer.drain()
            writer.close()
        await until_answered(port, 200)
        gc.collect()
        await eventually(lambda: not [task for task in asyncio.all_tasks() if "answer" in repr(task.get_coro())])
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.long
async def test_systemds_watchdog_is_fed_while_the_database_is_away_and_jobs_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr("chancy_worker.life.health.LONGEST_TURN", 0.5)
    monkeypatch.chdir(tmp_path)
    with Postgres() as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        manager.bind("notify")  # a relative path: an absolute one may be longer than a socket's can be
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", "notify")
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        async with working(site.app(), WorkerConfig(timing=FAST, grace=20)) as worker:
            (job,) = site.submit(tasks.pass_gate.bind("go"))
            await eventually(lambda: site.count("running") == 1)
            server.stop()
            await eventually(lambda: worker._engine.link.conn is None)
            fed = [await asyncio.get_running_loop().sock_recv(manager, 100) for _ in range(20)]  # two seconds
            assert set(fed[-10:]) == {b"WATCHDOG=1"}
            assert worker._engine.link.conn is None
            server.start()
            site.conn = psycopg.connect(server.dsn, autocommit=True)
            tasks.gates["go"].set()
            await eventually(lambda: site.row(job).finished_at)
        assert (site.row(job).state, site.row(job).attempt) == (State.SUCCEEDED, 1)
        site.close()


async def test_systemds_watchdog_is_not_fed_where_rounds_stand_still_beside_a_whole_connection(site, monkeypatch):
    monkeypatch.setattr("chancy_worker.life.health.LONGEST_TURN", 0.5)

    async def turns(worker):
        async with asyncio.timeout(10):
            while await worker._hangs():
                await asyncio.sleep(0.05)

    async with working(site.app()) as worker:
        await worker.begun.wait()
        await turns(worker)
        stuck, go_on = asyncio.Event(), asyncio.Event()

        async def stand_still(self):
            stuck.set()
            await go_on.wait()

        with monkeypatch.context() as patch:
            patch.setattr(Questions, "ask", stand_still)
            await stuck.wait()
            await eventually(lambda: time.monotonic() - worker._engine.claimer.turned_at > 0.5)
            (said,) = await worker._hangs()
        assert "has not turned" in said
        go_on.set()
        await turns(worker)


async def test_a_worker_beside_a_program_tells_the_programs_service_manager_nothing(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("notify")  # a relative path: an absolute one may be longer than a socket's can be
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", "notify")
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        async with worker_with(site.app(), WorkerConfig(timing=MORTAL)).running():
            await asyncio.sleep(0.1)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


async def test_a_port_that_is_taken_is_said_in_one_line(site):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        place = ["--dsn", site.dsn, "--schema", site.schema]
        worker = site.work("worker_tasks", "--health-port", port, *place)
        await eventually(lambda: worker.code == 2)
    assert f"chancy-worker: --health-port {port} cannot be had" in worker.text.splitlines()[-1]
    assert "Traceback" not in worker.text


async def test_systemd_is_told_of_the_start_of_life_and_of_the_end(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("notify")  # a relative path: an absolute one may be longer than a socket's can be
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "notify")
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        async with working(site.app(), SOON_MISSED):
            told = [await asyncio.to_thread(manager.recv, 100) for _ in range(4)]
        rest = b""
        while rest != b"STOPPING=1":
            rest = manager.recv(100)
    assert sorted(told) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]


async def test_systemds_watchdog_is_not_fed_while_something_is_wrong(tmp_path, monkeypatch):
    wrong = ["something"]

    async def problems():
        return wrong

    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("notify")  # a relative path: an absolute one may be longer than a socket's can be
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", "notify")
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        feeding = asyncio.create_task(health.pet_service_watchdog(problems))
        await asyncio.sleep(0.1)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        wrong.clear()
        assert await asyncio.get_running_loop().sock_recv(manager, 100) == b"WATCHDOG=1"
        feeding.cancel()
