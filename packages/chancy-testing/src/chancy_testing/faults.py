"""What may go wrong, on order: the test says what happens next, and the code under test has to live with it.

Faults of attempts are for `drain`, those of statements for the verbs that the code under test uses (`submit`, `result`,
`cancel` …), and lost wakeups for workers.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from chancy.model import Statement
from chancy.run import Backend, answered_by, backend
from chancy.task import BaseTask
from chancy.wires.connections import AsyncConn, SyncConn

from . import attempts

T = TypeVar("T")


class OfAttempt(enum.Enum):
    """What becomes of an attempt whose function has run."""

    DIES = "the worker dies before it has written the verdict"
    LATE = "the verdict is written when another claim has the job"


_of_attempts: list[tuple[OfAttempt, str | None]] = []
"""What is ordered, and for attempts of which task."""


def next_of_attempts(task: str) -> OfAttempt | None:
    """What is ordered for the attempt that has just run."""
    for place, (fault, wanted) in enumerate(_of_attempts):
        if wanted in (None, task):
            del _of_attempts[place]
            return fault
    return None


class Faults:
    """The faults of one test; what was ordered and did not come is forgotten at its end."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn = dsn
        self._schema = schema
        self._statements: dict[int, type[psycopg.Error] | None] = {}
        self._said = 0
        self._bells: list[str] = []
        """The functions as they are written when wakeups are not lost."""

    def die_before_completion(self, times: int = 1, *, task: BaseTask[..., Any] | None = None) -> None:
        """The worker dies after each of the next `times` attempts that `drain` performs, before the verdict is written.

        The job is taken back as from any dead worker: its attempt counts, its row says `WorkerDied`, it runs again.
        With a `task`, attempts of others are left alone.
        """
        _of_attempts.extend([(OfAttempt.DIES, None if task is None else task.name)] * times)

    def complete_late(self, times: int = 1, *, task: BaseTask[..., Any] | None = None) -> None:
        """The verdict of each of the next `times` attempts is sent once another attempt has begun, with its old fence.

        As by a worker that was believed dead: the job runs again, and the late verdict changes nothing.
        With a `task`, attempts of others are left alone.
        """
        _of_attempts.extend([(OfAttempt.LATE, None if task is None else task.name)] * times)

    def run_twice(self) -> None:
        """From here on each attempt in `drain` and in eager mode calls its function twice; the second call counts.

        As if the first verdict had been lost: what has to be the same afterwards is what makes a handler idempotent.
        `pytest --chancy-run-twice` does this to a whole suite.
        """
        attempts.twice = True

    def lose_wakeups(self) -> None:
        """Nobody in this schema hears of new work: workers find it when they look by themselves, each 5 s."""
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            if not self._bells:
                self._bells = [text for (text,) in conn.execute(BELLS, (self._schema,))]
            for argument in ("queue text", "queues text[]"):
                name = sql.SQL("{}(" + argument + ")").format(sql.Identifier(self._schema, "ring"))
                conn.execute(sql.SQL(SILENT).format(name))

    def fail_statement(self, number: int = 1, error: type[psycopg.Error] = psycopg.errors.QueryCanceled) -> None:
        """The `number`-th statement that a verb of Chancy sends from now on fails, and with it its transaction.

        The server raises it, so the connection is in the state in which it would be. `error` is one of
        `psycopg.errors`; the default is what `statement_timeout` gives.
        """
        if error.sqlstate is None:
            raise ValueError(f"{error.__name__} is no error of the server's: it has no SQLSTATE")
        self._statements[self._said + number] = error

    def drop_connection(self, number: int = 1) -> None:
        """The server ends the connection on which the `number`-th statement from now on is to be sent."""
        self._statements[self._said + number] = None

    @contextlib.contextmanager
    def active(self) -> Iterator[Faults]:
        """Within the block what is ordered comes."""
        twice = attempts.twice
        try:
            with answered_by(_Faulty(self, backend())):
                yield self
        finally:
            _of_attempts.clear()
            attempts.twice = twice
            if self._bells:
                self._ring_again()

    def next_statement(self) -> tuple[bool, type[psycopg.Error] | None]:
        """Whether something is ordered for this statement, and which error; None is the end of the connection."""
        self._said += 1
        return self._said in self._statements, self._statements.pop(self._said, None)

    def end_session(self, pid: int) -> None:
        """End a connection from the server's side: that whose backend is the process `pid`."""
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    def _ring_again(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            for text in self._bells:
                conn.execute(text.encode())
        self._bells.clear()


BELLS = """
    SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = %s::regnamespace AND proname = 'ring'
"""
SILENT = "CREATE OR REPLACE FUNCTION {} RETURNS void LANGUAGE sql AS 'SELECT NULL::void'"
RAISE = "DO $$ BEGIN RAISE EXCEPTION 'ordered by chancy_faults' USING ERRCODE = 'state'; END $$"


class _Faulty:
    """Hands on to another backend, except for what is ordered."""

    def __init__(self, faults: Faults, behind: Backend) -> None:
        self._faults = faults
        self._behind = behind
        self.elsewhere = behind.elsewhere

    def send(self, conn: SyncConn, statement: Statement[T], schema: str) -> T:
        return self._behind.send(conn, self._sent(conn, statement), schema)

    def send_async(self, conn: AsyncConn, statement: Statement[T], schema: str) -> Coroutine[Any, Any, T]:
        return self._behind.send_async(conn, self._sent(conn, statement), schema)

    def wire(self, conn: SyncConn | AsyncConn) -> Any:
        return self._behind.wire(conn)

    def _sent(self, conn: SyncConn | AsyncConn, statement: Statement[T]) -> Statement[T]:
        ordered, error = self._faults.next_statement()
        if error is not None:
            return Statement(RAISE.replace("state", error.sqlstate or ""), {}, statement.parse)
        if ordered:
            assert isinstance(conn, (psycopg.Connection, psycopg.AsyncConnection)), (
                "a connection of psycopg's is needed"
            )
            self._faults.end_session(conn.info.backend_pid)
        return statement
