"""What the shop promises: an order and the job that confirms it are there together, or not at all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from shop import tasks
from shop.database import Order
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from chancy import Chancy
from chancy_testing import assert_submitted, refute_submitted
from chancy_worker import Worker, WorkerConfig

PEN = {"article": "pen", "email": "ann@example.com"}


async def orders(session: AsyncSession) -> int:
    return await session.scalar(select(func.count()).select_from(Order)) or 0


async def test_an_order_is_there_with_its_job(client: httpx.AsyncClient, session: AsyncSession) -> None:
    placed = (await client.post("/orders", json=PEN)).json()
    job = await assert_submitted(session, tasks.confirm, tasks.Placed(order=placed["order"], email="ann@example.com"))
    assert (job.id, await orders(session)) == (placed["job"], 1)


async def test_an_order_that_is_refused_after_its_submit_leaves_neither(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    assert (await client.post("/orders", json=PEN | {"article": "nothing"})).status_code == 409
    assert await orders(session) == 0
    await refute_submitted(session, tasks.confirm)


async def test_a_commit_that_fails_is_told_to_the_customer(client: httpx.AsyncClient, session: AsyncSession) -> None:
    await session.execute(
        text("ALTER TABLE shop_order ADD CONSTRAINT one_each UNIQUE (email) DEFERRABLE INITIALLY DEFERRED")
    )
    await session.commit()
    answers = [(await client.post("/orders", json=PEN)).status_code for _ in range(2)]
    assert answers == [201, 500]
    assert await orders(session) == 1


async def test_what_the_client_says_and_the_task_does_not_take_is_a_422_that_names_it(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    wish: dict[str, Any] = {"period": {"year": 2031}, "options": {"colour": "red"}}
    refused = await client.post("/reports", json=wish)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "colour"]
    assert (await client.post("/reports", json=wish | {"options": {"title": 7}})).json()["detail"][0]["loc"][
        1
    ] == "title"
    assert (await client.post("/reports", json={"period": {"year": 1031}})).status_code == 422
    await refute_submitted(session, tasks.report)
    assert (await client.post("/reports", json=wish | {"options": {"title": "Sales"}})).status_code == 202
    await assert_submitted(session, tasks.report, tasks.Period(year=2031), title="Sales")


async def test_an_order_is_confirmed_once_by_a_worker_beside_the_requests(
    client: httpx.AsyncClient, session: AsyncSession, chancy_dsn: str, chancy_schema: str
) -> None:
    placed = (await client.post("/orders", json=PEN)).json()
    async with Worker(Chancy(chancy_dsn, schema=chancy_schema), WorkerConfig(grace=10)).running():
        job = await assert_submitted(session, tasks.confirm)
        await session.commit()
        confirmation = await job.result(session, timeout=timedelta(seconds=60))
    assert confirmation.text == "Dear ann@example.com, pen is on its way"
    order = await session.get_one(Order, placed["order"])
    assert order.confirmed_at is not None
    seen = (await client.get(f"/jobs/{placed['job']}")).json()
    assert seen["state"] == "succeeded"
    assert tasks.Confirmation.model_validate_json(seen["result"]) == confirmation
    assert (await client.get("/jobs/999999")).status_code == 404


async def test_a_job_whose_order_is_gone_is_discarded(session: AsyncSession, chancy_drain: Any) -> None:
    await tasks.confirm.submit(session, tasks.Placed(order=7, email="ann@example.com"))
    await session.commit()
    done = await chancy_drain(session)
    assert done.discarded == 1


@pytest.mark.parametrize(("month", "title"), [(1, "Orders of 2031-01"), (12, "Orders of 2031-12")])
def test_a_report_needs_no_database(chancy_eager: Any, month: int, title: str) -> None:
    job = tasks.report.submit(chancy_eager.conn, tasks.Period(year=2031, month=month))
    assert job.result(chancy_eager.conn) == title
