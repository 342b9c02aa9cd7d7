"""Models the whole way: submitted, claimed, performed in each place, stored, read."""

from __future__ import annotations

import model_tasks
import msgspec
import pytest
import worker_tasks
from model_tasks import Customer, Invoice, Line
from worker_help import all_finished, eventually, working

from chancy import InvalidArguments, InvalidOption, ResultExpired, State
from chancy_testing import assert_submitted, drain, eager, refute_submitted

pytestmark = pytest.mark.any_postgres

LINES = [Line(articleName="pen", price=1.5), Line(articleName="ink", price=2.0, count=2)]
TASKS = [model_tasks.bill, model_tasks.bill_in_thread, model_tasks.bill_in_process]


@pytest.mark.parametrize("task", TASKS, ids=["loop", "thread", "process"])
async def test_a_function_gets_models_and_gives_one_wherever_it_runs(site, task):
    job = task.submit(site.conn, Customer(7), lines=LINES)
    less = task.submit(site.conn, Customer(7), lines=LINES, discount=Line(articleName="x", price=1))
    async with working(site.app()):
        await all_finished(site)
    row = site.row(job.id)
    assert (row.state, row.errors) == (State.SUCCEEDED, ())
    result = job.result(site.conn)
    assert result == Invoice(customer=7, total=5.5, lines=LINES)
    assert less.result(site.conn).total == 4.5
    assert task.result_of(row) == result
    assert [line.model_fields_set for line in result.lines] == [line.model_fields_set for line in LINES]


def test_in_memory_it_is_the_same():
    with eager() as backend:
        for task in TASKS:
            job = task.submit(backend.conn, Customer(7), lines=LINES)
            assert job.result(backend.conn) == Invoice(customer=7, total=5.5, lines=LINES)
        with pytest.raises(InvalidArguments, match="argument 'lines'"):
            model_tasks.bill.submit(backend.conn, Customer(7), lines=[{"articleName": "pen", "price": 1.5}])


def test_what_was_submitted_is_found_by_its_models(site):
    job = model_tasks.bill.submit(site.conn, Customer(7), lines=LINES)
    assert assert_submitted(site.conn, model_tasks.bill, lines=LINES) == job
    assert assert_submitted(site.conn, model_tasks.bill, Customer(7), discount=None) == job
    assert (
        assert_submitted(site.conn, model_tasks.bill, lines=[LINES[0].model_copy(update={"count": 1}), LINES[1]]) == job
    )
    refute_submitted(site.conn, model_tasks.bill, Customer(8))
    refute_submitted(site.conn, model_tasks.bill, lines=LINES[:1])


async def test_a_model_that_has_changed_since_leaves_the_job_to_others_unharmed_and_says_why(site):
    job = site.one(
        "SELECT {}.submit(%s, %s)",
        model_tasks.bill.name,
        '{"customer": {"id": 1}, "lines": [{"articleName": "pen", "price": 1, "colour": "red"}]}',
    )
    async with working(site.app()):
        row = await eventually(lambda: (row := site.row(job)).errors and row)
    assert (row.attempt, row.errors[0].kind) == (0, "InvalidArguments")
    assert (
        "argument 'lines' of task model_tasks.bill: Extra inputs are not permitted, at lines[0]"
        in row.errors[0].message
    )


async def test_a_result_that_its_model_does_not_take_fails_the_job_at_once(site):
    (job,) = site.submit(model_tasks.loses_a_part.bind(Customer(1)))
    async with working(site.app()):
        await all_finished(site)
    row = site.row(job)
    assert (row.state, row.attempt, row.errors[0].kind) == (State.FAILED, 1, "InvalidResult")
    assert "Input should be greater than 0 - at `$.id`" in row.errors[0].message


def test_a_row_gives_its_result_to_its_own_task_alone(site):
    (job, other) = site.submit(model_tasks.bill.bind(Customer(1), lines=[]), worker_tasks.add.bind(1, 2))
    with pytest.raises(InvalidOption, match=f"job {job.id} .* has no result: it is ready"):
        model_tasks.bill.result_of(site.row(job))
    with pytest.raises(
        InvalidOption, match=rf"expected a job of model_tasks.bill, got job {other.id} of worker_tasks.add"
    ):
        model_tasks.bill.result_of(site.row(other))
    drain(site.conn)
    assert worker_tasks.add.result_of(site.row(other)) == 3
    expired = msgspec.structs.replace(site.row(job), result=None)
    with pytest.raises(ResultExpired):
        model_tasks.bill.result_of(expired)
