"""Four roles of the database, each with its rights and no more, through a week of history."""

from __future__ import annotations

import itertools
from datetime import timedelta

import batch_tasks
import psycopg
import pytest
import step_tasks
import worker_tasks
from psycopg import sql
from worker_help import FAST, all_finished, eventually, worker_with, working

import chancy
import chancy_ops
from chancy import Keep, MissingRights, State, Unique, batch, callback, days
from chancy_worker import WorkerConfig
from chancy_worker.connection.link import Link
from chancy_worker.parts.retention import drop_alone, overdue

_numbers = itertools.count()


@pytest.fixture
def as_role(site):
    """A connection string for a new role of the given kind, or of none."""
    made = []

    def make(kind=None):
        name = f"chancy_{kind or 'stranger'}_{next(_numbers)}_{site.schema[-6:]}"
        site.conn.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
        site.conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        made.append(name)
        if kind:
            site.conn.execute(chancy.grants({kind: name}, schema=site.schema))
        return psycopg.conninfo.make_conninfo(site.dsn, user=name)

    yield make
    for name in made:
        site.conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        site.conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def connected(dsn):
    return psycopg.connect(dsn, autocommit=True)


MOVE = """
    CREATE OR REPLACE FUNCTION {}.clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT pg_catalog.now() + interval '%d days' + interval '%f s' $$
"""
"""So many days later, and first at noon: else a midnight may bring a day that is over, of which an hour later is soon."""


OVER = "SELECT count(*) FROM {}.kept_days('0') WHERE over"


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_each_role_does_its_part_through_eight_days(site, as_role):
    dsns = {kind: as_role(kind) for kind in ("producer", "worker", "viewer", "operator")}
    task = worker_tasks.add
    site.conn.execute(f"{step_tasks.MAKE_EFFECTS}; GRANT INSERT ON public.step_effect TO PUBLIC")
    config = WorkerConfig(timing=FAST, grace=1)
    until_noon = site.one("SELECT extract(epoch FROM interval '12 h' - (now() AT TIME ZONE 'UTC')::time)::float8")
    with (
        connected(dsns["producer"]) as producer,
        connected(dsns["viewer"]) as viewer,
        connected(dsns["operator"]) as operator,
    ):
        for day in range(1, 9):
            site.conn.execute(sql.SQL(MOVE % (day, until_noon)).format(sql.Identifier(site.schema)))
            async with working(site.app(dsn=dsns["worker"], keep=timedelta(days=2)), config):
                job = task.submit(producer, 1, 2)
                task.using(unique=Unique(within=timedelta(hours=1), on_conflict="replace")).submit(producer, 3, 4)
                with batch(producer, on_finished=callback(batch_tasks.tell)) as made:
                    made.submit_many([task.bind(n, n) for n in range(3)])
                waits = step_tasks.on_loop.submit(producer, dsns["producer"])
                assert chancy.signal(producer, waits.id, "word", "go")
                await all_finished(site, 60)
                assert waits.result(producer) == ["first", "go", "last"]
                assert len(chancy.steps(viewer, waits.id)) == 4
                assert chancy_ops.why(viewer, waits.id).reason
                assert chancy.forget_steps(operator, waits.id, names=["last"]) == 1
                assert chancy.get(viewer, job.id).state is State.SUCCEEDED
                assert job.result(producer, timeout=timedelta(seconds=60)) == 3
                assert made.id
                chancy_ops.pause(operator, "default")
                waiting = task.submit(producer, 5, 6)
                assert chancy_ops.why(viewer, waiting.id).reason
                assert chancy_ops.edit(operator, waiting.id, priority=5) is True
                assert chancy.cancel(operator, waiting.id) is True
                assert chancy.requeue(operator, waiting.id) is True
                assert chancy_ops.delete(operator, waiting.id) is True
                assert chancy_ops.resume(operator, "default") is True
                chancy_ops.keep(operator, "reports", Keep(succeeded=days(3)))
                assert {each.check: each for each in chancy_ops.doctor(viewer)}["rights"].severity.value == "ok"
                await eventually(lambda: site.one(OVER) == 0, 60)  # each day's worker drops what is over then
        site.conn.execute(sql.SQL(MOVE % (12, until_noon)).format(sql.Identifier(site.schema)))
        link = Link(dsns["worker"], site.schema, "upkeep", deadline=20)
        await link.connect()
        assert await link.send(overdue()) != []
        await drop_alone(link)
        assert await link.send(overdue()) == []
        await link.close()


