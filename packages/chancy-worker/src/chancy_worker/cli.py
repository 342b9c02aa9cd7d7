"""`chancy-worker MODULE[:APP]`: import the tasks, say what will be done, work until stopped.

Bad input gets one line that says what to do and exit code 2.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn, get_args

import msgspec
import psycopg

from chancy import modules
from chancy.app import Chancy, Queue
from chancy.errors import ChancyError, MissingRights
from chancy.migrations.migrate import migrate
from chancy.registry import registered
from chancy.wires.connections import PsycopgAsyncConn
from chancy.wires.failures import denied

from . import init, reloading
from .__about__ import __version__
from .config import Pooler, WorkerConfig
from .connection.link import Link
from .connection.sessions import LentSession
from .life import signals
from .life.ending import end, to_the_end
from .logs import setting
from .processes import PARENT, Processes, say_begun, say_refused
from .supervision.parent import ending_with_parent
from .worker import Worker

log = logging.getLogger("chancy.worker")

TO_MIGRATE_SECONDS = 600.0
"""That one statement of a migration may take."""
_TO_OBEY = 0.25
"""Seconds that the asyncio tasks get at the end which jobs have left."""


class Refusal(Exception):
    """The command cannot do what it was asked; the message says what to do instead."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="chancy-worker", description="Perform the jobs of a module's tasks.")
    command.add_argument("target", metavar="MODULE[:APP]", help="the module with the tasks, or the Chancy object in it")
    add_options(command)
    command.add_argument("--dsn", help="default: the app's, then CHANCY_DSN, then libpq's variables")
    command.add_argument("--schema", help="default: the app's, then CHANCY_SCHEMA, then chancy")
    command.add_argument("--migrate", action="store_true", help="bring the schema up to date first")
    command.add_argument(
        "--reload", action="store_true", help="start again when a Python file changes, from here down; for development"
    )
    command.add_argument("--version", action="version", version=__version__)
    return command


def add_options(command: argparse.ArgumentParser) -> None:
    """What any command that runs a worker can be told, wherever its tasks and its database come from."""
    command.add_argument(
        "--queue", action="append", default=[], metavar="NAME[=N]", help="work this queue, N jobs at a time"
    )
    command.add_argument("--processes", type=int, default=1, metavar="N", help="how many worker processes (default 1)")
    command.add_argument("--threads", type=int, default=40, metavar="N", help="sync functions at a time (default 40)")
    command.add_argument("--children", type=int, metavar="N", help="child processes at a time (default: cores)")
    command.add_argument(
        "--memory-budget", type=_bytes, metavar="SIZE", help="what the memory limits of running jobs may add up to: 8G"
    )
    command.add_argument("--health-port", type=int, metavar="PORT", help="answer GET /live, /ready and /metrics there")
    command.add_argument(
        "--grace", type=float, default=30.0, metavar="S", help="seconds to finish after SIGTERM (default 30)"
    )
    command.add_argument(
        "--loop",
        choices=["auto", "asyncio", "uvloop"],
        default="auto",
        help="the event loop; auto (the default): uvloop where it is installed, as by chancy-worker[fast]",
    )
    command.add_argument(
        "--preload",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this once for all child processes; only what opens and seeds nothing at its import",
    )
    command.add_argument(
        "--pooler",
        choices=get_args(Pooler),
        default="auto",
        help="how a connection pooler before Postgres works; auto (the default): if there is one, by transactions",
    )
    command.add_argument("--keep", type=float, metavar="DAYS", help="store the retention of finished jobs")
    command.add_argument("--log-format", choices=["plain", "json"], default="plain")
    command.add_argument(
        "--log-level", choices=setting.LEVELS, default="info", help="log records from this level on (default info)"
    )
    command.add_argument(
        "--no-job-lines", dest="job_lines", action="store_false", help="log no line of a job that went well"
    )


def command() -> NoReturn:
    """The script `chancy-worker`."""
    to_its_end(main)


