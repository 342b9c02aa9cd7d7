"""What users write on the connections of their stacks, with the types that they expect."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

import psycopg2
import psycopg2.extensions
import sqlmodel
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession as AsyncSessionOfSqlModel

import chancy
import chancy_ops
from chancy import BatchProgress, Job, JobRow, Query, Standing, task
from chancy_testing import Drained, drain


@task
def plain(number: int) -> str:
    return str(number)


def sync_side(
    connection: Connection,
    session: Session,
    scoped: scoped_session[Session],
    of_sqlmodel: sqlmodel.Session,
    of_psycopg2: psycopg2.extensions.connection,
    sessions: sessionmaker[Session],
) -> None:
    assert_type(plain.submit(connection, 1), Job[str])
    assert_type(plain.submit(session, 1), Job[str])
    assert_type(plain.submit(scoped, 1), Job[str])
    assert_type(plain.submit(of_sqlmodel, 1), Job[str])
    assert_type(plain.submit(of_psycopg2, 1), Job[str])
    assert_type(plain.submit(psycopg2.connect(""), 1), Job[str])
    with sessions.begin() as made:
        assert_type(plain.submit(made, 1), Job[str])
    assert_type(plain.submit(session, 1).result(session, timeout=5), str)
    assert_type(chancy.get(session, 1), JobRow)
    assert_type(chancy.submit_many(session, [plain.bind(1)]), list[Job[str]])
    assert_type(chancy_ops.resume(session, "q"), bool)
    assert_type(drain(session), Drained)
    with chancy.batch(session) as batch:
        assert_type(batch.submit(plain.bind(1)), Job[str])
    assert_type(batch.progress(session), BatchProgress)


async def async_side(
    connection: AsyncConnection,
    session: AsyncSession,
    scoped: async_scoped_session[AsyncSession],
    of_sqlmodel: AsyncSessionOfSqlModel,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    _ = assert_type(plain.submit(connection, 1), Coroutine[Any, Any, Job[str]])
    _ = assert_type(plain.submit(session, 1), Coroutine[Any, Any, Job[str]])
    _ = assert_type(plain.submit(scoped, 1), Coroutine[Any, Any, Job[str]])
    _ = assert_type(plain.submit(of_sqlmodel, 1), Coroutine[Any, Any, Job[str]])
    async with sessions.begin() as made:
        assert_type(await plain.submit(made, 1), Job[str])
    assert_type(await (await plain.submit(session, 1)).result(session), str)
    assert_type(await chancy.get(session, 1), JobRow)
    assert_type(await chancy.submit_many(session, [plain.bind(1)]), list[Job[str]])
    assert_type(await chancy_ops.resume(session, "q"), bool)
    async with chancy.batch(session) as batch:
        assert_type(await batch.submit(plain.bind(1)), Job[str])
    assert_type(await batch.progress(session), BatchProgress)


class Held:
    """A connection of one's own."""


class Wire:
    """How it is spoken to."""

    def __init__(self, held: Held) -> None: ...
    def fetch(self, query: Query) -> list[tuple[Any, ...]]:
        text, params = query.percents()
        assert_type(text, str)
        assert_type(params, dict[str, str | None] | None)
        return []

    def run(self, script: str) -> None: ...
    def standing(self) -> Standing:
        return Standing.WITHIN

    def let_go(self) -> None: ...
    def block(self) -> Any: ...


chancy.register(Held, Wire, is_async=False)
chancy.register("module.Held", "wires:Wire", is_async=False)
