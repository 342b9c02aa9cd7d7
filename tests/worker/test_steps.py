"""Steps, on real workers: what is done is not done again, whatever becomes of the attempt."""

from __future__ import annotations

import asyncio
import importlib
import random
import re
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path
from unittest import mock

import psycopg
import pytest
import step_tasks as tasks
import worker_tasks
from worker_help import FAST, ONLY_WOKEN, all_finished, eventually, working

import chancy
from chancy import LeaseLost, State, days, signal
from chancy.current import CurrentJob
from chancy.run import send
from chancy_ops import delete, keep
from chancy_testing import drain
from chancy_worker import WorkerConfig
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register
from chancy_worker.life.rescue import declare_dead, take_back

PLACES = ["on_loop", "in_thread", "in_process"]


@pytest.fixture(autouse=True)
def effects(site):
    """How often each job has had each effect."""
    site.conn.execute(tasks.MAKE_EFFECTS)
    site.conn.execute("TRUNCATE public.step_effect")
    return lambda: Counter(site.conn.execute("SELECT job, name FROM public.step_effect").fetchall())


def names(site, job):
    return [step.name for step in chancy.steps(site.conn, job.id, schema=site.schema)]


@pytest.mark.parametrize("place", PLACES)
async def test_a_job_goes_on_where_it_left_off_wherever_it_runs(site, place, effects):
    async with working(site.app(), WorkerConfig(timing=ONLY_WOKEN)):
        (job,) = site.submit(getattr(tasks, place).bind(site.dsn))
        await eventually(lambda: "word" in names(site, job))
        assert signal(site.conn, job.id, "word", "go", schema=site.schema)
        await all_finished(site)
    row = site.row(job)
    assert (row.state, row.attempt, job.result(site.conn)) == (State.SUCCEEDED, 1, ["first", "go", "last"])
    assert effects() == {(job.id, "first"): 1, (job.id, "last"): 1}


@pytest.mark.long
async def test_no_word_is_lost_whenever_it_comes(site):
    def say(ids):
        with psycopg.connect(site.dsn, autocommit=True) as conn:
            for job in ids:
                assert signal(conn, job, "word", job, schema=site.schema)

    async with working(site.app(), WorkerConfig(timing=ONLY_WOKEN)):
        for _ in range(5):
            jobs = site.submit(*[tasks.waits.bind(site.dsn) for _ in range(20)])
            ids = [job.id for job in jobs]
            random.shuffle(ids)
            saying = threading.Thread(target=say, args=[ids])
            saying.start()
            await all_finished(site)
            saying.join()
            assert [job.result(site.conn) for job in jobs] == [job.id for job in jobs]
            assert {site.row(job).attempt for job in jobs} == {1}


async def test_a_signal_takes_effect_when_its_transaction_commits(site):
    async with working(site.app(), WorkerConfig(timing=ONLY_WOKEN)):
        (job,) = site.submit(tasks.waits.bind(site.dsn))
        await eventually(lambda: site.row(job).state is State.SCHEDULED)
        with psycopg.connect(site.dsn) as conn:
            assert signal(conn, job.id, "word", 5, schema=site.schema)
            assert site.row(job).state is State.SCHEDULED
        await all_finished(site)
    assert job.result(site.conn) == 5


def test_sql_tells_a_job(site):
    (job,) = site.submit(tasks.waits.bind(site.dsn))
    assert site.one("SELECT {}.signal(%s, 'word', '7')", job.id)
    assert not site.one("SELECT {}.signal(%s, 'word', '8')", job.id)
    assert not site.one("SELECT {}.signal(999999, 'word')")
    (told,) = chancy.steps(site.conn, job.id, schema=site.schema)
    assert told.result == b"7"


# Whose the job is.


def claimed(site, job, worker):
    """The attempt of a worker of this name, as its handler has it."""
    lease = send(site.conn, register(worker, 60), site.schema)
    wanted = Wanted({"default": 1}, looking=("default",))
    (claim,) = send(site.conn, play_round(lease, [], wanted), site.schema).claimed
    assert claim.id == job.id
    return current(site, job, claim.attempt, claim.fence, lease)


def current(site, job, attempt, fence, lease):
    return CurrentJob(job.id, job.task, "default", attempt, 3, fence=fence, lease=lease, schema=site.schema)


def kill(site, job):
    """Its worker is dead, and its jobs are taken back, as far as nobody holds them."""
    send(site.conn, declare_dead(worker=job.lease), site.schema)
    taken = send(site.conn, take_back(), site.schema)
    return taken.again, taken.over


