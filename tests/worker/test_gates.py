"""Limits over all workers, and groups that take turns, with real workers on real Postgres."""

from __future__ import annotations

import gate_tasks as tasks
import pytest
from worker_help import all_finished, eventually, states, worker_with, working

from chancy.run import send
from chancy_worker.gatekeeper import admit


@pytest.fixture(autouse=True)
def clean():
    for kept in (tasks.now_running, tasks.most, tasks.began):
        kept.clear()


def admitted(site, queue="default", want=100, spot=""):
    (answer,) = send(site.conn, admit({queue: want}, {queue: spot}), site.schema)
    return answer


async def test_no_more_run_at_a_time_than_the_limit_says(site):
    site.submit(*[tasks.three.bind() for _ in range(40)])
    async with working(site.app()), working(site.app()):
        await all_finished(site)
    assert (tasks.most, states(site)) == ({"three": 3}, {"succeeded": 40})


async def test_each_key_has_a_limit_of_its_own(site):
    site.submit(*[tasks.two_a_customer.bind(f"c{n % 7}") for n in range(70)])
    async with working(site.app()), working(site.app()):
        await all_finished(site)
    assert tasks.most == {f"c{n}": 2 for n in range(7)}
