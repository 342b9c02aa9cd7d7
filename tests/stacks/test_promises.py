"""What is promised about jobs is kept on every stack, by the cases of `conformance`."""

from __future__ import annotations

import contextlib
import re
import tomllib
from pathlib import Path

import kept
import psycopg
import pytest

from chancy_testing.attempts import on_a_loop_of_its_own
from conformance import CASES, OnPostgres
from conformance.grounds import go_on, go_on_awaiting
from stacks import OFTEN, STACKS


async def keep(case, stack, dsn, schema):
    async with stack.opened(dsn, True) as actor, await psycopg.AsyncConnection.connect(dsn, autocommit=True) as drained:
        await go_on_awaiting(case(OnPostgres(actor.conn, schema, drained)))


def pairs(asked_for):
    """Each promise with each stack that an expression of marks asks for, of which on every commit each is tried on one.

    Those have their promises in turn; tests/conformance has each promise on psycopg, sync and async, besides. What is
    not asked for is not made: six thousand cases would be thrown away by each process.
    """
    every = "every_stack" in asked_for and "not every_stack" not in asked_for.split(" and ")
    return [
        pytest.param(case, stack, marks=() if often else pytest.mark.every_stack, id=f"{case.__name__}-{stack.name}")
        for number, case in enumerate(CASES)
        for stack in STACKS
        if (often := stack.name == OFTEN[number % len(OFTEN)]) or every
    ]


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize(("case", "stack"), pairs(metafunc.config.option.markexpr))


def test_a_promise_is_kept_on_every_stack(case, stack, chancy_dsn, chancy_schema):
    if stack.is_async:
        on_a_loop_of_its_own(keep(case, stack, chancy_dsn, chancy_schema))
    else:
        with stack.opened(chancy_dsn, True) as actor, contextlib.closing(kept.connect(chancy_dsn)) as drained:
            drained.execute("SET plan_cache_mode = force_generic_plan")  # rounds are planned once, as a worker has them
            go_on(case(OnPostgres(actor.conn, chancy_schema, drained)))


def test_the_run_of_all_stacks_asks_for_each_promise_on_each_and_a_commit_for_each_on_one():
    house = Path(__file__).parents[2]
    environments = tomllib.loads((house / "hatch.toml").read_text(encoding="utf-8"))["envs"]
    for script in environments["stacks"]["scripts"]["run"]:
        (asked_for,) = re.findall(r'-m "(.*?)"', script)
        assert len(pairs(asked_for)) == len(CASES) * len(STACKS)
    options = tomllib.loads((house / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    (asked_for,) = [option for option in options["addopts"] if "every_stack" in option]
    assert len(pairs(asked_for)) == len(CASES)
