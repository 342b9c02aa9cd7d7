"""A schema's time, and what may go wrong on order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

import chancy
from chancy import Backoff, State, current_job, task
from chancy_testing import drain

noted = []


@pytest.fixture(autouse=True)
def _fresh():
    noted.clear()


@task(max_attempts=6, retry=Backoff(base=timedelta(hours=1), factor=2, maximum=timedelta(days=1), jitter=0))
def five_times() -> int:
    noted.append(current_job().attempt)
    if current_job().attempt <= 5:
        raise RuntimeError("not yet")
    return current_job().attempt


@task(max_attempts=3)
def note(value: str = "x") -> str:
    noted.append((value, current_job().attempt))
    return value


@task(max_attempts=1)
def once() -> None:
    noted.append("once")


@pytest.mark.parametrize("committed", [True, False])
def test_a_job_walks_through_five_retries_over_two_days(chancy_conn, chancy_clock, committed):
    began = chancy_clock.now()
    job = five_times.submit(chancy_conn)
    for hours in (1, 2, 4, 8, 16):
        if committed:
            chancy_conn.commit()
        assert drain(chancy_conn).retried == 1
        chancy_clock.move(timedelta(hours=hours) - timedelta(seconds=30))
        assert drain(chancy_conn).attempts == 0
        chancy_clock.move(timedelta(seconds=31))
    assert drain(chancy_conn).succeeded == 1
    row = job.refresh(chancy_conn)
    assert (row.state, row.attempt, noted) == (State.SUCCEEDED, 6, [1, 2, 3, 4, 5, 6])
    assert timedelta(hours=31) < row.finished_at - began < timedelta(hours=32)


def test_a_clock_that_is_set_stands_still_and_makes_due_what_is_due_then(chancy_conn, chancy_clock):
    at = datetime(2031, 2, 28, 23, 59, 59, tzinfo=UTC)
    job = note.using(run_at=at).submit(chancy_conn)
    chancy_clock.set(at - timedelta(microseconds=1))
    assert drain(chancy_conn).attempts == 0
    chancy_clock.set(at)
    assert chancy_clock.now() == at == chancy_clock.now()
    assert drain(chancy_conn).succeeded == 1
    assert job.refresh(chancy_conn).finished_at == at
    chancy_clock.move(timedelta(seconds=2))
    assert chancy_clock.now() == datetime(2031, 3, 1, 0, 0, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="time zone"):
        chancy_clock.set(datetime(2031, 1, 1))  # noqa: DTZ001


def test_a_worker_performs_what_has_come_due_by_the_new_time(chancy_conn, chancy_clock, chancy_worker):
    job = note.using(delay=timedelta(days=3)).submit(chancy_conn, "later")
    chancy_conn.commit()
    chancy_clock.move(timedelta(days=3, seconds=1))
    assert job.result(chancy_conn, timeout=timedelta(seconds=20)) == "later"


def test_the_job_of_a_dead_worker_runs_again(chancy_conn, chancy_faults):
    job = note.submit(chancy_conn)
    chancy_faults.die_before_completion()
    done = drain(chancy_conn)
    assert (done.died, done.succeeded, noted) == (1, 1, [("x", 1), ("x", 2)])
    row = job.refresh(chancy_conn)
    assert (row.state, row.attempt, row.crashes, row.errors[0].kind) == (State.SUCCEEDED, 2, 1, "WorkerDied")


def test_a_fault_that_is_ordered_for_a_task_leaves_the_others_alone(chancy_conn, chancy_faults):
    noted_first, died = note.submit(chancy_conn), once.submit(chancy_conn)
    chancy_faults.die_before_completion(task=once)
    assert drain(chancy_conn).died == 1
    assert noted_first.refresh(chancy_conn).crashes == 0
    assert died.refresh(chancy_conn).crashes == 1


def test_a_job_without_another_attempt_has_failed_with_its_worker(chancy_conn, chancy_faults):
    job = once.submit(chancy_conn)
    chancy_faults.die_before_completion()
    assert drain(chancy_conn).died == 1
    assert (job.refresh(chancy_conn).state, noted) == (State.FAILED, ["once"])


async def test_a_late_verdict_changes_nothing(chancy_aconn, chancy_faults):
    job = await note.submit(chancy_aconn)
    chancy_faults.complete_late()
    done = await drain(chancy_aconn)
    assert (done.late, done.succeeded, noted) == (1, 1, [("x", 1), ("x", 2)])
    assert (await job.refresh(chancy_aconn)).crashes == 1


def test_a_late_verdict_of_a_job_that_has_failed_meanwhile_changes_nothing(chancy_conn, chancy_faults):
    job = once.submit(chancy_conn)
    chancy_faults.complete_late()
    assert drain(chancy_conn).late == 1
    assert job.refresh(chancy_conn).state is State.FAILED


def test_each_function_is_called_twice(chancy_conn, chancy_faults, chancy_drain):
    note.submit(chancy_conn)
    chancy_faults.run_twice()
    assert chancy_drain(chancy_conn).succeeded == 1
    assert noted == [("x", 1), ("x", 1)]


def test_what_was_ordered_and_did_not_come_is_forgotten(chancy_conn):
    note.submit(chancy_conn)
    assert drain(chancy_conn).succeeded == 1
    assert noted == [("x", 1)]


def test_the_nth_statement_fails_and_the_transaction_with_it(chancy_conn, chancy_faults):
    chancy_faults.fail_statement(2)
    note.submit(chancy_conn)
    with pytest.raises(psycopg.errors.QueryCanceled):
        note.submit(chancy_conn)
    assert chancy_conn.info.transaction_status is psycopg.pq.TransactionStatus.INERROR
    chancy_conn.rollback()
    assert chancy.jobs(chancy_conn) == []


async def test_the_error_may_be_chosen(chancy_aconn, chancy_faults):
    chancy_faults.fail_statement(error=psycopg.errors.SerializationFailure)
    with pytest.raises(psycopg.errors.SerializationFailure):
        await note.submit(chancy_aconn)
    with pytest.raises(ValueError, match="SQLSTATE"):
        chancy_faults.fail_statement(error=psycopg.OperationalError)


def test_the_connection_is_lost_and_with_it_what_was_not_committed(chancy_conn, chancy_dsn, chancy_faults):
    note.submit(chancy_conn)
    chancy_faults.drop_connection()
    with pytest.raises(psycopg.OperationalError):
        note.submit(chancy_conn)
    assert chancy_conn.closed
    with psycopg.connect(chancy_dsn) as other:
        assert chancy.jobs(other) == []


def test_without_wakeups_a_worker_finds_the_job_when_it_looks(chancy_conn, chancy_faults, chancy_worker):
    chancy_faults.lose_wakeups()
    job = note.submit(chancy_conn)
    chancy_conn.commit()
    assert job.result(chancy_conn, timeout=timedelta(seconds=15)) == "x"


def test_the_bells_ring_again_afterwards(chancy_conn, chancy_dsn, chancy_schema):
    from chancy_testing.faults import Faults

    bodies = f"SELECT prosrc FROM pg_proc WHERE pronamespace = '{chancy_schema}'::regnamespace ORDER BY oid"
    before = chancy_conn.execute(bodies).fetchall()
    chancy_conn.commit()
    with Faults(chancy_dsn, chancy_schema).active() as faults:
        faults.lose_wakeups()
        assert chancy_conn.execute(bodies).fetchall() != before
        chancy_conn.commit()
    assert chancy_conn.execute(bodies).fetchall() == before