COMPARE = 'CREATE FUNCTION pg_temp.same("{0}".state, "{0}".state) RETURNS boolean LANGUAGE sql AS \'SELECT true\''
"""With an operator of it, whoever compares states without its schema would call it."""


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        ("viewer", lambda conn: worker_tasks.add.submit(conn, 1, 2)),
        ("viewer", lambda conn: chancy.cancel(conn, 1)),
        ("viewer", lambda conn: chancy_ops.pause(conn, "default")),
        ("producer", lambda conn: chancy.cancel(conn, 1)),
        ("producer", lambda conn: chancy.requeue(conn, 1)),
        ("producer", lambda conn: chancy.forget_steps(conn, 1)),
        ("viewer", lambda conn: chancy.signal(conn, 1, "word")),
        ("producer", lambda conn: chancy_ops.pause(conn, "default")),
        ("producer", lambda conn: chancy_ops.keep(conn, "default", Keep(succeeded=days(3)))),
        ("producer", lambda conn: conn.execute(f"UPDATE \"{chancy.schema_in_use()}\".job SET state = 'running'")),
        ("viewer", lambda conn: conn.execute(COMPARE.format(chancy.schema_in_use()))),
        ("worker", lambda conn: conn.execute(COMPARE.format(chancy.schema_in_use()))),
        ("operator", lambda conn: conn.execute(f'DELETE FROM "{chancy.schema_in_use()}".worker')),
        ("worker", lambda conn: conn.execute(f'DROP TABLE "{chancy.schema_in_use()}".slot')),
        ("worker", lambda conn: conn.execute(f'CREATE TABLE "{chancy.schema_in_use()}".mine ()')),
        (None, lambda conn: chancy.jobs(conn)),
        (None, lambda conn: conn.execute(f"SELECT \"{chancy.schema_in_use()}\".make_partitions('today', 'today')")),
    ],
)
def test_no_role_can_do_more_than_its_part(site, as_role, kind, verb):
    with connected(as_role(kind)) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        verb(conn)


async def test_a_worker_whose_role_has_no_right_at_all_says_so_and_what_gives_it(site, as_role):
    dsn = as_role()
    with pytest.raises(MissingRights, match=r"role chancy_stranger_.* lacks what a worker needs .*--worker chancy_str"):
        await worker_with(site.app(dsn=dsn), WorkerConfig(timing=FAST)).start()


def test_the_error_of_a_verb_says_what_would_give_the_right_and_stays_what_it_is(site, as_role):
    with connected(as_role("viewer")) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        worker_tasks.add.submit(conn, 1, 2)
    (note,) = caught.value.__notes__
    assert "has no right to that (permission denied for" in note
    assert f"`chancy grants --schema {site.schema}` prints, with --producer ROLE to submit, --worker ROLE" in note


async def test_a_worker_without_its_rights_says_at_its_start_what_it_lacks(site, as_role):
    dsn = as_role("producer")
    with pytest.raises(MissingRights, match=r"lacks what a worker needs .*`chancy grants --worker chancy_producer_"):
        await worker_with(site.app(dsn=dsn), WorkerConfig(timing=FAST)).start()
    assert site.workers() == {}


async def test_functions_whose_owner_does_not_own_the_tables_are_told_by_worker_and_doctor(site, as_role):
    dsn = as_role("worker")
    owner = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
    function = sql.SQL("ALTER FUNCTION {}.make_partitions(date, date) OWNER TO {}")
    site.conn.execute(sql.SQL("GRANT CREATE ON SCHEMA {} TO {}").format(*map(sql.Identifier, (site.schema, owner))))
    (superuser,) = site.conn.execute("SELECT current_user").fetchone()
    site.conn.execute(function.format(*map(sql.Identifier, (site.schema, owner))))
    try:
        with pytest.raises(MissingRights, match=f"role {owner} has the functions, but not history"):
            await worker_with(site.app(), WorkerConfig(timing=FAST)).start()
        (found,) = [each for each in chancy_ops.doctor(site.conn) if each.check == "rights"]
        assert (found.severity.value, owner in found.remedy) == ("error", True)
    finally:
        site.conn.execute(function.format(*map(sql.Identifier, (site.schema, superuser))))


async def test_grants_after_which_nothing_is_missing_are_printed_and_run_by_the_owner(site, as_role):
    dsn = as_role()
    name = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
    text = chancy.grants({"viewer": [name], "producer": [name]}, schema=site.schema)
    site.conn.execute(text)
    site.conn.execute(text)
    with connected(dsn) as conn:
        job = worker_tasks.add.submit(conn, 1, 2)
        await eventually(lambda: chancy.get(conn, job.id).id == job.id)


@pytest.mark.parametrize("roles", [{"producer": ""}, {"producer": ["a\0b"]}, {"boss": "a"}])
def test_a_role_that_is_none_is_refused(roles):
    with pytest.raises(chancy.InvalidArguments):
        chancy.grants(roles)


TRAP = """
    CREATE FUNCTION public.trap({0}, {1}) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
    CREATE OPERATOR public.{2} (FUNCTION = public.trap, LEFTARG = {0}, RIGHTARG = {1})
"""
TRAPS = [("interval", "integer", "/"), ("oid", "regclass", "="), ("text[]", "text[]", "&&"), ("json", "json", "->>")]


@pytest.mark.parametrize("pooler", ["session", "transaction"])
async def test_a_worker_never_calls_an_operator_of_somebody_who_may_create_in_public(site, pooler):
    try:
        for trap in TRAPS:
            site.conn.execute(TRAP.format(*trap))
        jobs = site.submit(worker_tasks.add.bind(1, 2), worker_tasks.add.bind(3, 4))
        async with working(site.app(), WorkerConfig(timing=FAST, pooler=pooler)):
            await all_finished(site)
        assert {site.row(job).state for job in jobs} == {State.SUCCEEDED}
    finally:
        for left, right, _ in TRAPS:
            site.conn.execute(f"DROP FUNCTION IF EXISTS public.trap({left}, {right}) CASCADE")