def test_an_attempt_that_has_lost_its_job_writes_no_step_and_its_transaction_fails(site, effects):
    (job,) = site.submit(tasks.in_thread.bind(site.dsn))
    first = claimed(site, job, "a")
    with psycopg.connect(site.dsn, autocommit=True) as conn:
        with pytest.raises(LeaseLost, match="no longer belongs"), conn.transaction():
            conn.execute(tasks.EFFECT, [job.id, "first"])
            assert kill(site, first) == (1, 0)
            first.step(conn, "first", nothing)
        for rest in (lambda: first.sleep(conn, "a", 60), lambda: first.wait(conn, "b", int)):
            with pytest.raises(LeaseLost):
                rest()
    assert (effects(), names(site, job)) == ({}, [])


def nothing() -> None: ...


def test_while_a_transaction_with_a_step_is_open_nobody_else_begins_its_job(site):
    (job,) = site.submit(tasks.in_thread.bind(site.dsn))
    first = claimed(site, job, "a")
    with psycopg.connect(site.dsn) as conn:
        first.step(conn, "first", nothing)
        assert kill(site, first) == (0, 0)
        assert site.row(job).state is State.RUNNING
        assert chancy.cancel(site.conn, job.id, schema=site.schema)  # is not kept waiting
    taken = send(site.conn, take_back(), site.schema)
    assert (taken.again, taken.over) == (0, 1)
    assert (site.row(job).state, names(site, job)) == (State.CANCELLED, ["first"])


def test_nor_where_its_verdict_was_written_meanwhile(site):
    (job,) = site.submit(tasks.in_thread.bind(site.dsn))
    first = claimed(site, job, "a")
    wanted = Wanted({"default": 1}, looking=("default",))
    with psycopg.connect(site.dsn) as conn:
        first.step(conn, "first", nothing)
        # As of a thread that would not stop.
        site.rows("UPDATE {}.job SET state = 'ready', worker = NULL WHERE id = %s RETURNING 1", job.id)
        other = send(site.conn, register("b", 60), site.schema)
        assert send(site.conn, play_round(other, [], wanted), site.schema).claimed == []
    (claim,) = send(site.conn, play_round(other, [], wanted), site.schema).claimed
    second = current(site, job, claim.attempt, claim.fence, other)
    second.step(site.conn, "first", never)
    assert names(site, job) == ["first"]


def never() -> None:
    pytest.fail("it is done")


def test_a_step_that_is_rolled_back_to_a_savepoint_is_not_done_and_the_others_are(site):
    (job,) = site.submit(tasks.in_thread.bind(site.dsn))
    first = claimed(site, job, "a")
    with psycopg.connect(site.dsn) as conn:
        first.step(conn, "first", nothing)
        with conn.transaction(force_rollback=True):
            first.step(conn, "second", nothing)
        first.step(conn, "third", nothing)
    assert names(site, job) == ["first", "third"]


async def test_a_job_that_is_cancelled_in_its_step_has_not_done_it(site, effects):
    async with working(site.app(), WorkerConfig(timing=FAST)):
        (job,) = site.submit(tasks.stays_in_its_step.bind(site.dsn, "shut"))
        await asyncio.wait_for(worker_tasks.gates["begun"].wait(), 15)
        assert job.cancel(site.conn)
        await all_finished(site)
    assert (site.row(job).state, effects(), names(site, job)) == (State.CANCELLED, {}, [])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["order", "order_in_thread"])
async def test_effects_in_the_transaction_of_a_step_are_there_once_whatever_workers_die(site, kind, effects):
    jobs = site.submit(*[getattr(tasks, kind).bind(site.dsn) for _ in range(24)])
    processes = [site.spawn(), site.spawn()]
    await site.started(*processes)
    for _ in range(3):
        before = sum(effects().values())
        await eventually(
            lambda before=before: sum(effects().values()) > before + 25 or not site.one("SELECT count(*) FROM {}.job"),
            30,
        )
        processes.pop(0).end()
        processes.append(site.spawn())
    await all_finished(site, 60)
    assert [job.result(site.conn) for job in jobs] == [30] * 24
    seen = effects()
    once = {(job.id, f"book {number}") for job in jobs for number in range(5)}
    assert {effect for effect in seen if effect[1].startswith("book")} == once
    assert {seen[effect] for effect in once} == {1}
    assert {(job.id, name) for job in jobs for name in ("charge", "ship")} == seen.keys() - once


# In the course of time.


