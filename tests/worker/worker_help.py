"""A schema with everything that these tests do to it: an onlooker's connection, workers in here, workers out there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import kept
import psycopg
import pytest
import worker_tasks
from nursery import Copy, Nursery, nursery
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chancy import Chancy, Job, JobRow, NewJob, Queue, State, get, submit_many
from chancy.registry import registered
from chancy_worker import Timing, Worker, WorkerConfig
from chancy_worker.children import forkserver
from chancy_worker.parts.retention import Retention

T = TypeVar("T")

HERE = Path(__file__).parent
FAST = Timing(extend=0.5, rescue=0.3, look=1, unheard=1)
"""A worker with a lease that no busy machine costs it."""
MORTAL = replace(FAST, lease=1.5)
"""One that is missed soon."""
SOON_MISSED = WorkerConfig(timing=MORTAL, grace=1)
ONLY_WOKEN = Timing(look=60)
"""A worker that comes to work by the doorbell and its own clock, or within the test's deadline not at all."""


async def eventually(condition: Callable[[], T], within: float = 30.0) -> T:
    """Poll until the condition holds: first often, then ever less, since each look at rows takes as much processor time
    as a job.
    """
    deadline, pause = time.monotonic() + within, 0.005
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within} s")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return value


def blocking_until(condition: Callable[[], T], within: float = 15.0) -> T:
    """The same in a plain function, or where the event loop is to stand still meanwhile."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within} s")
        time.sleep(0.05)
    return value


def process_facts(pid: int) -> tuple[str, int]:
    """A process's state letter and its parent."""
    state, parent, *_ = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return state, int(parent)


def is_alive(pid: int) -> bool:
    try:
        return process_facts(pid)[0] != "Z"
    except OSError:
        return False


def worker_with(app: Chancy, config: WorkerConfig) -> Worker:
    """A worker that knows the tasks of these modules and none of other tests in this process."""
    worker = Worker(app, config)
    worker._tasks = {
        name: task
        for name, task in registered().items()
        if name.startswith(
            (
                "worker_tasks.",
                "limit_tasks.",
                "gate_tasks.",
                "batch_tasks.",
                "flow_tasks.",
                "log_tasks.",
                "child_tasks.",
                "death_tasks.",
                "model_tasks.",
                "tally_tasks.",
                "step_tasks.",
            )
        )
    }
    return worker


@contextlib.asynccontextmanager
async def working(app: Chancy, config: WorkerConfig | None = None) -> AsyncIterator[Worker]:
    """A worker in this process for as long as the block lasts; what ends it early is raised."""
    async with at_work(worker_with(app, config or WorkerConfig(timing=FAST, grace=1))) as worker:
        yield worker


@contextlib.asynccontextmanager
async def at_work(worker: Worker) -> AsyncIterator[Worker]:
    """The same with this one."""
    run = asyncio.create_task(worker.start())
    try:
        yield worker
    finally:
        worker.stop()
        worker.stop()
        await run


