"""Orders over HTTP on real Postgres, each test in one transaction; the async tests are run by anyio's plugin."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from chancy import State
from chancy_testing import Clock, Drain, assert_submitted, refute_submitted, submitted
from httpx2 import AsyncClient

from shop import http, stock, tasks

pytestmark = pytest.mark.anyio

Conn = psycopg.AsyncConnection[Any]


@pytest.fixture
def anyio_backend() -> str:
    """psycopg speaks asyncio."""
    return "asyncio"


async def test_an_order_has_its_jobs(client: AsyncClient, chancy_aconn: Conn) -> None:
    await stock.add(chancy_aconn, "lamp", 3)
    answer = await client.post("/orders", json={"email": "ann@example.com", "item": "lamp"})
    assert answer.status_code == 201
    order_id = answer.json()["id"]
    await assert_submitted(chancy_aconn, tasks.confirm, order_id, "ann@example.com")
    await assert_submitted(chancy_aconn, tasks.deliver, order_id)
    await assert_submitted(chancy_aconn, tasks.ask_for_review.using(delay=http.REVIEW_AFTER))


async def test_an_order_of_more_than_there_is_leaves_neither_row_nor_job(
    client: AsyncClient, chancy_aconn: Conn
) -> None:
    await stock.add(chancy_aconn, "lamp", 3)
    answer = await client.post("/orders", json={"email": "ann@example.com", "item": "lamp", "pieces": 4})
    assert answer.status_code == 409
    await refute_submitted(chancy_aconn, tasks.confirm)
    assert (await (await chancy_aconn.execute("SELECT count(*) FROM orders")).fetchone()) == (0,)


async def test_an_order_without_an_item_leaves_no_job(client: AsyncClient, chancy_aconn: Conn) -> None:
    assert (await client.post("/orders", json={"email": "ann@example.com"})).status_code == 422
    assert (await client.post("/orders", json={"email": "ann@example.com", "item": "sofa"})).status_code == 404
    assert await submitted(chancy_aconn, tasks.deliver) == []


async def test_a_wished_date_is_the_time_of_the_delivery(client: AsyncClient, chancy_aconn: Conn) -> None:
    date = datetime(2100, 5, 1, 8, tzinfo=UTC)
    await stock.add(chancy_aconn, "lamp", 3)
    order = {"email": "ann@example.com", "item": "lamp", "not_before": date.isoformat()}
    await client.post("/orders", json=order)
    job = await assert_submitted(chancy_aconn, tasks.deliver.using(run_at=date))
    row = await job.refresh(chancy_aconn)
    assert (row.run_at, row.state) == (date, State.SCHEDULED)


async def test_a_delivered_order_shows_its_tracking_number(
    client: AsyncClient, chancy_aconn: Conn, chancy_drain: Drain, outbox: list[tuple[str, str]]
) -> None:
    await stock.add(chancy_aconn, "lamp", 3)
    placed = await client.post("/orders", json={"email": "ann@example.com", "item": "lamp"})
    order_id = placed.json()["id"]
    done = await chancy_drain(chancy_aconn)
    assert (done.succeeded, done.errors) == (3, [])  # the confirmation, the delivery, and the mail that this submits
    assert (await client.get(f"/orders/{order_id}")).json() == {"id": order_id, "tracking": f"P{order_id}"}
    assert outbox[-1] == ("ann@example.com", f"Order {order_id} is under way: P{order_id}")


async def test_a_review_is_asked_for_a_week_later(
    client: AsyncClient, chancy_aconn: Conn, chancy_drain: Drain, chancy_clock: Clock, outbox: list[tuple[str, str]]
) -> None:
    await stock.add(chancy_aconn, "lamp", 3)
    await client.post("/orders", json={"email": "ann@example.com", "item": "lamp"})
    await chancy_drain(chancy_aconn)
    chancy_clock.move(timedelta(days=6, hours=23))
    assert (await chancy_drain(chancy_aconn)).attempts == 0
    chancy_clock.move(timedelta(hours=2))
    assert (await chancy_drain(chancy_aconn)).succeeded == 1
    assert outbox[-1][1].startswith("How do you like")
