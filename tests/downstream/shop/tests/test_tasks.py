"""Tasks in eager mode: no test of this file needs a database."""

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from chancy import Limit, State, TimeLimitExceeded
from chancy_testing import Eager, assert_submitted, refute_submitted

from shop import courier, database, mail, tasks


def test_a_confirmation_is_mailed(chancy_eager: Eager, outbox: list[tuple[str, str]]) -> None:
    tasks.confirm.submit(chancy_eager.conn, 7, "ann@example.com")
    assert outbox == [("ann@example.com", "Thank you for order 7")]


def test_a_mail_is_tried_again_while_the_server_is_down(chancy_eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([OSError("no route"), OSError("no route"), None])

    def send(to: str, text: str) -> None:
        if error := next(answers):
            raise error

    monkeypatch.setattr(mail, "send", send)
    tasks.confirm.submit(chancy_eager.conn, 7, "ann@example.com")
    (job,) = chancy_eager.jobs
    assert (job.state, job.attempt) == (State.SUCCEEDED, 3)
    assert job.delays[0] < timedelta(minutes=1) < job.delays[1]


@pytest.mark.chancy_eager(raise_errors=False)
def test_after_five_attempts_a_mail_is_given_up(chancy_eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(to: str, text: str) -> None:
        raise OSError("no route")

    monkeypatch.setattr(mail, "send", send)
    tasks.confirm.submit(chancy_eager.conn, 7, "ann@example.com")
    (job,) = chancy_eager.jobs
    assert (job.state, len(job.errors), job.errors[-1].message) == (State.FAILED, 5, "no route")


def test_a_courier_who_does_not_answer_is_not_waited_for(chancy_eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    async def book(order_id: int) -> str:
        await asyncio.Event().wait()
        return "never"

    monkeypatch.setattr(courier, "book", book)
    hurried = tasks.deliver.using(limits=[Limit.time(0.05)], max_attempts=1)
    with pytest.raises(TimeLimitExceeded):
        hurried.submit(chancy_eager.conn, 7)


def test_an_advertisement_is_a_job_for_each_customer(
    chancy_eager: Eager, monkeypatch: pytest.MonkeyPatch, outbox: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(database, "connection", lambda: nullcontext(chancy_eager.aconn))
    job = tasks.advertise_to_all.submit(chancy_eager.conn, "lamp", ["ann@example.com", "bob@example.com"])
    assert job.result(chancy_eager.conn) == 2
    assert_submitted(chancy_eager.conn, tasks.advertise, "lamp", "bob@example.com")
    refute_submitted(chancy_eager.conn, tasks.advertise, "lamp", "cem@example.com")
    assert [to for to, _ in outbox] == ["ann@example.com", "bob@example.com"]


@pytest.mark.chancy_eager(mode="collect")
def test_a_delivery_may_wait_for_a_date(chancy_eager: Eager, bookings: list[int]) -> None:
    date = datetime(2100, 5, 1, 8, tzinfo=UTC)
    job = tasks.deliver.using(run_at=date).submit(chancy_eager.conn, 7)
    (seen,) = chancy_eager.jobs
    assert (seen.id, seen.state, seen.run_at, seen.arguments) == (job.id, State.SCHEDULED, date, {"order_id": 7})
    assert not bookings


def test_a_rollback_in_memory_takes_the_job_along(chancy_eager: Eager, outbox: list[tuple[str, str]]) -> None:
    with chancy_eager.conn.transaction():
        tasks.confirm.submit(chancy_eager.conn, 7, "ann@example.com")
        raise psycopg.Rollback
    assert (chancy_eager.jobs, outbox) == ([], [])


def test_a_task_is_still_its_function(outbox: list[tuple[str, str]]) -> None:
    tasks.advertise("lamp", "ann@example.com")
    assert len(outbox) == 1
