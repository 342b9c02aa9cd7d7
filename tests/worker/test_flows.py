"""Graphs of jobs with real workers on real Postgres."""

from __future__ import annotations

import flow_tasks as tasks
import psycopg
import pytest
from worker_help import working

import chancy
from chancy import JobCancelled, State, outcome_of, result_of
from chancy_worker import Timing, WorkerConfig

PROMPT = WorkerConfig(timing=Timing(look=60, lease=180, extend=60), grace=1)
"""A worker that sees an end by its verdict, or within the test's deadline not at all."""


@pytest.fixture(autouse=True)
def clean():
    tasks.gates.clear()
    tasks.ran.clear()


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