def environment() -> dict[str, str]:
    """Of workers out there: what helps these tests is found under its plain name."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "soak"), os.environ.get("PYTHONPATH", "")])
    }


def copied_fork_server(line: int, path: tuple[str, ...]) -> Copy:
    """What a worker in here calls to have its fork server: a copy of a process that has imported what that imports."""
    program = forkserver._PROGRAM % (list(path), 3)
    return nursery(forkserver.__name__).start("-c", program, env=os.environ, files=[1, 2, line], folder="/")


class Process:
    """A worker process, whose log is in a file."""

    def __init__(self, popen: subprocess.Popen[bytes] | Copy, log: Path) -> None:
        self.popen = popen
        self.pid = popen.pid
        self.log = log

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def code(self) -> int | None:
        return self.popen.poll()

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()


class Site:
    def __init__(self, dsn: str, schema: str, folder: Path) -> None:
        self.dsn = dsn
        self.schema = schema
        self.folder = folder
        self.conn = kept.connect(dsn)
        self.since = self.conn.execute("SELECT clock_timestamp()").fetchone()[0]
        """Sessions of workers that are older are of other tests, which left them to the garbage collector."""
        self.processes: list[Process] = []

    def app(self, *, concurrency: int = 100, **more: Any) -> Chancy:
        return Chancy(**{"dsn": self.dsn, "schema": self.schema, "queues": [Queue("default", concurrency)]} | more)

    def submit(self, *jobs: NewJob[Any]) -> list[Job[Any]]:
        return submit_many(self.conn, jobs, schema=self.schema)

    def row(self, job: Job[Any] | int) -> JobRow:
        return get(self.conn, job if isinstance(job, int) else job.id, schema=self.schema)

    def rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """`{}` in the query is the schema."""
        return self.conn.execute(sql.SQL(query).format(sql.Identifier(self.schema)), params).fetchall()

    def one(self, query: str, *params: Any) -> Any:
        return self.rows(query, *params)[0][0]

    def count(self, state: str) -> int:
        """Jobs that are in this state now."""
        return int(self.one("SELECT count(*) FROM {}.any_job WHERE state::text = %s", state))

    def workers(self) -> dict[int, int]:
        """The leases: id and pid."""
        return {id_: int(name.rpartition(":")[2]) for id_, name in self.rows("SELECT id, name FROM {}.worker")}

    def spawn(
        self,
        *,
        concurrency: int = 20,
        grace: float = 5.0,
        timing: Timing = MORTAL,
        queues: Sequence[str] = ("default",),
    ) -> Process:
        told = {"dsn": self.dsn, "schema": self.schema, "concurrency": concurrency, "grace": grace, "queues": queues}
        told |= {"timing": asdict(timing)}
        return self._copied(nursery("run_worker"), "run_worker", json.dumps(told))

    def work(self, *arguments: str) -> Process:
        """As `chancy-worker` with these arguments. Where the start itself is in question, `run` is a real one."""
        return self._copied(nursery("chancy_worker.cli"), "chancy_worker", *arguments)

    def run(self, *command: str, own_group: bool = False) -> Process:
        log = self._next_log()
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [sys.executable, *command], env=environment(), stdout=out, stderr=out, start_new_session=own_group
            )
        return self._added(Process(popen, log))

    def _copied(self, nursery: Nursery, module: str, *arguments: str) -> Process:
        log = self._next_log()
        with log.open("wb") as out:
            files = [out.fileno()] * 2
            return self._added(Process(nursery.start("-m", module, *arguments, env=environment(), files=files), log))

    def _next_log(self) -> Path:
        return self.folder / f"process-{len(self.processes)}.log"

    def _added(self, process: Process) -> Process:
        self.processes.append(process)
        return process

    async def started(self, *processes: Process) -> None:
        """All of them hold a lease."""
        pids = {process.pid for process in processes}
        await eventually(lambda: pids <= set(self.workers().values()))

    def close(self) -> None:
        for process in self.processes:
            process.end()
            print(f"--- {process.log.name}\n{process.text[-4000:]}")  # shown by pytest when the test has failed
        with contextlib.suppress(psycopg.Error):
            self._forget_the_dead()
        self.conn.close()

    def _forget_the_dead(self) -> None:
        """Leases of processes that are no more, or never were: a schema without any is used by the next test as well."""
        self.conn.execute("SET lock_timeout = '500ms'")
        names = {id_: name.rpartition(":") for id_, name in self.rows("SELECT id, name FROM {}.worker")}
        living = [
            id_ for id_, (host, _, pid) in names.items() if host == socket.gethostname() and is_alive(int(pid or 0))
        ]
        if len(living) < len(names):
            self.rows("DELETE FROM {}.worker WHERE id <> ALL (%s) RETURNING id", living)


def clean_tasks() -> None:
    worker_tasks.notes.clear()
    worker_tasks.gates.clear()


async def kill_one_of_two(site, parent, gate):
    """A worker under a parent of two is killed over a job, which another one performs at once; then the parent ends."""
    await eventually(lambda: len(site.workers()) == 2, 20)
    (job,) = site.submit(worker_tasks.wait_for_file.bind(str(gate)))
    await eventually(lambda: site.count("running") == 1)
    (pid,) = [pid for id_, pid in site.workers().items() if id_ == site.row(job).worker]
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: site.row(job).attempt == 2 and site.row(job).state is State.RUNNING, 8)
    gate.touch()
    await all_finished(site)
    await eventually(lambda: len(site.workers()) == 2, 20)
    parent.signal(signal.SIGTERM)
    await eventually(lambda: parent.code == 0)
    assert site.workers() == {}


def states(site):
    return dict(site.rows("SELECT state::text, count(*) FROM {}.any_job GROUP BY 1"))


async def all_finished(site, within=30.0):
    await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0, within)


async def kept_up(worker):
    """The first upkeep of this worker is over, which may begin five seconds after its start."""
    (upkeep,) = [part for part in worker._engine.parts if isinstance(part, Retention)]
    await eventually(lambda: 30 < upkeep.due.at - time.monotonic() < math.inf)


async def warm_up(site):
    """Its rounds are prepared statements from here on: one packet to the server, one answer."""
    for _ in range(5):
        (job,) = site.submit(worker_tasks.add.bind(0, 0))
        await eventually(lambda job=job: site.row(job).state is State.SUCCEEDED)


PID = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"


def holds_the_bell(site):
    held = """
        SELECT count(*) FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND classid = %s::regnamespace::oid AND objid::bigint BETWEEN 1 AND 64
    """
    return site.conn.execute(held, [site.schema]).fetchone()[0]


def probe(port, path="/ready"):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


async def probed(port, path="/ready"):
    return await asyncio.to_thread(probe, port, path)


async def until_answered(port, status):
    async with asyncio.timeout(15):
        while (answer := await probed(port))[0] != status:
            await asyncio.sleep(0.05)
    return answer[1]


class Proxy:
    """Between a worker and its server: hands everything on, until it swallows the answers and cuts the line, or closes
    each new line at once, or hears no more of a client that has said a certain word.
    """

    def __init__(self, dsn: str) -> None:
        place = conninfo_to_dict(dsn)
        self._upstream = str(place["host"]), int(place.get("port") or 5432)
        self._rest = {key: place[key] for key in ("user", "dbname") if key in place}
        self._writers: list[asyncio.StreamWriter] = []
        self._deaf: set[int] = set()
        self.mute = False
        self.mute_from: bytes | None = None
        """The word in an answer that makes it mute."""
        self.mute_to: bytes | None = None
        """The word of a client that makes it mute, before that is answered."""
        self.swallowed = bytearray()
        """The answers that were not handed on while it was mute."""
        self.closes = False
        self.deaf_to: bytes | None = None
        self.hushed: bool | None = None
        """Whether it swallows notifications; None: it does not look at what it hands on."""
        self.met = 0
        """How many connections have come."""

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        port = self._server.sockets[0].getsockname()[1]
        self.dsn = make_conninfo("", host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable", **self._rest)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    @property
    def deaf(self) -> int:
        """How many clients are not heard any more."""
        return len(self._deaf)

    def cut(self) -> None:
        while self._writers:
            self._writers.pop().transport.abort()

    async def _serve(self, reader, writer):
        self.met += 1
        number = self.met
        if self.closes:
            writer.close()
            return
        host, port = self._upstream
        if host.startswith("/"):
            up_reader, up_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            up_reader, up_writer = await asyncio.open_connection(host, port)
        self._writers += [writer, up_writer]
        await asyncio.gather(self._pipe(number, reader, up_writer), self._pipe(number, up_reader, writer, answers=True))

    async def _pipe(self, number, reader, writer, *, answers=False):
        rest = b""
        try:
            while data := await reader.read(65536):
                if answers and self.hushed is not None:
                    data, rest = self._without_notifications(rest + data)
                if not answers and self.deaf_to is not None and self.deaf_to in data:
                    self._deaf.add(number)
                if not answers and self.mute_to is not None and self.mute_to in data:
                    self.mute = True
                if answers and self.mute_from is not None and self.mute_from in data:
                    self.mute = True
                if answers and self.mute:
                    self.swallowed += data
                elif number not in self._deaf:
                    writer.write(data)
            writer.close()
        except (ConnectionError, RuntimeError):
            writer.transport.abort()

    def _without_notifications(self, data):
        """What is to be handed on of these answers, and the begin of one that is not whole yet."""
        whole = []
        while len(data) >= 5 and len(data) > (length := int.from_bytes(data[1:5])):
            if not (self.hushed and data[:1] == b"A"):
                whole.append(data[: length + 1])
            data = data[length + 1 :]
        return b"".join(whole), data