async def test_steps_live_as_long_as_their_job_does(site, chancy_clock, upkeep):
    keep(site.conn, "long", chancy.Keep(cancelled=days(60)), schema=site.schema)
    live, kept, gone = site.submit(*[tasks.waits.using(queue=name).bind("") for name in ("live", "long", "short")])
    for job in (live, kept, gone):
        assert signal(site.conn, job.id, "word", 1, schema=site.schema)
    for _ in range(3):
        chancy_clock.move(days(30))
        if site.row(kept).state is State.READY:
            assert kept.cancel(site.conn)
            assert gone.cancel(site.conn)
        await upkeep()
    assert names(site, live) == ["word"]
    assert names(site, kept) == ["word"]
    assert site.rows("SELECT job FROM {}.step ORDER BY 1") == [(live.id,), (kept.id,)]
    chancy_clock.move(days(62))
    await upkeep()
    assert site.rows("SELECT job FROM {}.step ORDER BY 1") == [(live.id,)]
    assert site.one("SELECT at < kept_at - interval '100 days' FROM {}.step")
    (left,) = site.rows("SELECT count(*) FROM {}.kept_days('0') WHERE over AND name ~ '^step'")
    assert left == (0,)


async def test_a_day_of_steps_goes_only_when_nobody_needs_it(site, chancy_clock):
    (job,) = site.submit(tasks.waits.bind(""))
    assert signal(site.conn, job.id, "word", 1, schema=site.schema)
    day = site.one("SELECT 'step_' || to_char(kept_at AT TIME ZONE 'UTC', 'YYYYMMDD') FROM {}.step")
    chancy_clock.move(days(40))
    assert not site.one("SELECT {}.drop_day(%s)", day)
    assert site.one("SELECT {}.carry_steps(%s, 0)", day) is None
    assert site.one("SELECT {}.drop_day(%s)", day)
    assert names(site, job) == ["word"]


async def test_the_steps_of_many_jobs_are_carried_by_portions(site, chancy_clock, upkeep):
    jobs = site.submit(*[tasks.waits.bind("") for _ in range(2_005)])
    site.rows("SELECT {}.signal(id, 'word') FROM unnest(%s::bigint[]) AS id", [job.id for job in jobs])
    chancy_clock.move(days(40))
    await upkeep()
    assert site.one("SELECT count(*) FROM {}.step") == 2_005


async def test_a_job_that_sleeps_for_a_year_wakes_after_a_year(site, chancy_clock, effects):
    async with working(site.app(), WorkerConfig(timing=FAST)):
        (job,) = site.submit(tasks.sleeps_long.bind(site.dsn))
        await eventually(lambda: site.row(job).state is State.SCHEDULED)
        chancy_clock.move(timedelta(days=364))
        assert site.row(job).state is State.SCHEDULED
        chancy_clock.move(timedelta(days=2))
        await all_finished(site)
    assert (job.result(site.conn), site.row(job).attempt) == ("awake", 1)
    assert effects() == {(job.id, "first"): 1}


def test_a_job_that_is_deleted_takes_its_steps_along(site):
    (job,) = site.submit(tasks.waits.bind(""))
    assert signal(site.conn, job.id, "word", 1, schema=site.schema)
    assert delete(site.conn, job.id, schema=site.schema)
    assert site.one("SELECT count(*) FROM {}.step") == 0


# The guide.


@mock.patch.dict(chancy.registry.tasks)
def test_the_order_of_steps_md_is_charged_reserved_and_shipped_once(site, tmp_path, monkeypatch, capsys):
    guide = Path(__file__).parents[2] / "docs/guides/steps.md"
    program, says, forgets = re.findall(r"^```python\n(.*?)^```$", guide.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (tmp_path / "steps_of_the_guide.py").write_text(program, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CHANCY_DSN", site.dsn)
    shop = importlib.import_module("steps_of_the_guide")
    site.conn.execute("DROP TABLE IF EXISTS reservation; CREATE TABLE reservation (order_id bigint)")
    told, alone = site.submit(shop.fulfil.bind(7), shop.fulfil.bind(8))
    assert drain(site.conn).snoozed == 2
    names = {"conn": site.conn, "job": told, "Approval": shop.Approval}
    exec(says, names)
    drain(site.conn, with_scheduled=True)
    assert (told.result(site.conn), alone.result(site.conn)) == ("shipped, approved by ann", "refunded")
    exec(forgets, names)
    drain(site.conn)
    assert site.conn.execute("SELECT order_id FROM reservation ORDER BY 1").fetchall() == [(7,), (8,)]
    assert capsys.readouterr().out.splitlines() == [
        "order 7 with seat 70 is on its way",
        f"back goes the charge of 8 under {alone.id}/charge",
        "order 7 with seat 70 is on its way",
    ]
    site.conn.execute("DROP TABLE reservation")
