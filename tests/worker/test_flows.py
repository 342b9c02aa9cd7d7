"""Graphs of jobs with real workers on real Postgres."""

from __future__ import annotations

import asyncio
import functools
import os

import flow_tasks as tasks
import psycopg
import pytest
from worker_help import all_finished, eventually, working

import chancy
import chancy_ops
from chancy import JobCancelled, JobFailed, State, outcome_of, result_of
from chancy.flows.statements import tell
from chancy.run import send, walk
from chancy_worker import Timing, WorkerConfig
from chancy_worker.attempts.verdict import succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register

TURNS = int(os.environ.get("CHANCY_TURNS", "40"))
PROMPT = WorkerConfig(timing=Timing(look=60, lease=180, extend=60), grace=1)
"""A worker that sees an end by its verdict, or within the test's deadline not at all."""


@pytest.fixture(autouse=True)
def clean():
    tasks.gates.clear()
    tasks.ran.clear()
    tasks.healed.clear()


async def result(site, job):
    async with await psycopg.AsyncConnection.connect(site.dsn, autocommit=True) as conn:
        return await job.result(conn, timeout=15)


def submit(site, new):
    (job,) = site.submit(new)
    return job


async def test_a_job_is_given_what_those_that_it_needs_have_come_to(site):
    left, right = tasks.leaf.bind("a"), tasks.leaf.bind("b")
    middle = tasks.join.bind([result_of(left), result_of(right)], name="m")
    job = submit(site, tasks.join.bind([result_of(middle), "plain", result_of(left)]))
    assert site.row(job).state is State.BLOCKED
    async with working(site.app(), PROMPT):
        assert await result(site, job) == "join(m(a,b),plain,a)"
    assert sorted(tasks.ran) == ["a", "b", "join", "m"]


@pytest.mark.parametrize("task", [tasks.workflow, tasks.workflow_in_thread, tasks.workflow_in_child], ids=str)
async def test_a_function_that_returns_a_graph_has_its_result(site, task):
    job = submit(site, task.bind(["a", "b", "c"]))
    async with working(site.app(), PROMPT):
        assert await result(site, job) == "join(a,b,c)"


async def test_graphs_are_nested_as_deep_as_anybody_likes(site):
    job = submit(site, tasks.nested.bind(4))
    async with working(site.app(), PROMPT):
        assert await result(site, job) == "nested4(nested3(nested2(nested1(bottom))))"


async def test_what_needs_a_job_that_fails_is_cancelled_and_says_why(site):
    lost = tasks.broken.bind("x")
    middle = tasks.join.bind([result_of(lost)])
    after, told = tasks.join.bind([result_of(middle)]), tasks.told.bind("t", outcome_of(lost))
    end, told = chancy.submit_many(site.conn, [after, told], schema=site.schema)
    async with working(site.app(), PROMPT):
        with pytest.raises(JobCancelled):
            await result(site, end)
        assert await result(site, told) == "t: failed None Broken"
    row = site.row(end)
    assert row.errors[-1].kind == "NeedFailed"
    assert "which was cancelled" in row.errors[-1].message


async def states(site, *jobs):
    return [site.row(job).state for job in jobs]


async def test_a_job_that_is_submitted_later_needs_what_is_there_already(site):
    (first,) = site.submit(tasks.leaf.bind("a"))
    async with working(site.app(), PROMPT):
        assert await result(site, first) == "a"
        second = submit(site, tasks.join.bind([result_of(first)]))
        assert await result(site, second) == "join(a)"


async def test_a_job_may_need_one_that_runs(site):
    first = submit(site, tasks.wait.bind("w"))
    async with working(site.app(), PROMPT):
        await eventually(lambda: tasks.ran == ["w"])
        second = submit(site, tasks.join.bind([result_of(first)]))
        assert site.row(second).state is State.BLOCKED
        tasks.gates["w"].set()
        assert await result(site, second) == "join(w)"


async def test_what_needs_a_job_that_failed_long_ago_is_cancelled_by_a_look(site):
    (first,) = site.submit(tasks.broken.bind("a"))
    async with working(site.app()):
        await all_finished(site)
        second = submit(site, tasks.join.using(after=[first]).bind([]))
        with pytest.raises(JobCancelled):
            await result(site, second)


async def test_a_job_comes_after_others_that_tell_it_nothing(site):
    first = tasks.leaf.bind("a")
    job = submit(site, tasks.leaf.using(after=[first, outcome_of(tasks.broken.bind("x"))]).bind("b"))
    async with working(site.app(), PROMPT):
        assert await result(site, job) == "b"
    assert tasks.ran[-1] == "b"


