"""Graphs of jobs with real workers on real Postgres."""

from __future__ import annotations

import asyncio
import functools
import os

import flow_tasks as tasks
import msgspec
import psycopg
import pytest
import step_tasks
from worker_help import all_finished, eventually, working

import chancy
import chancy_ops
from chancy import JobCancelled, JobFailed, Keep, State, UnknownJob, days, outcome_of, result_of
from chancy.flows.statements import tell, tell_all
from chancy.run import send, walk
from chancy_testing import drain
from chancy_worker import Timing, WorkerConfig
from chancy_worker.attempts import refusals
from chancy_worker.attempts.verdict import succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import Offer, register
from chancy_worker.life.rescue import declare_dead

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


OLD = """
from chancy import result_of, task

@task
async def part(number: int) -> int:
    return number

@task(max_attempts=1)
async def count(numbers: list[int]) -> int:
    raise RuntimeError("a bug")

@task
async def whole(size: int) -> int:
    return result_of(count.bind([result_of(part.bind(number)) for number in range(size)]))
"""
NEW = """
from chancy import task

@task(max_attempts=1)
async def part(number: int) -> int:
    raise RuntimeError("it has been called again")

@task(aliases=["deployed.count"])
async def total(numbers: list[int], plus: int = 10) -> int:
    return sum(numbers) + plus

@task(max_attempts=1)
async def whole(size: int, unit: str) -> int:
    raise RuntimeError("it has been called again")
"""


async def test_a_requeue_after_a_deploy_resumes_with_the_new_code_and_repeats_nothing_that_succeeded(
    site, tmp_path, monkeypatch
):
    def works(code):
        (tmp_path / "deployed.py").write_text(code, encoding="utf-8")
        return site.run("-B", "-m", "chancy_worker", "deployed", "--dsn", site.dsn, "--schema", site.schema)

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = site.one("SELECT {}.submit('deployed.whole', '{{\"size\": 3}}')")
    old = works(OLD)
    await eventually(lambda: site.row(job).finished_at, within=30)
    assert (site.row(job).state, site.row(job).errors[-1].kind) == (State.FAILED, "NeedFailed")
    old.end()
    assert chancy.requeue(site.conn, job, schema=site.schema)
    works(NEW)
    await all_finished(site)
    assert (site.row(job).state, site.row(job).result) == (State.SUCCEEDED, b"13")
    assert site.rows("SELECT task, attempt, claims FROM {}.history ORDER BY id") == [
        ("deployed.whole", 1, 1), *[("deployed.part", 1, 1)] * 3, ("deployed.count", 2, 2),
    ]  # fmt: skip


# In the course of time.


async def test_a_day_with_a_result_that_is_needed_stays_until_that_is_used(site, chancy_clock, upkeep):
    early = tasks.leaf.bind("early")
    late = tasks.leaf.using(delay=days(400)).bind("late")
    job, first, _ = site.submit(tasks.join.bind([result_of(early), result_of(late)]), early, late)
    drain(site.conn)
    (other,) = site.submit(tasks.leaf.bind("other"))
    drain(site.conn)
    day = site.row(first).finished_at.date()
    for _ in range(3):
        chancy_clock.move(days(100))
        await upkeep()
        assert site.row(first).state is State.SUCCEEDED
    (found,) = [each for each in chancy_ops.doctor(site.conn, schema=site.schema) if each.check == "held"]
    assert found.message == (
        f"the history of {day} is over and stays: job {job.id} (flow_tasks.join) waits, and needs job {first.id} "
        f"(flow_tasks.leaf) of that day."
    )
    assert f"`chancy cancel {job.id}`" in found.remedy
    chancy_clock.move(days(101))
    drain(site.conn)
    assert job.result(site.conn) == "join(early,late)"
    await upkeep()
    for gone in (first, other):
        with pytest.raises(UnknownJob):
            site.row(gone)
    assert not [
        each for each in chancy_ops.doctor(site.conn, schema=site.schema) if each.check == "held" and each.remedy
    ]


async def test_a_queue_that_keeps_nothing_keeps_what_is_needed(site, chancy_clock, upkeep):
    chancy_ops.keep(site.conn, "default", Keep.nothing(), schema=site.schema)
    early, lost = tasks.leaf.bind("early"), tasks.broken.bind("lost")
    late = tasks.leaf.using(delay=days(40)).bind("late")
    job, told, first, second, _ = site.submit(
        tasks.join.using(queue="kept").bind([result_of(early), result_of(late)]),
        tasks.told.using(queue="kept", after=[late]).bind("of", outcome_of(lost)),
        early, lost, late,
    )  # fmt: skip
    drain(site.conn)
    for _ in range(3):
        chancy_clock.move(days(13))
        await upkeep()
        assert (site.row(first).state, site.row(second).state) == (State.SUCCEEDED, State.FAILED)
    chancy_clock.move(days(2))
    drain(site.conn)
    assert (job.result(site.conn), told.result(site.conn)) == ("join(early,late)", "of: failed None Broken")


