"""How long finished jobs are kept: what may be said, where it is stored, and a database that had jobs before."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import psycopg
import pytest

import chancy
import chancy_ops
from chancy import Discard, Keep, Queue, Snooze, UnknownJob, current_job, days, task
from chancy.run import send
from chancy.statements import complete_job

RULES = "SELECT queue, what, days FROM {}.retention ORDER BY 1, 2"
WHERE = "SELECT tableoid::regclass::text, id FROM {}.history ORDER BY id"


@task
def count(number: int = 0) -> int:
    return number


@pytest.mark.parametrize(
    "times",
    [
        {"succeeded": timedelta(hours=36)},
        {"failed": timedelta(seconds=1)},
        {"discarded": days(-1)},
        {"cancelled": days(3651)},
        {"results": timedelta(hours=1)},
    ],
)
def test_a_retention_that_is_no_whole_days_is_refused_and_named(times):
    with pytest.raises(ValueError, match=f"{next(iter(times))}: .*whole days"):
        Keep(**times)


def test_results_are_not_kept_longer_than_their_jobs():
    with pytest.raises(ValueError, match="longer than the jobs"):
        Keep(succeeded=days(1), results=days(2))
    assert Keep(succeeded=days(2), results=days(2)).rules == {"succeeded": 2, "results": 2}


def test_what_is_not_said_has_no_rule():
    assert Keep().rules == {}
    assert Keep(failed=days(0)).rules == {"failed": 0}
    assert set(Keep.nothing().rules.items()) == {
        (what, 0) for what in ("succeeded", "failed", "discarded", "cancelled")
    }
    assert Queue("mail", keep=Keep(failed=days(30))).keep == Keep(failed=days(30))


async def test_the_rules_of_a_queue_are_set_replaced_and_lifted_whole(caller, database):
    conn = await caller.connect(autocommit=True)
    await caller.now(chancy_ops.keep(conn, "mail", Keep(succeeded=days(1), failed=days(30), results=days(0))))
    await caller.now(chancy_ops.keep(conn, "other", Keep.nothing()))
    await caller.now(chancy_ops.keep(conn, "mail", Keep(succeeded=days(2), discarded=days(3650))))
    others = [("other", what, 0) for what in ("cancelled", "discarded", "failed", "succeeded")]
    assert database.rows(RULES) == [("mail", "discarded", 3650), ("mail", "succeeded", 2), *others]
    await caller.now(chancy_ops.keep(conn, "mail", None))
    assert database.rows(RULES) == others
    await caller.now(chancy_ops.keep(conn, "other", Keep()))
    assert database.rows(RULES) == []


def test_nobody_sees_a_rule_without_the_days_that_it_needs(database):
    conn = database.connect()
    chancy_ops.keep(conn, "mail", Keep(cancelled=days(30)))
    job = count.using(queue="mail").submit(conn)
    assert job.cancel(conn) is True
    assert database.rows(RULES) == []
    conn.commit()
    made = (
        "SELECT count(*) FROM pg_class WHERE relnamespace = %s::regnamespace AND relname ~ '^history_30d_[0-9]{{8}}$'"
    )
    assert database.rows(made, database.schema) == [(8,)]
    assert [name.split(".")[1][:12] for name, _ in database.rows(WHERE)] == ["history_30d_"]


def test_rules_that_are_as_given_wait_for_nobody(database):
    keep = Keep(succeeded=days(5))
    chancy_ops.keep(database.conn, "mail", keep)
    with database.connect() as conn:
        conn.execute(f"SELECT pg_advisory_xact_lock('\"{database.schema}\"'::regnamespace::oid::integer, 0)")
        chancy_ops.keep(database.conn, "mail", keep)
        chancy_ops.keep(database.conn, "unknown", None)


DAY = (
    "SELECT relname FROM pg_class WHERE relnamespace = %s::text::regnamespace AND relname ~ '^history(_3d)?_[0-9]{8}$'"
)
WAITS = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"


def waits_for_a_lock(database, conn, within=20):
    deadline = time.monotonic() + within
    while not database.conn.execute(WAITS, [conn.info.backend_pid]).fetchall():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
@pytest.mark.parametrize("part", ["day", "class"])
def test_of_two_who_make_the_same_part_of_history_one_makes_it_and_the_other_finds_it(database, part, level):
    one, other = database.connect(), database.connect(autocommit=True)
    other.execute(f"SET default_transaction_isolation = '{level}'")
    first, second = count.submit(database.conn), count.submit(database.conn)
    chancy_ops.keep(database.conn, "default", Keep(cancelled=days(3)))
    for (name,) in database.conn.execute(DAY, [database.schema]).fetchall():
        database.conn.execute(f'DROP TABLE "{database.schema}".{name}')
    if part == "class":
        database.conn.execute(f'DROP TABLE "{database.schema}".history_3d')
    # It has looked for them before, and remembers that they are not there.
    names = database.conn.execute("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')").fetchone()
    for name in ("history_3d", f"history_3d_{names[0]}", f"history_{names[0]}"):
        other.execute("SELECT to_regclass(%s)", [f'"{database.schema}".{name}'])
    assert chancy.cancel(one, first.id) is True
    cancelled = []
    thread = threading.Thread(target=lambda: cancelled.append(chancy.cancel(other, second.id)))
    thread.start()
    waits_for_a_lock(database, other)
    one.commit()
    thread.join(20)
    assert cancelled == [True]
    assert len(database.rows("SELECT id FROM {}.history")) == 2


async def test_a_cancelled_job_of_a_queue_that_keeps_none_is_gone(caller, database):
    conn = await caller.connect(autocommit=True)
    await caller.now(chancy_ops.keep(conn, "brief", Keep(cancelled=days(0))))
    job = await caller.now(count.using(queue="brief").submit(conn))
    assert await caller.now(job.cancel(conn)) is True
    with pytest.raises(UnknownJob, match="its queue keeps none"):
        await caller.now(job.result(conn))
    with pytest.raises(UnknownJob):
        await caller.now(job.cancel(conn))
    with pytest.raises(UnknownJob):
        await caller.now(chancy.requeue(conn, job.id))


@task(max_attempts=1)
def end_as(how: str) -> int:
    match how:
        case "failed":
            raise ValueError(how)
        case "discarded":
            raise Discard(how)
        case "cancelled":
            with psycopg.connect(current_dsn[0], autocommit=True) as conn:
                chancy.cancel(conn, current_job().id)
            raise Snooze(days(1))
    return 1


current_dsn: list[str] = []


def test_a_drain_counts_what_leaves_no_row(chancy_conn, chancy_drain, chancy_dsn):
    current_dsn[:] = [chancy_dsn]
    chancy_ops.keep(chancy_conn, "default", Keep.nothing())
    chancy_conn.commit()
    for how in ("succeeded", "failed", "discarded", "cancelled"):
        end_as.submit(chancy_conn, how)
    chancy_conn.commit()
    drained = chancy_drain(chancy_conn)
    assert (drained.succeeded, drained.failed, drained.discarded, drained.cancelled) == (1, 1, 1, 1)
    assert chancy.jobs(chancy_conn) == []


def test_in_memory_nothing_is_dropped(chancy_eager):
    chancy_ops.keep(chancy_eager.conn, "default", Keep.nothing())
    assert count.submit(chancy_eager.conn, 5).result(chancy_eager.conn) == 5


def test_a_completion_of_the_handlers_own_is_kept_as_long_as_any(database):
    chancy_ops.keep(database.conn, "default", Keep(succeeded=days(4), results=days(1)))
    job = count.submit(database.conn)
    database.rows("UPDATE {}.job SET state = 'running', worker = 1, claims = 1, attempt = 1 RETURNING 1")
    with database.conn.transaction():
        assert send(database.conn, complete_job(job.id, 1, 1, b"7"), database.schema)
    assert job.result(database.conn) == 7
    assert [name.split(".")[1][:11] for name, _ in database.rows(WHERE)] == ["history_4d_"]
    assert database.rows("SELECT id, keep_days FROM {}.history_result") == [(job.id, 1)]
    assert chancy.requeue(database.conn, job.id)
    assert database.rows("SELECT id FROM {}.history_result") == []
