"""What is promised about jobs is kept on every stack, by the cases of `conformance`."""

from __future__ import annotations

import psycopg
import pytest

from chancy_testing.attempts import on_a_loop_of_its_own
from conformance import CASES, OnPostgres
from conformance.grounds import go_on, go_on_awaiting
from stacks import OFTEN, STACKS


async def keep(case, stack, dsn, schema):
    async with stack.opened(dsn, True) as actor, await psycopg.AsyncConnection.connect(dsn, autocommit=True) as drained:
        await go_on_awaiting(case(OnPostgres(actor.conn, schema, drained)))


def pytest_generate_tests(metafunc):
    """Each promise on each stack, of which on every commit each is tried on one: those have their promises in turn.

    tests/conformance has each promise on psycopg, sync and async, besides. What is not asked for is not made: six
    thousand cases would be thrown away by each process.
    """
    every = "not every_stack" not in metafunc.config.option.markexpr
    pairs = [
        pytest.param(case, stack, marks=() if often else pytest.mark.every_stack, id=f"{case.__name__}-{stack.name}")
        for number, case in enumerate(CASES)
        for stack in STACKS
        if (often := stack.name == OFTEN[number % len(OFTEN)]) or every
    ]
    metafunc.parametrize(("case", "stack"), pairs)


def test_a_promise_is_kept_on_every_stack(case, stack, chancy_dsn, chancy_schema):
    if stack.is_async:
        on_a_loop_of_its_own(keep(case, stack, chancy_dsn, chancy_schema))
    else:
        with stack.opened(chancy_dsn, True) as actor, psycopg.connect(chancy_dsn, autocommit=True) as drained:
            go_on(case(OnPostgres(actor.conn, chancy_schema, drained)))
