"""A real worker behind a test, in a thread of its process or in one of its own, and what it must not leave behind."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import psycopg
from psycopg import sql

from chancy.app import Chancy, Queue
from chancy.history.retention import Keep, days
from chancy.registry import registered
from chancy_worker import Worker, WorkerConfig

from .stand_ins import AsyncStandIn

START_SECONDS = 60.0
"""That a worker gets which has not ended. A process of its own imports the tasks' modules first: on a machine with
thirty others at work that was seen to take ten seconds."""
GRACE_SECONDS = 5.0


def app_of_every_task() -> Chancy:
    """A worker's settings: the queues that the tasks of this process name, and the default one."""
    names = {"default"} | {task.options.queue for task in registered().values()}
    return Chancy(queues=[Queue(name) for name in sorted(names)])


class Background(Protocol):
    """A worker that runs beside the test."""

    def start(self) -> None:
        """Returns when it holds its lease."""

    def kill(self) -> None:
        """End it as by a power cut: only what others can see of it is left."""

    def stop(self) -> list[str]:
        """Stop it in order; what it has left behind, in words."""


class InThread:
    """On an event loop of its own in a thread of this process, with all tasks that are known here."""

    def __init__(self, app: Chancy, name: str) -> None:
        self._worker = Worker(app, WorkerConfig(name=name, grace=GRACE_SECONDS))
        self._app, self._name = app, name
        self._thread = threading.Thread(target=self._run, name="chancy_worker of a test", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._tasks_left: list[str] = []

    def start(self) -> None:
        """Returns when it holds its lease. Raises what the worker raised instead."""
        self._thread.start()
        _await_lease(self._app, self._name, self._failed)

    def _failed(self) -> BaseException | None:
        if not self._thread.is_alive():
            return self._error or RuntimeError("the worker has ended")
        return None

    def kill(self) -> None:
        """Not in a thread."""
        raise RuntimeError("a thread cannot be killed: mark the test with @pytest.mark.chancy_worker(process=True)")

    def stop(self) -> list[str]:
        """Stop it in order; what it has left behind, in words."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._worker.stop)
        self._thread.join(GRACE_SECONDS + 15)
        left = [f"task {name}" for name in self._tasks_left]
        if self._thread.is_alive():
            left.append("its own thread, which does not end")
        if self._error is not None:
            left.append(f"an error: {self._error!r}")
        if self._worker.left_running:
            left.append(f"{self._worker.left_running} functions that go on")
        return left + [f"connection {name!r}" for name in _open_connections()] + _running_jobs(self._app)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._work())
        except BaseException as error:
            self._error = error

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._worker.start()
        await asyncio.sleep(0)  # what was cancelled at the end comes to its own
        me = asyncio.current_task()
        self._tasks_left = [task.get_name() for task in asyncio.all_tasks() if task is not me and not task.done()]


class InProcess:
    """In a process of its own, which imports the modules of the tasks that are known here."""

    def __init__(self, app: Chancy, name: str) -> None:
        self._app, self._name = app, name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it holds its lease."""
        modules = {task.function.__module__ for task in registered().values()}
        told = {
            "dsn": self._app.conninfo,
            "schema": self._app.schema_name,
            "queues": [[queue.name, queue.concurrency, queue.keep and queue.keep.rules] for queue in self._app.queues],
            "name": self._name,
            "modules": {name: getattr(sys.modules.get(name), "__file__", None) for name in sorted(modules)},
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(told)],
            stdin=subprocess.PIPE,  # its end is the end of this process
            stdout=self._log,
            stderr=self._log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        _await_lease(self._app, self._name, self._failed)

    def _failed(self) -> BaseException | None:
        if self._code() is not None:
            return RuntimeError(f"the worker has ended with {self._code()}. Its log:\n{self._text()}")
        return None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> list[str]:
        """Stop it in order; what it has left behind, in words."""
        if self._process is None:
            return []
        killed = self._code() == -signal.SIGKILL
        if self._code() is None:
            self._process.terminate()
        try:
            code = self._process.wait(GRACE_SECONDS + 15)
        except subprocess.TimeoutExpired:
            self.kill()
            return [f"its process, which does not end. Its log:\n{self._text()}"]
        if self._process.stdin is not None:
            self._process.stdin.close()
        left = [] if killed else _running_jobs(self._app)
        if code and not killed:
            left.append(f"exit code {code}")
        if left:
            left.append(f"this log:\n{self._text()}")
        self._log.close()
        return left

    def _code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def _text(self) -> str:
        self._log.seek(0)
        return self._log.read()[-8000:].decode("utf-8", "replace")


def _await_lease(app: Chancy, name: str, failed: Callable[[], BaseException | None]) -> None:
    """Returns when the worker has registered; raises what it has failed with."""
    query = sql.SQL("SELECT name FROM {} WHERE name = %s").format(sql.Identifier(app.schema_name, "worker"))
    deadline = time.monotonic() + START_SECONDS
    with psycopg.connect(app.conninfo, autocommit=True) as conn:
        while True:
            if (error := failed()) is not None:
                raise error
            if conn.execute(query, (name,)).fetchone():
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"the worker has not begun to work within {START_SECONDS:.0f} s")
            time.sleep(0.005)


def _running_jobs(app: Chancy) -> list[str]:
    query = sql.SQL("SELECT id, task FROM {} WHERE state = 'running' ORDER BY id LIMIT 10")
    with psycopg.connect(app.conninfo, autocommit=True) as conn:
        rows = conn.execute(query.format(sql.Identifier(app.schema_name, "job"))).fetchall()
    return [f"job {id_} ({task}), still running" for id_, task in rows]


def _open_connections() -> list[str]:
    """The names of this process's connections that only a worker makes."""
    # By their types: an object that is asked for its class may wake what stands behind it, as Django's settings do.
    every = [each for each in gc.get_objects() if issubclass(type(each), psycopg.AsyncConnection)]
    found = [each for each in every if not isinstance(each, AsyncStandIn)]
    names = [conn.info.get_parameters().get("application_name", "") for conn in found if not conn.closed]
    return [name for name in names if name.startswith("chancy ")]


def _import(name: str, file: str | None) -> None:
    """By its name, or where a test runner has imported it without one, from its file."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        spec = None if file is None else importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            print(f"the tasks of module {name} are not known here: {error}", file=sys.stderr)  # noqa: T201 - the log
            return
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def main(told: dict[str, Any]) -> None:
    """What the process of its own does."""
    for name, file in told["modules"].items():
        _import(name, file)
    queues = [
        Queue(name, concurrency, None if rules is None else Keep(**{what: days(n) for what, n in rules.items()}))
        for name, concurrency, rules in told["queues"]
    ]
    app = Chancy(told["dsn"], queues=queues, schema=told["schema"])

    async def work() -> None:
        worker = Worker(app, WorkerConfig(name=told["name"], grace=GRACE_SECONDS))
        orphaned = asyncio.get_running_loop().create_future()
        threading.Thread(target=_watch, args=(orphaned,), daemon=True).start()
        orphaned.add_done_callback(lambda _: worker.stop())
        await worker.start()

    asyncio.run(work())


def _watch(orphaned: asyncio.Future[None]) -> None:
    while os.read(0, 1):  # and not sys.stdin, whose lock the interpreter waits for at its end
        pass
    orphaned.get_loop().call_soon_threadsafe(orphaned.set_result, None)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
