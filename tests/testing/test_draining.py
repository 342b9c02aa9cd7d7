"""Performing what is due, inside the test's own transaction or outside of one."""

from __future__ import annotations

import inspect
from datetime import timedelta

import psycopg
import pytest

import chancy
from chancy import BatchCounts, Discard, Limit, Retry, Snooze, State, current_job, submit_many, task
from chancy_testing import drain

noted = []
test_conn = []


@pytest.fixture(params=["sync", "async"])
def conn(request):
    noted.clear()
    conn = request.getfixturevalue("chancy_conn" if request.param == "sync" else "chancy_aconn")
    test_conn[:] = [conn]
    return conn


async def now(value):
    return await value if inspect.isawaitable(value) else value


@task
def note(value: str) -> str:
    noted.append(value)
    return value


@task
async def note_async(value: str) -> str:
    noted.append(value)
    return value


@task(max_attempts=3)
def flaky() -> int:
    noted.append(current_job().attempt)
    if current_job().attempt < 3:
        raise Retry(timedelta(hours=1))
    return 3


@task(max_attempts=1)
def broken() -> None:
    raise ZeroDivisionError("in the handler")


@task
def discarding() -> None:
    raise Discard("no use")


@task
def snoozing() -> None:
    noted.append("looked")
    raise Snooze(timedelta(minutes=1))


@task(max_attempts=1)
def breaks_the_transaction() -> None:
    test_conn[0].execute("SELECT 1/0")


@task(max_attempts=1)
async def breaks_the_transaction_async() -> None:
    await test_conn[0].execute("SELECT 1/0")


async def test_uncommitted_jobs_are_performed_inside_the_tests_transaction(conn, chancy_dsn, chancy_schema):
    job = await now(note.submit(conn, "mine"))
    done = await now(drain(conn))
    assert (done.succeeded, done.attempts, done.errors, noted) == (1, 1, [], ["mine"])
    assert (await now(job.refresh(conn))).state is State.SUCCEEDED
    with psycopg.connect(chancy_dsn) as other:
        assert chancy.jobs(other) == []
    await now(conn.rollback())
    with pytest.raises(chancy.UnknownJob):
        await now(job.refresh(conn))


async def test_on_an_idle_connection_everything_is_committed(conn, chancy_dsn):
    job = await now(note_async.submit(conn, "for all"))
    await now(conn.commit())
    await now(drain(conn))
    assert conn.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    with psycopg.connect(chancy_dsn) as other:
        assert job.result(other) == "for all"
        assert other.execute(f'SELECT count(*) FROM "{job.schema}".worker').fetchone() == (0,)


async def test_each_outcome_is_counted_and_each_error_kept(conn):
    for each in (note.bind("x"), flaky.bind(), broken.bind(), discarding.bind(), snoozing.bind()):
        await now(chancy.submit_many(conn, [each]))
    done = await now(drain(conn))
    assert (done.succeeded, done.retried, done.failed, done.discarded, done.snoozed) == (1, 1, 1, 1, 1)
    assert [(error.task, type(error.error)) for error in done.errors] == [
        (flaky.name, Retry), (broken.name, ZeroDivisionError), (discarding.name, Discard), (snoozing.name, Snooze),
    ]  # fmt: skip


async def test_what_is_scheduled_waits_unless_it_is_asked_for(conn):
    job = await now(flaky.using(delay=timedelta(days=3)).submit(conn))
    assert (await now(drain(conn))).attempts == 0
    done = await now(drain(conn, with_scheduled=True))
    assert (done.retried, done.succeeded, noted) == (2, 1, [1, 2, 3])
    assert (await now(job.refresh(conn))).state is State.SUCCEEDED


async def test_a_limit_ends_a_job_that_would_snooze_for_ever(conn):
    await now(snoozing.submit(conn))
    assert (await now(drain(conn, with_scheduled=True, limit=7))).snoozed == 7
    assert noted == ["looked"] * 7


async def test_jobs_run_by_priority_then_by_age(conn):
    await now(note.using(priority=1).submit(conn, "second"))
    await now(note.using(priority=-1, queue="b").submit(conn, "last"))
    await now(note.using(priority=9, queue="c").submit(conn, "first"))
    await now(note.using(priority=1, queue="b").submit(conn, "third"))
    await now(drain(conn))
    assert noted == ["first", "second", "third", "last"]


async def test_an_error_of_the_database_in_a_handler_leaves_the_tests_transaction_usable(conn):
    function = breaks_the_transaction if isinstance(conn, psycopg.Connection) else breaks_the_transaction_async
    before = await now(note.submit(conn, "before"))
    job = await now(function.submit(conn))
    done = await now(drain(conn))
    assert (done.failed, type(done.errors[0].error)) == (1, psycopg.errors.DivisionByZero)
    assert (await now(job.refresh(conn))).state is State.FAILED
    assert (await now(before.refresh(conn))).state is State.SUCCEEDED


