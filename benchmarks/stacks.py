"""What a submit costs above the bare INSERT of the same row through the same stack.

    python3 dev.py stacks.new:python benchmarks/stacks.py [--rounds 15] [--each 100]

One follows the other, in an open transaction that is rolled back after each round. For each stack the medians in
microseconds, and their ratio beside the bound that it is held to. Needs nobody else on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession

import chancy
from chancy_testing.server.postgres import Postgres

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / name) for name in ("stacks", "")]

from stacks import BY_NAME, Stack  # noqa: E402 - found where the line above says

BOUNDS = {
    "psycopg": 1.25,
    "psycopg, async": 1.25,
    "psycopg2": 1.3,
    "SQLAlchemy Connection on psycopg": 1.35,
    "SQLAlchemy Session on psycopg": 1.35,
    "SQLAlchemy Session on psycopg2": 1.35,
    "SQLAlchemy AsyncSession on psycopg": 1.35,
    "SQLAlchemy AsyncSession on asyncpg": 1.35,
    "Django, default": 1.5,
    "Django, server-side": 1.5,
    "asyncpg": 1.4,
}
ROW = ("benchmark.cost", "default", 0, 3, '{"user_id":7,"text":"hello world"}')
INTO = "INSERT INTO chancy.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments) VALUES "
PERCENTS = INTO + "(%s, %s, %s, 'ready', %s, now(), now(), %s::json) RETURNING id"
DOLLARS = INTO + "($1, $2, $3, 'ready', $4, now(), now(), $5::text::json) RETURNING id"
NAMED = INTO + "(:a, :b, :c, 'ready', :d, now(), now(), CAST(:e AS json)) RETURNING id"


@chancy.task(name="benchmark.cost")
def cost(user_id: int, text: str) -> None:
    """Never runs."""


def bare(stack: Stack, conn: Any) -> Callable[[], Any]:
    """The insert, as whoever uses the stack would write it."""
    if stack.name.startswith("SQLAlchemy"):
        text, params = sqlalchemy.text(NAMED), dict(zip("abcde", ROW, strict=True))
        if isinstance(conn, (orm.Session, sqlalchemy.Connection)):
            return lambda: conn.execute(text, params).scalar()
        return lambda: _scalar(conn, text, params)
    if stack.name == "asyncpg":
        return lambda: conn.fetchval(DOLLARS, *ROW)
    if stack.name == "psycopg":
        return lambda: conn.execute(PERCENTS, ROW).fetchone()
    if stack.name == "psycopg, async":
        return lambda: _fetchone(conn)

    def by_cursor() -> Any:
        with conn.cursor() as cursor:
            cursor.execute(PERCENTS, ROW)
            return cursor.fetchone()

    return by_cursor


async def _scalar(conn: AsyncSession, text: Any, params: Any) -> Any:
    return (await conn.execute(text, params)).scalar()


async def _fetchone(conn: psycopg.AsyncConnection[Any]) -> Any:
    return await (await conn.execute(PERCENTS, ROW)).fetchone()


Times = list[tuple[float, float]]
"""Of one bare insert and the submit after it, in microseconds."""


def of_a_sync_one(stack: Stack, dsn: str, rounds: int, each: int) -> Times:
    seen: Times = []
    for _ in range(rounds):
        with stack.opened(dsn, False) as actor:
            insert = bare(stack, actor.conn)
            for _ in range(each):
                began = time.perf_counter()
                insert()
                between = time.perf_counter()
                cost.submit(actor.conn, 7, "hello world")
                seen.append(_micro(began, between, time.perf_counter()))
            actor.rollback()
    return seen


async def of_an_async_one(stack: Stack, dsn: str, rounds: int, each: int) -> Times:
    seen: Times = []
    for _ in range(rounds):
        async with stack.opened(dsn, False) as actor:
            insert = bare(stack, actor.conn)
            for _ in range(each):
                began = time.perf_counter()
                await insert()
                between = time.perf_counter()
                await cost.submit(actor.conn, 7, "hello world")
                seen.append(_micro(began, between, time.perf_counter()))
            await actor.rollback()
    return seen


def _micro(began: float, between: float, ended: float) -> tuple[float, float]:
    return (between - began) * 1e6, (ended - between) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--each", type=int, default=100)
    options = parser.parse_args()
    with Postgres() as server:
        with contextlib.closing(psycopg.connect(server.dsn, autocommit=True)) as conn:
            chancy.migrate(conn, schema="chancy")
        print("| stack | bare, µs | submit, µs | ratio | bound |\n|---|---|---|---|---|")
        for name, bound in BOUNDS.items():
            stack = BY_NAME[name]
            if stack.is_async:
                seen = asyncio.run(of_an_async_one(stack, server.dsn, options.rounds, options.each))
            else:
                seen = of_a_sync_one(stack, server.dsn, options.rounds, options.each)
            inserts, submits = (statistics.median(times) for times in zip(*seen, strict=True))
            print(f"| {name} | {inserts:.0f} | {submits:.0f} | {submits / inserts:.2f} | {bound} |", flush=True)


if __name__ == "__main__":
    main()
