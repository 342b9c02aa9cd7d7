"""What the tests of the shop share: its tables, and what stands in for the world outside.

No fixture is async, so it does not matter which plugin runs the async tests.
"""

import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from chancy import Chancy
from httpx2 import ASGITransport, AsyncClient
from psycopg import sql
from psycopg.conninfo import make_conninfo

from shop import courier, database, http, mail, worker


@pytest.fixture(scope="session")
def chancy_dsn(chancy_dsn: str) -> Iterator[str]:
    """The database that chancy-testing finds, and in it the shop's tables, in a schema of this process.

    Chancy's other fixtures connect to what this one says.
    """
    schema = f"shop_test_{uuid.uuid4().hex}"
    dsn = make_conninfo(chancy_dsn, options=f"-c search_path={schema}")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        database.migrate(conn)
        yield dsn
        conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


@pytest.fixture
def chancy_app() -> Chancy:
    """The worker of the tests has the queues of the real one."""
    return worker.app


@pytest.fixture(autouse=True)
def outbox(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The mails that were sent, in place of a mail server."""
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(mail, "send", lambda to, text: sent.append((to, text)))
    return sent


@pytest.fixture(autouse=True)
def bookings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The orders that the courier was asked to fetch; one more call for each time that it was asked."""
    booked: list[int] = []

    async def book(order_id: int) -> str:
        booked.append(order_id)
        return f"P{order_id}"

    monkeypatch.setattr(courier, "book", book)
    return booked


@pytest.fixture
def client(chancy_aconn: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch) -> AsyncClient:
    """The shop over HTTP, where requests and jobs use the connection of the test.

    A test's first statement (say, `stock.add`) begins a transaction on it, the shop's own transactions are savepoints
    inside of that, and nothing outlives the test.
    """
    monkeypatch.setitem(http.app.dependency_overrides, http.connection, lambda: chancy_aconn)
    monkeypatch.setattr(database, "connection", lambda: nullcontext(chancy_aconn))
    return AsyncClient(transport=ASGITransport(http.app), base_url="http://shop")
