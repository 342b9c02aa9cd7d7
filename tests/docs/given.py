"""What the pages take for granted: the reader's own program, and where their code is run."""

from __future__ import annotations

import contextlib
import os
import sys
import types
import unittest.mock
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic
from snippets import ROOT, Snippet

import chancy
import chancy_ops
from chancy_testing.background import InThread, app_of_every_task

Names = dict[str, Any]


@contextlib.contextmanager
def nothing(snippet: Snippet, names: Names) -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Given:
    """How a page is run: in memory or on a database, on a sync or an async `conn`, and what there is around a snippet."""

    database: bool = False
    asynchronous: bool = False
    names: Callable[[Names], Names] = lambda names: {}
    """Asked once, before the first snippet."""
    around: Callable[[Snippet, Names], AbstractContextManager[None]] = nothing


@contextlib.contextmanager
def a_worker(snippet: Snippet, names: Names) -> Iterator[None]:
    """Of all tasks of the page, while a snippet waits for a result."""
    if ".result(" not in snippet.text:
        yield
        return
    app = replace(app_of_every_task(), dsn=names["dsn"], schema=chancy.schema_in_use())
    worker = InThread(app, snippet.name)
    worker.start()
    try:
        yield
    finally:
        worker.stop()


def stand_in(path: str, **more: Any) -> Any:
    """An object of a class of this name: in memory a connection is never asked."""
    module, _, name = path.rpartition(".")
    return type(name, (), {"__module__": module, **more})()


def contributing(names: Names) -> Names:
    from chancy.model import Statement
    from chancy.options.plain import text
    from chancy.verb import verb
    from chancy_worker.connection.link import Link
    from chancy_worker.connection.turns import NextTurn
    from chancy_worker.parts.part import Part

    return {"Statement": Statement, "text": text, "verb": verb, "Link": Link, "NextTurn": NextTurn, "Part": Part}


def batches(names: Names) -> Names:
    return {"photo_ids": [1, 2, 3], "cover": 4}


class Customer(pydantic.BaseModel):
    order: int
    email: str


class NewOrder(pydantic.BaseModel):
    article: str
    email: str


class Placed(pydantic.BaseModel):
    order: int
    job: int


async def confirm(customer: Customer) -> None: ...


def report(tenant: str = "") -> None: ...


def fastapi(names: Names) -> Names:
    from fastapi.responses import JSONResponse
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    from chancy_worker import Worker, WorkerConfig
    from fastapi import FastAPI, Request

    @contextlib.asynccontextmanager
    async def connected(engine: Any) -> AsyncIterator[None]:
        yield

    return {
        **{each.__name__: each for each in (Customer, NewOrder, Placed, FastAPI, Request, JSONResponse)},
        **{each.__name__: each for each in (Worker, WorkerConfig, AsyncIterator, create_async_engine)},
        "Chancy": chancy.Chancy,
        "InvalidArguments": chancy.InvalidArguments,
        "URL": "postgresql+asyncpg://localhost/shop",
        "chancy_dsn": "postgresql://localhost/shop",
        "chancy_schema": "test",
        "confirm": chancy.task(confirm),
        "connected": connected,
        "contextlib": contextlib,
        "sessions": async_sessionmaker(),
        "url_of": lambda dsn: dsn.replace("postgresql://", "postgresql+asyncpg://"),
        "web": FastAPI(),
    }


@contextlib.contextmanager
def a_shop(snippet: Snippet, names: Names) -> Iterator[None]:
    """The package that the page speaks of, while a snippet runs."""
    with (
        unittest.mock.patch.dict(sys.modules),
        unittest.mock.patch.object(sys, "path", [str(ROOT / "examples" / "fastapi"), *sys.path]),
    ):
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]  # of another page
        yield


def models(names: Names) -> Names:
    from pydantic import BaseModel, ConfigDict

    return {"BaseModel": BaseModel, "ConfigDict": ConfigDict}


