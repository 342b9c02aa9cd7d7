"""What is due is performed on the test's own connection, whatever its stack makes of JSON on the way."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import BaseModel
from stacks import ONE_OF_EACH, params, play

from chancy import Backoff, task
from chancy_testing import drain


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
