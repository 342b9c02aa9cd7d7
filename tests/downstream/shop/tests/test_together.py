"""The whole shop as it is deployed: its own connections, commits, and a real worker."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from chancy_testing import assert_submitted, refute_submitted
from httpx2 import ASGITransport, AsyncClient

from shop import http, stock, tasks

pytestmark = pytest.mark.anyio

Conn = psycopg.AsyncConnection[Any]
SOON = timedelta(seconds=20)


@pytest.fixture
def anyio_backend() -> str:
    """psycopg speaks asyncio."""
    return "asyncio"


@pytest.fixture
def deployed(chancy_dsn: str, chancy_schema: str, monkeypatch: pytest.MonkeyPatch) -> AsyncClient:
    """The shop over HTTP; it connects by itself."""
    monkeypatch.setenv("SHOP_DSN", chancy_dsn)
    return AsyncClient(transport=ASGITransport(http.app), base_url="http://shop")


@pytest.mark.usefixtures("chancy_worker")
async def test_a_worker_delivers_what_was_ordered(
    deployed: AsyncClient, chancy_aconn: Conn, outbox: list[tuple[str, str]]
) -> None:
    await stock.add(chancy_aconn, "lamp", 3)
    await chancy_aconn.commit()
    async with http.app.router.lifespan_context(http.app):
        placed = await deployed.post("/orders", json={"email": "ann@example.com", "item": "lamp"})
        order_id = placed.json()["id"]
        delivery = await assert_submitted(chancy_aconn, tasks.deliver, order_id)
        assert await delivery.result(chancy_aconn, timeout=SOON) == f"P{order_id}"
        announcement = await assert_submitted(chancy_aconn, tasks.announce_parcel)
        await announcement.result(chancy_aconn, timeout=SOON)
        assert (await deployed.get(f"/orders/{order_id}")).json()["tracking"] == f"P{order_id}"
    assert ("ann@example.com", f"Order {order_id} is under way: P{order_id}") in outbox


async def test_a_request_that_breaks_off_leaves_no_job(
    deployed: AsyncClient, chancy_aconn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def take(*_: object) -> None:
        raise RuntimeError("the shelf fell down")

    monkeypatch.setattr(stock, "take", take)
    await stock.add(chancy_aconn, "chair", 3)
    await chancy_aconn.commit()
    async with http.app.router.lifespan_context(http.app):
        with pytest.raises(RuntimeError, match="fell down"):
            await deployed.post("/orders", json={"email": "ann@example.com", "item": "chair"})
    await refute_submitted(chancy_aconn, tasks.confirm)