def other_stacks(names: Names) -> Names:
    @chancy.task
    def make_thumbnail(photo: int) -> None: ...

    async def execute(self: object, *_: object) -> None: ...

    @contextlib.asynccontextmanager
    async def transaction(*_: object) -> AsyncIterator[Any]:
        yield stand_in("tortoise.transactions.Wrapper", _connection=postgres, connection=postgres)

    @contextlib.asynccontextmanager
    async def acquire(*_: object) -> AsyncIterator[Any]:
        yield postgres

    class Order:
        def __init__(self, **_: object) -> None: ...

        async def save(self) -> None: ...

        @classmethod
        def create(cls, **options: object) -> Any:
            return execute(cls) if options.get("using_db") else None

    postgres = stand_in("asyncpg.connection.Connection", execute=execute, transaction=transaction)
    sync = stand_in("psycopg2.extensions.connection")
    peewee = types.SimpleNamespace(atomic=contextlib.nullcontext, connection=lambda: sync)
    return {
        "DB": types.SimpleNamespace(transaction=transaction),
        "Order": Order,
        "db": peewee,
        "in_transaction": transaction,
        "make_thumbnail": make_thumbnail,
        "pool": types.SimpleNamespace(acquire=acquire),
    }


def progress(names: Names) -> Names:
    @chancy.task
    def quiet() -> None: ...

    job = quiet.submit(names["conn"])
    return {"job": job, "store": lambda line: None, "invoices_of": lambda account: [], "push": lambda invoices: None}


def schedules(names: Names) -> Names:
    return {"report": chancy.task(report), "timedelta": timedelta}


def sqlalchemy(names: Names) -> Names:
    sys.modules.setdefault("alembic", types.ModuleType("alembic")).op = None  # type: ignore[attr-defined]
    return {}


def steering(names: Names) -> Names:
    conn, reports = names["conn"], chancy.task(report)
    chancy.schedule(conn, "report-acme", reports.bind(), chancy.every(days=1))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return {"job_id": reports.submit(conn).id, "yesterday": yesterday}


def why(names: Names) -> Names:
    conn = names["conn"]
    conn.execute(f'ALTER TABLE "{chancy.schema_in_use()}".job ALTER id RESTART WITH 4711')
    chancy.task(report).submit(conn)
    conn.commit()
    return {}


def dashboard(names: Names) -> Names:
    async def django_application(scope: Any, receive: Any, send: Any) -> None: ...

    async def logged_in(request: Any) -> Any: ...

    for name in ("CHANCY_DASHBOARD_SECRET", "SHOP_SECRET"):
        os.environ.setdefault(name, "of the pages that are read here")
    os.environ.setdefault("DASHBOARD_DSN", "postgresql:///shop")
    return {"django_application": django_application, "logged_in": logged_in}


GIVEN = {
    "CONTRIBUTING.md": Given(names=contributing),
    "docs/guides/audit.md": Given(database=True, names=steering),
    "docs/guides/batches.md": Given(database=True, asynchronous=True, names=batches),
    "docs/guides/dashboard.md": Given(names=dashboard),
    "docs/guides/fastapi.md": Given(names=fastapi, around=a_shop),
    "docs/guides/models.md": Given(names=models),
    "docs/guides/monitoring.md": Given(database=True),
    "docs/guides/other-stacks.md": Given(names=other_stacks),
    "docs/guides/progress-and-logs.md": Given(names=progress),
    "docs/guides/retention.md": Given(database=True, names=lambda names: {"chancy_ops": chancy_ops}),
    "docs/guides/schedules.md": Given(database=True, names=schedules),
    "docs/guides/sqlalchemy.md": Given(names=sqlalchemy),
    "docs/guides/steering.md": Given(database=True, names=steering),
    "docs/guides/submitting.md": Given(database=True, around=a_worker),
    "docs/guides/why-and-doctor.md": Given(database=True, names=why),
    "docs/guides/workflows.md": Given(asynchronous=True),
}

ELSEWHERE = {
    "docs/tutorial/README.md": "tests/docs/test_tutorial.py",
    "README.md": "tests/house/test_readme.py",
    "docs/guides/around-a-job.md": "tests/core/test_meta.py",
    "docs/guides/command-line.md": "tests/ops/test_guide.py",
    "docs/guides/django.md": "tests/docs/test_programs.py",
    "docs/guides/embedding.md": "tests/docs/test_programs.py",
    "docs/guides/logs.md": "tests/worker/test_log_records.py",
    "docs/guides/other-languages.md": "tests/core/test_sql.py",
    "docs/guides/steps.md": "tests/worker/test_steps.py",
    "docs/guides/testing.md": "tests/testing/test_guide.py",
    "docs/guides/tracing.md": "tests/otel/test_recipes.py",
    "docs/guides/unique-jobs.md": "tests/core/test_unique.py",
}
"""Pages whose code another test runs, since it needs more than a page is given here."""
