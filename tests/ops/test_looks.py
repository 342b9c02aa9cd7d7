"""What an operator asks reads what it shows, and ends in time: on a table that is deep enough that whatever reads it
through breaks its bound many times over.

Blocks and not milliseconds, as in tests/worker/test_plans.py. At 200,000 finished and 100,000 live jobs the planner
decides as it does at ten million and one: what it compares are indexes with tables, and those are a hundred times
larger than a page here, too. (`hatch run looks` measures the large one.)
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import shop_tasks

import chancy
import chancy_ops
from chancy import State
from chancy.model import Statement
from chancy.run import send
from chancy.schema import fill
from chancy.verbs import ANY, SELECT_JOBS, select_job, select_jobs
from chancy_ops import Count, JobFilter
from chancy_ops.counting import COUNT_JOBS, MOST_COUNTED, count_jobs, sum_of
from chancy_ops.diagnosis.fleet import WORK
from chancy_ops.diagnosis.flows import STRANDED
from chancy_ops.fingerprints import FAILURES
from chancy_ops.jobs import _CHOOSE
from chancy_ops.overview import QUEUES, WORKERS, look_at_queues
from chancy_ops.searching import SEARCH, THESE

LIVE, FINISHED = 100_000, 200_000
NOW = datetime.now(UTC)
"""When the newest of them has finished, however long other tests take before these."""

DEEP = """
ALTER TABLE {schema}.job SET (autovacuum_enabled = off);
INSERT INTO {schema}.worker (name, started_at, expires_at) VALUES ('web-1:77', now(), now() + interval '1 day');
INSERT INTO {schema}.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, run_at,
    submitted_at, started_at, finished_at, arguments, result, errors, error_kind, fingerprint, batch)
SELECT n, 'shop_tasks.' || CASE WHEN n = 150000 THEN 'rare' ELSE 'welcome' END, 'mail', 0,
    CASE WHEN n % 50 > 0 THEN 'succeeded' WHEN n % 200 > 0 THEN 'failed' ELSE 'cancelled' END::{schema}.state,
    1, 3, 1, 0, at, at, at, at, '{"user_id":1}', 'null',
    CASE WHEN n % 50 = 0 THEN '[{"attempt":1,"kind":"ValueError","message":"no","fingerprint":"5ade1fb7c0d3"}]'::json END,
    CASE WHEN n % 50 = 0 THEN 'ValueError' END, CASE WHEN n % 50 = 0 THEN '5ade1fb7c0d3' END,
    CASE WHEN n BETWEEN 20000 AND 29999 THEN 7 END
FROM (SELECT n, '<now>'::timestamptz - interval '4 days' + n * interval '4 days' / 200000 AS at FROM generate_series(1, 200000) AS n) AS each;
INSERT INTO {schema}.job (id, task, queue, priority, state, attempt, worker, started_at, max_attempts, run_at, submitted_at,
    arguments, parked, gates)
SELECT n, 'shop_tasks.welcome', CASE WHEN n % 3 = 0 THEN 'mail' ELSE 'images' END, n % 4,
    CASE WHEN n % 1000 = 1 THEN 'running' ELSE 'ready' END::{schema}.state, 1,
    CASE WHEN n % 1000 = 1 THEN 1 END, CASE WHEN n % 1000 = 1 THEN now() END,
    3, now() + CASE WHEN n % 10 = 0 THEN 1 ELSE -1 END * interval '1 hour', now(), '{"user_id":1}',
    CASE WHEN n % 25 = 7 THEN 'a' END, CASE WHEN n % 25 = 7 THEN '{"key":"a"}'::json END
FROM generate_series(200001, 300000) AS n;
INSERT INTO {schema}.job (id, task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, needs)
SELECT -n, 'shop_tasks.welcome', CASE WHEN n % 3 = 0 THEN 'mail' ELSE 'images' END, 0, 'blocked', 3, now(), now(),
    '{"pieces":["{\\"user_id\\":1}"]}', ARRAY[200002]
