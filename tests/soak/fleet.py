"""The worker processes of a soak: started by the real command, found again by their environment, replaced when dead."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import soak_tasks

COMMAND = [sys.executable, "-m", "chancy_worker", "soak_tasks", "--children", "2"]
COMMAND += ["--queue", "default", "--queue", "two=2", "--queue", "one=1", "--queue", "empty"]
SHAPES = ([], [], ["--processes", "2"])
"""Two plain workers, and two under a supervisor."""
RECORD = re.compile(r"\d{4}-\d\d-\d\d \S+ [A-Z]+ +([\w.]+): ")
START_SECONDS = 30.0


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    command: list[str]

    @property
    def is_worker(self) -> bool:
        """Or the supervisor of workers."""
        return self.command[1:3] == COMMAND[1:3]

    @property
    def is_fork_server(self) -> bool:
        return "chancy_worker.children.forkserver" in " ".join(self.command)


def tracebacks_in(log: str) -> list[tuple[int, str]]:
    """The lines in which one begins, and the logger of the record that it belongs to."""
    found, logger = [], ""
    for number, line in enumerate(log.splitlines(), 1):
        if begun := RECORD.match(line):
            logger = begun[1]
        elif line.startswith("Traceback"):
            found.append((number, logger))
    return found


@dataclass
class Fleet:
    dsn: str
    folder: Path
    parts: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    """The processes started from here, by their place in SHAPES."""
    ends: list[tuple[int, float]] = field(default_factory=list)
    """Of those that had to be replaced: exit code, and seconds of life."""
    _started: dict[int, float] = field(default_factory=dict)

    @property
    def lines(self) -> Path:
        return self.folder / "lines"

    def keep(self) -> None:
        """Start what is not running."""
        for place, shape in enumerate(SHAPES):
            if place not in self.parts or (code := self.parts[place].poll()) is not None:
                if place in self.parts:
                    self.ends.append((code, time.monotonic() - self._started[place]))
                self._started[place] = time.monotonic()
                with (self.folder / f"worker-{place}.log").open("ab") as log:
                    self.parts[place] = subprocess.Popen(
                        [*COMMAND, *shape],
                        cwd=Path(__file__).parent,
                        env=os.environ | {"CHANCY_DSN": self.dsn, soak_tasks.LINES: str(self.lines)},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )

    def processes(self) -> list[Process]:
        """Every living process that stems from this fleet, whoever its parent is now."""
        mark = f"{soak_tasks.LINES}={self.lines}\0".encode()
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                if mark in (place / "environ").read_bytes() + b"\0":
                    command = (place / "cmdline").read_bytes().decode().split("\0")
                    parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
                    found.append(Process(int(place.name), int(parent), command))
        return sorted(found, key=lambda process: process.pid)

    def workers(self) -> list[Process]:
        """Those that claim jobs: not the supervisor."""
        found = [process for process in self.processes() if process.is_worker]
        parents = {process.parent for process in found}
        return [process for process in found if process.pid not in parents]

    def children(self) -> list[Process]:
        """The child processes in which jobs run."""
        found = self.processes()
        servers = {process.pid for process in found if process.is_fork_server}
        return [process for process in found if process.parent in servers]

    def ended_by_themselves(self) -> list[object]:
        """As no worker may: but one that starts may find no Postgres, and be told to stop before it can listen."""
        return [
            f"exit code {code} after {age:.1f} s"
            for code, age in self.ends
            if code not in {0, -signal.SIGKILL} and not (code in {2, -signal.SIGTERM} and age < START_SECONDS)
        ]

    def tracebacks(self) -> list[object]:
        """Where a worker has logged one of its own: what a job raised for good is told by `chancy.job`."""
        return [
            f"{log.name}:{number}"
            for log in sorted(self.folder.glob("*.log"))
            for number, logger in tracebacks_in(log.read_text(errors="replace"))
            if logger != "chancy.job"
        ]

    def stop(self, within: float) -> list[int]:
        """SIGTERM to all that were started from here; their exit codes, -9 for those that had to be killed."""
        for process in self.parts.values():
            process.terminate()
        deadline = time.monotonic() + within
        for process in self.parts.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        return [process.wait() for process in self.parts.values()]

    def end(self) -> None:
        """Leave nothing behind, whatever has happened."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for process in self.parts.values():
            process.wait()
