"""Three connections, however many look; and none that nobody uses."""

from __future__ import annotations

import asyncio

import pytest
from web_help import Pages

from chancy_ops.web import connections as rooms
from chancy_ops.web.connections import Busy
from chancy_ops.web.shared import Shared


async def test_no_connection_is_opened_before_somebody_looks(open_dashboard, sessions):
    async with Pages(open_dashboard()) as pages:
        await pages("/healthz")
        await pages("/static/live.js")
        assert sessions() == 0
        await asyncio.gather(*(pages(f"/jobs?queue={n}") for n in range(30)))
        assert 1 <= sessions() <= 3


async def test_who_finds_all_in_use_waits_and_is_told_when_that_was_too_long(open_dashboard, monkeypatch, things):
    connections = open_dashboard()._desk.connections
    async with connections.looking(), connections.looking():
        async with connections.looking():
            waiting = asyncio.create_task(_one(connections))
            await asyncio.sleep(0)
            monkeypatch.setattr(rooms, "PATIENCE", 0.05)
            with pytest.raises(Busy):
                await _one(connections)
        await waiting
    dashboard = open_dashboard()
    async with Pages(dashboard) as pages:
        held = dashboard._desk.connections
        async with held.looking(), held.looking(), held.looking():
            assert "in use" in (await pages("/jobs", 503)).text
        await pages("/jobs")


async def _one(connections):
    async with connections.looking():
        pass


async def test_a_look_that_is_given_up_leaves_a_connection_as_new(open_dashboard, shell):
    connections = open_dashboard()._desk.connections
    began = asyncio.Event()

    async def look():
        async with connections.looking() as conn:
            began.set()
            await conn.execute("SELECT pg_sleep(60)")

    looking = asyncio.create_task(look())
    await began.wait()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    async with connections.looking() as conn:
        assert await (await conn.execute("SELECT 1")).fetchone() == (1,)


async def test_a_look_that_takes_too_long_is_stopped_by_postgres(open_dashboard, monkeypatch):
    import psycopg

    connections = open_dashboard()._desk.connections
    with monkeypatch.context() as briefly:
        briefly.setattr(
            rooms, "LOOKING", rooms.LOOKING.replace("statement_timeout = '60s'", "statement_timeout = '50ms'")
        )
        async with connections.looking() as conn:
            with pytest.raises(psycopg.errors.QueryCanceled):
                await conn.execute("SELECT pg_sleep(60)")
    async with connections.looking() as conn:
        assert (await (await conn.execute("SHOW jit")).fetchone()) == ("off",)


async def test_a_connection_that_nobody_uses_is_closed(open_dashboard, sessions, monkeypatch):
    monkeypatch.setattr(rooms, "IDLE", 0.05)
    connections = open_dashboard()._desk.connections
    async with connections.looking(), connections.looking():
        assert sessions() == 2
    async with asyncio.timeout(10):
        while sessions():
            await asyncio.sleep(0.01)
    await _one(connections)


async def test_many_who_look_at_the_same_have_it_asked_once():
    shared, asked, gate = Shared(), [], asyncio.Event()

    async def ask():
        asked.append(1)
        await gate.wait()
        return len(asked)

    looks = [asyncio.create_task(shared.get("overview", 60, ask)) for _ in range(20)]
    await asyncio.sleep(0)
    looks[0].cancel()  # who goes takes nobody with him
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*looks[1:]) == [1] * 19
    assert await shared.get("overview", 60, ask) == 1
    assert await shared.get("other", 0, ask) == 2


async def test_what_could_not_be_asked_is_asked_again():
    shared, asked = Shared(), []

    async def ask():
        asked.append(1)
        if len(asked) == 1:
            raise ValueError("no")
        return "yes"

    with pytest.raises(ValueError, match="no"):
        await shared.get("x", 60, ask)
    assert await shared.get("x", 60, ask) == "yes"


async def test_what_takes_longer_than_a_page_waits_is_there_for_who_asks_again():
    shared, gate = Shared(), asyncio.Event()

    async def ask():
        await gate.wait()
        return "seen"

    assert await shared.soon("x", 60, ask, 0) is None
    assert await shared.soon("x", 60, ask, 0.001) is None
    gate.set()
    assert await shared.soon("x", 60, ask, 20) == "seen"
    assert await shared.soon("x", 60, ask, 0) == "seen"


async def test_what_goes_wrong_when_nobody_waits_any_more_is_told_to_who_asks_next():
    shared, gate, asked = Shared(), asyncio.Event(), []

    async def ask():
        asked.append(len(asked))
        await gate.wait()
        if len(asked) == 1:
            raise LookupError("gone")
        return "seen"

    assert await shared.soon("x", 60, ask, 0) is None
    gate.set()
    while not shared._late:
        await asyncio.sleep(0)
    with pytest.raises(LookupError):
        await shared.soon("x", 60, ask, 20)
    assert await shared.soon("x", 60, ask, 20) == "seen"
    assert asked == [0, 1]
