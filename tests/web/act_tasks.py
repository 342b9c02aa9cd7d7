"""The tasks of what people do: one module, by whomever it is imported."""

from __future__ import annotations

import asyncio
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Literal

import msgspec
import psycopg

import chancy
from chancy import Secret, task

dsn = ""
"""Of the database that the test has."""


@task(name="acts.greet", max_attempts=1)
async def greet(name: str, *, fails: bool = False) -> str:
    if fails:
        raise ValueError(f"no {name}")
    return f"hello {name}"


@task(name="acts.waits", max_attempts=2)
async def waits() -> None:
    await asyncio.sleep(600)


@task(name="acts.told")
async def told() -> str:
    job = chancy.current_job()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        return await job.wait(conn, "go", str)


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Address(msgspec.Struct):
    street: str
    number: int = 1


@task(name="acts.pack", queue="mail")
def pack(
    text: str,
    years: Annotated[int, msgspec.Meta(ge=18, description="Whole years.")],
    flag: bool = True,
    size: Size = Size.SMALL,
    mode: Literal["slow", "fast"] = "slow",
    day: date | None = None,
    at: datetime | None = None,
    numbers: list[int] | None = None,
    to: Address | None = None,
    pin: Annotated[str, Secret()] = "",
) -> None: ...


class Card(msgspec.Struct):
    owner: str
    pin: Annotated[Literal["1", "2"], Secret()] = "1"


class Checked(msgspec.Struct):
    pin: Annotated[str, Secret()]

    def __post_init__(self) -> None:
        if len(self.pin) != 4:
            raise ValueError(f"{self.pin} has not four digits")


@task(name="acts.hides", queue="mail")
def hides(
    mode: Annotated[Literal["slow", "fast"], Secret()],
    number: Annotated[int, Secret()],
    card: Card,
    other: Card,
    checked: Checked,
) -> None: ...
