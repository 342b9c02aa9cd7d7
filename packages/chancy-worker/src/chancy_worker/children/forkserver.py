"""The process from which child processes are forked, and the worker's end of the line to it.

It is small, has one thread, and has imported what every child needs and nothing that a user's module could have opened
or seeded, except what the app has asked for by `preload`. As the parent of the children it sees each death whatever
else holds the child's line, and kills what the child had started while the dead child still occupies its number. It
ends when its line to the worker is closed, and all children with it.

Own code, because multiprocessing's fork server is one for all users in a process, imports the program's `__main__`,
needs a working folder that exists, and tells of a death through a pipe that forks inherit.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import spawn
from pathlib import Path
from typing import NoReturn

from chancy_worker import forks
from chancy_worker.child import child, memory
from chancy_worker.child.frames import (
    Ended,
    Fork,
    Forked,
    Kill,
    Refused,
    Reported,
    Setup,
    Splitter,
    Unloaded,
    decode_asked,
    decode_reported,
    framed,
)

log = logging.getLogger("chancy.worker")

_CLOSE_SECONDS = 2.0
"""That it gets to end by itself."""
_PROGRAM = "import sys; sys.path[:] = %r; from chancy_worker.children.forkserver import serve; serve(%d)"
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of Linux."""


class ForkServer:
    """The worker's end. The process starts with this object; `heard` is told what it reports, `died` of its end."""

    def __init__(self, setup: Setup, heard: Callable[[Reported], None], died: Callable[[str], None]) -> None:
        """Raises OSError where no process can be started."""
        self._heard = heard
        self._died = died
        self._splitter = Splitter()
        self._line, theirs = socket.socketpair()
        forks.keep_from_forks(self._line)
        try:
            with theirs:
                self._process = _started(theirs.fileno(), setup.path)
            self._line.sendall(framed(setup))
            self._line.setblocking(False)
        except BaseException:
            self._line.close()
            raise
        asyncio.get_running_loop().add_reader(self._line, self._read)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def fork(self, number: int, level: int) -> socket.socket:
        """Ask for a child; returns the worker's end of the line to it. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._line, [framed(Fork(number, level))], [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        forks.keep_from_forks(ours)
        ours.setblocking(False)
        return ours

    def kill(self, number: int) -> None:
        """Ask for the end of a child and of all that it has started; to be asked again until it is told of."""
        with contextlib.suppress(OSError):
            self._line.send(framed(Kill(number)))

    async def close(self) -> None:
        """End it, and what children there still are. Returns in a few seconds in any case."""
        self._hang_up()
        for _ in range(100):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(_CLOSE_SECONDS / 100)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_SECONDS)

    def _read(self) -> None:
        try:
            data = self._line.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            self._died(f"the fork server {_how_it_ended(self._process)}")
        for body in self._splitter.split(data):
            self._heard(decode_reported(body))

    def _hang_up(self) -> None:
        if self._line.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._line)
            self._line.close()


def _started(line: int, path: tuple[str, ...]) -> subprocess.Popen[bytes]:
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    return subprocess.Popen(
        [os.fsdecode(spawn.get_executable() or sys.executable), *flags, "-c", _PROGRAM % (list(path), line)],
        stdin=subprocess.DEVNULL,
        pass_fds=[line],
        cwd="/",  # the worker's own may be gone
        start_new_session=True,
    )


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    process.kill()  # it has closed its line, and may hang for another reason
    try:
        code = process.wait(1)
    except subprocess.TimeoutExpired:
        return "does not answer any more"
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def serve(line: int) -> NoReturn:
    """What the process runs."""
    server = _Server(socket.socket(fileno=line))
    try:
        with contextlib.suppress(ConnectionError):  # a worker that is killed before it has read all hangs up so
            server.work()
    except BaseException:
        traceback.print_exc()
    server.kill_all()
    forks.flush()
    os._exit(0)


class _Server:
    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._splitter = Splitter()
        self._setup: Setup | None = None
        self._children: dict[int, int] = {}
        """Numbers by pid."""
        self._killed: set[int] = set()
        self._woken, wakes = socket.socketpair()
        for end in (self._woken, wakes):
            end.setblocking(False)
        self._wakes = wakes
        # Functions and not SIG_IGN, which children would inherit. A service manager sends SIGTERM to every process of
        # a worker, and the children would die with this one in the middle of the time that they get to finish.
        numbers = signal.SIGTERM, signal.SIGINT, signal.SIGCHLD
        self._before = {number: signal.signal(number, _stay) for number in numbers}
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        _adopt()

    def work(self) -> None:
        """Until the worker hangs up."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._line, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            self._selector = selector
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._woken in ready:
                    self._woken.recv(1 << 12)
                    self._bury()
                if self._line in ready and not self._hear():
                    return

    def kill_all(self) -> None:
        """Children, and what they have started."""
        for pid in self._children:
            _kill(pid)

    def _hear(self) -> bool:
        """False when the line is closed. An end of a line arrives with the last message of what is read at a time."""
        data, fds, _, _ = socket.recv_fds(self._line, 1 << 16, 1)
        for fd in fds:
            os.set_inheritable(fd, False)
        for body in self._splitter.split(data):
            match decode_asked(body):
                case Setup() as setup:
                    self._setup = setup
                    self._preload(setup)
                case Fork(number, level):
                    self._fork(number, level, fds.pop() if fds else None)
                case Kill(number):
                    for pid in [pid for pid, its in self._children.items() if its == number]:
                        self._killed.add(number)
                        _kill(pid)
        return bool(data)

    def _say(self, said: Reported) -> None:
        with contextlib.suppress(ConnectionError):  # it is read from next, and ends then
            self._line.sendall(framed(said))

    def _preload(self, setup: Setup) -> None:
        sys.argv[:] = setup.argv
        for module in setup.preload:
            before = _files()
            try:
                importlib.import_module(module)
            except BaseException as error:
                self._say(Unloaded(module, f"cannot be imported: {type(error).__qualname__}: {error}"))
            if opened := _files() - before:
                self._say(Unloaded(module, f"opens {', '.join(sorted(opened))} at its import; all children share that"))
            if threading.active_count() > 1:
                self._say(Unloaded(module, "has threads after its import; no child has them"))
        gc.collect()
        gc.freeze()  # a collection in a child would copy the pages of all that is here

    def _fork(self, number: int, level: int, line: int | None) -> None:
        if line is None or self._setup is None:
            return self._say(Refused(number, "the fork server has no file descriptor free"))
        try:
            pid = os.fork()
        except OSError as error:
            os.close(line)
            return self._say(Refused(number, f"fork: {error.strerror}"))
        if pid == 0:
            self._become_child(line, level, self._setup)
        os.close(line)
        self._children[pid] = number
        return self._say(Forked(number, pid))

    def _become_child(self, line: int, level: int, setup: Setup) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            for mine in (self._selector, self._line, self._woken, self._wakes):
                mine.close()
            child.main(socket.socket(fileno=line), setup, level)
            code = 0
        except BaseException:
            traceback.print_exc()
        child.end(code)

    def _bury(self) -> None:
        """Tell of those that are dead. First what they have left is killed: a dead one's number is still its own."""
        while (dead := _dead()) is not None:
            pid, status = dead
            if (number := self._children.pop(pid, None)) is not None:
                _kill(pid)
            if status is None:
                _, status = os.waitpid(pid, 0)
            if number is not None:
                self._say(Ended(number, os.waitstatus_to_exitcode(status), number in self._killed))
                self._killed.discard(number)


def _stay(*_: object) -> None:
    """See above."""


def _adopt() -> None:
    """Let what a dead child has left be ours to wait for, and not the init process's.

    In a container that may be the worker, which waits for its own children only.
    """
    if sys.platform == "linux":
        import ctypes  # needed here only

        with contextlib.suppress(Exception):
            ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _dead() -> tuple[int, int | None] | None:
    """A process of ours that is dead, a child or what one has left; its status where it had to be waited for."""
    with contextlib.suppress(ChildProcessError):
        if not hasattr(os, "waitid"):  # macOS
            pid, status = os.waitpid(-1, os.WNOHANG)
            return (pid, status) if pid else None
        if (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            return found.si_pid, None
    return None


def _kill(pid: int) -> None:
    """A child, dead or alive, and what it has started."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    for each in memory.relatives(pid) if memory.MEASURABLE else ():
        with contextlib.suppress(OSError):
            os.kill(each, signal.SIGKILL)
    with contextlib.suppress(OSError):  # what has come since
        os.killpg(pid, signal.SIGKILL)


def _files() -> set[str]:
    """What this process has open."""
    found = set()
    with contextlib.suppress(OSError):
        for file in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(file.readlink()))
    return found
