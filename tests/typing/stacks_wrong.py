"""What users must not write with their stacks. Each line with a mark is an error to each checker that it names."""

from __future__ import annotations

import sqlite3

import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

import chancy
from chancy import task


@task
def plain(number: int) -> str:
    return str(number)


def wrong(
    engine: sqlalchemy.Engine,
    async_engine: AsyncEngine,
    session: Session,
    sessions: sessionmaker[Session],
    async_sessions: async_sessionmaker[AsyncSession],
    lite: sqlite3.Connection,
) -> None:
    plain.submit(engine, 1)  # E mypy ty
    plain.submit(async_engine, 1)  # E mypy ty
    plain.submit(sessions, 1)  # E mypy ty
    plain.submit(async_sessions, 1)  # E mypy ty
    plain.submit(lite, 1)  # E mypy ty
    plain.submit(session, "1")  # E mypy ty
    plain.submit(session)  # E mypy ty
    chancy.get(engine, 1)  # E mypy ty
    number: int = plain.submit(session, 1).result(session)  # E mypy ty
    print(number)


async def forgotten(session: AsyncSession, connection: AsyncConnection) -> None:
    plain.submit(session, 1)  # E mypy
    plain.submit(connection, 1)  # E mypy
    chancy.submit_many(session, [plain.bind(1)])  # E mypy
    print(plain.submit(session, 1).id)  # E mypy ty
    await plain.submit(session, "1")  # E mypy ty
    with chancy.batch(session):  # E mypy ty
        pass
