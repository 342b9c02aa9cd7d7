"""Where it is measured: a Postgres with full durability, a database for each run, and the contenders' processes."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from chancy_testing.server.postgres import Postgres

HERE = Path(__file__).parent
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
"""Roomy, so that no checkpoint falls into a run; all that concerns durability is Postgres' default."""
SHOWN = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_level", *SETTINGS)
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Contender:
    """A queue in a setting."""

    key: str
    label: str
    script: str
    env: str = ""
    """Its environment in hatch.toml; none is the benchmark's own."""
    setting: str = "default"
    concurrency: int = 100
    kind: str = "noop"
    jobs: int = 60_000
    """So many last for two seconds or three."""
    style: str = "async"

    @property
    def python(self) -> str:
        """The interpreter of its environment, which is made where it is missing."""
        return python_of(self.env) if self.env else sys.executable


@functools.cache
def python_of(env: str) -> str:
    """The interpreter of one of hatch's environments."""
    subprocess.run(["hatch", "env", "create", env], check=True, capture_output=True)
    found = subprocess.run(["hatch", "env", "find", env], check=True, capture_output=True, text=True)
    return str(Path(found.stdout.strip().splitlines()[-1]) / "bin/python")


class Site:
    """One Postgres; every run gets a database of its own, and gives it back."""

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self.postgres = postgres
        self.folder = folder
        self.admin = psycopg.connect(postgres.dsn, autocommit=True)
        self.postmaster = int(_stat(self.admin.info.backend_pid)[1])
        self._number = 0
        self._templates: set[str] = set()

    def settings(self) -> dict[str, str]:
        """What the server says of itself."""
        return {name: self.admin.execute(f"SHOW {name}").fetchone()[0] for name in SHOWN}

    def dsn(self, database: str) -> str:
        """The way to a database of this server."""
        return make_conninfo(self.postgres.dsn, dbname=database)

    def template(self, contender: Contender) -> str:
        """A database with the tables of the contender's script, to be copied."""
        name = "template_" + re.sub(r"\W", "_", contender.script.removesuffix(".py"))
        if name not in self._templates:
            self.admin.execute(f"CREATE DATABASE {name}")
            run([contender.python, str(HERE / contender.script), "prepare"], self.environment(name))
            self._templates.add(name)
        return name

    def environment(self, database: str, style: str = "async") -> dict[str, str]:
        """What a contender's process is told."""
        return {
            "BENCH_DSN": self.dsn(database),
            "BENCH_STYLE": style,
            "BENCH_BEGUN": str(self.folder / f"{database}.begun"),
            "BENCH_DOZED": str(self.folder / f"{database}.dozed"),
            "BENCH_STAMPS": str(self.folder / f"{database}.stamps"),
            "PYTHONPATH": str(HERE),
        }

    @contextlib.contextmanager
    def run(self, contender: Contender) -> Iterator[Run]:
        """A database with the contender's tables for as long as the block lasts."""
        self._number += 1
        name = f"run_{self._number}"
        template = self.template(contender)
        self.admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        with psycopg.connect(self.dsn(name), autocommit=True) as conn:
            going = Run(self, contender, name, conn)
            try:
                yield going
            finally:
                going.stop()
        self.admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def postgres_seconds(self) -> float:
        """CPU that the server has used, those of its processes that have ended included."""
        return _cpu_seconds(self.postmaster, children=True) + sum(map(_cpu_seconds, _tree(self.postmaster)))

    def wal_bytes(self) -> int:
        """Bytes of WAL since the server began."""
        return int(self.admin.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()[0])


