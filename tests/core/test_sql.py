"""Jobs that are submitted by whoever sends SQL himself: with another driver, in another language, in a trigger."""

from __future__ import annotations

import re
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import psycopg
import psycopg2
import pytest
from psycopg.conninfo import conninfo_to_dict

import chancy
from chancy import Backoff, Limit, SubmitOutcome, Unique, submit_many, task
from chancy.wires.paramstyles import ParamStyle

NAME = "žluť 日本 \\ % \" ' :x ? $1 %(y)s"
NOW = datetime(2026, 11, 25, 9, 59, 59, 999_999, tzinfo=UTC)
LATER = datetime(2044, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


@task(name="sql.greet")
def greet(name: str, times: int = 1) -> str:
    return name * times


@task(name="sql.once", unique=Unique(key=lambda name: name))
def once(name: str) -> None: ...


FULL = greet.using(
    queue="mail",
    priority=-7,
    max_attempts=9,
    run_at=LATER,
    limits=[Limit.time(5), Limit.concurrency(3)],
    retry=Backoff(base=2),
    group="a % b",
)
JOBS = {
    "all defaults": greet.bind(NAME),
    "everything": FULL.bind(NAME, 3),
    "a delay": greet.using(delay=timedelta(days=40)).bind("a"),
    "unique": once.bind(NAME),
    "unique for a time": once.using(unique=Unique(key="k", within=timedelta(hours=1))).bind("a"),
}


def of_psycopg(database, job, style):
    with psycopg.connect(database.dsn) as conn:
        text, params = job.sql(style)
        return conn.execute(text, params).fetchone()


def of_psycopg2(database, job, style):
    conn = psycopg2.connect(database.dsn)
    try:
        with conn, conn.cursor() as cursor:
            text, params = job.sql(style)
            cursor.execute(text, params)
            return cursor.fetchone()
    finally:
        conn.close()


async def of_asyncpg(database, job, style):
    known = conninfo_to_dict(database.dsn)
    conn = await asyncpg.connect(
        user=known["user"], host=known["host"], port=known.get("port"), database=known["dbname"]
    )
    try:
        text, params = job.sql(style)
        return await conn.fetchrow(text, *params)
    finally:
        await conn.close()


ROW = """
    SELECT task, queue, priority, max_attempts, state, run_at, arguments::text, retry::text,
        limits::text, gates::text, parked, unique_key, unique_until
    FROM {}.job WHERE id = %s
"""


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize(
    ("driver", "style"),
    [(of_psycopg, "pyformat"), (of_psycopg, "format"), (of_psycopg2, "pyformat"), (of_psycopg2, "format")],
)
def test_the_statement_of_a_job_adds_what_submit_adds(database, chancy_clock, driver, style, name):
    chancy_clock.set(NOW)
    job = JOBS[name]
    made = driver(database, job, style)
    (sent,) = database.rows(ROW, made[0])
    database.rows("DELETE FROM {}.job RETURNING id")
    database.rows("DELETE FROM {}.unique_window RETURNING job")
    (submitted,) = submit_many(database.conn, [job])
    assert database.rows(ROW, submitted.id) == [sent]


@pytest.mark.parametrize("name", JOBS)
async def test_so_it_does_in_asyncpg(database, chancy_clock, name):
    chancy_clock.set(NOW)
    job = JOBS[name]
    made = await of_asyncpg(database, job, "numeric_dollar")
    (sent,) = database.rows(ROW, made["id"])
    database.rows("DELETE FROM {}.job RETURNING id")
    database.rows("DELETE FROM {}.unique_window RETURNING job")
    (submitted,) = submit_many(database.conn, [job])
    assert database.rows(ROW, submitted.id) == [sent]


def test_the_row_says_which_job_in_which_transaction_and_since_when(database):
    with database.connect() as conn:
        text, params = greet.bind("a").sql()
        row = conn.execute(text, params).fetchone()
        assert row == conn.execute("SELECT %s::bigint, pg_current_xact_id()::text, now()", [row[0]]).fetchone()
        text, params = once.bind("a").sql()
        assert conn.execute(text, params).fetchone()[1:] == (*row[1:], "inserted")
        assert conn.execute(text, params).fetchone()[3] == "existing"


def test_a_unique_job_that_is_refused_raises_in_sql(database):
    job = once.using(unique=Unique(key="k", on_conflict="raise")).bind("a")
    text, params = job.sql()
    ((first, *_),) = database.conn.execute(text, params).fetchall()
    with pytest.raises(
        psycopg.errors.UniqueViolation, match=f"the unique key 'k' of task sql.once belongs to job {first}"
    ):
        database.conn.execute(text, params)
    assert database.ids() == [first]


@pytest.mark.parametrize("style", ParamStyle.__args__)
def test_each_style_has_its_own_placeholders_and_as_many_parameters(style):
    text, params = FULL.bind(NAME).sql(style, schema="shop")
    assert '"shop".insert_job(' in text
    assert NAME not in text
    holders = {
        "pyformat": "CAST(%(task)s AS", "named": "CAST(:task AS", "format": "CAST(%s AS", "qmark": "CAST(? AS",
        "numeric": "CAST(:1 AS", "numeric_dollar": "CAST($1 AS",
    }  # fmt: skip
    assert holders[style] in text
    assert len(params) == text.count("CAST(")
    assert all(type(value) is str or value is None for value in (params.values() if type(params) is dict else params))
    text, params = once.bind(NAME).sql(style)
    assert len(params) == text.count("CAST(")


def test_another_style_is_refused():
    with pytest.raises(chancy.InvalidOption, match='paramstyle: expected "pyformat"'):
        greet.bind("a").sql("dollar")


# What a submit tells of when it was.


async def test_a_handle_says_when_its_job_was_submitted(caller, database):
    conn = await caller.connect(autocommit=True)
    database.conn.execute("SET timezone = 'Asia/Kolkata'")
    alone = await caller.now(greet.submit(conn, "a"))
    many = await caller.now(submit_many(conn, [greet.bind("b"), greet.bind("c")]))
    unique = await caller.now(once.submit(conn, "d"))
    again = await caller.now(once.submit(conn, "d"))
    assert again.outcome is SubmitOutcome.EXISTING
    for job in (alone, *many, unique, again):
        assert job.submitted_at == chancy.get(database.conn, job.id).submitted_at
        assert job.submitted_at.tzinfo is UTC


def test_a_job_that_is_over_and_keeps_others_away_for_a_time_says_when_it_was_submitted(database):
    timed = once.using(unique=Unique(key="k", within=timedelta(hours=1)))
    first = timed.submit(database.conn, "a")
    database.finish(first.id)
    assert timed.submit(database.conn, "a").submitted_at == first.submitted_at
    database.rows("DELETE FROM {}.history RETURNING id")
    assert timed.submit(database.conn, "a").submitted_at is None


def test_an_instant_that_nobody_can_read_does_not_keep_others_from_their_handle(database):
    first = once.submit(database.conn, "a")
    database.rows("UPDATE {}.job SET submitted_at = 'infinity' RETURNING id")
    again = once.submit(database.conn, "a")
    assert (again.id, again.submitted_at) == (first.id, None)


# The triggers of others, which the statement fires.


@pytest.fixture
def trigger(database):
    def make(body):
        database.conn.execute(
            f"CREATE FUNCTION public.of_the_user() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body}; RETURN NEW; END'"
        )
        database.conn.execute(
            f'CREATE TRIGGER of_the_user AFTER INSERT ON "{database.schema}".job FOR EACH ROW '
            f"EXECUTE FUNCTION public.of_the_user()"
        )

    yield make
    database.conn.execute("DROP FUNCTION public.of_the_user CASCADE")


@pytest.mark.parametrize("on_the_path", [False, True])
@pytest.mark.parametrize("job", [greet.bind("a"), once.bind("a")], ids=["plain", "unique"])
def test_what_a_trigger_of_the_users_misses_is_not_told_as_ours(database, trigger, job, on_the_path):
    trigger("PERFORM nil()")
    if on_the_path:
        database.conn.execute(f'SET search_path = "{database.schema}", public')
    with pytest.raises(psycopg.errors.UndefinedFunction, match="nil"):
        submit_one(database.conn, job)


@pytest.mark.parametrize("on_the_path", [False, True])
@pytest.mark.parametrize("job", [greet.bind("a"), once.bind("a")], ids=["plain", "unique"])
def test_what_our_function_misses_is_told_as_ours(database, job, on_the_path):
    database.conn.execute(f'ALTER TABLE "{database.schema}".job DROP COLUMN gates CASCADE')
    database.conn.prepare_threshold = None  # so that it is the function
    if on_the_path:
        database.conn.execute(f'SET search_path = "{database.schema}", public')
    with pytest.raises(chancy.SchemaOutdated, match="lacks what this version of Chancy needs"):
        submit_one(database.conn, job)


def submit_one(conn, job):
    task = greet if job.unique is None else once
    return task.submit(conn, "a")


def test_a_trigger_has_the_path_of_the_session_that_submits(database, trigger):
    trigger("PERFORM set_config(''chancy.seen'', current_setting(''search_path''), false)")
    database.conn.execute("SET search_path = public, pg_temp")
    greet.submit(database.conn, "a")
    assert database.rows("SELECT current_setting('chancy.seen')") == [("public, pg_temp",)]


# The plan.


@pytest.fixture
def plans(database):
    """What tells of each plan that is made of an INSERT into `job`: a default that the planner works out."""
    database.conn.execute(
        "CREATE FUNCTION public.planned() RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS "
        "'BEGIN RAISE NOTICE ''planned''; RETURN NULL; END'"
    )
    database.conn.execute(f'ALTER TABLE "{database.schema}".job ALTER refused_at SET DEFAULT public.planned()')
    told = []
    yield told
    database.conn.execute("DROP FUNCTION public.planned CASCADE")


def test_a_single_submit_keeps_its_plan_on_a_connection_that_cannot_prepare(database, plans):
    conn = database.connect(prepare_threshold=None, autocommit=True)
    conn.add_notice_handler(lambda notice: plans.append(notice.message_primary))
    for number in range(6):
        greet.submit(conn, "a", number)
    assert set(plans) == {"planned"}
    plans.clear()
    for number in range(20):
        greet.submit(conn, "a", number)
    assert plans == []


class Connection:
    """Takes what the guide sends."""

    def __init__(self):
        self.sent = []

    def execute(self, text, params):
        self.sent.append((text, params))

    async def fetchrow(self, text, *params):
        self.sent.append((text, params))


async def test_what_the_guide_shows_is_so(database):
    guide = (Path(__file__).parents[2] / "docs/guides/other-languages.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    wrapped = "async def shown():\n" + textwrap.indent(code, "    ")
    welcome = task(name="shop.tasks.welcome")(welcomes)
    names = {"welcome": welcome, "cursor": (cursor := Connection()), "conn": (conn := Connection())}
    exec(wrapped, names)
    await names["shown"]()
    assert cursor.sent == [welcome.bind(user_id=7).sql()]
    assert conn.sent == [welcome.bind(user_id=7).sql("numeric_dollar")]
    statements, trigger = re.findall(r"^```sql\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    assert trigger.count("chancy.submit(") == 1
    for line in statements.strip().splitlines():
        database.rows(line.replace("chancy.submit", "{}.submit").replace("'{\"", "'{{\"").replace("}'", "}}'"))
    assert [row.task for row in chancy.jobs(database.conn)] == ["shop.tasks.report", "shop.tasks.welcome"]


def welcomes(user_id: int) -> None: ...
