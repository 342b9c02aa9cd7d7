"""Whether a pooler such as PgBouncer stands between this worker and Postgres, and what that changes.

In transaction mode the pooler lends a server session for one transaction. A session's lock or setting would stay
behind in it, for whoever gets it next; so it is found out before the first of either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from chancy.model import Statement
from chancy_worker.config import Pooler

from .link import Link
from .sessions import LentSession, OwnSession, Session

log = logging.getLogger("chancy.worker")

BACKEND = "SELECT pg_backend_pid()"

_CONSEQUENCES = (
    "this worker polls, and starts a job up to 1 s late, hears of a cancelled one up to 5 s late, and prepares no "
    "statements"
)


async def session_behind(
    conninfo: str | Callable[[], str], schema: str, wish: Pooler, deadline: float
) -> type[Session]:
    """What kind of session a worker gets there. "auto" connects once and compares, in a few round trips.

    A pooler tells the client a backend pid of its own making. In which mode it works cannot be seen from here, so the
    worse one is assumed, with a warning. Raises psycopg's error when the database cannot be reached, and `ValueError`
    for an unknown wish.
    """
    match wish:
        case "session":
            return OwnSession
        case "transaction":
            log.info("--pooler transaction: %s", _CONSEQUENCES)
            return LentSession
        case "auto":
            if await _is_direct(conninfo, schema, deadline):
                return OwnSession
            log.warning(
                "there is a connection pooler before Postgres, so %s; point it at Postgres itself with --dsn, or say "
                "--pooler session if the pooler keeps one session for each client",
                _CONSEQUENCES,
            )
            return LentSession
        case _:
            raise ValueError(f"pooler must be 'auto', 'session' or 'transaction', got {wish!r}")


async def _is_direct(conninfo: str | Callable[[], str], schema: str, deadline: float) -> bool:
    link = Link(conninfo, schema, "pooler", deadline=deadline, session=LentSession)
    try:
        await link.connect()
        backend = await link.send(Statement(BACKEND, {}, lambda rows: rows[0][0]))
        return link.conn is not None and bool(link.conn.info.backend_pid == backend)
    finally:
        await link.close()
