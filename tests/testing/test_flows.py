"""Graphs of jobs in the test's own process, in memory and in a drain."""

from __future__ import annotations

import pytest

from chancy import JobCancelled, Outcome, State, outcome_of, result_of, submit_many, task


@task
def leaf(name: str) -> str:
    return name


@task
async def join(parts: list[str]) -> str:
    return f"({','.join(parts)})"


@task(max_attempts=1)
def broken(name: str) -> str:
    raise ValueError(name)


@task
def told(outcome: Outcome[str]) -> str:
    return f"{outcome.state} {outcome.result} {[error.message for error in outcome.errors]}"


@task
def whole(names: list[str]) -> str:
    return result_of(join.bind([result_of(leaf.bind(name)) for name in names]))


@task
def twice(names: list[str]) -> str:
    return result_of(join.bind([result_of(whole.bind(names)), "x"]))


def test_a_graph_is_performed_in_the_order_of_its_needs(chancy_eager):
    end = join.submit(chancy_eager.conn, [result_of(leaf.bind("a")), result_of(whole.bind(["b", "c"]))])
    assert end.result(chancy_eager.conn) == "(a,(b,c))"


def test_a_failure_ends_what_needs_it_and_is_raised_where_it_was_submitted(chancy_eager):
    with pytest.raises(ValueError, match="x"):
        join.submit(chancy_eager.conn, [result_of(broken.bind("x"))])
    assert [job.state for job in chancy_eager.jobs] == [State.FAILED, State.CANCELLED]


def test_an_outcome_is_told(chancy_eager):
    chancy_eager.raise_errors = False
    job = told.submit(chancy_eager.conn, outcome_of(broken.bind("x")))
    assert job.result(chancy_eager.conn) == "failed None ['x']"


def test_a_drain_performs_graphs(chancy_conn, chancy_drain):
    jobs = submit_many(chancy_conn, [twice.bind(["a", "b"]), join.bind([result_of(broken.bind("x"))])])
    drained = chancy_drain(chancy_conn)
    assert (drained.blocked, drained.failed, drained.succeeded) == (2, 1, 4)
    assert jobs[0].result(chancy_conn) == "((a,b),x)"
    with pytest.raises(JobCancelled):
        jobs[1].result(chancy_conn)


def test_a_task_that_returns_a_graph_is_still_its_function():
    assert twice(["a", "b"]) == "((a,b),x)"
