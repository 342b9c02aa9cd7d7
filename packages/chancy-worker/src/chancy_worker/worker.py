"""`Worker`: connects, declares, takes the lease, starts rounds, life and parts, and stops them in stages.

Stages of a stop: claim no more; let running jobs finish within the grace; stop and release, with their attempt
refunded, those that have not; write the last verdicts; leave the lifespan; give up the lease. Each has its time, and a
further signal skips what is left of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Self

import psycopg

from chancy.app import AsyncChancy, Chancy
from chancy.errors import MissingRights
from chancy.migrations.migrate import check_version
from chancy.migrations.roles import missing_rights
from chancy.registry import registered
from chancy.task import BaseTask
from chancy.wires.failures import denied

from . import forks, places
from .attempts.logs import listening
from .claims.plans import plans_of_gates
from .config import WorkerConfig
from .connection.link import Link
from .connection.links import Links
from .connection.pooler import session_behind
from .engine import Engine
from .life import signals
from .life.health import answering, telling_the_service_manager
from .life.stopping import TO_OBEY, TO_WRITE, Stopping
from .life.watchdog import Watchdog
from .lifespan import Lifespan, leave
from .logs.setting import unfailing
from .metrics.pages import pages_of

log = unfailing("chancy.worker")


class Worker:
    """One worker process: performs the jobs of its app's queues until it is stopped.

    `app` says which queues and where, `config` how much of what this process has, and for how long.
    """

    def __init__(self, app: Chancy | AsyncChancy, config: WorkerConfig | None = None) -> None:
        self.app = app.settings if isinstance(app, AsyncChancy) else app
        self.config = config or WorkerConfig()
        self._tasks: Mapping[str, BaseTask[..., Any]] = registered()
        self._engine: Engine | None = None
        self._stopping = Stopping()
        self.begun = asyncio.Event()
        """Set when it has its lease, has entered the lifespan, and begins to claim."""
        self.left_running = 0
        """Functions that were still busy with released jobs when the worker stopped: the process has to be ended."""

    async def start(self) -> None:
        """Work until `stop` is called, or SIGTERM or Ctrl-C arrives; returns when everything is written.

        For a program that is this worker, or several of them. A signal that the program handles itself is left to it;
        what was there before is put back.

        Raises `SchemaOutdated`, `InvalidTask` for a task whose limits cannot be enforced here, `ValueError` for an app
        that wants a module preloaded which is not there, and psycopg's error when the database cannot be reached at
        the start; later outages are waited for. `ValueError`, too, for a `surround` that children could not import.

        Cancelling it is a stop without a grace: running coroutines are cancelled, what has not ended a second later is
        released, the last verdicts are written within ten seconds, and the lease is given up. Cancelled again, it skips
        what is left of a stage.
        """
        heard = signals.asking(asyncio.get_running_loop(), self.stop)
        with signals.shared(heard):
            async with telling_the_service_manager(self.begun, self._stopping.asked, self._hangs):
                await self._run()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Work beside the block: for a program that is something else, such as a web server. Takes no signals.

        The block is entered when the worker has its lease and begins to claim; what keeps it from that is raised here.
        At the end of the block the worker stops, with its grace. One that ends by an error before ends the block, too,
        as in a `TaskGroup`: it is cancelled, and the error is raised in its place.
        """
        block = asyncio.current_task()
        assert block is not None
        run = asyncio.create_task(self._run(), name="chancy worker")
        begun = asyncio.create_task(self.begun.wait())
        try:
            await asyncio.wait([run, begun], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            run.cancel()
            await asyncio.wait([run])
            raise
        finally:
            begun.cancel()
        if run.done():
            run.result()
        broken = leaving = False

        def ended(run: asyncio.Task[None]) -> None:
            nonlocal broken
            if leaving or run.cancelled() or (error := run.exception()) is None:
                return
            log.error("the worker beside this program has ended by an error", exc_info=error)
            broken = True
            block.cancel()

        run.add_done_callback(ended)
        try:
            yield self
        except asyncio.CancelledError:
            if not broken or block.uncancel() > 0:
                raise
        finally:
            leaving = True
            self.stop()
            await run

    async def _run(self) -> None:
        """All of its life. Takes no signals, and tells nobody."""
        stopping = self._stopping
        stopping.begins()
        async with contextlib.AsyncExitStack() as stack:
            engine = await stopping.unless_asked(self._set_up(stack))
            if engine is not None:
                lifespan = Lifespan(self.app.lifespan)
                stack.push_async_callback(leave, lifespan, stopping)
                await stopping.unless_asked(lifespan.enter())
                if not stopping.asked.is_set():
                    with listening(engine.keeper):  # after `lifespan`, which may configure logging anew
                        await self._serve(engine, lifespan.context)
        if stopping.was_cancelled:
            raise asyncio.CancelledError

    @property
    def busy(self) -> int:
        """How many jobs run here now."""
        return len(self._engine.slots.running) if self._engine else 0

    def stop(self) -> None:
        """Begin to stop; called again, skip what is left of a stage, the grace first of all. From the worker's loop."""
        self._stopping.ask()

    async def _set_up(self, stack: contextlib.AsyncExitStack) -> Engine:
        """All up to the lifespan; what is there is closed by the stack, in reverse."""
        app, config = self.app, self.config
        places.refuse_what_cannot_be_kept(self._tasks, app.preload, app.surround, config.memory_budget)
        session = await session_behind(app.conninfo_source, app.schema_name, config.pooler, config.timing.round)
        links = Links(app.conninfo_source, app.schema_name, config.timing.round, session)
        stack.push_async_callback(links.close)
        engine = self._engine = Engine(app, config, self._tasks, links, self._stopping.is_cancelled)
        stack.push_async_callback(self._close_executors, engine)

        await engine.link.connect()
        with _naming_rights(engine.link, app.schema_name):
            await engine.link.walk(check_version(app.schema_name))
            if lacking := await engine.link.send(missing_rights()):
                raise MissingRights(lacking)
            for part in engine.parts:
                await part.declare(engine.link)
            if not links.is_lent and any(task.gates for task in self._tasks.values()):
                for statement in plans_of_gates():
                    await engine.link.send(statement)

            await engine.life.connect()
            stack.push_async_callback(engine.heart.stop, engine.life)
            await engine.lease.take(engine.life)  # from here on outages are waited for

        stack.push_async_callback(engine.end)
        engine.begin()
        stack.enter_context(forks.guarding(asyncio.get_running_loop()))
        stack.enter_context(Watchdog(app.conninfo_source, app.schema_name, engine.lease))
        pages = pages_of(engine.numbers)
        await stack.enter_async_context(
            answering(config.health_host, config.health_port, engine.health.problems, pages)
        )
        return engine

    async def _serve(self, engine: Engine, context: contextvars.Context) -> None:
        """Claim and perform until somebody asks for a stop; then go through its stages."""
        claimer, slots, stopping = engine.claimer, engine.slots, self._stopping

        async def go_on(rounds: asyncio.Task[None], seconds: float) -> asyncio.Task[None]:
            ends_at = time.monotonic() + seconds
            await stopping.stage(rounds, seconds)
            if rounds.cancelled():  # with all tasks of the loop, as at the end of `asyncio.run`; they are needed still
                rounds = engine.begin_rounds(context)
                await stopping.stage(rounds, ends_at - time.monotonic())
            return rounds

        rounds = engine.begin_rounds(context)
        self.begun.set()
        try:
            await stopping.until_asked(engine.loops)
            grace = self.config.grace
        except asyncio.CancelledError:
            stopping.was_cancelled, grace = True, 0.0
        log.info("stopping: %d jobs get %.0f s to finish", len(slots.running), grace)
        claimer.stop()
        engine.wakeups.stop()
        slots.turn_away()
        rounds = await go_on(rounds, grace)
        slots.interrupt()
        rounds = await go_on(rounds, TO_OBEY)
        self.left_running = slots.give_up()
        # Where the database is away they have had the whole grace.
        rounds = await go_on(rounds, TO_WRITE if claimer.is_connected else 0.0)
        if claimer.held:
            log.error(
                "%d verdicts could not be written; those jobs run again when this lease is over", len(claimer.held)
            )
        if rounds.done() and not rounds.cancelled():
            rounds.result()

    async def _close_executors(self, engine: Engine) -> None:
        self.left_running += await places.close(engine.executors)

    async def _hangs(self) -> list[str]:
        return self._engine.health.hangs() if self._engine else []


@contextlib.contextmanager
def _naming_rights(link: Link, schema: str) -> Iterator[None]:
    """Raise `MissingRights` where Postgres refuses one: a role may lack even what it takes to ask for its rights, or
    have been granted them before a table was there.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        role = link.conn.info.user if link.conn is not None else ""
        raise MissingRights(denied(error, role, schema, "worker")) from None
