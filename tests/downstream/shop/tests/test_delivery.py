"""Deliveries and what may go wrong with them, on real Postgres; the async tests are run by pytest-asyncio."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from chancy import JobFailed, State
from chancy_testing import Clock, Drain, Faults, assert_submitted, submitted
from httpx2 import AsyncClient

from shop import courier, mail, stock, tasks

pytest.importorskip("pytest_asyncio", reason="these tests are marked for pytest-asyncio")

Conn = psycopg.AsyncConnection[Any]


@pytest.mark.asyncio
async def test_a_delivery_that_runs_twice_sends_one_mail(
    client: AsyncClient, chancy_aconn: Conn, chancy_drain: Drain, chancy_faults: Faults, bookings: list[int]
) -> None:
    await stock.add(chancy_aconn, "lamp", 3)
    placed = await client.post("/orders", json={"email": "ann@example.com", "item": "lamp"})
    order_id = placed.json()["id"]
    chancy_faults.die_before_completion(task=tasks.deliver)
    done = await chancy_drain(chancy_aconn)
    assert (done.died, done.errors) == (1, [])
    assert len(await submitted(chancy_aconn, tasks.announce_parcel)) == 1
    assert bookings == [order_id, order_id]  # under one number


@pytest.mark.asyncio
async def test_a_courier_who_refuses_three_times_fails_the_delivery(
    client: AsyncClient, chancy_aconn: Conn, chancy_drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def book(order_id: int) -> str:
        raise ValueError("on strike")

    monkeypatch.setattr(courier, "book", book)
    await stock.add(chancy_aconn, "lamp", 3)
    await client.post("/orders", json={"email": "ann@example.com", "item": "lamp"})
    done = await chancy_drain(chancy_aconn, with_scheduled=True)
    assert (done.retried, done.failed) == (2, 1)
    job = await assert_submitted(chancy_aconn, tasks.deliver)
    with pytest.raises(JobFailed, match="on strike"):
        await job.result(chancy_aconn)


def test_a_mail_waits_until_the_server_is_up(
    chancy_conn: psycopg.Connection[Any], chancy_drain: Drain, chancy_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def send(to: str, text: str) -> None:
        if not sent:
            sent.append("in vain")
            raise OSError("no route")
        sent.append(to)

    monkeypatch.setattr(mail, "send", send)
    job = tasks.confirm.submit(chancy_conn, 7, "ann@example.com")
    assert chancy_drain(chancy_conn).retried == 1
    chancy_clock.move(timedelta(seconds=15))
    assert chancy_drain(chancy_conn).attempts == 0
    chancy_clock.move(timedelta(seconds=45))
    assert chancy_drain(chancy_conn).succeeded == 1
    assert (job.refresh(chancy_conn).state, sent) == (State.SUCCEEDED, ["in vain", "ann@example.com"])