class Run:
    """A contender at work in a database of its own."""

    def __init__(self, site: Site, contender: Contender, database: str, conn: psycopg.Connection[Any]) -> None:
        self.site = site
        self.contender = contender
        self.conn = conn
        self.database = database
        self.dsn = site.dsn(database)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.env = site.environment(database, contender.style)
        self.log = site.folder / f"{database}.log"
        """What its processes write to standard error."""
        self.command = [contender.python, str(HERE / contender.script)]
        self.left = describe(contender)["left"]

    def fill(self, kind: str, count: int, batch: int = 10_000) -> dict[str, Any]:
        """Add jobs in bulk, and leave the database as a quiet minute would."""
        self.site.admin.execute("CHECKPOINT")
        answer = run([*self.command, "fill", kind, str(count), str(batch)], self.env)
        self.conn.execute("VACUUM ANALYZE")
        return answer

    def call(self, *arguments: str) -> dict[str, Any]:
        """Play a part to its end."""
        return run([*self.command, *arguments], self.env)

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Play a part, beside what follows."""
        with self.log.open("ab") as log:  # a pipe that nobody reads would hold a worker up
            return subprocess.Popen(
                [*self.command, *arguments], env=os.environ | self.env, stdout=subprocess.PIPE, stderr=log
            )

    def work(self, kind: str, processes: int = 1) -> None:
        """Start workers."""
        contender = self.contender
        self.workers += [
            self.begin("work", kind, contender.setting, str(contender.concurrency)) for _ in range(processes)
        ]

    def stop(self) -> None:
        """End the workers; those that do not, by force."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.communicate()
        self.workers.clear()

    def worker_seconds(self) -> float:
        """CPU that the workers have used, with their children's."""
        return sum(
            _cpu_seconds(pid, children=True) for worker in self.workers for pid in [worker.pid, *_tree(worker.pid)]
        )

    def blocks(self) -> int:
        """Blocks that sessions of this database have read so far, from Postgres's own buffers or from elsewhere."""
        self.conn.execute("SELECT pg_stat_force_next_flush()")
        query = "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"
        return int(self.conn.execute(query).fetchone()[0])

    def begun_at(self, patience: float = 20.0) -> float:
        """When the first job began; waits for it."""
        file = Path(self.env["BENCH_BEGUN"])
        deadline = time.monotonic() + patience
        while not (file.exists() and (lines := file.read_text().split())):
            for worker in self.workers:
                if worker.poll() is not None:
                    raise RuntimeError(f"{self.contender.label} ended: {self.log.read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.contender.label} began nothing within {patience:.0f} s")
            time.sleep(0.005)
        return min(map(float, lines))

    def stamps(self) -> dict[int, float]:
        """When each numbered job first began."""
        file = Path(self.env["BENCH_STAMPS"])
        found: dict[int, float] = {}
        for line in file.read_text().splitlines() if file.exists() else ():
            number, at = line.split()
            found.setdefault(int(number), float(at))
        return found

    def empty_at(self, patience: float = 60.0) -> float:
        """When the last job was completed, to 25 ms; waits for it."""
        deadline = time.monotonic() + patience
        while self.conn.execute(self.left).fetchone()[0]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.contender.label} has not done its jobs within {patience:.0f} s")
            time.sleep(0.025)
        return time.monotonic()


@functools.cache
def describe(contender: Contender) -> dict[str, str]:
    """What the contender says of itself."""
    return run([contender.python, str(HERE / contender.script), "describe"], {"PYTHONPATH": str(HERE)})


def run(command: Sequence[str], env: dict[str, str]) -> dict[str, Any]:
    """The JSON that a contender prints last."""
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-3000:]}")
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else {}


@contextlib.contextmanager
def opened() -> Iterator[Site]:
    """A server for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder, Postgres(settings=SETTINGS) as postgres:
        yield Site(postgres, Path(folder))


def machine() -> dict[str, str]:
    """What this is."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cores": str(os.cpu_count()),
        "processor": model[1] if model else platform.processor(),
        "python": platform.python_version(),
    }


def _stat(pid: int) -> list[str]:
    """From the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _tree(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return [found for child in children for found in (child, *_tree(child))]
    return []


def _cpu_seconds(pid: int, *, children: bool = False) -> float:
    """User and system time of a process, and of its children that have ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return sum(map(int, _stat(pid)[11 : 15 if children else 13])) / TICK
    return 0.0
