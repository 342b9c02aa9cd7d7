"""`drain` performs what is due on a connection of any stack, within its transaction if it has one."""

from __future__ import annotations

import sys
from datetime import timedelta

import pytest
from pydantic import BaseModel
from stacks_tasks import half

from chancy import Backoff, Limit, State, current_job, submit_many, task
from chancy_testing import assert_submitted, drain
from stacks import ON_PSYCOPG2, ONE_OF_EACH, STACKS, params, play

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


class Line(BaseModel):
    article: str
    price: float
    big: int = 2**70


@task(name="stacks.total", retry=Backoff(base=timedelta(0), jitter=0))
def total(lines: list[Line], note: str = "") -> Line:
    if note == "fails":
        raise LookupError(note)
    return Line(article=f"{note}{len(lines)}", price=sum(line.price for line in lines))


@pytest.mark.parametrize("stack", params(ONE_OF_EACH))
def test_what_is_drained_has_its_arguments_its_retries_and_its_result(stack, onlooker, chancy_dsn):
    lines = [Line(article="pen", price=0.1), Line(article="ink", price=1e-7)]

    def case(actor):
        good = yield total.submit(actor.conn, lines, "ž\u0000")
        bad = yield total.using(max_attempts=2, retry=Backoff(base=timedelta(0), jitter=0)).submit(
            actor.conn, [], "fails"
        )
        done = yield drain(actor.conn, with_scheduled=True)
        assert (done.succeeded, done.retried, done.failed) == (1, 1, 1), done
        yield actor.commit()
        row = yield good.refresh(actor.conn)
        assert total.result_of(row) == Line(article="ž\u00002", price=0.1 + 1e-7)
        assert len((yield bad.refresh(actor.conn)).errors) == 2

    play(stack, chancy_dsn, case)


@task(
    name="stacks.gated",
    limits=[Limit.concurrency(2), Limit.rate(100, per=60)],
    group=lambda tenant: tenant,
    retry=Backoff(base=timedelta(0), jitter=0),
)
def gated(tenant: str) -> str:
    return f"{tenant} {current_job().meta['request']}"


@pytest.mark.parametrize("stack", params(ONE_OF_EACH))
def test_what_waits_for_limits_and_turns_is_drained_with_what_travels_beside_it_and_after_a_death(
    stack, onlooker, chancy_dsn, chancy_faults, monkeypatch
):
    monkeypatch.setattr(sys.modules["chancy.arguments.meta"], "functions", [lambda: {"request": "ž1"}])
    chancy_faults.die_before_completion(task=gated)

    def case(actor):
        jobs = yield submit_many(actor.conn, [gated.bind("a"), gated.bind("b")])
        done = yield drain(actor.conn, with_scheduled=True)
        assert (done.died, done.succeeded) == (1, 2), done
        yield actor.commit()
        for job, tenant in zip(jobs, "ab", strict=True):
            assert gated.result_of((yield job.refresh(actor.conn))) == f"{tenant} ž1"

    play(stack, chancy_dsn, case)
