"""SIGTERM and SIGINT (Ctrl-C): who hears them, and for how long.

Plain handlers of the interpreter and none of the event loop: those need a wakeup descriptor, which a forked process
inherits, so that a signal to it would be heard here. Python runs them in the main thread, between two instructions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, TypeAlias

NUMBERS = (signal.SIGTERM, signal.SIGINT)

Listener: TypeAlias = Callable[[], object]


class Asked(KeyboardInterrupt):
    """Somebody has asked for a stop before there was anything to stop. A module may raise `SystemExit` itself."""


def end_at_once() -> NoReturn:
    """The listener of a program that has not begun. Raises `Asked`, wherever the main thread is."""
    raise Asked


class Heard:
    """A signal's handler: calls all who listen, or else `alone`. In a process forked from this one the signal does what
    it does by default, so that what a job starts can be ended.
    """

    def __init__(self, before: Any, alone: Listener | None) -> None:
        self.before = before
        """The handler that was there, and will be again."""
        self.alone = alone
        self.listeners: list[Listener] = []
        self.came = False
        """Whether the signal ever did."""
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """As Python calls a handler, in the main thread."""
        if os.getpid() != self._process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.came = True
        for listener in list(self.listeners):
            listener()
        if not self.listeners and self.alone is not None:
            self.alone()


@contextlib.contextmanager
def taken(listener: Listener) -> Iterator[None]:
    """Within the block they call `listener`, or those who share them. Then what was there before is there again, unless
    somebody has put his own in its place meanwhile. Elsewhere than in the main thread nothing can be taken.

    What has come to another such block around this one is told to `listener` at once: it may have come to nothing.
    """
    mine = [(number, _installed(number, listener)) for number in _numbers()]
    try:
        if any(isinstance(heard.before, Heard) and heard.before.came for _, heard in mine):
            listener()
        yield
    finally:
        for number, heard in mine:
            _put_back(number, heard)


@contextlib.contextmanager
def shared(listener: Listener) -> Iterator[None]:
    """The same for a worker in somebody's program: a signal that the program handles itself stays the program's, and
    several workers hear it together.
    """
    mine: list[tuple[signal.Signals, Heard]] = []
    for number in _numbers():
        current = signal.getsignal(number)
        if isinstance(current, Heard):
            mine.append((number, current))
        elif _is_nobodys(current):
            mine.append((number, _installed(number, None)))
    for _, heard in mine:
        heard.listeners.append(listener)
    try:
        yield
    finally:
        for number, heard in mine:
            heard.listeners.remove(listener)
            if not heard.listeners and heard.alone is None:
                _put_back(number, heard)


def asking(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Listener:
    """A listener that has this loop call `stop`."""

    def listener() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to stop
            loop.call_soon_threadsafe(stop)

    return listener


def _numbers() -> tuple[signal.Signals, ...]:
    return NUMBERS if threading.current_thread() is threading.main_thread() else ()


def _installed(number: signal.Signals, alone: Listener | None) -> Heard:
    before = signal.getsignal(number)
    heard = Heard(signal.SIG_DFL if before is None else before, alone)  # None: not Python's, and cannot be put back
    signal.signal(number, heard)
    return heard


def _put_back(number: signal.Signals, heard: Heard) -> None:
    current: object = signal.getsignal(number)
    if current is heard:
        signal.signal(number, heard.before)


def _is_nobodys(handler: Any) -> bool:
    """What Python does by default, and what `asyncio.run` makes of Ctrl-C: it cancels the main task, which would be a
    stop without a grace.
    """
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return True
    return isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner)
