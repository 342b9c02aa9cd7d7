"""Submits in a transaction that is prepared for a two-phase commit, while idle workers wait at the doorbell."""

from __future__ import annotations

import psycopg
import pytest
import worker_tasks
from worker_help import Site, all_finished, eventually, working

import chancy
import chancy_ops
from chancy import State, Unique
from chancy_ops import JobFilter
from chancy_testing.server.postgres import QUICK, Postgres

add = worker_tasks.add
QUIET = "SET LOCAL chancy.quiet = on"


@pytest.fixture(scope="module")
def server():
    with Postgres(settings={**QUICK, "max_prepared_transactions": "5"}) as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        yield server


@pytest.fixture
def site(server, tmp_path):
    site = Site(server.dsn, "chancy", tmp_path)
    site.conn.execute("TRUNCATE chancy.job, chancy.history, chancy.pause, chancy.worker CASCADE")
    yield site
    site.close()


@pytest.fixture
def idle(server):
    """Somebody waits at the doorbell of the default queue."""
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        assert conn.execute("SELECT chancy.bell_wait(ARRAY[chancy.bell_key('default')])").fetchone()[0]
        yield conn


@pytest.fixture
def caller(server):
    conn = psycopg.connect(server.dsn)
    yield conn
    conn.close()


def running(conn):
    """A job that a worker runs."""
    job = add.submit(conn, 1, 2)
    conn.execute("INSERT INTO chancy.worker (name, started_at, expires_at) VALUES ('w', now(), now() + interval '1 h')")
    conn.execute("UPDATE chancy.job SET state = 'running', worker = (SELECT max(id) FROM chancy.worker), attempt = 1, "
                 "claims = 1, started_at = now()")  # fmt: skip
    return job


def cancelled(conn):
    """One that is over."""
    job = add.submit(conn, 1, 2)
    chancy.cancel(conn, job.id)
    return job


VERBS = {
    "submit": (lambda conn: None, lambda conn, _: add.submit(conn, 1, 2)),
    "submit_many": (lambda conn: None, lambda conn, _: chancy.submit_many(conn, [add.bind(1, 2), add.bind(3, 4)])),
    "unique": (lambda conn: None, lambda conn, _: add.using(unique=Unique()).submit(conn, 1, 2)),
    "sql": (lambda conn: None, lambda conn, _: conn.execute("SELECT chancy.submit('worker_tasks.add')")),
    "requeue": (cancelled, lambda conn, job: chancy.requeue(conn, job.id)),
    "cancel": (running, lambda conn, job: chancy.cancel(conn, job.id)),
    "resume": (lambda conn: chancy_ops.pause(conn, "default"), lambda conn, _: chancy_ops.resume(conn, "default")),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_quiet_transaction_can_be_prepared_whoever_waits_at_the_doorbell(site, idle, caller, verb):
    prepare, do = VERBS[verb]
    before = prepare(site.conn)
    caller.tpc_begin(caller.xid(1, verb, "q"))
    caller.execute(QUIET)
    do(caller, before)
    caller.tpc_prepare()
    caller.tpc_commit()
    assert caller.execute("SELECT current_setting('chancy.quiet', true)").fetchone()[0] != "on"
    caller.rollback()
    if verb not in ("cancel", "resume"):
        assert chancy_ops.count(site.conn)[State.READY] >= 1


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"cancel"}))
def test_one_that_is_not_cannot_while_somebody_waits_there(site, idle, caller, verb):
    prepare, do = VERBS[verb]
    before = prepare(site.conn)
    caller.tpc_begin(caller.xid(1, verb, "loud"))
    do(caller, before)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
        caller.tpc_prepare()


def test_a_quiet_transaction_that_stays_prepared_keeps_nobody_from_the_doorbell(site, caller):
    caller.tpc_begin(caller.xid(1, "kept", "q"))
    caller.execute(QUIET)
    add.submit(caller, 1, 2)
    caller.tpc_prepare()
    with psycopg.connect(site.dsn, autocommit=True) as other:
        assert other.execute("SELECT chancy.bell_wait(ARRAY[chancy.bell_key('default')])").fetchone()[0] != []
    caller.tpc_rollback()
    assert chancy_ops.count(site.conn) == {}


async def test_an_idle_worker_finds_what_was_submitted_quietly_with_its_next_look(site, caller):
    async with working(site.app()):
        await eventually(lambda: site.workers())
        caller.tpc_begin(caller.xid(1, "found", "q"))
        caller.execute(QUIET)
        add.submit(caller, 1, 2)
        caller.tpc_prepare()
        caller.tpc_commit()
        await all_finished(site)
    assert chancy_ops.count(site.conn, JobFilter(task=add)) == {State.SUCCEEDED: 1}
