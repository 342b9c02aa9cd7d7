"""`drain` performs what is due on a connection of any stack, within its transaction if it has one."""

from __future__ import annotations

import pytest
from stacks_tasks import half

from chancy import State
from chancy_testing import assert_submitted, drain
from stacks import ON_PSYCOPG2, STACKS, play

OVER_PSYCOPG = [
    stack
    for stack in STACKS
    if stack.name.startswith("psycopg,")
    or stack.name.endswith("on psycopg")
    or (stack.name[:6] == "Django" and not ON_PSYCOPG2)
]


@pytest.mark.parametrize("stack", OVER_PSYCOPG, ids=str)
def test_what_was_not_committed_is_performed_and_undone_with_it(stack, onlooker, chancy_dsn):
    def submit(actor):
        job = yield half.submit(actor.conn, 4)
        wrong = yield half.submit(actor.conn, 3)
        yield assert_submitted(actor.conn, half, n=4)
        drained = yield drain(actor.conn)
        assert (drained.succeeded, drained.failed) == (1, 1)
        assert (yield job.result(actor.conn, timeout=20)) == 4
        assert (yield wrong.refresh(actor.conn)).state is State.FAILED
        yield actor.rollback()

    play(stack, chancy_dsn, submit)
    assert onlooker.conn.execute(f"SELECT count(*) FROM {onlooker.schema}.any_job").fetchone() == (0,)


@pytest.mark.parametrize("stack", OVER_PSYCOPG, ids=str)
def test_in_autocommit_each_step_is_committed(stack, onlooker, chancy_dsn):
    half.submit(onlooker.conn, 4)

    def perform(actor):
        assert (yield drain(actor.conn)).succeeded == 1

    play(stack, chancy_dsn, perform, autocommit=True)
    assert onlooker.conn.execute(f"SELECT state::text FROM {onlooker.schema}.any_job").fetchone() == ("succeeded",)
