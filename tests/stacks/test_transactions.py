"""A job is part of the transaction in which it was submitted, whatever the stack. The table is printed at the end."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from stacks_tasks import twice

import chancy
from chancy import NotCommitted
from chancy.current import CurrentJob
from chancy.run import send
from chancy_testing import drain
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register
from stacks import STACKS, play


def nested(stack, actor, acts):
    """All acts in a block that is rolled back."""
    if stack.is_async:
        return nested_async(actor, acts)
    with contextlib.suppress(ZeroDivisionError), actor.savepoint():
        for act in acts:
            act()
        raise ZeroDivisionError
    return None


async def nested_async(actor, acts):
    with contextlib.suppress(ZeroDivisionError):
        async with actor.savepoint():
            for act in acts:
                await act()
            raise ZeroDivisionError


def a_first_statement_rolled_back(stack, actor, onlooker):
    yield twice.submit(actor.conn, 1)
    yield actor.rollback()
    assert onlooker.jobs() == []


def a_row_and_a_job_committed(stack, actor, onlooker):
    yield actor.execute(onlooker.insert(1))
    yield twice.submit(actor.conn, 1)
    assert (onlooker.jobs(), onlooker.things()) == ([], [])
    yield actor.commit()
    assert (onlooker.jobs(), onlooker.things()) == ([1], [1])


def a_row_and_a_job_rolled_back(stack, actor, onlooker):
    yield actor.execute(onlooker.insert(1))
    yield twice.submit(actor.conn, 1)
    yield actor.rollback()
    assert (onlooker.jobs(), onlooker.things()) == ([], [])


def a_savepoint_rolled_back(stack, actor, onlooker):
    yield actor.execute(onlooker.insert(1))
    yield twice.submit(actor.conn, 1)
    yield nested(stack, actor, [lambda: actor.execute(onlooker.insert(2)), lambda: twice.submit(actor.conn, 2)])
    yield actor.commit()
    assert (onlooker.jobs(), onlooker.things()) == ([1], [1])


def its_own_result_is_not_waited_for(stack, actor, onlooker):
    job = yield twice.submit(actor.conn, 21)
    with pytest.raises(NotCommitted, match="commit first"):
        yield job.result(actor.conn, timeout=timedelta(seconds=20))
    yield actor.commit()
    drain(onlooker.conn)
    assert (yield job.result(actor.conn, timeout=timedelta(seconds=20))) == 42


def in_autocommit_at_once(stack, actor, onlooker):
    yield twice.submit(actor.conn, 3)
    assert onlooker.jobs() == [3]


def nothing() -> None: ...


def running(onlooker):
    """The attempt of a job of the onlooker's, as its handler has it."""
    job = twice.submit(onlooker.conn, 1)
    lease = send(onlooker.conn, register("w", 60), onlooker.schema)
    wanted = Wanted({"default": 1}, looking=("default",))
    (claim,) = send(onlooker.conn, play_round(lease, [], wanted), onlooker.schema).claimed
    return CurrentJob(job.id, job.task, "default", 1, 3, fence=claim.fence, lease=lease, schema=onlooker.schema)


def a_row_and_a_step(actor, onlooker, me):
    yield actor.execute(onlooker.insert(1))
    yield me.step(actor.conn, "first", nothing)
    assert (chancy.steps(onlooker.conn, me.id), onlooker.things()) == ([], [])


def a_row_and_a_step_committed(stack, actor, onlooker):
    me = running(onlooker)
    yield from a_row_and_a_step(actor, onlooker, me)
    yield actor.commit()
    assert ([step.name for step in chancy.steps(onlooker.conn, me.id)], onlooker.things()) == (["first"], [1])


def a_row_and_a_step_rolled_back(stack, actor, onlooker):
    me = running(onlooker)
    yield from a_row_and_a_step(actor, onlooker, me)
    yield actor.rollback()
    assert (chancy.steps(onlooker.conn, me.id), onlooker.things()) == ([], [])


CASES = {
    "first statement rolled back": a_first_statement_rolled_back,
    "row and job committed": a_row_and_a_job_committed,
    "row and job rolled back": a_row_and_a_job_rolled_back,
    "savepoint rolled back": a_savepoint_rolled_back,
    "NotCommitted, then the result": its_own_result_is_not_waited_for,
    "row and step committed": a_row_and_a_step_committed,
    "row and step rolled back": a_row_and_a_step_rolled_back,
    "autocommit": in_autocommit_at_once,
}


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_a_job_is_there_exactly_when_its_transaction_has_committed(stack, name, onlooker, chancy_dsn, record_property):
    record_property("chancy_stack", (stack.name, name))
    play(stack, chancy_dsn, lambda actor: CASES[name](stack, actor, onlooker), name == "autocommit")
