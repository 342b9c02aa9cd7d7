"""A job is part of the transaction in which it was submitted, whatever the stack. The table is printed at the end."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from stacks_tasks import twice

from chancy import NotCommitted
from chancy_testing import drain
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


CASES = {
    "first statement rolled back": a_first_statement_rolled_back,
    "row and job committed": a_row_and_a_job_committed,
    "row and job rolled back": a_row_and_a_job_rolled_back,
    "savepoint rolled back": a_savepoint_rolled_back,
    "NotCommitted, then the result": its_own_result_is_not_waited_for,
    "autocommit": in_autocommit_at_once,
}


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_a_job_is_there_exactly_when_its_transaction_has_committed(stack, name, onlooker, chancy_dsn, record_property):
    record_property("chancy_stack", (stack.name, name))
    play(stack, chancy_dsn, lambda actor: CASES[name](stack, actor, onlooker), name == "autocommit")
