"""Code of a shop whose tasks take models."""

from __future__ import annotations

from pydantic import BaseModel

from chancy import task


class Order(BaseModel):
    id: int
    note: str = ""


@task(name="model_shop.pack")
def pack(order: Order, also: list[Order] | None = None, to: Order | str = "nobody") -> Order:
    return order
