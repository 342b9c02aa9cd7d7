"""The grounds on which `conformance` runs its cases: a connection, and how jobs are performed there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol, TypeAlias

import psycopg
from psycopg import sql

from chancy.job import Job
from chancy.run import awaited
from chancy.wires.connections import AsyncConn, PsycopgAsyncConn, PsycopgConn, SyncConn
from chancy.wires.registry import wire_of
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
    if awaited(ground.conn):
        on_a_loop_of_its_own(go_on_awaiting(case(ground)))
    else:
        go_on(case(ground))


def go_on(steps: Steps) -> None:
    """Hand each value back."""
    value = None
    while True:
        try:
            value = steps.send(value)
        except StopIteration:
            return


async def go_on_awaiting(steps: Steps) -> None:
    """Await each value and hand it back, or the error."""
    value, error = None, None
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


def transaction(conn: SyncConn | AsyncConn) -> Any:
    """One of the connection's own stack, on a connection in autocommit."""
    return wire_of(conn).block()


class InMemory:
    """The ground of eager mode."""

    def __init__(self, eager: Eager, conn: SyncConn | AsyncConn) -> None:
        self._eager = eager
        self.conn = conn

    def perform(self) -> Any:
        """It is done already."""
        return self._nothing() if awaited(self.conn) else None

    async def _nothing(self) -> None: ...

    def perform_snoozed(self, job: Job[Any], /) -> Any:
        """One call."""
        perform = self._eager.aperform if awaited(self.conn) else self._eager.perform
        return perform(job)


# A snoozed job has been claimed more often than its attempts count.
MAKE_DUE = """
    WITH over AS (UPDATE {step} SET until = now() WHERE job = %(id)s AND until > now())
    UPDATE {job} SET run_at = now() WHERE state = 'ready' AND run_at > now() AND (attempt = claims OR id = %(id)s)
"""


class OnPostgres:
    """The ground of real Postgres: `drain`, and no waiting for retries. `drained` is the connection for that, of
    psycopg's and in autocommit, where `conn` is of another stack.
    """

    def __init__(self, conn: Any, schema: str, drained: PsycopgConn | PsycopgAsyncConn | None = None) -> None:
        self.conn: SyncConn | AsyncConn = conn
        self._drained: PsycopgConn | PsycopgAsyncConn = conn if drained is None else drained
        self._make_due = sql.SQL(MAKE_DUE).format(
            job=sql.Identifier(schema, "job"), step=sql.Identifier(schema, "step")
        )

    def perform(self) -> Any:
        """Drain, make due, and again."""
        return self._perform(0)

    def perform_snoozed(self, job: Job[Any], /) -> Any:
        """The same, with this one."""
        return self._perform(job.id)

    def _perform(self, snoozed: int) -> Coroutine[Any, Any, None] | None:
        if isinstance(self._drained, psycopg.AsyncConnection):
            return self._perform_async(self._drained, snoozed)
        while True:
            made_due = self._drained.execute(self._make_due, {"id": snoozed}).rowcount
            if not drain(self._drained).attempts and not made_due:
                return None
            snoozed = 0

    async def _perform_async(self, conn: PsycopgAsyncConn, snoozed: int) -> None:
        while True:
            made_due = (await conn.execute(self._make_due, {"id": snoozed})).rowcount
            if not (await drain(conn)).attempts and not made_due:
                return
            snoozed = 0
