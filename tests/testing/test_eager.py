"""Eager mode, as a suite uses it: no database anywhere in this file."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

import chancy
import chancy_ops
from chancy import BatchCounts, Discard, InvalidConnection, Limit, Retry, Snooze, State, Unique, current_job, task
from chancy_testing import NotPerformed, eager

noted = []


@pytest.fixture(autouse=True)
def _fresh():
    noted.clear()


@task
def add(a: int, b: int = 1) -> int:
    noted.append(threading.current_thread())
    return a + b


@task
async def add_async(a: int, b: int = 1) -> int:
    noted.append(asyncio.get_running_loop())
    await asyncio.sleep(0)
    return a + b


@task(max_attempts=3)
def flaky(fails: int) -> int:
    noted.append(current_job().attempt)
    if current_job().attempt <= fails:
        raise Retry(timedelta(hours=current_job().attempt))
    return current_job().attempt


@task(max_attempts=1)
def broken() -> None:
    raise ZeroDivisionError("in the handler")


@task(max_attempts=2)
async def broken_async() -> None:
    raise ZeroDivisionError("in the handler")


@task
def snoozing() -> str:
    noted.append("looked")
    if len(noted) == 1:
        raise Snooze(timedelta(minutes=5))
    return "at last"


@task(limits=[Limit.memory(64 * 1024**2), Limit.time(9)])
def heavy() -> None: ...


@task(executor="process")
def elsewhere() -> None: ...


def test_a_submit_runs_the_function_and_remembers_the_job(chancy_eager):
    job = add.submit(chancy_eager.conn, 2, b=3)
    assert job.result(chancy_eager.conn) == 5
    (seen,) = chancy_eager.jobs
    assert (seen.id, seen.task, seen.state, seen.attempt) == (job.id, add.name, State.SUCCEEDED, 1)
    assert (seen.arguments, seen.result, seen.errors, seen.delays) == ({"a": 2, "b": 3}, 5, (), ())
    assert noted == [threading.current_thread()]


async def test_a_coroutine_runs_on_the_tests_own_loop(chancy_eager):
    job = await add_async.submit(chancy_eager.aconn, 2)
    assert await job.result(chancy_eager.aconn) == 3
    assert noted == [asyncio.get_running_loop()]


async def test_a_plain_function_submitted_by_a_coroutine_runs_in_a_thread(chancy_eager):
    await add.submit(chancy_eager.aconn, 2)
    assert noted != [threading.current_thread()]


def test_a_coroutine_submitted_where_no_loop_runs_has_one_of_its_own(chancy_eager):
    assert add_async.submit(chancy_eager.conn, 2).result(chancy_eager.conn) == 3


async def test_a_coroutine_submitted_by_blocking_code_inside_a_loop_runs_in_a_thread(chancy_eager):
    assert add_async.submit(chancy_eager.conn, 2).result(chancy_eager.conn) == 3
    assert noted != [asyncio.get_running_loop()]


async def test_many_submits_at_a_time_each_return_when_their_own_job_is_done(chancy_eager):
    jobs = await asyncio.gather(*(add_async.submit(chancy_eager.aconn, number) for number in range(20)))
    assert [await job.result(chancy_eager.aconn) for job in jobs] == list(range(1, 21))


def test_retries_are_made_at_once_and_their_delays_noted(chancy_eager):
    flaky.submit(chancy_eager.conn, 2)
    (seen,) = chancy_eager.jobs
    assert (seen.state, seen.attempt, seen.result) == (State.SUCCEEDED, 3, 3)
    assert seen.delays == (timedelta(hours=1), timedelta(hours=2))
    assert noted == [1, 2, 3]


def test_a_job_for_later_runs_now_and_says_when_it_was_due(chancy_eager):
    at = datetime(2040, 1, 2, tzinfo=UTC)
    assert add.using(run_at=at).submit(chancy_eager.conn, 1).result(chancy_eager.conn) == 2
    assert chancy_eager.jobs[0].run_at == at


def test_what_a_handler_raises_is_raised_where_it_was_submitted(chancy_eager):
    with pytest.raises(ZeroDivisionError, match="in the handler") as raised:
        broken.submit(chancy_eager.conn)
    assert raised.traceback[-1].name == "broken"
    assert chancy_eager.jobs[0].state is State.FAILED


async def test_what_a_coroutine_raises_is_raised_after_its_last_attempt(chancy_eager):
    with pytest.raises(ZeroDivisionError):
        await broken_async.submit(chancy_eager.aconn)
    assert chancy_eager.jobs[0].attempt == 2


@pytest.mark.chancy_eager(raise_errors=False)
def test_errors_may_be_kept_on_the_job(chancy_eager):
    job = broken.submit(chancy_eager.conn)
    assert [error.kind for error in chancy_eager.jobs[0].errors] == ["ZeroDivisionError"]
    with pytest.raises(chancy.JobFailed, match="in the handler"):
        job.result(chancy_eager.conn)


def test_a_discarded_job_raises_nothing(chancy_eager):
    @task
    def hopeless() -> None:
        raise Discard("no use")

    hopeless.submit(chancy_eager.conn)
    assert chancy_eager.jobs[0].state is State.DISCARDED


def test_a_task_defined_inside_a_test_can_be_submitted_in_memory_and_nowhere_else(chancy_eager):
    @task
    def inner(x: int) -> int:
        return x

    assert inner.submit(chancy_eager.conn, 5).result(chancy_eager.conn) == 5
    with eager() as other:
        assert inner.submit(other.conn, 6).result(other.conn) == 6
    assert [job.arguments for job in chancy_eager.jobs] == [{"x": 5}]


@pytest.mark.chancy_eager(mode="collect")
def test_jobs_that_are_only_collected_run_when_they_are_told_to(chancy_eager):
    job = flaky.submit(chancy_eager.conn, 1)
    assert noted == []
    with pytest.raises(NotPerformed, match=r"chancy_eager.perform\(job\)"):
        job.result(chancy_eager.conn)
    seen = chancy_eager.perform(job)
    assert (seen.state, seen.result, noted) == (State.SUCCEEDED, 2, [1, 2])
    with pytest.raises(ValueError, match="succeeded"):
        chancy_eager.perform(job)


@pytest.mark.chancy_eager(mode="collect")
def test_a_job_that_was_requeued_is_ready_and_not_scheduled(chancy_eager):
    job = add.submit(chancy_eager.conn, 1)
    chancy_eager.perform(job)
    assert chancy.requeue(chancy_eager.conn, job.id)
    assert chancy_eager.jobs[0].state is chancy.get(chancy_eager.conn, job.id).state is State.READY


@pytest.mark.chancy_eager(mode="collect")
async def test_a_collected_coroutine_can_be_awaited(chancy_eager):
    job = await add_async.submit(chancy_eager.aconn, 1)
    assert (await chancy_eager.aperform(job)).result == 2
    assert noted == [asyncio.get_running_loop()]


def test_a_job_that_snoozes_waits_for_the_test(chancy_eager):
    job = snoozing.submit(chancy_eager.conn)
    assert chancy_eager.jobs[0].state is State.SCHEDULED
    with pytest.raises(NotPerformed, match="is scheduled"):
        job.result(chancy_eager.conn)
    assert chancy_eager.perform(job).result == "at last"


def test_on_a_connection_of_the_code_under_test_nothing_is_sent():
    """The connection is open to a server that is gone: anything sent would be an error."""
    real = object.__new__(psycopg.Connection)
    with eager() as backend:
        add.submit(real, 1)
    assert [job.result for job in backend.jobs] == [2]


def test_what_is_no_connection_is_refused_as_on_postgres(chancy_eager):
    with pytest.raises(InvalidConnection, match="expected one of psycopg"):
        add.submit("not a connection", 1)


def test_a_stand_in_has_the_type_of_a_connection_and_says_what_it_cannot_do(chancy_eager):
    assert isinstance(chancy_eager.conn, psycopg.Connection)
    assert isinstance(chancy_eager.aconn, psycopg.AsyncConnection)
    with pytest.raises(InvalidConnection, match="no 'execute', because there is no database"):
        chancy_eager.conn.execute("SELECT 1")
    with pytest.raises(InvalidConnection, match="no 'cursor'"):
        chancy_eager.conn.cursor()
    with chancy_eager.conn as conn:
        conn.commit()
        conn.rollback()


def test_a_stand_in_is_of_no_use_after_its_block():
    with eager() as backend:
        conn = backend.conn
    with pytest.raises(InvalidConnection, match="stand-in"):
        add.submit(conn, 1)


def test_what_is_submitted_in_a_block_runs_at_its_end_and_not_after_a_rollback(chancy_eager):
    conn = chancy_eager.conn
    with conn.transaction():
        add.submit(conn, 1)
        with pytest.raises(KeyError), conn.transaction():
            add.submit(conn, 2)
            raise KeyError
        assert noted == []
    assert [job.arguments["a"] for job in chancy_eager.jobs] == [1]
    with pytest.raises(KeyError), conn.transaction():
        add.submit(conn, 3)
        raise KeyError
    assert (len(noted), len(chancy_eager.jobs)) == (1, 1)


def test_a_block_that_is_always_rolled_back_leaves_no_job(chancy_eager):
    with chancy_eager.conn.transaction(force_rollback=True):
        add.submit(chancy_eager.conn, 1)

    async def the_same():
        async with chancy_eager.aconn.transaction(None, True):
            await add.submit(chancy_eager.aconn, 1)

    asyncio.run(the_same())
    assert (noted, chancy_eager.jobs) == ([], [])


def test_threads_of_the_code_under_test_are_in_memory_too(chancy_eager):
    thread = threading.Thread(target=lambda: add.submit(chancy_eager.conn, 1))
    thread.start()
    thread.join()
    assert [job.result for job in chancy_eager.jobs] == [2]


def test_limits_and_executors_that_are_not_there_are_reported(chancy_eager):
    heavy.submit(chancy_eager.conn)
    elsewhere.submit(chancy_eager.conn)
    assert chancy_eager.not_enforced == {
        heavy.name: ("memory limit of 67,108,864 bytes",),
        elsewhere.name: ('executor="process"',),
    }


def test_pytests_own_outcomes_pass_through_a_handler(chancy_eager):
    @task
    def gives_up() -> None:
        pytest.fail("the test says so")

    with pytest.raises(pytest.fail.Exception, match="the test says so"):
        gives_up.submit(chancy_eager.conn)


def test_a_handler_that_waits_for_a_job_of_its_own_gets_its_result(chancy_eager):
    @task
    def outer() -> int:
        return add.submit(chancy_eager.conn, 40).result(chancy_eager.conn) + 1

    assert outer.submit(chancy_eager.conn).result(chancy_eager.conn) == 42


def test_the_errors_of_a_handlers_own_jobs_do_not_reach_the_handler(chancy_eager):
    @task
    def outer() -> str:
        broken.submit(chancy_eager.conn)
        return "untouched"

    with pytest.raises(ZeroDivisionError):
        outer.submit(chancy_eager.conn)
    assert [job.state for job in chancy_eager.jobs] == [State.SUCCEEDED, State.FAILED]


def test_a_wrong_mode_is_refused():
    with pytest.raises(ValueError, match='"run" or "collect"'), eager("later"):
        pass


@task(
    limits=[Limit.concurrency(2), Limit.rate(5, per=timedelta(seconds=1), key=lambda who: who)], group=lambda who: who
)
def shared(who: str) -> str:
    return who


def test_limits_over_all_workers_and_turns_are_reported_and_the_jobs_run(chancy_eager):
    for _ in range(9):
        shared.submit(chancy_eager.conn, "ann")
    assert [job.result for job in chancy_eager.jobs] == ["ann"] * 9
    assert chancy_eager.not_enforced == {
        shared.name: (
            f"concurrency({shared.name}) at 2",
            f"rate/1s({shared.name} who=ann) at 5",
            "the turn of its group",
        )
    }


@task
def tell(counts: BatchCounts) -> None:
    noted.append(counts)


def test_a_batch_is_performed_at_the_end_of_its_block_and_then_its_callbacks(chancy_eager):
    with chancy.batch(chancy_eager.conn, on_success=tell, on_finished=tell) as batch:
        batch.submit_many([flaky.bind(0), flaky.bind(1)])
        assert noted == []
        assert batch.id == 1
    assert noted == [1, 1, 2, BatchCounts(batch.id, 2, 2), BatchCounts(batch.id, 2, 2)]
    assert batch.progress(chancy_eager.conn).succeeded == 2


async def test_an_async_batch_tells_of_a_failure_when_it_raises_it(chancy_eager):
    with pytest.raises(ZeroDivisionError, match="in the handler"):
        async with chancy.batch(chancy_eager.aconn, on_success=tell, on_finished=tell) as batch:
            await batch.submit_many([broken.bind(), flaky.bind(0)])
    assert noted == [1, BatchCounts(1, 2, 1, 1)]


@pytest.mark.chancy_eager(mode="collect")
def test_a_batch_that_is_only_collected_ends_with_its_last_job_and_collects_its_callback(chancy_eager):
    with chancy.batch(chancy_eager.conn, on_finished=tell) as batch:
        jobs = batch.submit_many([flaky.bind(0), flaky.bind(0)])
    for job in jobs:
        assert [seen.task for seen in chancy_eager.jobs] == [flaky.name] * 2
        chancy_eager.perform(job)
    assert noted == [1, 1]
    assert [(seen.task, seen.state) for seen in chancy_eager.jobs][2:] == [(tell.name, State.READY)]


@task
def counted(number: int) -> None: ...


@task
def told_of(counts: BatchCounts) -> None: ...


def test_a_deleted_job_is_no_member_of_its_batch_any_more(chancy_eager):
    with eager("collect") as backend:
        with chancy.batch(backend.conn, on_finished=told_of) as made:
            one, two = made.submit_many([counted.bind(1), counted.bind(2)])
        assert chancy_ops.delete(backend.conn, two.id) is True
        assert len(chancy.jobs(backend.conn)) == 1
        progress = chancy.batch_progress(backend.conn, made.id)
        assert (progress.total, progress.waiting) == (2, 1)
        backend.perform(one)
        assert chancy.batch_progress(backend.conn, made.id).finished_at is not None
        assert [job.task for job in backend.jobs] == [counted.name, told_of.name]


def test_the_time_of_a_key_goes_on_when_its_job_is_deleted(chancy_eager):
    with eager("collect") as backend:
        unique = counted.using(unique=Unique(key="k", within=timedelta(hours=1)))
        first = unique.submit(backend.conn, 1)
        assert chancy_ops.delete(backend.conn, first.id) is True
        again = unique.submit(backend.conn, 1)
        assert (again.id, again.outcome) == (first.id, "existing")


def test_a_verb_that_has_no_answer_in_memory_is_refused_in_one_sentence(chancy_eager):
    for verb in (chancy_ops.queues, chancy_ops.workers, chancy_ops.doctor, lambda conn: chancy_ops.pause(conn, "q")):
        with pytest.raises(NotImplementedError) as caught:
            verb(chancy_eager.conn)
        assert len(str(caught.value)) < 250
        assert "chancy_conn" in str(caught.value)
