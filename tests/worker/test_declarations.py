"""Jobs of other languages: `chancy.submit` in SQL keeps what the tasks declare in Python."""

from __future__ import annotations

import asyncio
import dataclasses

import gate_tasks as tasks
import msgspec
import psycopg
import pytest
import worker_tasks
from worker_help import eventually, working

import chancy
import chancy_ops
from chancy import State, Unique
from chancy.model import Options
from chancy.run import send
from chancy_ops import JobFilter
from chancy_worker.parts.declarations import declare

EVERY = [worker_tasks.add, tasks.three, tasks.two_a_customer, tasks.once, tasks.by_two_keys, tasks.everything]


@pytest.fixture
def declared(site):
    send(site.conn, declare(EVERY), site.schema)
    return site


def submitted(site, task, arguments="{}", **keys):
    named = "".join(f", {name} => %s" for name in keys)
    return site.one(f"SELECT {{}}.submit(%s, %s{named})", task.name, arguments, *keys.values())


def gates(site, job):
    found, parked = site.rows("SELECT gates, parked FROM {}.job WHERE id = %s", job)[0]
    return found, parked


@pytest.mark.parametrize(
    ("task", "arguments", "key", "new"),
    [
        (tasks.three, "{}", None, tasks.three.bind()),
        (tasks.two_a_customer, '{"customer": "c1"}', "c1", tasks.two_a_customer.bind("c1")),
        (tasks.everything, '{"who": "ann"}', "ann", tasks.everything.bind("ann")),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_job_of_sql_has_to_pass_what_one_of_python_has_to(declared, task, arguments, key, new):
    job = submitted(declared, task, arguments, **({} if key is None else {"concurrency_key": key}))
    found, parked = gates(declared, job)
    assert found == msgspec.json.decode(new.gates)
    assert parked == found["key"]


def test_a_plain_task_is_submitted_as_ever(declared):
    assert gates(declared, submitted(declared, worker_tasks.add)) == (None, None)


@pytest.mark.parametrize(
    ("task", "keys", "reason"),
    [
        (
            tasks.two_a_customer,
            {},
            "gate_tasks.two_a_customer declares a limit or a group with a key: give concurrency_key",
        ),
        (tasks.by_two_keys, {"concurrency_key": "1"}, "different keys, and here is one: submit it from Python"),
        (
            tasks.three,
            {"concurrency_key": "1"},
            "no worker knows of a limit or a group with a key of task gate_tasks.three",
        ),
        (tasks.in_turn, {"concurrency_key": "1"}, "no worker knows of a limit or a group with a key of task"),
        (tasks.once, {}, "gate_tasks.once declares its jobs unique: give unique_key"),
        (tasks.two_a_customer, {"concurrency_key": "x" * 401}, "at most 400 bytes"),
    ],
)
def test_a_task_that_declares_a_key_is_refused_without_it_and_the_other_way_round(declared, task, keys, reason):
    with pytest.raises(psycopg.DataError, match=reason):
        submitted(declared, task, **keys)
    assert declared.one("SELECT count(*) FROM {}.job") == 0


def test_a_unique_job_of_sql_and_one_of_python_are_the_same(declared):
    job = submitted(declared, tasks.once, '{"order": 7}', unique_key="7")
    (mine,) = declared.submit(tasks.once.bind(7))
    assert (mine.id, mine.outcome) == (job, "existing")
    declared.rows("UPDATE {}.job SET claims = 1 RETURNING id")  # begun, and within the hour all the same
    assert submitted(declared, tasks.once, unique_key="7") == job
    assert submitted(declared, tasks.once, unique_key="8") != job


def test_what_is_not_given_is_as_the_task_declares_it(site):
    mail = dataclasses.replace(worker_tasks.add, name="declared.mail", options=Options("mail", 7, 9))
    send(site.conn, declare([mail]), site.schema)
    row = "SELECT queue, priority, max_attempts FROM {}.job WHERE id = %s"
    assert site.rows(row, submitted(site, mail)) == [("mail", 7, 9)]
    assert site.rows(row, submitted(site, mail, queue=None, priority=None, max_attempts=None)) == [("mail", 7, 9)]
    assert site.rows(row, submitted(site, mail, queue="fast", priority=0, max_attempts=1)) == [("fast", 0, 1)]
    assert site.rows(row, submitted(site, worker_tasks.add)) == [("default", 0, 3)]  # which nobody has declared


@pytest.mark.parametrize("on_conflict", ["existing", "replace", "raise"])
def test_a_key_that_is_held_is_met_as_the_task_declares_it(site, on_conflict):
    number = dataclasses.replace(tasks.once, name="declared.number", unique=Unique(on_conflict=on_conflict))
    send(site.conn, declare([number]), site.schema)
    first = submitted(site, number, '{"n": 1}', unique_key="k")
    if on_conflict == "raise":
        with pytest.raises(psycopg.errors.UniqueViolation, match=f"belongs to job {first}"):
            submitted(site, number, '{"n": 2}', unique_key="k")
    else:
        assert submitted(site, number, '{"n": 2}', unique_key="k") == first
    stored = msgspec.json.decode(chancy.get(site.conn, first, schema=site.schema).arguments)
    assert stored == {"n": 2 if on_conflict == "replace" else 1}


@pytest.mark.parametrize("unique", [Unique(), Unique(within=3600)], ids=["by a live job", "for a time"])
def test_a_key_that_is_held_under_another_name_of_its_task_is_met_from_sql(site, unique):
    old = dataclasses.replace(tasks.once, name="shop.old", unique=unique)
    send(site.conn, declare([old]), site.schema)
    first = submitted(site, old, unique_key="k")
    if unique.within is not None:
        site.rows("DELETE FROM {}.job RETURNING id")
    send(site.conn, declare([dataclasses.replace(old, name="shop.new", aliases=("shop.old",))]), site.schema)
    assert site.one("SELECT {}.submit('shop.new', unique_key => 'k')") == first
    assert site.one("SELECT {}.submit('shop.new', unique_key => 'other')") != first


async def test_a_worker_that_starts_writes_down_what_its_tasks_declare(site):
    async with working(site.app()):
        await eventually(lambda: site.one("SELECT count(*) FROM {}.worker") == 1)
    names = {name for (name,) in site.rows("SELECT name FROM {}.task")}
    assert {task.name for task in EVERY} <= names


def test_a_job_of_sql_under_an_older_name_has_to_pass_what_its_task_has_to(site):
    renamed = dataclasses.replace(tasks.two_a_customer, aliases=("shop.old",))
    send(site.conn, declare([renamed]), site.schema)
    job = site.one("SELECT {}.submit('shop.old', '{{\"customer\": \"c1\"}}', concurrency_key => 'c1')")
    assert gates(site, job)[0] == msgspec.json.decode(tasks.two_a_customer.bind("c1").gates)


def test_what_a_task_does_not_declare_any_more_is_forgotten(declared):
    now = dataclasses.replace(tasks.three, shared=(), gates=None)
    send(declared.conn, declare([now]), declared.schema)
    assert gates(declared, submitted(declared, tasks.three)) == (None, None)
    row = declared.rows("SELECT gates, unique_until, max_attempts, names FROM {}.task WHERE name = %s", now.name)
    assert row == [(None, None, 3, None)]


def test_jobs_are_submitted_by_a_trigger_under_any_search_path(declared):
    with psycopg.connect(declared.dsn, options="-c search_path=pg_temp", autocommit=True) as conn:
        conn.execute(f"SELECT {declared.schema}.submit('gate_tasks.everything', concurrency_key => 'x')")
    assert len(chancy.jobs(declared.conn, task="gate_tasks.everything", schema=declared.schema)) == 1


async def test_workers_that_start_together_wait_for_one_another_to_declare(site, chancy_dsn):
    """The rounds' connection waits for a lock for 0.1 s; whoever declares waits for its turn."""
    (job,) = site.submit(worker_tasks.add.bind(1, 2))
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND classid = '{}'::regnamespace AND objid = 4294967292"
    )
    with psycopg.connect(chancy_dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s::regnamespace::oid::integer, -4)", [site.schema])
        async with working(site.app()):
            await eventually(lambda: site.one(waiting) == 1)
            await asyncio.sleep(0.3)
            assert site.one(waiting) == 1
            other.rollback()
            await eventually(lambda: site.count("succeeded") == 1)
    assert site.row(job).attempt == 1


async def test_a_worker_that_starts_waits_for_its_turn_to_declare_however_long_that_takes(site, chancy_dsn, caplog):
    with psycopg.connect(chancy_dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s::regnamespace::oid::integer, -4)", [site.schema])
        async with working(site.app()):
            await eventually(lambda: "this one waits for it" in caplog.text)
            other.rollback()
            (job,) = site.submit(worker_tasks.add.bind(1, 2))
            await eventually(lambda: site.row(job).state is State.SUCCEEDED)


# What `chancy requeue` and other programs without the tasks' code go by.

ELSEWHERE = dataclasses.replace(
    tasks.once, name="shop.new", aliases=("shop.oldest", "shop.old"), options=Options(max_attempts=7)
)


def finished(site, name, key):
    """A job that has ended, of a task by this name, which no code here knows."""
    made = msgspec.structs.replace(tasks.once.using(max_attempts=2, unique=Unique(key=key)).bind(7), task=name)
    (job,) = site.submit(made)
    site.rows(
        """WITH done AS (DELETE FROM {0}.job WHERE id = %s RETURNING *)
        INSERT INTO {0}.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, run_at,
            submitted_at, finished_at, arguments, unique_key, unique_until)
        SELECT id, task, queue, priority, 'failed', 2, max_attempts, 2, 0, run_at, submitted_at, now(), arguments,
            unique_key, unique_until FROM done RETURNING id""",
        job.id,
    )
    return job


def test_who_does_not_know_the_task_requeues_with_the_attempts_that_a_worker_has_written_down(site):
    send(site.conn, declare([ELSEWHERE]), site.schema)
    for number, (name, more) in enumerate([("shop.new", 7), ("shop.old", 7), ("shop.unknown", 2)]):
        job = finished(site, name, str(number))
        assert chancy.requeue(site.conn, job.id, schema=site.schema)
        assert job.refresh(site.conn).max_attempts == 2 + more, name
    job = finished(site, "shop.new", "given")
    assert chancy.requeue(site.conn, job.id, attempts=5, schema=site.schema)
    assert job.refresh(site.conn).max_attempts == 2 + 5


def test_what_the_code_here_declares_goes_before_what_a_worker_has_written_down(site):
    send(site.conn, declare([dataclasses.replace(tasks.once, options=Options(max_attempts=7))]), site.schema)
    job = finished(site, tasks.once.name, "k")
    assert chancy.requeue(site.conn, job.id, schema=site.schema)
    assert job.refresh(site.conn).max_attempts == 2 + tasks.once.options.max_attempts


@pytest.mark.parametrize("name", ["shop.new", "shop.old"])
def test_who_does_not_know_the_task_sees_its_key_under_each_of_its_names_when_it_requeues(site, name):
    send(site.conn, declare([ELSEWHERE]), site.schema)
    old = finished(site, name, "k")
    other = finished(site, "shop.oldest", "k")
    assert chancy.requeue(site.conn, other.id, schema=site.schema)
    with pytest.raises(chancy.DuplicateJob) as error:
        chancy.requeue(site.conn, old.id, schema=site.schema)
    assert (error.value.key, error.value.job_id) == ("k", other.id)
    chancy.cancel(site.conn, other.id, schema=site.schema)
    for state in (State.FAILED, State.CANCELLED):
        swept = chancy_ops.requeue_many(site.conn, JobFilter(state=state), schema=site.schema)
        assert swept.changed + swept.left == 1
    assert site.one("SELECT count(*) FROM {}.job") == 1
