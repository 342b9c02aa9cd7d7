"""Tasks that take models and give some."""

from __future__ import annotations

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from chancy import Limit, task


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    article: str = Field(alias="articleName")
    price: float
    count: int = 1


@pydantic.dataclasses.dataclass
class Customer:
    id: int = Field(gt=0)


class Invoice(BaseModel):
    customer: int
    total: float
    lines: list[Line]


def made(customer: Customer, lines: list[Line], discount: Line | None) -> Invoice:
    assert isinstance(customer, Customer)
    assert all(isinstance(line, Line) for line in lines)
    total = sum(line.price * line.count for line in lines) - (discount.price if discount else 0)
    return Invoice(customer=customer.id, total=total, lines=lines)


@task
async def bill(customer: Customer, *, lines: list[Line], discount: Line | None = None) -> Invoice:
    return made(customer, lines, discount)


@task
def bill_in_thread(customer: Customer, *, lines: list[Line], discount: Line | None = None) -> Invoice:
    return made(customer, lines, discount)


@task(limits=[Limit.memory(1024**3)])
def bill_in_process(customer: Customer, *, lines: list[Line], discount: Line | None = None) -> Invoice:
    return made(customer, lines, discount)


@task(max_attempts=3)
async def loses_a_part(customer: Customer) -> Customer:
    customer.id = -customer.id
    return customer