def to_its_end(main: Callable[[], int]) -> NoReturn:
    """What a command does, and the end of this process, whatever is left in it."""
    with signals.taken(signals.end_at_once):
        try:
            code = main()
        except signals.Asked:
            code = 0
        with signals.taken(lambda: None):  # who has stopped may be told to stop again
            end(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker; 2 for bad input, 0 after an orderly stop of `--processes`. A single worker ends this process.

    A worker that its parent has started while Postgres was away returns 1, and is started again.
    """
    if os.getpid() == 1 and (ended := init.stay_behind()) is not None:
        return ended
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    setting.set_up(options.log_format, options.log_level)
    again = [sys.executable, "-m", "chancy_worker", *arguments]
    if options.reload:
        return reloaded(reloading.without_reload(again), options)

    def found() -> Chancy:
        app = load(options)
        if options.migrate and PARENT not in os.environ:
            asyncio.run(brought_up_to_date(app))
        return app

    say_where = "say where Postgres is with --dsn, CHANCY_DSN or PGHOST and the like"
    return serve(options, found, again, "chancy-worker", say_where)


def reloaded(command: Sequence[str], options: argparse.Namespace) -> int:
    """What `--reload` does; its code."""

    def say(sentence: str) -> None:
        print(f"chancy-worker: {sentence}", file=sys.stderr, flush=True)

    look = functools.partial(reloading.modules_in, reloading.folders_of(options.target))
    return reloading.run(command, look, say, grace=options.grace)


def serve(
    options: argparse.Namespace, find: Callable[[], Chancy], again: Sequence[str], name: str, say_where: str
) -> int:
    """What a command does that was told `options`, for the app that it finds; `again` is how it was called itself.

    Returns as `main` does. What goes wrong is told under the command's `name`; of a database that cannot be reached it
    says what to do about that.
    """
    try:
        app = find()
        if options.processes > 1 and PARENT not in os.environ:
            asyncio.run(reached(app))
            place = app.conninfo_source, app.schema_name
            more = {"pooler": options.pooler, "health_port": options.health_port, "grace": options.grace}
            return asyncio.run(Processes(again, options.processes, *place, tallies=app.tally, **more).run())
        with runner(options.loop) as loop:
            return to_the_end(loop.get_loop(), work(app, configured(options)))
    except (Refusal, ChancyError, ValueError) as error:
        code, message = 2, str(error)
        say_refused()
    except psycopg.Error as error:
        code = 1 if PARENT in os.environ else 2
        message = " ".join(str(error).split())
        if error.sqlstate is None:  # of a connection that was not made
            message += f"; {say_where}"
    print(setting.last_words(options.log_format, name, message), file=sys.stderr)
    return code


async def brought_up_to_date(app: Chancy) -> None:
    """Migrate. No silence of the server is waited for longer than the longest statement may take."""
    async with _connected(app, "migrate") as conn:
        try:
            await migrate(conn, schema=app.schema_name)
        except psycopg.errors.InsufficientPrivilege as error:
            raise MissingRights(denied(error, conn.info.user, app.schema_name, "owner")) from None


async def reached(app: Chancy) -> None:
    """Raises psycopg's error where the database cannot be reached. Later outages are waited for."""
    async with _connected(app, "supervisor"):
        pass


@contextlib.asynccontextmanager
async def _connected(app: Chancy, purpose: str) -> AsyncIterator[PsycopgAsyncConn]:
    """A connection as its string has it: what the worker sets for itself would stay in the session of a pooler."""
    link = Link(app.conninfo_source, app.schema_name, purpose, deadline=TO_MIGRATE_SECONDS, session=LentSession)
    try:
        await link.connect()
        assert link.conn is not None
        yield link.conn
    finally:
        await link.close()


def runner(wish: str) -> asyncio.Runner:
    """What the worker's coroutines run on. Raises `Refusal` for a uvloop that is not there."""
    if wish == "asyncio":
        return asyncio.Runner()
    try:
        import uvloop  # an extra
    except ImportError:
        if wish == "uvloop":
            raise Refusal("there is no uvloop here; install chancy-worker[fast], or leave out --loop") from None
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def work(app: Chancy, config: WorkerConfig) -> NoReturn:
    """One worker until it is stopped, and the end of its process, which nothing can hold up that its jobs have left.

    Raises what keeps it from beginning.
    """
    worker = Worker(app, config)
    for line in banner(app, config):
        log.info("%s", line)
    loop = asyncio.get_running_loop()
    log.info("event loop %s", type(loop).__module__.partition(".")[0])
    telling = asyncio.create_task(_tell_when(worker.begun))
    code, stop = 0, signals.asking(loop, worker.stop)
    with signals.taken(stop), ending_with_parent(stop, config.grace):
        try:
            await worker.start()
        except BaseException:
            if not worker.begun.is_set():
                raise
            log.exception("this worker has ended by an error")
            code = 1
        finally:
            telling.cancel()
        if worker.left_running:
            # Their jobs are released already and may run elsewhere; waiting for them would only do the work twice.
            log.warning("%d functions did not stop and are ended with this process", worker.left_running)
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_TO_OBEY)
        end(code)


