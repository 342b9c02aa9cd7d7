"""`Chancy`: one set of settings for scripts and workers, with a sync and an async face over the package's verbs.

The faces own no logic. Each has a connection of its own in autocommit, so each call is a transaction of its own;
to submit inside your transaction, use `task.submit(conn, …)` on your own connection.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import psycopg

from .client import Job, submit_many
from .migrate import migrate
from .model import NewJob, Queue
from .run import AsyncConn, SyncConn
from .schema import checked, schema_in_use

R = TypeVar("R")

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True)
class Chancy:
    """Where the queue is, and what a worker of it does.

    `dsn` None reads `CHANCY_DSN`, then libpq's own variables. `schema` None is the process's default.
    `lifespan` is entered once around a worker's life, before its first job (open a pool there). `middleware`
    surrounds each attempt, the first outermost. `keep` is the retention of finished jobs, stored in the schema
    when a worker starts; None leaves what is stored, 14 days at first.

    `preload` names modules that are imported once, by the process from which child processes are forked, and are there
    in each child at its start. For large modules which at their import open nothing (no connection, file, socket,
    thread) and seed nothing: what such a module opens or seeds, all children would share. The modules of the tasks are
    imported by each child for itself.
    """

    dsn: str | None = field(default=None, repr=False)  # may hold a password
    queues: Sequence[Queue] = (Queue(),)
    schema: str | None = None
    lifespan: Lifespan | None = None
    middleware: Sequence[Callable[..., Awaitable[Any]]] = ()
    keep: timedelta | None = None
    preload: Sequence[str] = ()

    _open: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.schema is not None:
            checked(self.schema)
        names = [queue.name for queue in self.queues]
        if len(set(names)) < len(names):
            raise ValueError(f"a queue is named twice: {', '.join(names)}")
        if self.keep is not None and self.keep < timedelta(days=1):
            raise ValueError("keep is at least a day: finished jobs are dropped by whole days")
        if isinstance(self.preload, str) or not all(map(_is_module_name, self.preload)):
            raise ValueError(f'preload is a list of names of modules, as in preload=["numpy"]; got {self.preload!r}')

    @property
    def conninfo(self) -> str:
        """The connection string in use."""
        return self.dsn if self.dsn is not None else os.environ.get("CHANCY_DSN", "")

    @property
    def schema_name(self) -> str:
        """The schema in use."""
        return schema_in_use(self.schema)

    def __enter__(self) -> SyncChancy:
        face = SyncChancy(self, psycopg.connect(self.conninfo, autocommit=True, prepare_threshold=None))
        self._open.append(face)
        return face

    def __exit__(self, *_: object) -> None:
        self._open.pop().conn.close()

    async def __aenter__(self) -> AsyncChancy:
        face = AsyncChancy(
            self, await psycopg.AsyncConnection.connect(self.conninfo, autocommit=True, prepare_threshold=None)
        )
        self._open.append(face)
        return face

    async def __aexit__(self, *_: object) -> None:
        await self._open.pop().conn.close()


def _is_module_name(name: object) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


@dataclass(frozen=True)
class SyncChancy:
    """What `with Chancy(…)` gives."""

    settings: Chancy
    conn: SyncConn

    def migrate(self) -> list[str]:
        """See `chancy.migrate`."""
        return migrate(self.conn, schema=self.settings.schema_name)

    def submit(self, job: NewJob[R], /) -> Job[R]:
        """Add one job (of `task.bind(…)`) and commit."""
        return self.submit_many([job])[0]

    def submit_many(self, jobs: Sequence[NewJob[R]], /) -> list[Job[R]]:
        """Add many jobs and commit, all or none."""
        return submit_many(self.conn, jobs, schema=self.settings.schema_name)


@dataclass(frozen=True)
class AsyncChancy:
    """What `async with Chancy(…)` gives; `Worker` takes it, too."""

    settings: Chancy
    conn: AsyncConn

    async def migrate(self) -> list[str]:
        """See `chancy.migrate`."""
        return await migrate(self.conn, schema=self.settings.schema_name)

    async def submit(self, job: NewJob[R], /) -> Job[R]:
        """Add one job (of `task.bind(…)`) and commit."""
        return (await self.submit_many([job]))[0]

    async def submit_many(self, jobs: Sequence[NewJob[R]], /) -> list[Job[R]]:
        """Add many jobs and commit, all or none."""
        return await submit_many(self.conn, jobs, schema=self.settings.schema_name)
