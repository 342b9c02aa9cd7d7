"""What a job leaves behind in its child process, in which others run after it.

After each job the child is put right where that costs next to nothing: its working folder, its umask, a timer that
would still ring, the handlers of signals that others depend on, standard output and error, where its log goes. A child
in which something lives on (a thread, a process), or which keeps much more memory than it had at its start, is
replaced. All else that a process has is shared by the jobs of a child: environment, globals, caches, open files.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import memory

MOST_BYTES = 128 * 1024**2
"""So much more memory than at its start a child may have between two jobs."""
LONG_SECONDS = 50e-6
"""In less no job has started a process, or filled so much memory: those are not asked for then."""
LINGER_SECONDS = 0.1
"""So long a thread or a process that is about to end may take for it, before it is called left behind."""
_MOST_NAMES = 3

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM)
_handler_of = getattr(signal, "_signal", signal).getsignal
"""Without the search for a name of the handler, which takes 3 of 4 microseconds."""


class Start:
    """A child as it was before its first job."""

    def __init__(self, log: logging.Handler) -> None:
        self.size = memory.used(os.getpid()) if memory.MEASURABLE else 0
        self._folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._handlers = [(number, _handler_of(number)) for number in _SIGNALS]
        self._out, self._error = sys.stdout, sys.stderr
        self._log, self._log_level, self._disabled = log, logging.root.level, logging.root.manager.disable
        self._threads = set(threading.enumerate())
        self._number_of_threads = threading.active_count()
        self._has_processes = _has_processes()
        """Of the modules: then those of jobs are not told apart."""
        self._reaped = _reaped()

    @property
    def grown(self) -> int:
        """Bytes of memory that this process has beyond what it had then."""
        return max(0, memory.used(os.getpid()) - self.size) if memory.MEASURABLE else 0

    def restore(self, seconds: float) -> str | None:
        """Put right what a job that took so long has changed. A phrase, if only the end of this process can do that."""
        os.fchdir(self._folder)
        os.umask(self._umask)
        for number, handler in self._handlers:
            if handler is not None and _handler_of(number) is not handler:
                signal.alarm(0)
                signal.signal(number, handler)
        root = logging.root
        if self._log not in root.handlers or root.level != self._log_level or root.manager.disable != self._disabled:
            root.addHandler(self._log)
            root.setLevel(self._log_level)
            logging.disable(self._disabled)
        sys.stdout, sys.stderr = self._out, self._error
        if _is_closed(self._out) or _is_closed(self._error):
            return "its standard output or error closed"
        if threading.active_count() > self._number_of_threads and (threads := self._left_threads()):
            return f"{_counted(threads, 'thread')} that {'run' if len(threads) > 1 else 'runs'} on"
        return self._left() if seconds > LONG_SECONDS else None

    def _left(self) -> str | None:
        signal.alarm(0)
        if not self._has_processes and (_has_processes() or self._has_reaped()) and (processes := _left_processes()):
            return f"{_counted(processes, 'process')} of its own"
        if memory.MEASURABLE and memory.peak_of_all() - self.size > MOST_BYTES and (grown := self.grown) > MOST_BYTES:
            return f"{grown / 1024**2:,.0f} MiB of memory more than its child process had at its start"
        return None

    def _left_threads(self) -> list[str]:
        deadline = time.monotonic() + LINGER_SECONDS
        for thread in set(threading.enumerate()) - self._threads:
            with contextlib.suppress(RuntimeError, AssertionError):  # it is none of Python's
                thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in threading.enumerate() if thread not in self._threads]

    def _has_reaped(self) -> bool:
        """Whether programs have run and ended since the last job: what they have started may be left."""
        before, self._reaped = self._reaped, _reaped()
        return before != self._reaped


def _has_processes() -> bool:
    """Whether this process has children, dead ones that nobody has waited for included."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except AttributeError:  # macOS
        return False
    return True


def _reaped() -> tuple[int, int]:
    """Changes when a child is waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_minflt, usage.ru_nvcsw


def _left_processes() -> list[str]:
    """The processes that have come from this one and are still there, named; those that end in a moment are not."""
    deadline = time.monotonic() + LINGER_SECONDS
    while True:
        multiprocessing.active_children()  # waits for those that are dead, if nobody has
        getattr(subprocess, "_cleanup", list)()  # the same
        if not (left := memory.relatives(os.getpid())) or time.monotonic() > deadline:
            return [f"{pid} {_name(pid)}" for pid in left]
        time.sleep(LINGER_SECONDS / 10)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"


def _is_closed(stream: Any) -> bool:
    return stream is not None and stream.closed


def _counted(names: Iterable[str], noun: str) -> str:
    """2 threads (Thread-1, Thread-2)"""
    names = list(names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    plural = noun if len(names) == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{len(names)} {plural} ({', '.join(names[:_MOST_NAMES])}{more})"