async def _tell_when(begun: asyncio.Event) -> None:
    await begun.wait()
    say_begun()


def load(options: argparse.Namespace) -> Chancy:
    """The app that the command line describes."""
    module_name, _, attribute = options.target.partition(":")
    module = modules.load(module_name)
    setting.turn_on(job_lines=options.job_lines)
    app = getattr(module, attribute, None) if attribute else Chancy(queues=())
    if not isinstance(app, Chancy):
        raise Refusal(f"{options.target!r} is no Chancy object (found {type(app).__name__})")
    if not registered():
        raise Refusal(f"module {module_name!r} has no task; decorate a function with @chancy.task")
    app = told(replace(app, dsn=options.dsn or app.dsn, schema=options.schema or app.schema), options)
    named = {task.options.queue for task in registered().values()}
    app = app if app.queues else replace(app, queues=tuple(map(Queue, sorted(named))))
    warn_of_others(app, named, f"module {module_name}")
    return app


def told(app: Chancy, options: argparse.Namespace) -> Chancy:
    """The same with what the options say otherwise. Raises `Refusal`."""
    counts = {"--processes": options.processes, "--threads": options.threads, "--children": options.children}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise Refusal(f"{name} must be at least 1")
    kept = {queue.name: queue.keep for queue in app.queues}
    queues = [msgspec.structs.replace(queue, keep=kept.get(queue.name)) for queue in map(_queue, options.queue)]
    return replace(
        app,
        queues=tuple(queues or app.queues),
        preload=(*app.preload, *options.preload),
        keep=app.keep if options.keep is None else timedelta(days=options.keep),
    )


def warn_of_others(app: Chancy, named: Collection[str], whose: str) -> None:
    """Say which queues of the app are none of those that are named by what is `whose`: perhaps they are misspelt."""
    for name in {queue.name for queue in app.queues}.difference(named):
        log.warning("queue %r is no task's of %s: only jobs that were given it when submitted are in it", name, whose)


def configured(options: argparse.Namespace) -> WorkerConfig:
    """What the command line says of this process."""
    config = WorkerConfig(
        threads=options.threads,
        grace=options.grace,
        memory_budget=options.memory_budget,
        health_port=options.health_port,
        pooler=options.pooler,
    )
    if PARENT in os.environ:
        config = replace(config, health_host="127.0.0.1")  # only the parent asks
    return config if options.children is None else replace(config, children=options.children)


def banner(app: Chancy, config: WorkerConfig) -> list[str]:
    """What this worker is about to do."""
    place = psycopg.conninfo.conninfo_to_dict(app.conninfo)
    where = (
        " ".join(f"{key}={place[key]}" for key in ("host", "port", "dbname", "user") if place.get(key))
        or "libpq's defaults"
    )
    tasks = sorted(registered())
    return [
        f"chancy-worker {__version__} as {config.name}",
        f"database {where}, schema {app.schema_name}",
        "queues " + ", ".join(f"{queue.name} ({queue.concurrency} at a time)" for queue in app.queues),
        f"tasks {', '.join(tasks[:20])}" + (f" and {len(tasks) - 20} more" if len(tasks) > 20 else ""),
    ]


def _queue(text: str) -> Queue:
    name, _, number = text.partition("=")
    if number and not number.isdecimal():
        raise Refusal(f"--queue {text}: expected NAME or NAME=NUMBER")
    return Queue(name, int(number)) if number else Queue(name)


def _bytes(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    return int(float(number) * 1024 ** ("", "K", "M", "G", "T").index(unit))
