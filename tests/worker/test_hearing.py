"""A worker that does not hear the doorbell finds that out, and says so wherever somebody looks."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
from worker_help import FAST, PID, Proxy, eventually, holds_the_bell, until_answered, working
from worker_tasks import add

import chancy_ops
from chancy_ops import Severity
from chancy_worker import WorkerConfig
from chancy_worker.doorbell import hearing
from chancy_worker.doorbell.bell import Bell


def findings(site):
    return [found for found in chancy_ops.doctor(site.conn, schema=site.schema) if found.check == "doorbell"]


async def test_a_worker_whose_notifications_are_swallowed_is_not_ready_and_doctor_names_it(site, port, caplog):
    async with Proxy(site.dsn) as proxy:
        proxy.hushed = True
        async with working(site.app(dsn=proxy.dsn), WorkerConfig(timing=FAST, grace=1, health_port=port)) as worker:
            said = await until_answered(port, 503)
            assert said.startswith("the doorbell is not heard, because something between this worker and Postgres")
            await eventually(lambda: site.one("SELECT deaf FROM {}.worker"))
            (found,) = await asyncio.to_thread(findings, site)
            assert found.severity is Severity.WARNING
            assert found.message.startswith(f"worker {worker.config.name} does not hear the doorbell")
            assert await worker._hangs() == []  # to start it anew would help nobody
            (job,) = site.submit(add.bind(1, 2))
            await eventually(lambda: site.row(job).finished_at)
            proxy.hushed = False
            await until_answered(port, 200)
            await eventually(lambda: not site.one("SELECT deaf FROM {}.worker"))
            (found,) = await asyncio.to_thread(findings, site)
            assert found.severity is Severity.OK
    said = [record.getMessage() for record in caplog.records if "doorbell is" in record.getMessage()]
    assert [text.partition(",")[0] for text in said] == ["the doorbell is not heard", "the doorbell is heard again"]


async def test_a_worker_whose_bell_cannot_be_held_is_not_ready(site, port, monkeypatch):
    monkeypatch.setattr(hearing, "SILENT_SECONDS", 0.5)
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, health_port=port)):
        await until_answered(port, 200)
        await eventually(lambda: holds_the_bell(site))

        async def refused(self, keys):
            raise psycopg.OperationalError("remaining connection slots are reserved")

        with monkeypatch.context() as patch:
            patch.setattr(Bell, "_step", refused)
            site.conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'chancy bell'"
            )
            said = await until_answered(port, 503)
            assert said.startswith("the doorbell has had no connection for ")
            await eventually(lambda: site.one("SELECT deaf FROM {}.worker"))
        await until_answered(port, 200)
        await eventually(lambda: not site.one("SELECT deaf FROM {}.worker"))


async def test_a_worker_that_hears_calls_itself_once_on_each_of_its_connections(site, monkeypatch):
    called, test = [], hearing.Hearing.test

    async def tested(self, link):
        await test(self, link)
        await eventually(lambda: not self._unheard)  # where a busy server tells it late, the next beat waits for that

    monkeypatch.setattr(hearing.Hearing, "test", tested)
    with psycopg.connect(site.dsn, autocommit=True) as conn:
        conn.execute(f'LISTEN "{site.schema}"')

        def calls():
            called.extend(notify.payload for notify in conn.notifies(timeout=0.05))
            return len(called)

        async with working(site.app()):
            await eventually(lambda: calls() == 1)
            await asyncio.sleep(5 * FAST.extend)
            assert calls() == 1
            (pid,) = site.conn.execute(PID, ["chancy claim"]).fetchone()
            site.conn.execute("SELECT pg_terminate_backend(%s)", [pid])
            await eventually(lambda: calls() == 2)
            monkeypatch.setattr(hearing, "CALL_SECONDS", 0.1)
            await eventually(lambda: calls() >= 4)
    assert len(set(called)) == 1


async def test_where_notifications_are_refused_the_worker_keeps_its_lease_and_says_so(site, port, monkeypatch, caplog):
    """As where the queue of notifications is full."""
    monkeypatch.setattr(hearing, "CALL", "SELECT 1 / (%(word)s::text = '')::integer")
    extended = "SELECT max(expires_at) FROM {}.worker"
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, health_port=port)):
        await until_answered(port, 503)
        for _ in range(3):
            lease, until = site.workers(), site.one(extended)
            await eventually(lambda until=until: site.one(extended) > until)
            assert site.workers() == lease
    assert "this worker could not call itself: division by zero" in caplog.text


def test_who_has_been_deaf_for_a_while_is_named_beside_those_who_hear(site):
    with contextlib.closing(psycopg.connect(site.dsn, autocommit=True)) as conn:
        assert [found.severity for found in findings(site)] == [Severity.OK]
        conn.execute(
            f'INSERT INTO "{site.schema}".worker (name, started_at, expires_at, deaf) '
            "VALUES ('a:1', now(), now() + interval '1 h', true), ('b:2', now(), now() + interval '1 h', false), "
            "('gone:3', now(), now() - interval '1 s', true)"
        )
        assert [found.message.partition(",")[0] for found in findings(site)] == [
            "worker a:1 does not hear the doorbell"
        ]
