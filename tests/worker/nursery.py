"""A process that has imported what others need, and is copied for each of them: to start Python and to import it takes
a third of a second of processor, and a copy a hundredth of that.

A copy is to be told from a start by nothing that the tests look at: it has the modules of its nursery imported, of which
none is a user's, and beside that only what it is given. Both ends are here; nothing is imported that is not Python's.
"""

from __future__ import annotations

import fcntl
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import process
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

_LENGTH = struct.Struct("!I")
_LOOK_SECONDS, _TO_END_SECONDS = 0.5, 2.0
_PROGRAM = "import sys; own = sys.path[1:]; sys.path[:] = %r; from nursery import live; live(%d, own, %r)"
_HIGH = 100
"""Above all descriptors that a nursery has."""


def of_a_start(env: Mapping[str, str]) -> dict[str, str]:
    """What only a start of Python hears of, and no copy."""
    heard = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "CHANCY_WORKER_KNOWN_BY")
    return {name: value for name, value in env.items() if name.startswith(heard) and name != "PYTHONPATH"}


_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""Of a nursery: no test has changed anything in it yet."""


class Nursery:
    """This process's end. It ends with this process however that ends, and all copies with it."""

    def __init__(self, *modules: str) -> None:
        self._line, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            program = _PROGRAM % ([str(HERE), *sys.path], theirs.fileno(), modules)
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
            )

    def start(self, *command: str, env: Mapping[str, str], files: Sequence[int], folder: str | None = None) -> Copy:
        """As `python` with this command, in a session of its own. What it is given of `files` is there as 1, 2, 3..."""
        assert of_a_start(env) == of_a_start(_ENVIRONMENT), "that takes a start of Python"
        assert command[0] in ("-c", "-m")
        return Copy(self, self.ask(files, command=command, env=dict(env), folder=folder or str(Path.cwd())))

    def ask(self, files: Sequence[int] = (), **asked: Any) -> Any:
        body = json.dumps(asked).encode()
        with self._lock:
            socket.send_fds(self._line, [_LENGTH.pack(len(body))], files)
            self._line.sendall(body)
            return json.loads(_received(self._line))


@functools.cache
def nursery(*modules: str) -> Nursery:
    """One of each kind."""
    return Nursery(*modules)


class Copy:
    """A copy, as `subprocess.Popen` has processes."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._nursery.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["a copy"], timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # the pid is its own until that has been asked
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def live(line: int, own: list[str], modules: Sequence[str]) -> None:
    """What the process runs, and then each copy; `own` is what there is of a path without anybody's saying so."""
    for module in modules:
        importlib.import_module(module)
    with socket.socket(fileno=line) as asking:
        asked, files = _born(asking)
    _settle_in(asked, files, own)
    _run(asked["command"])


def _born(asking: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Returns in each copy, with what it is told and given. The nursery answers with the pid of a new one, or how one
    has ended.
    """
    parent = os.getppid()
    copies: dict[int, int | None] = {}
    while os.getppid() == parent:  # a fork of that may hold the other end of the line
        if not select.select([asking], [], [], _LOOK_SECONDS)[0]:
            continue
        if (heard := _heard(asking)) is None:
            break
        asked, files = heard
        if "poll" in asked:
            _answer(asking, _ended(asked["poll"], copies))
        elif pid := os.fork():
            copies[pid] = None
            for file in files:
                os.close(file)
            _answer(asking, pid)
        else:
            return asked, files
    _end_all(copies)
    os._exit(0)


def _end_all(copies: dict[int, int | None]) -> None:
    """Those that end by themselves now, because their line is closed, end first what they have started."""
    deadline = time.monotonic() + _TO_END_SECONDS
    while (left := [pid for pid in copies if _ended(pid, copies) is None]) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def _ended(pid: int, copies: dict[int, int | None]) -> int | None:
    if copies[pid] is None:
        gone, status = os.waitpid(pid, os.WNOHANG)
        copies[pid] = os.waitstatus_to_exitcode(status) if gone else None
    return copies[pid]


def _settle_in(asked: Mapping[str, Any], files: Sequence[int], own: list[str]) -> None:
    """What a process of its own would have been started with."""
    os.setsid()
    held = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _HIGH) for file in files]
    for file in files:
        os.close(file)
    for number, file in enumerate(held, 1):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    process.ORIGINAL_DIR = asked["folder"]  # of multiprocessing
    wanted = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if "PYTHONPATH" in os.environ]
    of_start = "" if asked["command"][0] == "-c" else asked["folder"]
    sys.path[:] = [of_start, *dict.fromkeys([*map(os.path.abspath, wanted), *own])]
    sys.path_importer_cache.clear()


def _run(command: Sequence[str]) -> None:
    kind, what, *arguments = command
    sys.argv[:] = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, vars(sys.modules["__main__"]))


def _heard(asking: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """None when there is nobody who asks any more."""
    head, files, _, _ = socket.recv_fds(asking, _LENGTH.size, 8)
    if not head:
        return None
    for file in files:
        os.set_inheritable(file, False)
    (length,) = _LENGTH.unpack(head)
    body = asking.recv(length, socket.MSG_WAITALL)
    return (json.loads(body), files) if len(body) == length else None


def _answer(asking: socket.socket, answer: int | None) -> None:
    body = json.dumps(answer).encode()
    asking.sendall(_LENGTH.pack(len(body)) + body)


def _received(line: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(line.recv(_LENGTH.size, socket.MSG_WAITALL))
    return line.recv(length, socket.MSG_WAITALL)
