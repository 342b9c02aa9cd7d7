"""`Chancy`: one set of settings for scripts and workers, with a sync and an async face over the package's verbs.

The faces own no logic. Each has a connection of its own in autocommit, so each call is a transaction of its own;
to submit inside your transaction, use `task.submit(conn, …)` on your own connection.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import psycopg

from .current import CurrentJob
from .errors import InvalidOption
from .history.retention import Keep, days, whole_days
from .job import Job, NewJob, submit_many
from .migrations.migrate import migrate
from .options.plain import Duration, a_kind, number, several, shown
from .options.plain import name as name_of
from .schema import checked, schema_in_use
from .wires.connections import PsycopgAsyncConn, PsycopgConn
from .wires.dsn import understood

R = TypeVar("R")
F = TypeVar("F", "SyncChancy", "AsyncChancy")

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
Surround = Callable[[CurrentJob], AbstractContextManager[Any]]


class Queue(msgspec.Struct, frozen=True):
    """A named stream of jobs, and how many of them one worker process runs at a time.

    `keep` is how long its finished jobs are kept, stored in the schema when a worker starts; None leaves what is
    stored.
    """

    name: str = "default"
    concurrency: int = 100
    keep: Keep | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "name", name_of("name", self.name))
        msgspec.structs.force_setattr(self, "concurrency", number("concurrency", self.concurrency, 1))
        if not (self.keep is None or isinstance(self.keep, Keep)):
            raise InvalidOption("keep", f"expected a Keep, got {shown(self.keep)}")


@dataclass(frozen=True)
class Chancy:
    """Where the queue is, and what a worker of it does.

    `with` and `async with` give a face with a connection of its own, as often as it is entered: one object serves many
    requests and threads at a time.

    `dsn` None reads `CHANCY_DSN`, then libpq's own variables. It may be a URL of SQLAlchemy, and a function that gives
    either: it is called for each new connection, so that a password may change meanwhile (by a worker, and by `async
    with`, in a thread of its own). `schema` None is the process's default.
    `lifespan` is entered once around a worker's life, before its first job (open a pool there). `middleware`
    surrounds each attempt, the first outermost, on the worker's loop. `surround` is a plain function of the current job
    that gives a context manager: it is around the job's function in the place where that runs, be it the loop, a thread
    or a child process, which imports it by its name. `keep` is the retention of finished jobs, stored in the schema
    when a worker starts, as a `timedelta` or in seconds; None leaves what is stored, 14 days at first.

    `preload` names modules that are imported once, by the process from which child processes are forked, and are there
    in each child at its start. For large modules which at their import open nothing (no connection, file, socket,
    thread) and seed nothing: what such a module opens or seeds, all children would share. The modules of the tasks are
    imported by each child for itself. `tally` is whether a worker writes down how jobs came out, how long they waited
    and ran, for `chancy_ops.throughput`. Raises `InvalidOption`.
    """

    dsn: str | Callable[[], str] | None = field(default=None, repr=False)  # may hold a password
    queues: Sequence[Queue] = (Queue(),)
    schema: str | None = None
    lifespan: Lifespan | None = None
    middleware: Sequence[Callable[..., Awaitable[Any]]] = ()
    keep: timedelta | None = None
    preload: Sequence[str] = ()
    surround: Surround | None = None
    tally: bool = True

    _open: dict[int, _Entered] = field(default_factory=dict, init=False, repr=False, compare=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            dsn: str | Callable[[], str] | None = ...,
            queues: Sequence[Queue] = ...,
            schema: str | None = ...,
            lifespan: Lifespan | None = ...,
            middleware: Sequence[Callable[..., Awaitable[Any]]] = ...,
            keep: Duration | None = ...,
            preload: Sequence[str] = ...,
            surround: Surround | None = ...,
            tally: bool = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        plain: dict[str, Any] = {
            "queues": several("queues", self.queues, "Queue"),
            "middleware": several("middleware", self.middleware, "functions"),
        }
        given = [("lifespan", self.lifespan), ("surround", self.surround)]
        for option, function in given + [("middleware", each) for each in plain["middleware"]]:
            if not callable(function) and (function is not None or option == "middleware"):
                raise InvalidOption(option, f"expected a function, got {shown(function)}")
        if not isinstance(self.tally, bool):
            raise InvalidOption("tally", f"expected True or False, got {shown(self.tally)}")
        if not (self.dsn is None or callable(self.dsn)):
            plain["dsn"] = _secret_text("dsn", self.dsn)
        if self.schema is not None:
            plain["schema"] = checked(self.schema)
        if self.keep is not None:
            plain["keep"] = whole_days("keep", self.keep, days(1))
        for queue in plain["queues"]:
            if not isinstance(queue, Queue):
                raise InvalidOption("queues", f"expected a list of Queue, got {shown(queue)} in it")
        names = [queue.name for queue in plain["queues"]]
        if len(set(names)) < len(names):
            raise InvalidOption("queues", f"a queue is named twice: {', '.join(names)}")
        plain["preload"] = several("preload", self.preload, "names of modules")
        for module in plain["preload"]:
            if not _is_module_name(module):
                raise InvalidOption("preload", f"expected names of modules, as ['numpy'], got {shown(module)} in it")
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def conninfo(self) -> str:
        """The connection string in use, now. Raises `InvalidDSN` for one that libpq cannot read."""
        dsn = _secret_text("dsn", self.dsn()) if callable(self.dsn) else self.dsn
        return understood(dsn if dsn is not None else os.environ.get("CHANCY_DSN", ""))

    @property
    def conninfo_source(self) -> str | Callable[[], str]:
        """The same for whoever connects again and again: what gives it anew each time, where `dsn` is a function."""
        return (lambda: self.conninfo) if callable(self.dsn) else self.conninfo

    @property
    def schema_name(self) -> str:
        """The schema in use."""
        return schema_in_use(self.schema)

    def __enter__(self) -> SyncChancy:
        face = SyncChancy(self, psycopg.connect(self.conninfo, autocommit=True, prepare_threshold=None))
        self._enter(face, _caller(inspect.currentframe()))
        return face

    def __exit__(self, *_: object) -> None:
        self._leave(SyncChancy, _caller(inspect.currentframe())).conn.close()

    # Plain functions, so that who called them is who enters and leaves the block.

    def __aenter__(self) -> Coroutine[Any, Any, AsyncChancy]:
        return self._aenter(_caller(inspect.currentframe()))

    def __aexit__(self, *_: object) -> Coroutine[Any, Any, None]:
        return self._leave(AsyncChancy, _caller(inspect.currentframe())).conn.close()

    async def _aenter(self, caller: FrameType | None) -> AsyncChancy:
        source = self.conninfo_source
        conninfo = await asyncio.to_thread(source) if callable(source) else source
        conn = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        face = AsyncChancy(self, conn)
        self._enter(face, caller)
        return face

    def _enter(self, face: Face, caller: FrameType | None) -> None:
        number = next(_numbers)
        self._open[number] = _Entered(face, caller)
        _entered_here.set((*_entered_here.get(), number))

    def _leave(self, kind: type[F], caller: FrameType | None) -> F:
        """The face that the caller has entered, which is not always the last one.

        A `with` block is entered and left by one frame, which may be a generator that several threads go on with. Of
        several in one frame, and where a stack of exits did both, it is the last one of this task or thread.
        """
        here = _entered_here.get()
        faces = {number: each for number, each in list(self._open.items()) if isinstance(each.face, kind)}
        number = max(faces, key=lambda each: (faces[each].caller is caller, each in here, each))
        del self._open[number]
        _entered_here.set(tuple(each for each in here if each != number))
        face: Any = faces[number].face
        return face  # type: ignore[no-any-return]


def _caller(frame: FrameType | None) -> FrameType | None:
    return None if frame is None else frame.f_back


def _secret_text(option: str, value: object) -> str:
    """A text that may have a password in it, and is not shown; also SQLAlchemy's `engine.url`, which hides it."""
    if hasattr(value, "render_as_string"):
        value = value.render_as_string(hide_password=False)
    if isinstance(value, str):
        return str.__str__(value)
    remedy = ": give its `url`" if hasattr(getattr(value, "url", None), "render_as_string") else ""  # an Engine
    raise InvalidOption(option, f"expected a connection string of libpq, got {a_kind(value)}{remedy}")


def _is_module_name(name: object) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


@dataclass(frozen=True)
class SyncChancy:
    """What `with Chancy(…)` gives."""

    settings: Chancy
    conn: PsycopgConn

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
    conn: PsycopgAsyncConn

    async def migrate(self) -> list[str]:
        """See `chancy.migrate`."""
        return await migrate(self.conn, schema=self.settings.schema_name)

    async def submit(self, job: NewJob[R], /) -> Job[R]:
        """Add one job (of `task.bind(…)`) and commit."""
        return (await self.submit_many([job]))[0]

    async def submit_many(self, jobs: Sequence[NewJob[R]], /) -> list[Job[R]]:
        """Add many jobs and commit, all or none."""
        return await submit_many(self.conn, jobs, schema=self.settings.schema_name)


Face = SyncChancy | AsyncChancy


@dataclass(frozen=True, slots=True)
class _Entered:
    """A face whose block goes on, and the frame that has entered it."""

    face: Face
    caller: FrameType | None


_numbers = itertools.count(1)
_entered_here: ContextVar[tuple[int, ...]] = ContextVar("chancy_entered_here", default=())
"""The faces that this task or thread has entered, or who started it."""
