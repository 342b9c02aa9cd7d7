"""The tables, and the session of a request: one transaction, which ends before the answer is sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

from sqlalchemy import DateTime, String
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chancy import Chancy
from fastapi import Depends

URL = os.environ.get("SHOP_DATABASE", "postgresql+asyncpg://localhost/shop")

sessions = async_sessionmaker(expire_on_commit=False)
"""Bound by `connected`: connections of asyncpg belong to the event loop that has opened them."""


class Base(DeclarativeBase):
    """All tables of the shop. Those of Chancy are in a schema of their own."""


class Order(Base):
    """What somebody has ordered."""

    __tablename__ = "shop_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    article: Mapped[str] = mapped_column(String(80))
    email: Mapped[str]
    confirmed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@contextlib.asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """Sessions are of this engine, for as long as the block lasts."""
    sessions.configure(bind=engine)
    try:
        yield engine
    finally:
        await engine.dispose()


async def session() -> AsyncIterator[AsyncSession]:
    """Commits when the endpoint has returned, rolls back when it has raised."""
    async with sessions.begin() as session:
        yield session


Session = Annotated[AsyncSession, Depends(session, scope="function")]
"""`scope="function"`, since by default the commit would come after the answer."""


async def create() -> None:
    """Make the tables, the shop's and Chancy's: once, or with each deploy."""
    async with connected(create_async_engine(URL)) as engine, engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    async with Chancy(URL) as app:
        await app.migrate()


if __name__ == "__main__":
    asyncio.run(create())
