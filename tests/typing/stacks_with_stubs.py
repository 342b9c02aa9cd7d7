"""The same for stacks that say their types elsewhere: django-stubs, asyncpg-stubs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

import asyncpg
from django.db import connection, connections

import chancy
from chancy import Job, JobRow, task


@task
def plain(number: int) -> str:
    return str(number)


def of_django() -> None:
    assert_type(plain.submit(connection, 1), Job[str])
    assert_type(plain.submit(connections["default"], 1), Job[str])
    assert_type(chancy.get(connection, 1), JobRow)


async def of_asyncpg(alone: asyncpg.Connection[Any]) -> None:
    _ = assert_type(plain.submit(alone, 1), Coroutine[Any, Any, Job[str]])
    assert_type(await plain.submit(alone, 1), Job[str])
    assert_type(await chancy.get(alone, 1), JobRow)
    async with asyncpg.create_pool("") as pool, pool.acquire() as pooled:
        assert_type(await plain.submit(pooled, 1), Job[str])
