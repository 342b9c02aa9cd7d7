"""Unique jobs: one live job a key, one submit within a time, and every submitter is told the truth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

import chancy
from chancy import (
    Discard,
    DuplicateJob,
    InvalidArguments,
    InvalidTask,
    Limit,
    NotCommitted,
    SubmitOutcome,
    Unique,
    submit_many,
    task,
)
from chancy.keys.statements import submit_unique
from chancy.run import send
from chancy_testing import assert_submitted, drain, eager
from chancy_worker.parts.retention import sweep_windows

HOUR = timedelta(hours=1)
INSERTED, EXISTING, REPLACED = SubmitOutcome.INSERTED, SubmitOutcome.EXISTING, SubmitOutcome.REPLACED


@task(unique=Unique(key=lambda order: order))
def ship(order: str, note: str = "") -> str:
    return note


@task(unique=Unique())
def exact(numbers: set[str], table: dict[str, float], more: int = 0) -> None: ...


@task(unique=Unique(key=lambda page: page, until="started", on_conflict="replace"))
def render(page: int, text: str = "") -> str:
    return text


@task(unique=Unique(key=lambda order: order, on_conflict="raise"))
def strict(order: str) -> None: ...


@task(max_attempts=2, unique=Unique(key=lambda user: user, within=HOUR))
def digest(user: str, then: str = "return", n: int = 0) -> int:
    if then == "fail":
        raise ValueError("not today")
    if then == "discard":
        raise Discard("never")
    return n


def rows(database, query="SELECT id, unique_key FROM {}.job ORDER BY id"):
    return database.rows(query)


# Keys.


def test_the_key_is_what_its_function_makes_of_the_tasks_arguments(database):
    job = ship.submit(database.conn, "A-7", note="x")
    assert job.outcome == "inserted"
    assert job.refresh(database.conn).unique_key == "A-7"


def test_without_a_function_the_key_is_all_arguments_whatever_their_order(database):
    names = [f"name {n}" for n in range(20)]
    first = exact.submit(database.conn, set(names), {"a": 1, "b": 2})
    again = exact.submit(database.conn, set(names), {"b": 2.0, "a": 1.0}, more=0)
    other = exact.submit(database.conn, set(names), {"a": 1, "b": 3})
    assert (again.id, again.outcome, other.outcome) == (first.id, EXISTING, INSERTED)


@pytest.mark.long
def test_of_all_arguments_the_key_is_the_same_in_each_process():
    code = (
        "import test_unique as t; print(t.exact.bind({f'name {n}' for n in range(20)}, {'b': 2, 'a': 1}).unique.text)"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert len(texts) == 1


def test_a_long_key_is_kept_by_its_digest(database):
    long = "ž" * 10_000
    first = ship.submit(database.conn, long)
    assert ship.submit(database.conn, long).id == first.id
    assert ship.submit(database.conn, long + "!").outcome is INSERTED
    assert len(first.refresh(database.conn).unique_key.encode()) <= 400


def test_a_key_arrives_whole_on_a_connection_of_another_encoding(database):
    latin = database.connect(autocommit=True, client_encoding="latin1")
    first = ship.submit(latin, "ž\U0001f600")
    assert ship.submit(database.conn, "ž\U0001f600").id == first.id
    assert chancy.get(latin, first.id).unique_key == "ž\U0001f600"


def test_the_same_key_of_another_task_is_another_key(database):
    assert ship.submit(database.conn, "A").id != strict.submit(database.conn, "A").id


def test_a_key_function_may_take_only_arguments_of_the_task():
    with pytest.raises(InvalidTask, match="unique takes 'colour', which is no argument"):

        @task(unique=Unique(key=lambda colour: colour))
        def wrong(order: int) -> None: ...


def test_a_key_function_that_fails_is_told_at_the_submit():
    @task(unique=Unique(key=lambda order: 1 // order))
    def fragile(order: int) -> None: ...

    with eager(), pytest.raises(InvalidArguments, match=r"unique.*its key function failed: ZeroDivisionError"):
        fragile.bind(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"until": "claimed"},
        {"on_conflict": "ignore"},
        {"within": "60"},
        {"within": float("nan")},
        {"within": True},
        {"within": timedelta(0)},
        {"within": timedelta(days=367)},
        {"key": 7},
        {"key": "a\0"},
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused_at_once(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Unique(**wrong)


@pytest.mark.parametrize("wrong", [True, "order", lambda order: order], ids=["True", "text", "function"])
def test_what_is_no_unique_is_refused(wrong):
    with pytest.raises(InvalidTask, match="unique: expected a Unique"):

        @task(unique=wrong)
        def refused(order: int) -> None: ...

    with pytest.raises(InvalidArguments, match="expected a Unique or None"):
        ship.using(unique=wrong)


def test_using_takes_a_text_and_no_function(database):
    for_one = ship.using(unique=Unique(key="the only one"))
    assert for_one.submit(database.conn, "A").id == for_one.submit(database.conn, "B").id
    with pytest.raises(InvalidArguments, match="a function belongs to @task") as caught:
        ship.using(unique=Unique(key=lambda order: order))
    assert caught.value.argument == "unique"


def test_using_none_submits_it_as_often_as_one_likes(database):
    plain = ship.using(unique=None)
    assert [plain.submit(database.conn, "A").outcome for _ in range(3)] == [INSERTED] * 3
    assert ship.using(priority=1).submit(database.conn, "A").outcome is INSERTED
    assert ship.using(priority=2).submit(database.conn, "A").outcome is EXISTING


# What a second submit does.


async def test_the_second_is_told_which_job_is_there(caller, database):
    one, other = await caller.connect(autocommit=True), await caller.connect(autocommit=True)
    first = await caller.now(ship.using(queue="old").submit(one, "A", note="first"))
    second = await caller.now(ship.submit(other, "A", note="second"))
    assert (second.id, second.outcome, second.queue) == (first.id, EXISTING, "old")
    assert second.transaction is None
    assert (await caller.now(second.refresh(other))).arguments == b'{"order":"A","note":"first"}'
    assert len(database.ids()) == 1


async def test_raise_names_the_job_and_leaves_the_transaction_usable(caller, database):
    conn = await caller.connect()
    first = await caller.now(strict.submit(conn, "A"))
    await caller.now(conn.commit())
    with pytest.raises(
        DuplicateJob, match=rf"'A' of task .*strict belongs to job {first.id}: wait .* or cancel"
    ) as error:
        await caller.now(strict.submit(conn, "A"))
    assert (error.value.task, error.value.key, error.value.job_id) == (strict.name, "A", first.id)
    other = await caller.now(strict.submit(conn, "B"))
    await caller.now(conn.commit())
    assert database.ids() == [first.id, other.id]


async def test_replace_gives_the_waiting_job_what_the_second_submit_brings(caller, database):
    conn = await caller.connect(autocommit=True)
    first = await caller.now(render.using(delay=HOUR, queue="q").submit(conn, 1, "old"))
    before = await caller.now(first.refresh(conn))
    second = await caller.now(
        render.using(priority=5, max_attempts=9, limits=[Limit.time(60)]).submit(conn, 1, text="new")
    )
    after = await caller.now(second.refresh(conn))
    assert (second.id, second.outcome, second.queue) == (first.id, REPLACED, "q")
    assert (after.arguments, after.priority, after.max_attempts) == (b'{"page":1,"text":"new"}', 5, 9)
    assert (after.run_at, after.submitted_at, after.queue) == (before.run_at, before.submitted_at, "q")
    assert database.rows("SELECT limits::text FROM {}.job") == [('[{"type":"time","value":60}]',)]
    assert database.rows("SELECT count(*) FROM {}.job") == [(1,)]


def test_a_replacing_submit_that_names_a_time_moves_the_job_to_it(database):
    conn = database.conn
    at = datetime(2030, 1, 1, tzinfo=UTC)
    render.using(delay=HOUR).submit(conn, 1)
    assert render.using(run_at=at).submit(conn, 1).refresh(conn).run_at == at
    moved = render.using(delay=2 * HOUR).submit(conn, 1).refresh(conn)
    assert timedelta(minutes=119) < moved.run_at - datetime.now(UTC) < timedelta(minutes=121)


def test_a_running_job_is_never_replaced(database):
    held = render.using(unique=Unique(key="page 1", on_conflict="replace"))
    job = held.submit(database.conn, 1, "old")
    database.rows("UPDATE {}.job SET state = 'running', worker = 1, claims = 1, started_at = now() RETURNING 1")
    again = held.submit(database.conn, 1, "new")
    assert (again.id, again.outcome) == (job.id, EXISTING)
    assert again.refresh(database.conn).arguments == b'{"page":1,"text":"old"}'


def test_a_job_that_waits_for_its_retry_is_replaced_and_its_attempts_count(database):
    held = digest.using(unique=Unique(key="k", on_conflict="replace"), retry=chancy.Backoff(base=HOUR))
    job = held.submit(database.conn, "a", then="fail")
    assert drain(database.conn).retried == 1
    again = held.submit(database.conn, "a", n=8)
    assert (again.id, again.outcome) == (job.id, REPLACED)
    assert drain(database.conn, with_scheduled=True).succeeded == 1
    assert (again.result(database.conn), again.refresh(database.conn).attempt) == (8, 2)


def test_a_replaced_job_that_is_due_sooner_wakes_a_worker_and_another_one_does_not(database):
    worker, onlooker = database.connect(autocommit=True), database.connect(autocommit=True)
    render.using(delay=2 * HOUR).submit(database.conn, 1)
    key = database.rows("SELECT {}.bell_key('default')")[0][0]
    onlooker.execute(f'LISTEN "{database.schema}"')
    worker.execute("SELECT pg_advisory_lock(%s::regnamespace::oid::integer, %s)", (f'"{database.schema}"', key))
    render.submit(database.conn, 1, "later all the same")
    render.using(delay=3 * HOUR).submit(database.conn, 1)
    assert list(onlooker.notifies(timeout=0.2)) == []
    render.using(delay=HOUR).submit(database.conn, 1)
    assert [note.payload for note in onlooker.notifies(timeout=5, stop_after=1)] == ["default"]


def test_a_replaced_job_passes_its_new_gates(database):
    narrow = render.using(limits=[Limit.concurrency(1, key="narrow")])
    render.submit(database.conn, 1)
    narrow.submit(database.conn, 1)
    assert database.rows("SELECT parked IS NOT NULL, gates->>'key' = parked FROM {}.job") == [(True, True)]
    render.submit(database.conn, 1)
    assert database.rows("SELECT parked, gates FROM {}.job") == [(None, None)]


# How long a key is held.


def test_until_finished_the_key_is_held_while_the_job_runs_and_free_after_it(database):
    job = ship.submit(database.conn, "A")
    database.rows("UPDATE {}.job SET state = 'running', worker = 1, claims = 1, started_at = now() RETURNING 1")
    assert ship.submit(database.conn, "A").id == job.id
    database.finish(job.id)
    assert ship.submit(database.conn, "A").outcome is INSERTED


def test_until_started_the_key_is_free_from_the_first_claim_on_and_stays_so(database):
    conn = database.conn
    job = render.submit(conn, 1)
    database.rows("UPDATE {}.job SET state = 'running', worker = 1, claims = 1, started_at = now() RETURNING 1")
    second = render.submit(conn, 1)
    assert second.outcome is INSERTED
    # A retry, a release or a rescue of the first: nothing to collide with, and it does not get the key back.
    database.rows("UPDATE {}.job SET state = 'ready', worker = NULL WHERE id = %s RETURNING 1", job.id)
    third = render.submit(conn, 1, "new")
    assert (third.id, third.outcome) == (second.id, REPLACED)
    assert drain(conn).succeeded == 2


def test_a_key_is_free_again_when_its_submit_was_rolled_back(database):
    conn = database.connect()
    digest.submit(conn, "a")
    conn.rollback()
    assert digest.submit(database.conn, "a").outcome is INSERTED


def test_who_meets_an_open_transaction_waits_and_is_told_how_it_ended(database):
    for ending, outcome in (("commit", EXISTING), ("rollback", INSERTED)):
        conn, other, told = database.connect(), database.connect(autocommit=True), []
        first = ship.submit(conn, ending)
        thread = threading.Thread(target=lambda: told.append(ship.submit(other, ending)))  # noqa: B023
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s"
        while database.rows(waits, other.info.backend_pid) != [(1,)]:
            time.sleep(0.005)
        getattr(conn, ending)()
        thread.join(20)
        assert told[0].outcome is outcome
        assert (told[0].id == first.id) is (outcome is EXISTING)


def test_in_a_repeatable_read_transaction_a_key_that_came_since_is_a_serialization_failure(database):
    conn = database.connect()
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    conn.execute("SELECT 1")
    ship.submit(database.conn, "A")
    with pytest.raises(psycopg.errors.SerializationFailure):
        ship.submit(conn, "A")


def test_whoever_waits_for_a_job_of_its_own_transaction_is_told(database):
    conn = database.connect()
    with conn.transaction():
        ship.submit(conn, "A")
    with conn.transaction(), conn.transaction():
        ship.submit(conn, "B")  # in a savepoint
        for key in "AB":
            again = ship.submit(conn, key)
            assert again.outcome is EXISTING
            if key == "B":
                with pytest.raises(NotCommitted, match="commit first"):
                    again.result(conn, timeout=timedelta(seconds=5))
            else:
                with pytest.raises(TimeoutError):
                    again.result(conn, timeout=timedelta(0))


def test_a_handle_that_was_found_says_nothing_of_a_submit(database):
    ship.submit(database.conn, "A")
    assert assert_submitted(database.conn, ship, order="A").outcome is None


# Many.


async def test_many_come_back_in_the_order_given_as_if_submitted_one_by_one(caller, database):
    conn = await caller.connect(autocommit=True)
    there = await caller.now(ship.submit(conn, "C"))
    jobs = [
        ship.bind("D"), ship.using(unique=None).bind("C"), ship.bind("C"), ship.bind("A"), ship.bind("D"),
        render.bind(1, "old"), render.bind(1, "new"), strict.bind("A"),
    ]  # fmt: skip
    made = await caller.now(submit_many(conn, jobs))
    assert [job.outcome.value for job in made] == [
        "inserted", "inserted", "existing", "inserted", "existing", "inserted", "replaced", "inserted",
    ]  # fmt: skip
    assert made[2].id == there.id
    assert (made[4].id, made[6].id) == (made[0].id, made[5].id)
    new = [job.id for job in made if job.outcome is INSERTED]
    assert new == sorted(new)
    assert (await caller.now(made[6].refresh(conn))).arguments == b'{"page":1,"text":"new"}'


async def test_many_of_which_one_raises_are_none(caller, database):
    conn = await caller.connect(autocommit=True)
    there = await caller.now(strict.submit(conn, "C"))
    await caller.now(render.submit(conn, 1, "old"))
    jobs = [strict.bind("A"), render.bind(1, "new"), render.bind(2), digest.bind("a"), strict.bind("C")]
    with pytest.raises(DuplicateJob, match="belongs to job") as error:
        await caller.now(submit_many(conn, jobs))
    assert error.value.job_id == there.id
    assert [key for _, key in rows(database)] == ["C", "1"]
    assert database.rows("SELECT arguments->>'text' FROM {}.job WHERE unique_key = '1'") == [("old",)]
    assert database.rows("SELECT count(*) FROM {}.unique_window") == [(0,)]
    made = await caller.now(submit_many(conn, jobs[:-1]))
    assert [job.outcome for job in made] == [INSERTED, REPLACED, INSERTED, INSERTED]


async def test_two_of_one_call_that_must_not_meet_name_no_job(caller, database):
    conn = await caller.connect()
    with pytest.raises(DuplicateJob, match="is given twice in this call") as error:
        await caller.now(submit_many(conn, [strict.bind("A"), strict.bind("A")]))
    assert error.value.job_id is None
    await caller.now(conn.commit())
    assert database.ids() == []


def test_a_unique_submit_is_one_statement_and_so_are_many_even_where_keys_are_held(database, monkeypatch):
    sent = []
    execute = psycopg.RawCursor.execute
    monkeypatch.setattr(
        psycopg.RawCursor, "execute", lambda self, *args, **options: sent.append(1) or execute(self, *args, **options)
    )
    for _ in range(2):
        ship.submit(database.conn, "A")
        submit_many(database.conn, [ship.bind(str(n)) for n in range(10)])
    assert len(sent) == 4


# Within a time.


def finished(database, job):
    assert drain(database.conn).succeeded == 1


def failed(database, job):
    assert drain(database.conn, with_scheduled=True).failed == 1


def retried(database, job):
    assert drain(database.conn).retried == 1


def discarded(database, job):
    assert drain(database.conn).discarded == 1


def was_cancelled(database, job):
    assert chancy.cancel(database.conn, job.id)


def deleted(database, job):
    database.rows("DELETE FROM {}.job RETURNING 1")


def was_requeued(database, job):
    finished(database, job)
    assert chancy.requeue(database.conn, job.id)


ENDS = {
    finished: "return", failed: "fail", retried: "fail", discarded: "discard", was_cancelled: "return",
    deleted: "return", was_requeued: "return",
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_within_an_hour_there_is_no_second_whatever_became_of_the_first(database, chancy_clock, end):
    # Its retry is due in two hours.
    hourly = digest.using(retry=chancy.Backoff(base=2 * HOUR, maximum=2 * HOUR))
    job = hourly.submit(database.conn, "a", then=ENDS[end])
    end(database, job)
    again = hourly.submit(database.conn, "a")
    assert (again.id, again.outcome) == (job.id, EXISTING)
    assert digest.submit(database.conn, "b").outcome is INSERTED
    chancy_clock.move(timedelta(minutes=59))
    assert hourly.submit(database.conn, "a").id == job.id
    chancy_clock.move(timedelta(minutes=2))
    new = hourly.submit(database.conn, "a")
    held = end in (retried, was_requeued)  # it still has the key
    assert (new.outcome, new.id == job.id) == ((EXISTING, True) if held else (INSERTED, False))
    # And the next hour is the new one's; the other had none.
    chancy_clock.move(timedelta(minutes=58))
    assert hourly.submit(database.conn, "a").id == new.id


def test_a_clock_that_is_moved_back_does_not_end_the_hour(database, chancy_clock):
    job = digest.submit(database.conn, "a")
    chancy_clock.move(-HOUR)
    drain(database.conn, with_scheduled=True)
    assert digest.submit(database.conn, "a").id == job.id


def test_within_the_hour_replace_is_for_a_job_that_waits(database):
    replacing = digest.using(unique=Unique(key="k", within=HOUR, on_conflict="replace"))
    job = replacing.submit(database.conn, "a", n=1)
    assert replacing.submit(database.conn, "a", n=2).outcome is REPLACED
    assert drain(database.conn).succeeded == 1
    again = replacing.submit(database.conn, "a", n=3)
    assert (again.id, again.outcome, again.result(database.conn)) == (job.id, EXISTING, 2)


def test_within_the_hour_raise_names_the_finished_job(database):
    refusing = digest.using(unique=Unique(key="k", within=HOUR, on_conflict="raise"))
    job = refusing.submit(database.conn, "a")
    drain(database.conn)
    with pytest.raises(DuplicateJob) as error:
        refusing.submit(database.conn, "a")
    assert error.value.job_id == job.id


def test_a_submit_that_found_a_live_job_begins_no_hour(database):
    first = ship.submit(database.conn, "A")
    hourly = ship.using(unique=Unique(key="A", within=HOUR))
    assert hourly.submit(database.conn, "A").id == first.id
    drain(database.conn)
    assert hourly.submit(database.conn, "A").outcome is INSERTED


def test_hours_that_are_over_are_swept(database, chancy_clock):
    conn = database.conn
    submit_many(conn, [digest.bind(str(n)) for n in range(1500)])
    assert send(conn, sweep_windows(), database.schema) is False
    assert database.rows("SELECT count(*) FROM {}.unique_window") == [(1500,)]
    chancy_clock.move(2 * HOUR)
    assert send(conn, sweep_windows(), database.schema) is True
    assert send(conn, sweep_windows(), database.schema) is False
    assert database.rows("SELECT count(*) FROM {}.unique_window") == [(0,)]


# A second life.


async def test_a_job_whose_key_is_live_again_is_not_requeued(caller, database):
    conn = await caller.connect()
    old = await caller.now(ship.submit(conn, "A"))
    await caller.now(conn.commit())
    database.finish(old.id)
    database.rows("UPDATE {}.history SET unique_key = 'A', unique_until = 'finished' RETURNING 1")
    new = await caller.now(ship.submit(conn, "A"))
    with pytest.raises(DuplicateJob) as error:
        await caller.now(chancy.requeue(conn, old.id))
    assert (error.value.task, error.value.key, error.value.job_id) == (ship.name, "A", new.id)
    await caller.now(conn.commit())
    assert database.rows("SELECT id FROM {}.history") == [(old.id,)]
    database.finish(new.id)
    assert await caller.now(chancy.requeue(conn, old.id))
    await caller.now(conn.commit())
    assert rows(database) == [(old.id, "A")]


def test_a_key_goes_with_its_job_through_its_end_and_its_second_life(database):
    conn = database.conn
    job = ship.submit(conn, "A")
    drain(conn)
    assert job.refresh(conn).unique_key == "A"
    assert chancy.requeue(conn, job.id)
    assert ship.submit(conn, "A").id == job.id
    assert chancy.cancel(conn, job.id)
    assert job.refresh(conn).unique_key == "A"


# Other languages.


def test_the_sql_function_takes_a_key_and_returns_the_job_that_has_it(database):
    submit = 'SELECT {}.submit(%s, \'{{"order": "A"}}\', unique_key => %s)'
    ((first,),) = database.rows(submit, ship.name, "A")
    ((second,),) = database.rows(submit, ship.name, "A")
    assert first == second == ship.submit(database.conn, "A").id
    assert database.rows("SELECT {}.submit('t') <> {}.submit('t')".replace("{}", "{0}")) == [(True,)]
    with pytest.raises(psycopg.errors.StringDataRightTruncation, match="at most 400 bytes"):
        database.rows(submit, ship.name, "A" * 401)
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match="unique_until is 'started' or 'finished', got 'noon'"
    ):
        database.rows("SELECT {}.submit('t', unique_key => 'A', unique_until => 'noon')")


def test_what_the_guide_shows_is_so(database):
    guide = (Path(__file__).parents[2] / "docs/guides/unique-jobs.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE))
    with eager(mode="collect") as backend:
        exec(code, {"conn": backend.conn, "__name__": "guide"})
        assert len(backend.jobs) == 2


# Many at once.

PROCESSES, KEYS = 16, int(os.environ.get("CHANCY_KEYS", "100"))
"""With CHANCY_KEYS=1000 it takes a minute of processor."""

SUBMITTERS = """
import json, os, random, sys
from pathlib import Path
import psycopg
import chancy
from test_unique import ship
from chancy import submit_many


