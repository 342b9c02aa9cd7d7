"""The shop over HTTP. What a request writes and what it submits are one transaction."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from psycopg.errors import CheckViolation, ForeignKeyViolation
from psycopg_pool import AsyncConnectionPool
from pydantic import AwareDatetime, BaseModel, PositiveInt

from . import database, stock, tasks

REVIEW_AFTER = timedelta(days=7)


class NewOrder(BaseModel):
    """What a customer sends."""

    email: str
    item: str
    pieces: PositiveInt = 1
    not_before: AwareDatetime | None = None
    """When the parcel may leave, if not at once."""


class Order(BaseModel):
    """What a customer sees."""

    id: int
    tracking: str | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """A pool for the life of the process."""
    async with AsyncConnectionPool(database.dsn(), open=False) as app.state.pool:
        yield


async def connection(request: Request) -> AsyncIterator[database.AsyncConnection]:
    """A connection for one request."""
    async with request.app.state.pool.connection() as conn:
        yield conn


app = FastAPI(lifespan=lifespan)
Connection = Annotated[database.AsyncConnection, Depends(connection)]


@app.post("/orders", status_code=201)
async def place(order: NewOrder, conn: Connection) -> Order:
    """The order, its jobs and the stock: all or nothing."""
    try:
        # Ends before the answer is sent: FastAPI leaves dependencies only afterwards, too late to tell of an error.
        async with conn.transaction():
            return Order(id=await _place(order, conn))
    except ForeignKeyViolation:
        raise HTTPException(404, f"there is no {order.item}") from None
    except CheckViolation:
        raise HTTPException(409, f"there are not so many of {order.item}") from None


async def _place(order: NewOrder, conn: database.AsyncConnection) -> int:
    inserted = await conn.execute(
        "INSERT INTO orders (email, item, pieces) VALUES (%s, %s, %s) RETURNING id",
        (order.email, order.item, order.pieces),
    )
    row = await inserted.fetchone()
    assert row is not None
    order_id: int = row[0]
    await tasks.confirm.submit(conn, order_id, order.email)
    await tasks.deliver.using(run_at=order.not_before).submit(conn, order_id)
    await tasks.ask_for_review.using(delay=REVIEW_AFTER).submit(conn, order_id, order.email)
    # Last, because everybody who buys the item waits for this row until the commit.
    await stock.take(conn, order.item, order.pieces)
    return order_id


@app.get("/orders/{order_id}")
async def show(order_id: int, conn: Connection) -> Order:
    """How far an order is."""
    found = await conn.execute("SELECT tracking FROM orders WHERE id = %s", (order_id,))
    row = await found.fetchone()
    if row is None:
        raise HTTPException(404, "there is no such order")
    return Order(id=order_id, tracking=row[0])
