"""A session that is kept from test to test is as new for the next one, or is not kept."""

from __future__ import annotations

import contextlib

import kept
import psycopg
import pytest
from psycopg.rows import dict_row


@pytest.fixture
def handed_on(chancy_dsn):
    """The session as the next test gets it, after this has used it so; and whether it is the same one."""

    def use(use):
        one = kept.connect(chancy_dsn)
        pid = one.info.backend_pid
        use(one)
        one.close()
        other = kept.connect(chancy_dsn)
        opened.append(other)
        return other, other.info.backend_pid == pid

    opened: list[psycopg.Connection] = []
    yield use
    for conn in opened:
        conn.close()


@pytest.mark.parametrize(
    ("left", "look", "as_new"),
    [
        ("SET statement_timeout = '1s'", "SHOW statement_timeout", "0"),
        ("SET ROLE pg_monitor", "SELECT current_user = session_user", True),
        ("LISTEN something", "SELECT count(*) FROM pg_listening_channels()", 0),
        (
            "SELECT pg_advisory_lock(4711)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND pid = pg_backend_pid()",
            0,
        ),
        ("CREATE TEMP TABLE mine (x int)", "SELECT to_regclass('pg_temp.mine')", None),
        ("BEGIN; CREATE TABLE kept_nowhere (x int)", "SELECT to_regclass('kept_nowhere')", None),
        ("BEGIN", "SELECT pg_current_xact_id_if_assigned() IS NULL", True),
    ],
)
def test_nothing_of_the_test_before_is_left_in_it(handed_on, left, look, as_new):
    conn, same = handed_on(lambda conn: conn.execute(left))
    assert same
    assert conn.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    assert conn.execute(look).fetchone() == (as_new,)


def test_it_is_in_autocommit_again(handed_on):
    conn, same = handed_on(lambda conn: conn.set_autocommit(False))
    assert (same, conn.autocommit) == (True, True)


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda conn: setattr(conn, "row_factory", dict_row),
        lambda conn: setattr(conn, "prepare_threshold", None),
        lambda conn: conn.execute("SELECT pg_terminate_backend(pg_backend_pid())"),
    ],
    ids=["rows", "preparing", "ended"],
)
def test_what_cannot_be_put_right_is_not_kept(handed_on, spoilt):
    def use(conn):
        with contextlib.suppress(psycopg.OperationalError):
            spoilt(conn)

    conn, same = handed_on(use)
    assert not same
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_who_closes_it_twice_has_it_once(chancy_dsn):
    one = kept.connect(chancy_dsn)
    one.close()
    one.close()
    first, second = kept.connect(chancy_dsn), kept.connect(chancy_dsn)
    assert first is not second
    first.close()
    second.close()