def submit_all(seed, dsn, how, keys):
    dice = random.Random(seed)
    order = list(range(keys))
    dice.shuffle(order)
    told = []
    with psycopg.connect(dsn) as conn:
        size = 1 if how == "single" else keys // 10
        for start in range(0, keys, size):
            some = [f"n{n}" for n in order[start:start + size]]
            while True:
                if how == "single":
                    jobs = [ship.submit(conn, some[0])]
                else:
                    jobs = submit_many(conn, [ship.bind(n) for n in some])
                if dice.random() < 0.3:
                    conn.rollback()
                    continue
                conn.commit()
                told += [(n, job.id, job.outcome) for n, job in zip(some, jobs)]
                break
    return told


dsn, schema, folder, how, processes, keys = sys.argv[1:]
chancy.configure(schema=schema)
children = []
for seed in range(int(processes)):
    if (pid := os.fork()) == 0:
        Path(folder, str(seed)).write_text(json.dumps(submit_all(seed, dsn, how, int(keys))))
        os._exit(0)
    children.append(pid)
print(*[os.waitpid(pid, 0)[1] for pid in children])
"""


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["single", "many"])
def test_sixteen_processes_submit_the_same_keys(database, how, tmp_path):
    arguments = [database.dsn, database.schema, str(tmp_path), how, str(PROCESSES), str(KEYS)]
    done = subprocess.run(
        [sys.executable, "-c", SUBMITTERS, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert (done.returncode, done.stdout.split()) == (0, ["0"] * PROCESSES), done.stderr
    told = [tuple(line) for file in tmp_path.iterdir() for line in json.loads(file.read_text())]
    live = {key: id_ for id_, key in rows(database)}
    assert len(live) == len(rows(database)) == KEYS
    assert len(told) == PROCESSES * KEYS
    assert {(key, id_) for key, id_, _ in told} == set(live.items())
    assert Counter(key for key, _, outcome in told if outcome == "inserted") == Counter(list(live))


@pytest.mark.long
def test_jobs_that_finish_all_the_time_never_leave_a_submitter_without_an_answer(database):
    """The key is taken and given back as fast as one can: each submitter gets a job that was there."""
    stop = threading.Event()

    def work(conn):
        while not stop.is_set():
            conn.execute(f'DELETE FROM "{database.schema}".job')

    def submit(conn, told):
        for _ in range(300):
            told += submit_many(conn, [ship.bind(n) for n in "abc"])

    workers = [threading.Thread(target=work, args=(database.connect(autocommit=True),)) for _ in range(2)]
    told = [[] for _ in range(4)]
    threads = [threading.Thread(target=submit, args=(database.connect(autocommit=True), mine)) for mine in told]
    for thread in workers + threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stop.set()
    for thread in workers:
        thread.join(20)
    assert [len(mine) for mine in told] == [900] * 4
    inserted = [job.id for mine in told for job in mine if job.outcome is INSERTED]
    assert len(set(inserted)) == len(inserted)
    assert {job.id for mine in told for job in mine} == set(inserted)


@pytest.mark.long
def test_bulk_replacements_in_opposite_orders_never_deadlock(database):
    names = [str(n) for n in range(200)]
    held = ship.using(unique=Unique(on_conflict="replace"))
    submit_many(database.conn, [held.bind(n) for n in names])
    errors, outcomes = [], Counter()

    def replace(conn, order):
        try:
            for _ in range(20):
                outcomes.update(job.outcome for job in submit_many(conn, [held.bind(n) for n in order]))
        except psycopg.Error as error:
            errors.append(error)

    orders = [names, names[::-1], names[100:] + names[:100], names[::-1]]
    threads = [threading.Thread(target=replace, args=(database.connect(autocommit=True), order)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert outcomes == {REPLACED: 20 * 4 * 200}


def test_a_plain_job_is_sent_as_it_was_before():
    assert "unique" not in chancy.statements.INSERT_JOB + chancy.statements.INSERT_JOBS
    assert submit_unique([ship.bind("A")]).sql != chancy.statements.INSERT_JOB
