"""What becomes of a process that a handler has forked (`os.fork`, multiprocessing): it starts with default signals and
without what the worker has opened, and it does not come back into the worker's own code.

A fork is a copy, also of what is not its own: of the descriptor by which signals wake the event loop of its parent, of
connections that are to end with the worker, and of a loop or a child's main loop that would go on for a second time.
A program that is executed instead of forked gets none of that: everything here is closed at `exec`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, Protocol

_DEFAULTS: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


class Open(Protocol):
    """Something with a file descriptor."""

    def fileno(self) -> int:
        """Raises where it is closed."""


_files: weakref.WeakSet[Open] = weakref.WeakSet()
_held: list[list[Open]] = []
_loops: list[tuple[int, asyncio.AbstractEventLoop]] = []
"""Event loops that forks do not go on with, and the threads in which they turn."""
_handlers: dict[int, object] = {}
"""Of each signal the handler that is not for forks; None is any."""
_masks = threading.local()
is_fork = False
"""Whether this process has been forked from one whose event loop is guarded, by code that ran on it."""
depth = 0
"""How many forks ago this module was imported: a job in which it grows has come back as another process. To compare
it costs a tenth of asking the kernel for the pid."""


def keep_from_forks(file: Open) -> None:
    """What is open there is the worker's alone: forks find /dev/null in its place."""
    _files.add(file)


@contextlib.contextmanager
def keeping(files: Iterable[Open]) -> Iterator[None]:
    """The same for as long as the block lasts, for what cannot be referred to weakly."""
    _held.append(held := list(files))
    try:
        yield
    finally:
        _held.remove(held)


def guard_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Let no fork of this process go on with this loop. From the thread in which it turns."""
    global is_fork
    is_fork = False  # of another loop; from here on it is a worker
    _loops.append((threading.get_ident(), loop))


def guard_signal(number: int, handler: object) -> None:
    """Let forks of this process have the default in place of this handler; None is any."""
    _handlers[number] = handler


@contextlib.contextmanager
def guarding(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """While the block lasts forks of this process, a worker, are harmless to it. From the loop's own thread."""
    guard_loop(loop)
    for number in _DEFAULTS:
        guard_signal(number, None)
    try:
        yield
    finally:
        _loops.remove((threading.get_ident(), loop))
        if not _loops:
            _handlers.clear()


def end(error: BaseException | None = None) -> NoReturn:
    """End this process as its interpreter would, with this error.

    It is a fork that has come back out of the handler: it would go on as another worker, or another child.
    """
    code = 0 if error is None else 1
    with contextlib.suppress(BaseException):
        if isinstance(error, SystemExit) and isinstance(error.code, int | None):
            code = error.code or 0
        elif isinstance(error, SystemExit):
            sys.stderr.write(f"{error.code}\n")
        elif error is not None:
            traceback.print_exception(error)
    flush()
    os._exit(code & 0xFF)


def leave() -> NoReturn:
    """End this process, a fork that has come back to the event loop of the process that it is a copy of."""
    with contextlib.suppress(BaseException):
        sys.stderr.write(
            f"chancy: process {os.getpid()}, which a job has forked on the event loop, came back to that loop and is "
            f'ended; end such a process with os._exit, or fork in a child: executor="process"\n'
        )
    flush()
    os._exit(1)


def flush() -> None:
    """What is still in the buffers of standard output and error goes out. Never raises."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


def _before() -> None:
    """A signal that came between the fork and the new handlers would be taken for the parent's."""
    _masks.saved = signal.pthread_sigmask(signal.SIG_BLOCK, _handlers)


def _after_in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.saved)


def _after_in_child() -> None:
    global depth
    depth += 1
    try:
        if _handlers:
            signal.set_wakeup_fd(-1)
        for number, handler in _handlers.items():
            now = signal.getsignal(number)
            if callable(now) and (handler is None or handler is now):
                signal.signal(number, _DEFAULTS[number])
        _handlers.clear()
        _drop_files()
        for thread, loop in _loops:
            if thread == threading.get_ident():
                _end_with_this_step(loop)
        _loops.clear()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.saved)


def _drop_files() -> None:
    """Not closed: the number would be somebody else's next, and the objects that hold it are still here."""
    files = [*_files, *itertools.chain.from_iterable(_held)]
    _files.clear()
    _held.clear()
    if not files:
        return
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDWR)
        for file in files:
            with contextlib.suppress(Exception):  # it is closed already
                os.dup2(nothing, file.fileno(), inheritable=False)
        os.close(nothing)


def _end_with_this_step(loop: asyncio.AbstractEventLoop) -> None:
    """The handler's own step goes on here; whatever the loop would do after that is done by the parent."""
    global is_fork
    is_fork = True
    ready = getattr(loop, "_ready", None)
    if isinstance(ready, deque):
        ready.appendleft(asyncio.Handle(leave, (), loop))
    else:  # uvloop: after what is due in this turn; no job's step among that is done, see `bursts`
        loop.call_soon(leave)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
