"""Where a job with steps, or a graph, can die: each place of the tables of the two decisions (0034, 0035)."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import death_tasks as tasks
import psycopg
import pytest
import step_tasks
import worker_tasks
from worker_help import Proxy, Site, all_finished, eventually, working

import chancy
from chancy import State, result_of
from chancy.flows.flow import flow_in, returned
from chancy.flows.statements import become
from chancy.run import send
from chancy_testing.server.postgres import Postgres
from chancy_worker.attempts.verdict import succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register
from chancy_worker.life.rescue import declare_dead, take_back

ONE = Wanted({"default": 1}, looking=("default",))


@pytest.fixture
def effects(site):
    """How often each job has had each effect."""
    site.conn.execute(step_tasks.MAKE_EFFECTS)
    site.conn.execute("TRUNCATE public.step_effect")
    return lambda: Counter(site.conn.execute("SELECT job, name FROM public.step_effect").fetchall())


async def killed_and_done_by_another(site, job, within=30):
    """Its worker is killed when it has got to its place; another one goes on."""
    worker = site.spawn()
    await eventually((site.folder / "reached").exists, within)
    worker.signal(signal.SIGKILL)
    site.spawn()
    await all_finished(site, within)
    return site.row(job)


@pytest.mark.long
@pytest.mark.parametrize("place", tasks.PLACES)
async def test_a_job_whose_worker_is_killed_at_any_place_of_its_steps_goes_on_from_there(site, place, effects):
    (job,) = site.submit(tasks.steps.bind(site.dsn, str(site.folder), place))
    row = await killed_and_done_by_another(site, job)
    assert (row.state, row.crashes, [error.kind for error in row.errors]) == (State.SUCCEEDED, 1, ["WorkerDied"])
    assert job.result(site.conn) == ["outside", "inside"]
    assert effects() == {(job.id, "outside"): tasks.PLACES[place], (job.id, "inside"): 1}
    steps = chancy.steps(site.conn, job.id, schema=site.schema)
    assert [step.name for step in steps] == ["outside", "inside", "settle"]
    sleep = steps[-1]
    assert (sleep.until - sleep.at).total_seconds() == pytest.approx(2, abs=0.5)
    assert row.finished_at >= sleep.until


async def test_a_commit_whose_answer_is_lost_holds_and_its_step_is_not_done_again(site, effects):
    worker_tasks.gates.update(begun=asyncio.Event(), commit=asyncio.Event())
    async with Proxy(site.dsn) as proxy, working(site.app()):
        (job,) = site.submit(tasks.commits.bind(proxy.dsn))
        await asyncio.wait_for(worker_tasks.gates["begun"].wait(), 15)
        proxy.mute = True
        worker_tasks.gates["commit"].set()
        await eventually(effects)
        proxy.mute = False
        proxy.cut()
        await all_finished(site)
    row = site.row(job)
    assert (row.state, row.attempt, row.crashes) == (State.SUCCEEDED, 2, 0)
    assert effects() == {(job.id, "inside"): 1}


@pytest.mark.long
async def test_a_step_that_was_committed_is_done_after_a_crash_of_postgres(tmp_path):
    with Postgres() as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            chancy.migrate(conn)
            conn.execute(step_tasks.MAKE_EFFECTS)
        site = Site(server.dsn, "chancy", tmp_path)
        try:
            (job,) = site.submit(tasks.steps.bind(server.dsn, str(tmp_path), ""))
            async with working(site.app()):
                await eventually(lambda: site.row(job).state is State.SCHEDULED)
            server.stop(immediate=True)
            server.start()
            site.conn = psycopg.connect(server.dsn, autocommit=True)
            async with working(site.app()):
                await all_finished(site)
            assert job.result(site.conn) == ["outside", "inside"]
            found = site.conn.execute("SELECT name FROM public.step_effect ORDER BY name").fetchall()
            assert found == [("inside",), ("outside",)]
        finally:
            site.close()


# Graphs.


async def test_a_need_whose_worker_is_killed_runs_again_and_its_result_arrives(site):
    folder = str(site.folder)
    needs = [tasks.need.bind(folder, "in a need", 1), tasks.part.bind(2)]
    job, first = site.submit(tasks.join.bind([result_of(need) for need in needs]), needs[0])
    row = await killed_and_done_by_another(site, job)
    assert (row.state, row.attempt, site.row(first).crashes) == (State.SUCCEEDED, 1, 1)
    assert job.result(site.conn) == 3


async def test_what_needs_a_job_that_died_with_its_worker_for_good_is_cancelled(site):
    last = tasks.last_try.bind(str(site.folder))
    first, job, end = site.submit(last, tasks.join.bind([result_of(last)]), tasks.part.using(after=[last]).bind(1))
    row = await killed_and_done_by_another(site, job)
    assert (site.row(first).state, site.row(first).errors[-1].kind) == (State.FAILED, "WorkerDied")
    assert (row.state, row.errors[-1].message) == (
        State.CANCELLED, f"it needs job {first.id} (death_tasks.last_try), which failed",
    )  # fmt: skip
    assert site.row(end).state is State.CANCELLED


async def test_a_worker_that_is_killed_between_an_end_and_its_look_leaves_nothing_behind(site):
    pair = [tasks.part.bind(1), tasks.part.bind(2)]
    job, *_ = site.submit(tasks.join.bind([result_of(need) for need in pair]), *pair)
    dead = send(site.conn, register("dead", 60), site.schema)
    claimed = send(site.conn, play_round(dead, [], Wanted({"default": 2}, looking=("default",))), site.schema).claimed
    send(site.conn, play_round(dead, [succeeded(each, b"5") for each in claimed], Wanted()), site.schema)
    assert site.row(job).state is State.BLOCKED
    async with working(site.app()):
        await all_finished(site)
    assert job.result(site.conn) == 10


def called(site):
    return Path(site.folder, "called").read_text(encoding="utf-8").split()


async def test_a_workflow_whose_worker_is_killed_before_it_returns_has_done_nothing(site):
    (site.folder / "go").touch()
    (job,) = site.submit(tasks.flow.bind(str(site.folder), "before it returns"))
    row = await killed_and_done_by_another(site, job)
    assert (row.state, row.crashes, job.result(site.conn)) == (State.SUCCEEDED, 1, 3)
    assert (called(site), site.one("SELECT count(*) FROM {}.any_job")) == (["flow", "flow"], 4)


async def test_a_workflow_whose_worker_is_killed_after_it_has_returned_goes_on_without_its_function(site):
    (job,) = site.submit(tasks.flow.bind(str(site.folder), ""))
    worker = site.spawn()
    await eventually(lambda: site.row(job).state is State.BLOCKED)
    await eventually(lambda: site.count("running") == 1)
    worker.signal(signal.SIGKILL)
    (site.folder / "go").touch()
    site.spawn()
    await all_finished(site)
    row = site.row(job)
    assert (row.state, row.attempt, row.crashes, job.result(site.conn)) == (State.SUCCEEDED, 1, 0, 3)
    assert (called(site), site.one("SELECT count(*) FROM {}.any_job")) == (["flow"], 4)


@pytest.mark.parametrize(("place", "times"), [("before its commit", 2), ("before its verdict", 1)])
async def test_a_workflow_that_returns_in_its_own_transaction_has_done_all_or_nothing(site, place, times):
    (site.folder / "go").touch()
    (job,) = site.submit(tasks.flow_of_its_own.bind(site.dsn, str(site.folder), place))
    row = await killed_and_done_by_another(site, job)
    assert (row.state, row.crashes, job.result(site.conn)) == (State.SUCCEEDED, times - 1, 3)
    assert (called(site), site.one("SELECT count(*) FROM {}.any_job")) == (["flow"] * times, 4)


def claimed_by(site, name):
    lease = send(site.conn, register(name, 60), site.schema)
    (claim,) = send(site.conn, play_round(lease, [], ONE), site.schema).claimed
    return claim


def test_a_worker_that_dies_while_it_writes_what_a_workflow_has_returned_has_written_nothing(site):
    (job,) = site.submit(tasks.flow.bind("", ""))
    claim, graph = claimed_by(site, "a"), flow_in(returned(result_of(tasks.join.bind([])), site.schema))
    with psycopg.connect(site.dsn) as conn:
        assert send(conn, become(*claim.owner, graph), site.schema).fate == "became"
        conn.rollback()
    assert (site.row(job).state, site.one("SELECT count(*) FROM {}.job")) == (State.RUNNING, 1)
    send(site.conn, declare_dead(worker=claim.lease), site.schema)
    assert send(site.conn, take_back(), site.schema).again == 1
    assert send(site.conn, become(*claim.owner, graph), site.schema).fate == "lost"
    assert site.one("SELECT count(*) FROM {}.job") == 1


def test_what_a_workflow_has_returned_is_submitted_once_where_the_answer_was_lost(site):
    (job,) = site.submit(tasks.flow.bind("", ""))
    claim, graph = claimed_by(site, "a"), flow_in(returned(result_of(tasks.join.bind([])), site.schema))
    first, second = (send(site.conn, become(*claim.owner, graph), site.schema) for _ in range(2))
    assert (first.fate, second.fate, first.other) == ("became", "done", second.other)
    assert (site.row(job).becomes, site.one("SELECT count(*) FROM {}.job")) == (first.other, 2)


async def test_an_end_is_not_overlooked_by_who_hangs_a_job_on_it_meanwhile(site):
    (first,) = site.submit(tasks.waits.bind(str(site.folder), 1))
    async with working(site.app()):
        await eventually(lambda: site.count("running") == 1)
        with psycopg.connect(site.dsn) as conn:
            (second,) = chancy.submit_many(conn, [tasks.join.bind([result_of(first)])], schema=site.schema)
            (site.folder / "go").touch()
            (beside,) = site.submit(tasks.part.bind(7))
            await eventually(lambda: site.row(beside).finished_at)  # rounds pass the row by
            assert site.row(first).state is State.RUNNING
        await all_finished(site)
    assert second.result(site.conn) == 1
