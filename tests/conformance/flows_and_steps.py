"""Jobs with steps within graphs, and graphs that jobs with steps return."""

from __future__ import annotations

from typing import Any

import chancy
from chancy import State, current_job, outcome_of, result_of, task
from conformance.cases import case, is_async, seen
from conformance.flows import leaf, lost, mended, named, told, total
from conformance.grounds import Ground, Steps, transaction
from conformance.steps import done, script, stepwise, stepwise_async


def by_steps(g: Ground) -> Any:
    """The task that does what a script says."""
    return stepwise_async if is_async(g) else stepwise


@task(name="mixed.flag")
def flag(value: Any) -> str:
    """Writes down what it was given."""
    seen.append(("flag", value))
    return f"<{value}>"


@script
def two_steps_and_a_sleep(job: Any, conn: Any) -> Any:
    a = yield job.step(conn, "a", done(conn), "a")
    yield job.sleep(conn, "settle", 3600)
    return a + (yield job.step(conn, "b", done(conn), "b"))


@case
def a_job_with_steps_in_a_graph_is_needed_until_its_last_step(g: Ground) -> Steps:
    middle = by_steps(g).bind("two_steps_and_a_sleep")
    job, inner = yield chancy.submit_many(g.conn, [flag.bind(result_of(middle)), middle])
    yield g.perform()
    assert (yield inner.refresh(g.conn)).state is State.SCHEDULED
    assert ((yield job.refresh(g.conn)).state, seen) == (State.BLOCKED, ["a"])
    yield g.perform_snoozed(inner)
    yield g.perform()
    assert (yield job.result(g.conn)) == "<ab>"
    assert seen == ["a", "b", ("flag", "ab")]


@script
def is_told_a_number(job: Any, conn: Any) -> Any:
    return (yield job.wait(conn, "number", int))


@case
def a_job_that_is_blocked_may_be_told_what_it_will_wait_for(g: Ground) -> Steps:
    first = by_steps(g).bind("two_steps_and_a_sleep")
    middle = by_steps(g).using(after=[first]).bind("is_told_a_number")
    job, second, begin = yield chancy.submit_many(g.conn, [flag.bind(result_of(middle)), middle, first])
    yield g.perform()
    assert (yield second.refresh(g.conn)).state is State.BLOCKED
    assert (yield chancy.signal(g.conn, second.id, "number", 7)) is True
    assert (yield second.refresh(g.conn)).state is State.BLOCKED
    yield g.perform_snoozed(begin)
    yield g.perform()
    assert (yield job.result(g.conn)) == "<7>"


@script
def steps_and_then_a_graph(job: Any, conn: Any) -> Any:
    base = yield job.step(conn, "base", done(conn), "a")
    if job.attempt == 1:
        raise ValueError("not yet")
    return result_of(flag.bind([base, result_of(total.bind([result_of(leaf.bind(2)), result_of(leaf.bind(3))]))]))


@case
def a_job_with_steps_may_return_a_graph_and_does_not_repeat_them_for_that(g: Ground) -> Steps:
    job = yield by_steps(g).submit(g.conn, "steps_and_then_a_graph")
    yield g.perform()
    assert (yield job.result(g.conn)) == "<['a', {'total': 5, 'of': [2, 3]}]>"
    assert (seen.count("a"), seen.count(("leaf", 2))) == (1, 1)
    assert [step.name for step in (yield chancy.steps(g.conn, job.id))] == ["base"]


@script
def steps_and_a_graph_that_fails(job: Any, conn: Any) -> Any:
    yield job.step(conn, "base", done(conn), "a")
    seen.append("called")
    return result_of(total.bind([result_of(lost.bind(5)), result_of(leaf.bind(1))]))


@case
def a_requeue_of_a_job_with_steps_whose_graph_failed_resumes_the_graph_and_calls_nothing_again(g: Ground) -> Steps:
    mended.clear()
    job = yield by_steps(g).submit(g.conn, "steps_and_a_graph_that_fails")
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "NeedFailed")
    mended.add(5)
    assert (yield chancy.requeue(g.conn, job.id)) is True
    yield g.perform()
    assert (yield job.result(g.conn)) == {"total": 6, "of": [5, 1]}
    assert (seen.count("a"), seen.count("called"), seen.count(("leaf", 1))) == (1, 1, 1)


@script
def fails_after_a_step(job: Any, conn: Any) -> Any:
    a = yield job.step(conn, "a", done(conn), "a")
    if not mended:
        raise ArithmeticError("not yet")
    return a + (yield job.step(conn, "b", done(conn), "b"))


@case
def a_requeue_of_an_end_goes_on_after_the_steps_of_the_one_to_blame(g: Ground) -> Steps:
    mended.clear()
    middle = by_steps(g).using(max_attempts=1).bind("fails_after_a_step")
    job, beside = yield chancy.submit_many(g.conn, [flag.bind([result_of(middle), result_of(leaf.bind(1))]), middle])
    yield g.perform()
    assert (yield job.refresh(g.conn)).state is State.CANCELLED
    mended.add(0)
    assert (yield chancy.requeue(g.conn, job.id)) is True
    yield g.perform()
    assert (yield job.result(g.conn)) == "<['ab', 1]>"
    assert (seen.count("a"), seen.count("b"), seen.count(("leaf", 1))) == (1, 1, 1)
    assert (yield beside.refresh(g.conn)).errors[0].kind == "ArithmeticError"


@case
def a_job_with_steps_that_is_cancelled_in_its_sleep_ends_what_needs_it(g: Ground) -> Steps:
    middle = by_steps(g).bind("two_steps_and_a_sleep")
    job, inner, tells = yield chancy.submit_many(
        g.conn, [flag.bind(result_of(middle)), middle, told.bind(outcome_of(middle))]
    )
    yield g.perform()
    assert (yield chancy.cancel(g.conn, inner.id))
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.errors[-1].kind) == (State.CANCELLED, "NeedFailed")
    assert "cancelled" in (yield tells.result(g.conn))
    assert seen[0] == "a"


def last(conn: Any) -> Any:
    """Its last step and the graph that it becomes, in one transaction."""
    job = current_job()
    with transaction(conn):
        job.step(conn, "last", done(conn), "last")
        job.complete(conn, result_of(named.bind({"x": result_of(total.bind([result_of(leaf.bind(4))]))})))


async def last_async(conn: Any) -> None:
    """The same, async."""
    job = current_job()
    async with transaction(conn):
        await job.step(conn, "last", done(conn), "last")
        await job.complete(conn, result_of(named.bind({"x": result_of(total.bind([result_of(leaf.bind(4))]))})))


@script
def completes_with_a_step_and_a_graph(job: Any, conn: Any) -> Any:
    yield (last_async if chancy.run.awaited(conn) else last)(conn)


@case
def the_last_step_and_the_graph_that_a_job_becomes_may_be_one_transaction(g: Ground) -> Steps:
    job = yield by_steps(g).submit(g.conn, "completes_with_a_step_and_a_graph")
    yield g.perform()
    assert (yield job.result(g.conn)) == "x=4 None"
    assert (seen, [step.name for step in (yield chancy.steps(g.conn, job.id))]) == (
        ["last", ("leaf", 4), ("total", [4])], ["last"],
    )  # fmt: skip
