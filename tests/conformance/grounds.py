"""The grounds on which `conformance` runs its cases: a connection, and how jobs are performed there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeAlias

import psycopg
from psycopg import sql

from chancy.job import Job
from chancy.wires.connections import AsyncConn, SyncConn
from chancy_testing.attempts import on_a_loop_of_its_own
from chancy_testing.draining import drain
from chancy_testing.in_memory.backend import Eager

Steps: TypeAlias = Generator[Any, Any, None]


class Ground(Protocol):
    """Where the cases run. Its methods give values, or coroutines where `conn` is async."""

    conn: SyncConn | AsyncConn
    """In autocommit."""

    def perform(self) -> Any:
        """Perform what waits and has not snoozed, retries too, and come back when nothing is left."""

    def perform_snoozed(self, job: Job[Any], /) -> Any:
        """Perform one that has snoozed, as if its time had come."""


Case: TypeAlias = Callable[[Ground], Steps]


def run(case: Case, ground: Ground) -> None:
    """Run a case to its end; raises what it finds wrong."""
    if isinstance(ground.conn, psycopg.AsyncConnection):
        on_a_loop_of_its_own(_run_async(case, ground))
        return
    steps, value = case(ground), None
    while True:
        try:
            value = steps.send(value)
        except StopIteration:
            return


async def _run_async(case: Case, ground: Ground) -> None:
    steps, value, error = case(ground), None, None
    while True:
        try:
            asked = steps.send(value) if error is None else steps.throw(error)
        except StopIteration:
            return
        value, error = None, None
        try:
            value = await asked if inspect.isawaitable(asked) else asked
        except Exception as raised:
            error = raised


class InMemory:
    """The ground of eager mode."""

    def __init__(self, eager: Eager, conn: SyncConn | AsyncConn) -> None:
        self._eager = eager
        self.conn = conn

    def perform(self) -> Any:
        """It is done already."""
        return self._nothing() if isinstance(self.conn, psycopg.AsyncConnection) else None

    async def _nothing(self) -> None: ...

    def perform_snoozed(self, job: Job[Any], /) -> Any:
        """One call."""
        perform = self._eager.aperform if isinstance(self.conn, psycopg.AsyncConnection) else self._eager.perform
        return perform(job)


# A snoozed job has been claimed more often than its attempts count.
MAKE_DUE = "UPDATE {} SET run_at = now() WHERE state = 'ready' AND run_at > now() AND (attempt = claims OR id = %s)"


class OnPostgres:
    """The ground of real Postgres: `drain`, and no waiting for retries."""

    def __init__(self, conn: SyncConn | AsyncConn, schema: str) -> None:
        self.conn = conn
        self._make_due = sql.SQL(MAKE_DUE).format(sql.Identifier(schema, "job"))

    def perform(self) -> Any:
        """Drain, make due, and again."""
        return self._perform(0)

    def perform_snoozed(self, job: Job[Any], /) -> Any:
        """The same, with this one."""
        return self._perform(job.id)

    def _perform(self, snoozed: int) -> Any:
        if isinstance(self.conn, psycopg.AsyncConnection):
            return self._perform_async(self.conn, snoozed)
        while True:
            made_due = self.conn.execute(self._make_due, (snoozed,)).rowcount
            if not drain(self.conn).attempts and not made_due:
                return None
            snoozed = 0

    async def _perform_async(self, conn: AsyncConn, snoozed: int) -> None:
        while True:
            made_due = (await conn.execute(self._make_due, (snoozed,))).rowcount
            if not (await drain(conn)).attempts and not made_due:
                return
            snoozed = 0