async def test_jobs_of_unknown_tasks_and_jobs_that_others_have_locked_are_left_alone(conn, chancy_dsn, chancy_schema):
    with psycopg.connect(chancy_dsn) as other:
        other.execute(f"SELECT \"{chancy_schema}\".submit('nobody.knows')")
        locked = note.submit(other, "locked")
        other.commit()
        other.execute(f'SELECT FROM "{chancy_schema}".job WHERE id = %s FOR UPDATE', (locked.id,))
        await now(note.submit(conn, "mine"))
        done = await now(drain(conn))
    assert (done.attempts, noted) == (1, ["mine"])


def test_a_worker_beside_it_takes_what_is_committed_and_each_job_runs_once(chancy_conn, chancy_worker):
    noted.clear()
    jobs = chancy.submit_many(chancy_conn, [note.bind(str(number)) for number in range(200)])
    chancy_conn.commit()
    drain(chancy_conn)
    for job in jobs:
        job.result(chancy_conn, timeout=timedelta(seconds=20))
    assert sorted(noted, key=int) == [str(number) for number in range(200)]


@task(name="test_draining.two_a_minute", limits=[Limit.rate(2, per=timedelta(minutes=1))])
def two_a_minute(number: int) -> int:
    return number


@task(name="test_draining.in_turn", group=lambda tenant: tenant, limits=[Limit.concurrency(1)])
def in_turn(tenant: str, number: int) -> None:
    turns.append(f"{tenant}{number}")


turns: list[str] = []


def test_a_rate_is_kept_and_opens_with_the_clock(chancy_conn, chancy_clock):
    submit_many(chancy_conn, [two_a_minute.bind(n) for n in range(5)])
    assert drain(chancy_conn).succeeded == 2
    chancy_clock.move(timedelta(seconds=59))
    assert drain(chancy_conn).succeeded == 0
    chancy_clock.move(timedelta(seconds=1.05))
    assert drain(chancy_conn).succeeded == 2


def test_groups_take_turns_and_one_at_a_time_is_no_obstacle(chancy_conn):
    turns.clear()
    submit_many(chancy_conn, [in_turn.bind(tenant, n) for tenant in "ab" for n in range(3)])
    assert drain(chancy_conn).succeeded == 6
    assert turns == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_scheduled_job_with_a_limit_is_drained_when_asked_for(chancy_conn):
    in_turn.using(delay=timedelta(days=1)).submit(chancy_conn, "x", 1)
    assert drain(chancy_conn).attempts == 0
    assert drain(chancy_conn, with_scheduled=True).succeeded == 1


@task
def tell(counts: BatchCounts) -> None:
    noted.append(counts)


async def test_the_end_of_a_batch_that_is_not_committed_is_performed_too(conn):
    manager = chancy.batch(conn, on_success=tell, on_finished=tell)
    if hasattr(manager, "__aenter__"):
        async with manager as batch:
            await batch.submit_many([note.bind("a"), note.bind("b")])
    else:
        with manager as batch:
            batch.submit_many([note.bind("a"), note.bind("b")])
    assert (await now(drain(conn, limit=2))).attempts == 2
    assert (await now(batch.progress(conn))).finished_at is not None
    assert (await now(drain(conn))).succeeded == 2
    assert noted == ["a", "b", BatchCounts(batch.id, 2, 2), BatchCounts(batch.id, 2, 2)]


async def test_the_end_of_a_batch_whose_last_job_was_cancelled_is_found(conn):
    job = await now(note.submit(conn, "before"))
    manager = chancy.batch(conn, on_finished=tell)
    if hasattr(manager, "__aenter__"):
        async with manager as batch:
            job = await batch.submit(note.bind("a"))
    else:
        with manager as batch:
            job = batch.submit(note.bind("a"))
    await now(chancy.cancel(conn, job.id))
    assert (await now(drain(conn))).succeeded == 2
    assert noted == ["before", BatchCounts(batch.id, 1, cancelled=1)]


@task
def rests() -> str:
    job = current_job()
    with psycopg.connect(dsn[0], autocommit=True) as own:
        job.sleep(own, "settle", timedelta(days=3))
        try:
            return job.wait(own, "word", str, timeout=timedelta(days=3))
        except TimeoutError:
            return job.wait(own, "last word", str)


dsn = [""]


def test_with_scheduled_sleeps_are_over_and_waits_that_have_an_end_and_no_others(chancy_dsn, chancy_schema):
    dsn[:] = [chancy_dsn]
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        job = rests.submit(conn)
        assert drain(conn).snoozed == drain(conn).attempts + 1 == 1
        assert drain(conn, with_scheduled=True).snoozed == 2  # it waits for the word, and for the last one
        assert job.refresh(conn).state is State.SCHEDULED
        assert drain(conn, with_scheduled=True).attempts == 0
        assert chancy.signal(conn, job.id, "last word", "well")
        assert drain(conn).succeeded == 1
        assert job.result(conn) == "well"
