"""What the log of a worker says while its database is away: when it went, once a minute, when it was back."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from types import SimpleNamespace

import log_tasks
import psycopg
import pytest
from worker_help import MORTAL, SOON_MISSED, Proxy, Site, all_finished, eventually, holds_the_bell, working

import chancy
from chancy_testing.server.postgres import Postgres
from chancy_worker.connection import outage
from chancy_worker.connection.recovery import Recovery, Trouble

pytestmark = pytest.mark.any_postgres


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    for room in ("outage", "recovery"):
        monkeypatch.setattr(f"chancy_worker.connection.{room}.time", clock)
    return clock


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "chancy.worker")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_an_outage_that_many_find_out_is_told_once_when_it_begins_once_a_minute_and_once_at_its_end(clock, said):
    voice = outage.Outage()
    all_of_them = [Recovery(purpose, voice) for purpose in ("claim", "bell", "lease")]
    for _ in range(13):
        for each in all_of_them:
            each.failed(Trouble.LOST, "no such host")
        clock.now += 5
    for each in all_of_them:
        each.over()
    assert said() == [
        ("WARNING", "lost the database (claim: no such host); trying again"),
        ("WARNING", "lost the database for 60 s (claim, bell, lease: no such host); trying again"),
        ("WARNING", "the database is back, after 65.0 s"),
    ]


def test_it_is_not_over_as_long_as_one_of_them_has_no_answer(clock, said):
    voice = outage.Outage()
    claim, bell = Recovery("claim", voice), Recovery("bell", voice)
    claim.failed(Trouble.LOST, "read only")
    bell.failed(Trouble.LOST, "read only")
    for _ in range(3):
        bell.over()
        bell.failed(Trouble.LOST, "read only")
    bell.over()
    assert len(said()) == 1
    claim.over()
    assert [text for _, text in said()][1:] == ["the database is back, after 0.0 s"]


def test_connections_that_were_lost_while_idle_and_are_there_at_once_are_one_line_of_no_weight(clock, said):
    voice = outage.Outage()
    claim, lease = Recovery("claim", voice), Recovery("lease", voice)
    for each in (claim, lease):
        each.failed(Trouble.IDLE, "the server closed it")
    claim.over()
    assert said() == []
    lease.over()
    assert said() == [("INFO", "connected again: a connection was lost (lease: the server closed it)")]


def test_an_outage_that_comes_again_and_again_is_told_once_a_minute(clock, said):
    claim = Recovery("claim", outage.Outage())
    for _ in range(50):
        claim.failed(Trouble.LOST, "gone")
        clock.now += 1
        claim.over()
        clock.now += 1
    lost = [text for level, text in said() if text.startswith("lost")]
    assert len(lost) == 2
    assert len([text for level, text in said() if level == "WARNING"]) == 4


def test_what_the_database_refuses_is_no_outage(clock, said):
    reports = Recovery("reports", outage.Outage())
    reports.failed(Trouble.REFUSED, "permission denied")
    clock.now += 2
    reports.over()
    assert said() == [
        ("ERROR", "reports: permission denied; trying again"),
        ("WARNING", "reports: works again, after 2.0 s"),
    ]


@pytest.mark.long
async def test_all_connections_of_a_worker_speak_of_an_outage_with_one_voice(tmp_path, said, monkeypatch):
    """Idle and busy ones, of rounds, bell, life and parts: the server is stopped over all of them."""
    monkeypatch.setattr(outage, "SAID_SECONDS", 1.0)
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        try:
            async with working(site.app()) as worker:
                await eventually(lambda: holds_the_bell(site))
                site.submit(*[log_tasks.speak_at_gate.bind("outage", 1, 1) for _ in range(3)])
                await eventually(lambda: worker.busy == 3)
                before = len(said())
                await asyncio.to_thread(server.stop)  # which may take long: a loop that is blocked is told of, too
                log_tasks.gates["outage"].set()  # what they log and their verdicts have to wait
                began = time.monotonic()
                await eventually(lambda: len([text for _, text in said() if text.startswith("lost")]) == 3)
                lasted = time.monotonic() - began
                await asyncio.to_thread(server.start)
                await eventually(lambda: any(text.startswith("the database is back") for _, text in said()))
                site.conn = psycopg.connect(server.dsn, autocommit=True)
                await all_finished(site)
                await asyncio.sleep(0.5)
        finally:
            site.close()
    ours = [
        text
        for _, text in said()[before:]
        if not re.match(r"job \d|stopping|one says|worker .* (was declared|is dead)", text)
    ]
    first, *again, back = [text for text in ours if "says" not in text]
    assert re.match(r"lost the database \(\w+(, \w+)*: .*\); trying again", first), ours
    assert all(re.match(r"lost the database for \d+ s \(\w+(, \w+)*: .*\); trying again", text) for text in again), ours
    assert len(again) <= lasted + 10, ours
    assert back.startswith("the database is back, after"), ours


async def test_a_lost_doorbell_is_no_line_of_its_own(site, chancy_dsn, said, monkeypatch):
    monkeypatch.setattr("chancy_worker.doorbell.hearing.SILENT_SECONDS", 0.2)
    async with (
        Proxy(chancy_dsn) as proxy,
        working(site.app(dsn=proxy.dsn), SOON_MISSED) as worker,
    ):
        await eventually(lambda: holds_the_bell(site))
        proxy.closes = True
        proxy.cut()
        await eventually(lambda: worker._engine.wakeups.problem)
        await asyncio.sleep(2 * MORTAL.extend)
        proxy.closes = False
        await eventually(lambda: any(text.startswith("the database is back") for _, text in said()))
        await eventually(lambda: not worker._engine.wakeups.problem)
        await asyncio.sleep(2 * MORTAL.extend)
    assert not [text for _, text in said() if "doorbell" in text]
