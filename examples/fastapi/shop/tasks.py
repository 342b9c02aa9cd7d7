"""What is done later. Models of Pydantic are arguments and results."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from chancy import Discard, Unique, current_job, task

from . import database


class Placed(BaseModel):
    """An order, as far as its confirmation needs to know it."""

    model_config = ConfigDict(frozen=True)

    order: int
    email: str


class Confirmation(BaseModel):
    """What was sent."""

    order: int
    text: str


class Period(BaseModel):
    """Some days of a year."""

    year: int = Field(ge=2000, le=2100)
    month: int = Field(default=1, ge=1, le=12)


@task(max_attempts=5, unique=Unique(key=lambda placed: placed.order))
async def confirm(placed: Placed) -> Confirmation:
    """Write to the customer. The row and the job's verdict are one transaction: both, or neither."""
    async with database.sessions.begin() as session:
        order = await session.get(database.Order, placed.order, with_for_update=True)
        if order is None:
            raise Discard(f"order {placed.order} is gone")
        confirmation = Confirmation(order=order.id, text=f"Dear {placed.email}, {order.article} is on its way")
        order.confirmed_at = datetime.now(UTC)
        await session.flush()
        await current_job().complete(session, confirmation)
    return confirmation


@task
def report(period: Period, *, title: str = "Orders") -> str:
    """Plain functions run in a thread, beside the requests."""
    return f"{title} of {period.year}-{period.month:02}"