async def test_a_failed_job_that_is_requeued_brings_back_what_needed_it(site):
    lost, kept = tasks.sometimes.bind("x"), tasks.leaf.bind("k")
    end = submit(site, tasks.join.bind([result_of(tasks.join.bind([result_of(lost), result_of(kept)]))]))
    async with working(site.app(), PROMPT):
        with pytest.raises(JobCancelled):
            await result(site, end)
        tasks.healed.add("x")
        assert chancy.requeue(site.conn, end.id, schema=site.schema)
        assert await result(site, end) == "join(join(x,k))"
    assert tasks.ran.count("k") == 1


async def test_a_workflow_whose_graph_failed_goes_on_where_it_was(site):
    job = submit(site, tasks.risky.bind("y"))
    async with working(site.app(), PROMPT):
        with pytest.raises(JobFailed, match="it became job"):
            await result(site, job)
        tasks.healed.add("y")
        assert chancy.requeue(site.conn, job.id, schema=site.schema)
        assert await result(site, job) == "join(y)"
    assert tasks.ran.count("risky") == 1


def test_a_cancel_goes_down_and_takes_along_what_nobody_else_needs(site):
    leaf, shared = tasks.leaf.bind("a"), tasks.leaf.bind("s")
    first, second = tasks.join.bind([result_of(leaf), result_of(shared)]), tasks.join.bind([result_of(shared)])
    end = tasks.join.bind([result_of(first)])
    jobs = [*site.submit(first, second, end, leaf, shared)]
    assert chancy.cancel(site.conn, jobs[0].id, needs=True, schema=site.schema)
    assert [site.row(job).state.value for job in jobs] == ["cancelled", "blocked", "cancelled", "cancelled", "ready"]


def test_what_needs_a_job_that_is_deleted_is_cancelled(site):
    first = tasks.leaf.bind("a")
    job, need = site.submit(tasks.join.bind([result_of(first)]), first)
    assert chancy_ops.delete(site.conn, need.id, schema=site.schema)
    row = site.row(job)
    assert row.state is State.CANCELLED
    assert row.errors[-1].message == f"it needs job {need.id}, which is not there any more"


async def test_a_cancelled_workflow_takes_its_graph_along(site):
    job = submit(site, tasks.waiting.bind("w"))
    async with working(site.app(), PROMPT):
        await eventually(lambda: tasks.ran == ["w"])
        assert chancy.cancel(site.conn, job.id, needs=True, schema=site.schema)
        await all_finished(site)
    assert site.count("cancelled") == 3


async def test_a_job_that_returns_what_needs_itself_fails(site):
    job = submit(site, tasks.itself.bind())
    async with working(site.app(), PROMPT):
        with pytest.raises(JobFailed, match=f"needs job {job.id}"):
            await result(site, job)


@pytest.mark.parametrize("task", [tasks.completes, tasks.completes_in_thread], ids=str)
async def test_a_handler_completes_with_a_graph_in_its_own_transaction(site, task):
    job = submit(site, task.bind(site.dsn))
    async with working(site.app(), PROMPT):
        assert await result(site, job) == "join(a)"


async def test_whoever_ends_the_last_two_needs_at_once_the_join_is_released_once(site):
    """Two workers' looks after two commits that overlap: as many turns as there is time for."""
    worker = send(site.conn, register("the test", 600), site.schema)
    with psycopg.connect(site.dsn, autocommit=True) as left, psycopg.connect(site.dsn, autocommit=True) as right:
        for _ in range(TURNS):
            pair = [tasks.leaf.bind("a"), tasks.leaf.bind("b")]
            join, *needs = site.submit(tasks.join.bind([result_of(need) for need in pair]), *pair)
            wanted = Wanted({"default": 2}, looking=("default",))
            claimed = send(site.conn, play_round(worker, [], wanted), site.schema).claimed
            assert sorted(job.id for job in claimed) == [need.id for need in needs]
            ends = [
                functools.partial(end_and_look, conn, site, worker, job)
                for conn, job in zip((left, right), claimed, strict=True)
            ]
            released = await asyncio.gather(*(asyncio.to_thread(end) for end in ends))
            assert sum(released) == 1
            assert site.row(join).state is State.READY
            assert chancy.cancel(site.conn, join.id, schema=site.schema)


def end_and_look(conn, site, worker, job):
    answer = send(conn, play_round(worker, [succeeded(job, b'"x"')], Wanted()), site.schema)
    assert answer.needed == [job.id]
    return walk(tell(answer.needed), lambda statement: send(conn, statement, site.schema))