FROM generate_series(1, 5000) AS n;
SELECT setval('{schema}.job_id_seq', 300000);
"""


@pytest.fixture(scope="module")
def deep(chancy_dsn):
    schema = f"chancy_test_{secrets.token_hex(6)}"
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        chancy.migrate(conn, schema=schema)
        try:
            conn.execute(fill("SELECT {schema}.make_partitions(current_date - 6, current_date + 1)", schema))
            conn.execute(fill(DEEP.replace("<now>", NOW.isoformat()), schema))
            conn.execute(fill("VACUUM ANALYZE {schema}.job", schema))
            conn.execute(fill("VACUUM ANALYZE {schema}.history", schema))
            yield schema
        finally:
            conn.execute(fill("DROP SCHEMA {schema} CASCADE", schema))


@pytest.fixture
def conn(chancy_dsn):
    with psycopg.connect(chancy_dsn) as conn:
        yield conn


def blocks_of(conn, schema, statement):
    """Asked for by it, of each table and index, the days together. (Those of the catalogues are the planner's.)"""
    send(conn, statement, schema)  # what a session reads once
    conn.commit()
    send(conn, statement, schema)
    found = conn.execute(
        "SELECT relname, pg_stat_get_xact_blocks_fetched(oid) FROM pg_class WHERE relnamespace = %s::regnamespace",
        [f'"{schema}"'],
    ).fetchall()
    blocks = Counter()
    for name, count in found:
        blocks[re.sub(r"^history_\d{8}", "history", name)] += count
    return blocks


def asked(sql, which=JobFilter(), **more):  # noqa: B008
    params = {**ANY, **which.params(which.states), "limit": 50, "most": MOST_COUNTED, "after": 0, **more}
    return Statement(sql, params, list)


HOLE = """
INSERT INTO {schema}.job (id, task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
VALUES (1000000000000, 'shop_tasks.welcome', 'mail', 0, 'ready', 3, now(), now(), '{}')
"""
FAILED = JobFilter(state=State.FAILED)
LATELY = NOW - timedelta(hours=1)
LIST = 1_000
"""What 50 jobs cost: the ends of all indexes of all days, which the planner reads, and each job by its id. To read one of the
tables through is 2,000 and more."""
LOOKS = {
    "all jobs": (asked(SELECT_JOBS), LIST),
    **{f"jobs, {state}": (asked(SELECT_JOBS, JobFilter(state=state)), LIST) for state in State},
    **{f"lines, {state}": (asked(SEARCH, JobFilter(state=state)), LIST) for state in State},
    "the next page": (asked(SEARCH, before=120_000), LIST),
    "the next page of failures": (asked(SEARCH, FAILED, before=120_000), LIST),
    "of a task": (asked(SEARCH, JobFilter(task=shop_tasks.welcome)), LIST),
    "of a batch": (asked(SEARCH, JobFilter(batch=7)), LIST),
    "failures of a batch": (asked(SEARCH, JobFilter(batch=7, state=State.FAILED)), 1_800),
    "failures by kind": (asked(SEARCH, JobFilter(state=State.FAILED, error="ValueError")), LIST),
    "failures of an unknown kind": (asked(SEARCH, JobFilter(state=State.FAILED, error="KeyError")), LIST),
    "failures by fingerprint": (asked(SEARCH, JobFilter(state=State.FAILED, fingerprint="5ade1fb7c0d3")), LIST),
    "failures of an unknown task": (asked(SEARCH, JobFilter(state=State.FAILED, task="unknown")), LIST),
    "count of running": (asked(COUNT_JOBS, JobFilter(state=State.RUNNING)), 400),
    "count of failed": (asked(COUNT_JOBS, FAILED), 700),
    "count of failed by kind": (asked(COUNT_JOBS, JobFilter(state=State.FAILED, error="KeyError")), 700),
    "count of a batch": (asked(COUNT_JOBS, JobFilter(batch=7)), 2_000),
    "count of blocked": (asked(COUNT_JOBS, JobFilter(state=State.BLOCKED)), 1_900),
    "blocked jobs of a queue": (asked(SEARCH, JobFilter(state=State.BLOCKED, queue="mail")), LIST),
    "count of ready": (asked(COUNT_JOBS, JobFilter(state=State.READY)), 1_900),
    "count of succeeded": (asked(COUNT_JOBS, JobFilter(state=State.SUCCEEDED)), 1_500),
    "choose failed": (asked(_CHOOSE, FAILED), 450),
    "choose by fingerprint": (asked(_CHOOSE, JobFilter(state=State.FAILED, fingerprint="5ade1fb7c0d3")), 450),
    "count of a queue": (asked(COUNT_JOBS, JobFilter(queue="mail")), 2_200),
    "count of a queue that waits": (asked(COUNT_JOBS, JobFilter(queue="mail", state=State.READY)), 700),
    "count of what was submitted or finished lately": (asked(COUNT_JOBS, JobFilter(since=LATELY)), 8_500),
    "count of what succeeded lately": (asked(COUNT_JOBS, JobFilter(state=State.SUCCEEDED, since=LATELY)), 2_000),
    "failures": (asked(FAILURES), 500),
    "failures of a task": (asked(FAILURES, JobFilter(task="shop_tasks.welcome")), 800),
    "queues": (asked(QUEUES, most=500), 2_500),
    "queues, at a glance": (asked(QUEUES, most=50), 900),
    "one queue": (asked(QUEUES, JobFilter(queue="mail"), most=50), 700),
    "a queue that is not there": (asked(QUEUES, JobFilter(queue="ma"), most=50), 550),
    "what is due, for doctor": (asked(WORK, most=100), 1_600),
    "what is blocked, for doctor": (asked(STRANDED), 800),
    "jobs by their ids": (asked(THESE, ids=[150_000, 250_000]), 280),
    "workers": (asked(WORKERS), 60),
    "get": (select_job(150_000), 220),
}
"""Each with its bound of blocks, up to twice what was seen; of what succeeded lately all of today, at its end."""


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_reads_what_it_shows(deep, conn, name):
    statement, most = LOOKS[name]
    blocks = blocks_of(conn, deep, statement)
    assert blocks.total() <= most, blocks.most_common(6)


@pytest.mark.parametrize(
    "which", [JobFilter(), JobFilter(queue="none")], ids=["of all", "of a queue that is not there"]
)
def test_a_search_behind_a_hole_in_the_ids_ends_in_time(deep, conn, which):
    """Over the hole its pieces grow, until one has all jobs."""
    conn.execute(fill(HOLE, deep))
    try:
        blocks = blocks_of(conn, deep, asked(SEARCH, which, words="nowhere", seconds=0.02))
        through = blocks_of(conn, deep, asked(SEARCH, which, words="nowhere", seconds=60.0))
    finally:
        conn.execute(fill("DELETE FROM {schema}.job WHERE id = 1000000000000", deep))
    assert blocks.total() < through.total() / 2, blocks.most_common(6)


def test_looks_are_not_compiled_and_leave_other_processors_alone(deep, conn):
    found = conn.execute(
        "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = %s::regnamespace AND proname = ANY (%s)",
        [f'"{deep}"', ["find_jobs", "count_jobs", "choose_jobs", "look_at_queues", "look_at_failures", "look_at_work"]],
    ).fetchall()
    assert len(found) == 6
    for name, settings in found:
        assert {"jit=off", "max_parallel_workers_per_gather=0"} <= set(settings), name


def test_the_callers_settings_stay_as_they_are(deep, conn):
    conn.execute("SET LOCAL jit = on; SET LOCAL statement_timeout = '77s'")
    chancy_ops.search(conn, words="nowhere", schema=deep)
    chancy_ops.count(conn, schema=deep)
    chancy_ops.queues(conn, schema=deep)
    assert conn.execute("SELECT current_setting('jit'), current_setting('statement_timeout')").fetchone() == (
        "on",
        "77s",
    )


STEPS = [
    JobFilter(),
    JobFilter(queue="mail"),
    JobFilter(state=State.READY),
    JobFilter(state=State.BLOCKED),
    JobFilter(state=State.SUCCEEDED, since=None),
    FAILED,
    JobFilter(error="ValueError"),
    JobFilter(batch=7),
]


@pytest.fixture
def small(chancy_dsn, deep):
    """The same of 600 jobs, in a schema of its own."""
    schema = f"chancy_test_{secrets.token_hex(6)}"
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        chancy.migrate(conn, schema=schema)
        conn.execute(fill("SELECT {schema}.make_partitions(current_date - 6, current_date + 1)", schema))
        conn.execute(
            fill(DEEP, schema)
            .replace(b"(1, 200000)", b"(199601, 200000)")
            .replace(b"300000)", b"200200)")
            .replace(b"(1, 5000)", b"(1, 30)")
        )
        conn.execute(
            fill('UPDATE {schema}.job SET errors = \'[{"attempt":1,"kind":"ValueError"}]\' WHERE id % 7 = 0', schema)
        )
        conn.execute(fill("UPDATE {schema}.history SET batch = 7 WHERE id % 9 = 0", schema))
        yield schema
        conn.execute(fill("DROP SCHEMA {schema} CASCADE", schema))


@pytest.mark.long
@pytest.mark.parametrize("which", STEPS, ids=repr)
def test_pages_and_looks_that_had_no_time_show_every_job_once(small, conn, which):
    def every(limit, seconds, words=None):
        found, before, looks = [], None, 0
        while True:
            page = send(
                conn,
                select_jobs(limit, **which.params(which.states), before=before, seconds=seconds, words=words),
                small,
            )
            looks += 1
            found += page
            if page.looked_to is not None:
                assert page.looked_back_to is not None
                before = page.looked_to
            elif page:
                before = page[-1].id
            else:
                return found, looks

    whole, _ = every(10_000, 60)
    assert len(whole) == len({row.id for row in whole})
    assert len(whole) == sum_of(*chancy_ops.count(conn, which, schema=small).values())
    assert every(7, 60)[0] == whole
    in_pieces, looks = every(10_000, 0)
    assert in_pieces == whole
    in_vain, looks = every(10_000, 0, "user_id")
    assert in_vain == whole
    if which.states <= {State.FAILED, State.DISCARDED, State.CANCELLED}:
        assert looks > 1  # each looks at an hour
        assert [row.finished_at for row in whole] == sorted((row.finished_at for row in whole), reverse=True)


def test_a_search_finds_texts_of_arguments_and_errors_and_nothing_else(small, conn):
    def found(words, which=JobFilter()):  # noqa: B008
        return chancy_ops.search(conn, which, words=words, schema=small, limit=1_000)

    assert {line.state for line in found("ValueError", JobFilter(state=State.SUCCEEDED))} == set()
    assert {line.error for line in found("ValueError")} == {"ValueError"}
    assert len(found('"user_id":1')) == 600
    assert found("user_id%") == found("%") == found("welcome") == []


def test_what_is_counted_up_to_a_number_says_that_there_is_more(deep, conn):
    counts = chancy_ops.count(conn, schema=deep)
    assert list(counts) == [
        State.BLOCKED, State.READY, State.SCHEDULED, State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED,
    ]  # fmt: skip
    assert {state: (int(count), count.more) for state, count in counts.items()} == {
        State.BLOCKED: (5_000, False), State.READY: (10_000, True), State.SCHEDULED: (10_000, False), State.RUNNING: (100, False),
        State.SUCCEEDED: (10_000, True), State.FAILED: (3_000, False), State.CANCELLED: (1_000, False),
    }  # fmt: skip
    assert (f"{counts[State.READY]:,}", str(counts[State.READY]), f"{counts[State.FAILED]:,}") == (
        "10,000+", "10,000+", "3,000",
    )  # fmt: skip
    assert bool(Count(0, True))
    assert not Count(0)
    images, _ = chancy_ops.queues(conn, schema=deep)
    assert (images.name, images.ready.more, images.scheduled.more) == ("images", True, False)
    assert (int(images.blocked), images.blocked.more) == (3_334, False)


def test_one_queue_is_told_as_among_all(deep, conn):
    assert [chancy_ops.queues(conn, queue=row.name, schema=deep) for row in chancy_ops.queues(conn, schema=deep)] == [
        [row] for row in chancy_ops.queues(conn, schema=deep)
    ]
    assert chancy_ops.queues(conn, queue="imag", schema=deep) == []
    assert chancy_ops.queues(conn, queue="z", schema=deep) == []


def test_what_is_counted_at_a_glance_says_that_there_is_more(deep, conn):
    for row in send(conn, look_at_queues(most=50), deep):
        assert (int(row.ready), row.ready.more, int(row.waiting), row.waiting.more) == (50, True, 50, True)


def test_a_count_at_a_glance_has_looked_for_each_state_once(deep, conn):
    counts = send(conn, count_jobs(JobFilter(), seconds=0), deep)
    assert {state for state in counts if int(counts[state])} == set(chancy_ops.count(conn, schema=deep))


def test_one_session_counts_whatever_it_is_asked_for(deep, conn):
    asked = [JobFilter(), JobFilter(batch=7), FAILED, JobFilter(queue="mail"), JobFilter(batch=7, state=State.FAILED)]
    first = [chancy_ops.count(conn, which, schema=deep) for which in asked]
    assert [chancy_ops.count(conn, which, schema=deep) for which in reversed(asked)] == first[::-1]


def test_a_count_that_had_no_time_says_so(deep, conn):
    statement = count_jobs(JobFilter(queue="none"))
    params = {**statement.params, "seconds": 0}
    counts = send(conn, Statement(statement.sql, params, statement.parse), deep)
    assert {(int(count), count.more) for count in counts.values()} <= {(0, True)}
    assert counts
    assert chancy_ops.count(conn, JobFilter(queue="none"), schema=deep) == {}


def test_a_line_brings_nothing_large_along(chancy_dsn, chancy_schema, tasks):
    with psycopg.connect(chancy_dsn) as conn:
        large = tasks.welcome.using(unique=chancy.Unique(key="k" * 300)).submit(conn, 1, greeting="x" * 900_000)
        chancy.submit_many(conn, [tasks.welcome.bind(2)])
        small_line, line = chancy_ops.search(conn, schema=chancy_schema)
    assert (line.id, line.arguments, line.unique_key) == (large.id, line.arguments, "k" * 200)
    assert len(line.arguments or "") <= 500
    assert (small_line.arguments, small_line.error, small_line.message) == ('{"user_id":2}', "", "")