@pytest.mark.long
async def test_a_workflow_that_sleeps_for_a_year_has_all_that_it_needs_when_it_wakes(site, chancy_clock, upkeep):
    site.conn.execute(step_tasks.MAKE_EFFECTS)
    (job,) = site.submit(tasks.yearly.bind(site.dsn))
    drain(site.conn)
    for _ in range(12):
        chancy_clock.move(days(30))
        await upkeep()
    assert site.row(job).state is State.BLOCKED
    chancy_clock.move(days(6))
    drain(site.conn)
    assert job.result(site.conn) == "join(early,awake)"
    assert site.one("SELECT count(*) FROM {}.history WHERE attempt > 1") == 0


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


async def test_a_job_that_returns_what_would_need_it_when_that_is_requeued_fails(site):
    second = submit(site, tasks.stands_for.using(delay=3600).bind("first"))
    tasks.others["second"] = second
    first = tasks.others["first"] = submit(site, tasks.stands_for.bind("second"))
    async with working(site.app(), PROMPT):
        await eventually(lambda: site.row(first).becomes == second.id)
        chancy.cancel(site.conn, first.id, schema=site.schema)
        assert site.row(second).state is State.CANCELLED
        chancy.requeue(site.conn, second.id, schema=site.schema)
        with pytest.raises(JobFailed, match=f"needs job {second.id}, directly or by way of others"):
            await result(site, second)
    chancy.requeue(site.conn, first.id, schema=site.schema)
    assert (site.row(first).state, site.row(second).state) == (State.BLOCKED, State.READY)  # nothing waits for itself


def test_what_was_hung_on_a_job_that_had_ended_is_told_of_its_next_end(site):
    first = submit(site, tasks.leaf.bind("a"))
    second = submit(site, tasks.join.bind([result_of(first)]))
    chancy.cancel(site.conn, first.id, schema=site.schema)
    third = submit(site, tasks.join.bind([result_of(second)]))
    walk(tell_all(), lambda statement: send(site.conn, statement, site.schema))
    assert site.row(third).state is State.CANCELLED
    chancy.requeue(site.conn, third.id, schema=site.schema)
    assert [site.row(job).state for job in (first, second, third)] == [State.READY, State.BLOCKED, State.BLOCKED]
    chancy.cancel(site.conn, first.id, schema=site.schema)
    assert [site.row(job).state for job in (first, second, third)] == [State.CANCELLED] * 3


@pytest.mark.parametrize("task", [tasks.completes, tasks.completes_in_thread], ids=str)
async def test_a_handler_completes_with_a_graph_in_its_own_transaction(site, task):
    job = submit(site, task.bind(site.dsn))
    async with working(site.app(), PROMPT):
        assert await result(site, job) == "join(a)"


@pytest.fixture
def soon(monkeypatch):
    """Workers ask who else is there soon after they have refused something, which they are offered again soon."""
    monkeypatch.setattr(refusals, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(refusals, "LONGEST_SECONDS", 0.3)


@pytest.mark.parametrize("task", [tasks.counted, tasks.counted_in_child], ids=str)
async def test_what_is_given_what_its_task_does_not_take_fails_alone_and_soon(site, soon, task):
    need = tasks.anything.bind("a")
    jobs = [task.bind(result_of(need)), tasks.join.bind(["b"]), tasks.join.bind([result_of(need)])]
    wrong, *right = site.submit(*jobs, tasks.join.using(after=[jobs[0]]).bind(["c"]))
    async with working(site.app(), WorkerConfig(timing=Timing(lease=180, extend=60), grace=1)):
        await eventually(lambda: site.row(wrong).finished_at, within=30)
        await all_finished(site)
    row = site.row(wrong)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "InvalidArguments")
    assert row.errors[-1].message.startswith("no worker takes what it was given by the jobs that it needs; ")
    assert f"argument 'number' of task {task.name}: Expected `int`, got `str`" in row.errors[-1].message
    assert [site.row(job).state for job in right] == [State.SUCCEEDED, State.SUCCEEDED, State.CANCELLED]
    assert "counted" not in tasks.ran


async def test_but_not_while_a_worker_is_alive_that_has_another_version_of_the_task(site, soon):
    other = send(site.conn, register("other", 60, Offer(["default"], [tasks.counted.name], ["another"])), site.schema)
    job = submit(site, tasks.counted.bind(result_of(tasks.anything.bind("a"))))
    async with working(site.app(), PROMPT):
        await eventually(lambda: site.one("SELECT claims FROM {}.job WHERE id = %s", job.id) > 2, within=30)
        await eventually(lambda: site.row(job).attempt == 0)  # and not 1, as while it is claimed
        send(site.conn, declare_dead(worker=other), site.schema)
        await eventually(lambda: site.row(job).finished_at, within=60)


async def test_nor_where_it_has_arguments_that_its_task_here_does_not_have(site, soon):
    """As of a newer version, whose workers are about to come."""
    new = tasks.counted.bind(result_of(tasks.leaf.bind("a")))
    newer = msgspec.structs.replace(new, arguments=new.arguments[:-1] + b',"unit":"m"}')
    job = submit(site, newer)
    async with working(site.app(), PROMPT):
        await eventually(lambda: site.one("SELECT claims FROM {}.job WHERE id = %s", job.id) > 2, within=30)
    assert (site.row(job).finished_at, site.row(job).attempt) == (None, 0)


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
