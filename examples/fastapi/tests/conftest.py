"""The shop's tables are in the schema that chancy-testing makes for a test, and go with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict
from shop import database
from shop.web import web
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine


def url_of(dsn: str) -> URL:
    """What SQLAlchemy calls the database that chancy-testing has."""
    place: dict[str, Any] = {**conninfo_to_dict(dsn)}
    where = {"host": str(place.get("host", "localhost")), "port": str(place.get("port", 5432))}
    return URL.create(
        "postgresql+asyncpg",
        username=place.get("user"),
        password=place.get("password"),
        database=place.get("dbname"),
        query=where,
    )


@pytest.fixture
async def engine(chancy_dsn: str, chancy_schema: str) -> AsyncIterator[AsyncEngine]:
    settings = {"server_settings": {"search_path": chancy_schema}}
    async with database.connected(create_async_engine(url_of(chancy_dsn), connect_args=settings)) as engine:
        async with engine.begin() as conn:
            await conn.run_sync(database.Base.metadata.create_all)
        yield engine


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """Somebody beside the requests, who sees what they have committed."""
    async with database.sessions() as session:
        yield session


@pytest.fixture
async def client(engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    """Requests to the program, which has no worker then: what is submitted stays where it is."""
    program = httpx.ASGITransport(web, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=program, base_url="http://shop") as client:
        yield client
