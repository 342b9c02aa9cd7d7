"""What users write with stacks of which nobody has told their checker: it passes, and psycopg's own types are as they are."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

import asyncpg  # type: ignore[import-untyped]
import psycopg
import psycopg2  # type: ignore[import-untyped]
from django.db import connection, connections  # type: ignore[import-untyped]

import chancy
from chancy import Job, JobRow, task


@task
def plain(number: int) -> str:
    return str(number)


async def of_others() -> None:
    plain.submit(connection, 1)
    plain.submit(connections["default"], 1)
    plain.submit(psycopg2.connect("dbname=shop"), 1)
    await plain.submit(await asyncpg.connect("postgresql:///shop"), 1)
    chancy.get(connection, 7)


async def of_psycopg(conn: psycopg.Connection, async_conn: psycopg.AsyncConnection) -> None:
    assert_type(plain.submit(conn, 1), Job[str])
    submitted = assert_type(plain.submit(async_conn, 1), Coroutine[Any, Any, Job[str]])
    assert_type(await submitted, Job[str])
    assert_type(chancy.get(conn, 7), JobRow)
    assert_type(await chancy.get(async_conn, 7), JobRow)
