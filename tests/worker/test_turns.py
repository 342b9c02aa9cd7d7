"""Several share a connection: each has its turn when it is due, and what fails there is nobody else's trouble."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from dataclasses import replace
from datetime import timedelta

import batch_tasks
import limit_tasks
import log_tasks
import psycopg
import pytest
import worker_tasks
from worker_help import FAST, MORTAL, PID, Proxy, all_finished, eventually, holds_the_bell, kept_up, working

import chancy
from chancy import Queue
from chancy.model import Statement
from chancy.run import send
from chancy_worker import WorkerConfig, engine
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.connection.link import Link
from chancy_worker.connection.turns import NextTurn, take_turns
from chancy_worker.life.lease import register

BAD = Statement("SELECT 1 / 0", {}, lambda rows: rows[0][0])
GOOD = Statement("SELECT 1", {}, lambda rows: rows[0][0])


class Asks:
    """A duty that asks the same at each turn, and is due again when it has said so."""

    def __init__(self, name, statement=GOOD, rest=math.inf, first=0.0):
        self.due = NextTurn(name, first)
        self.statement = statement
        self.rest = rest
        self.turns = 0
        self.answers = 0

    async def turn(self, link):
        self.turns += 1
        await link.open()
        await link.send(self.statement)
        self.answers += 1
        return self.rest


@contextlib.asynccontextmanager
async def sharing(dsn, schema, *duties):
    link = Link(dsn, schema, "shared", deadline=8)
    loop = asyncio.create_task(take_turns(link, *duties))
    try:
        yield link
        assert not loop.done()
    finally:
        loop.cancel()
        await asyncio.wait([loop])
        await link.close()


def connections(site):
    return [pid for (pid,) in site.conn.execute(f"{PID} AND backend_start >= %s", ["chancy shared", site.since])]


async def test_all_who_are_due_have_a_turn_on_one_connection_and_who_is_not_has_none(site):
    first, second, later = Asks("first"), Asks("second"), Asks("later", first=math.inf)
    async with sharing(site.dsn, site.schema, first, second, later):
        await eventually(lambda: first.answers and second.answers)
        assert len(connections(site)) == 1
        assert (first.turns, second.turns, later.turns) == (1, 1, 0)
        later.due.now()
        await eventually(lambda: later.answers)
        assert (first.turns, second.turns, later.turns) == (1, 1, 1)


async def test_nobody_who_is_due_again_at_once_keeps_the_others_from_their_turns(site):
    greedy, slow = Asks("greedy", rest=0.0), Asks("slow", rest=0.05)
    async with sharing(site.dsn, site.schema, greedy, slow):
        await eventually(lambda: slow.answers >= 5 and greedy.answers > slow.answers)


async def test_who_is_told_during_its_turn_has_another_one(site):
    told = Asks("told")

    async def turn(link, before=told.turn):
        if not told.turns:
            told.due.now()
        return await before(link)

    told.turn = turn
    async with sharing(site.dsn, site.schema, told):
        await eventually(lambda: told.turns == 2)


async def test_who_fails_has_ever_longer_pauses_and_keeps_nobody_else_waiting(site, caplog):
    failing, fine = Asks("failing", BAD), Asks("fine", rest=0.02)
    async with sharing(site.dsn, site.schema, failing, fine):
        await eventually(lambda: failing.turns >= 3)
        (pid,) = connections(site)
        before, tries = fine.answers, failing.turns
        for _ in range(50):  # to tell it over and over does not shorten its pauses
            failing.due.now()
            await asyncio.sleep(0)
        assert failing.turns <= tries + 1
        await eventually(lambda: fine.answers > before + 5)
        assert connections(site) == [pid]
        failing.statement = GOOD
        await eventually(lambda: failing.answers)
    said = [record.getMessage() for record in caplog.records if record.name == "chancy.worker"]
    assert said == [
        "failing: division by zero; trying again",
        *[text for text in said[1:] if text.startswith("failing: works again")],
    ]


async def test_a_connection_that_is_lost_while_nobody_asks_is_there_again_at_once(site):
    first, second = Asks("first"), Asks("second")
    async with sharing(site.dsn, site.schema, first, second):
        await eventually(lambda: first.answers and second.answers)
        (pid,) = connections(site)
        site.conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        await eventually(lambda: first.answers == second.answers == 2)
        assert len(connections(site)) == 1
        assert connections(site) != [pid]


async def test_one_whose_question_costs_the_connection_costs_the_others_no_turn(site):
    ends = Statement("SELECT pg_terminate_backend(pg_backend_pid())", {}, lambda rows: rows)
    deadly, fine = Asks("deadly", ends), Asks("fine", rest=0.02)
    async with sharing(site.dsn, site.schema, deadly, fine):
        for wanted in range(1, 4):
            await eventually(lambda wanted=wanted: deadly.turns >= wanted)
            before = fine.answers
            await eventually(lambda before=before: fine.answers > before)
    assert deadly.answers == 0


async def test_while_there_is_no_server_all_that_share_a_connection_wait_as_long_as_one_would(site):
    duties = [Asks(f"duty {n}", rest=0.02) for n in range(2)]
    async with Proxy(site.dsn) as proxy, sharing(proxy.dsn, site.schema, *duties):
        await eventually(lambda: all(duty.answers for duty in duties))
        proxy.closes, before = True, proxy.met
        proxy.cut()
        began = time.monotonic()
        await eventually(lambda: proxy.met - before >= 6)
        # Two of them, after 0.1, 0.2 and 0.4 s each.
        assert time.monotonic() - began > 0.2
        proxy.closes = False
        answers = [duty.answers for duty in duties]
        await eventually(lambda: all(duty.answers > n for duty, n in zip(duties, answers, strict=True)))


async def test_nothing_is_connected_before_somebody_asks(site):
    class Silent(Asks):
        async def turn(self, link):
            self.turns += 1
            return 0.01

    silent = Silent("silent")
    async with sharing(site.dsn, site.schema, silent):
        await eventually(lambda: silent.turns > 5)
        assert connections(site) == []


async def test_a_connection_of_which_nobody_asks_anything_for_a_while_is_closed_and_opened_by_who_does(site):
    seldom = Asks("seldom")
    link = Link(site.dsn, site.schema, "shared", deadline=8)
    loop = asyncio.create_task(take_turns(link, seldom, idle=0.2))
    for wanted in (1, 2):
        await eventually(lambda wanted=wanted: seldom.answers == wanted and not connections(site))
        assert link.conn is None
        seldom.due.now()
    await eventually(lambda: seldom.answers == 3)
    loop.cancel()
    await asyncio.wait([loop])
    await link.close()


async def test_one_that_would_be_closed_in_a_while_is_not_made_anew_when_it_is_lost(site):
    seldom = Asks("seldom")
    link = Link(site.dsn, site.schema, "shared", deadline=8)
    loop = asyncio.create_task(take_turns(link, seldom, idle=60))
    await eventually(lambda: seldom.answers)
    site.conn.execute("SELECT pg_terminate_backend(%s)", connections(site))
    await eventually(lambda: link.conn is None)
    seldom.due.now()
    await eventually(lambda: seldom.answers == 2)
    assert seldom.turns == 2
    loop.cancel()
    await asyncio.wait([loop])
    await link.close()


async def test_a_connection_of_which_somebody_asks_something_now_and_then_stays(site):
    often = Asks("often", rest=0.1)
    link = Link(site.dsn, site.schema, "shared", deadline=8)
    loop = asyncio.create_task(take_turns(link, often, idle=60))
    await eventually(lambda: often.answers)
    pids = connections(site)
    await eventually(lambda: often.answers >= 10)
    assert connections(site) == pids
    loop.cancel()
    await asyncio.wait([loop])
    await link.close()


async def test_what_is_no_error_of_the_database_ends_the_loop(site):
    class Broken(Asks):
        async def turn(self, link):
            raise ZeroDivisionError

    link = Link(site.dsn, site.schema, "shared", deadline=8)
    loop = asyncio.create_task(take_turns(link, Broken("broken")))
    await asyncio.wait([loop], timeout=10)
    assert isinstance(loop.exception(), ZeroDivisionError)
    assert not isinstance(loop.exception(), psycopg.Error)


# All of a worker


NAMES = (
    "SELECT application_name FROM pg_stat_activity "
    "WHERE application_name LIKE 'chancy %%' AND datname = current_database() AND backend_start >= %s ORDER BY 1"
)


def names(site):
    """Without the one that is there beside a loop that is blocked, as on a busy machine."""
    return [name for (name,) in site.conn.execute(NAMES, [site.since]) if name != "chancy watchdog"]


async def until_only(site, wanted):
    deadline = time.monotonic() + 15
    while names(site) != wanted and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert names(site) == wanted


IDLE = ["chancy bell", "chancy claim", "chancy life"]


async def test_an_idle_worker_holds_three_connections(site, monkeypatch):
    monkeypatch.setattr(engine, "IDLE_SECONDS", 0.2)
    async with working(site.app()) as worker:
        await worker.begun.wait()
        await eventually(lambda: holds_the_bell(site))
        await kept_up(worker)
        await until_only(site, IDLE)
        lease = site.one("SELECT expires_at FROM {}.worker")
        seen = set()
        while site.one("SELECT expires_at FROM {}.worker") < lease + timedelta(seconds=3 * FAST.extend):
            seen.add(tuple(names(site)))
            await asyncio.sleep(0.05)
        assert seen == {tuple(IDLE)}
        site.submit(worker_tasks.add.bind(1, 2))
        await all_finished(site)
        assert names(site) == IDLE


@pytest.mark.long
async def test_a_worker_of_which_everything_is_asked_holds_five_connections_at_most(site, tmp_path, caplog):
    """Limits, children, logs, progress, batches and their callbacks, schedules, the dead, and days that are over."""
    caplog.set_level(logging.INFO, "app.logs")
    gate = tmp_path / "gate"
    lost = site.submit(worker_tasks.add.using(queue="lost").bind(1, 2))[0]
    dead = send(site.conn, register("dead", 0.01), site.schema)
    send(site.conn, play_round(dead, [], Wanted({"lost": 1}, looking=("lost",))), site.schema)
    site.conn.execute(f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-01')")
    chancy.schedule(site.conn, "often", worker_tasks.note.bind("tick"), chancy.every(seconds=1), schema=site.schema)
    site.submit(
        log_tasks.tell_in_thread.bind(str(gate)),
        *[log_tasks.speak_on_loop.bind(20) for _ in range(50)],
        *[limit_tasks.pid.bind() for _ in range(4)],
    )
    with chancy.batch(site.conn, schema=site.schema, on_finished=batch_tasks.tell) as batch:
        batch.submit_many([worker_tasks.add.bind(n, 1) for n in range(50)])
    batch_tasks.told.clear()
    used = {
        "logs": "SELECT EXISTS (SELECT FROM {}.log)",
        "progress": "SELECT EXISTS (SELECT FROM {}.job WHERE progress IS NOT NULL)",
        "batches": "SELECT EXISTS (SELECT FROM {}.batch WHERE finished_at IS NOT NULL)",
        "schedules": "SELECT EXISTS (SELECT FROM {}.schedule WHERE last_job IS NOT NULL)",
        "rescue": f"SELECT EXISTS (SELECT FROM {{}}.any_job WHERE id = {lost.id} AND state = 'succeeded')",
        "retention": f"SELECT to_regclass('\"{site.schema}\".history_20200101') IS NULL",
    }
    seen, missing = set(), set(used)
    app = site.app(queues=[Queue("default", 20), Queue("lost", 1)])
    async with working(app, WorkerConfig(timing=replace(MORTAL, upkeep=0.2), grace=1, children=2)):
        deadline = time.monotonic() + 30
        while missing and time.monotonic() < deadline:
            seen.add(tuple(names(site)))
            missing -= {what for what in missing if site.rows(used[what])[0][0]}
            await asyncio.sleep(0.005)
        gate.touch()
        await all_finished(site)
    assert missing == set()
    assert max(map(len, seen)) == 5
    assert set().union(*seen) <= {*IDLE, "chancy pooler", "chancy schedules", "chancy parts"}
