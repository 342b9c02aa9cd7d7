"""The tasks of these tests: the code that a deploy would bring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from chancy import Unique, task


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Address:
    street: str
    number: int


@task(queue="mail", max_attempts=5)
async def welcome(user_id: int, *, greeting: str = "hello", copies: list[int] | None = None) -> str:
    return greeting


@task
def everything(
    number: int,
    text: str,
    ratio: float = 0.5,
    flag: bool = False,
    day: date | None = None,
    at: datetime | None = None,
    wait: timedelta = timedelta(0),
    who: UUID | None = None,
    size: Size = Size.SMALL,
    to: Address | None = None,
    tags: dict[str, int] | None = None,
    note: str | None = "none",
    anything: Any = None,
) -> None: ...


@task
def by_position(number: int, /, text: str) -> None: ...


@task(unique=Unique(key=lambda order: order))
def invoice(order: int) -> None: ...


@task(name="shop_tasks.ship", aliases=["shop_tasks.send"])
def ship(order: int) -> None: ...


def no_task() -> None: ...
