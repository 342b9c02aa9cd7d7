"""Where the log of `chancy-worker` goes: to standard error. A record is written at once; lines that were formed without
one are written many at a time.

A line that was formed waits until somebody flushes, or a record comes that is to stand behind it; so the order is that
in which things were said.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import types
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from typing import TextIO

from chancy_worker import forks

from .format import JsonFormatter, PlainFormatter

WHOLE_IN_A_PIPE, WHOLE_IN_A_FILE = 4_096, 1 << 17
"""Bytes that no other process can write into: several share a standard error. (Of a pipe: PIPE_BUF.)"""
_BUFFER_BYTES = 1 << 18

_LOGGING = logging.getLogger.__code__.co_filename
_WAY = ("makeRecord", "handle", "callHandlers", "filter", "isEnabledFor")
"""Of a record: what tools that listen to logging put something of their own in the place of."""


class Lines(logging.StreamHandler[TextIO]):
    """Writes records, and the lines that it is given, to a stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._whole = _whole_in(stream)
        self._depth = forks.depth
        self._waiting: deque[str] = deque()
        self.add = self._waiting.append
        """Takes a line with its end, to be written with the next flush or before the next record. From any thread."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock of handlers: to read a message may be code of a job, and the loop does not wait for it."""
        passed: bool | logging.LogRecord = self.filter(record)
        if passed:
            self.emit(record if passed is True else passed)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """What was said before comes before."""
        try:
            line = self.format(record) + self.terminator
        except Exception:
            self.handleError(record)
        else:
            self._forget_what_is_not_ours()
            self.add(line)
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises nothing: there may be no room, or nobody who reads."""
        self._forget_what_is_not_ours()
        self.acquire()
        try:
            for text in self._parts():
                self.stream.write(text)
                self.stream.flush()
        except Exception:  # noqa: S110 - where could it be said?
            pass
        finally:
            self.release()

    def _forget_what_is_not_ours(self) -> None:
        """In a process that a job has forked: what waits is its parent's to write."""
        if forks.depth != self._depth:
            self._depth = forks.depth
            self._waiting.clear()

    def _parts(self) -> Iterator[str]:
        """What waits, each as much as can be written whole."""
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        text = "".join(lines)
        sizes = map(len, lines if text.isascii() else [line.encode("utf-8", "backslashreplace") for line in lines])
        ends = [*accumulate(sizes)]
        begun = written = 0
        while begun < len(lines):
            # As many as fit, and one that is longer than that alone.
            end = max(bisect_right(ends, written + self._whole, begun), begun + 1)
            yield "".join(lines[begun:end])
            begun, written = end, ends[end - 1]


def _whole_in(stream: TextIO) -> int:
    try:
        is_file = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        return WHOLE_IN_A_PIPE
    return WHOLE_IN_A_FILE if is_file else WHOLE_IN_A_PIPE


def own_stderr() -> TextIO:
    """Standard error by a descriptor of its own: a job may close the other one."""
    try:
        return os.fdopen(
            os.dup(sys.stderr.fileno()), "w", _BUFFER_BYTES, encoding=sys.stderr.encoding, errors="backslashreplace"
        )
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file
        return sys.stderr


def only_listener(logger: logging.Logger) -> Lines | None:
    """Our handler, if nobody else would see a record of this logger of ours: then a line needs none.

    Whoever has put a handler, a filter, a factory or a way of his own into logging gets records.
    """
    if logging.getLogRecordFactory() is not logging.LogRecord or not all(map(_is_loggings_own, _WAY)):
        return None
    if logger.filters:
        return None
    found: Lines | None = None
    node: logging.Logger | None = logger
    while node is not None:
        for handler in node.handlers:
            if logger.name in getattr(handler, "passes_over", ()):
                continue
            if found is not None or type(handler) is not Lines or not _is_plain(handler):
                return None
            found = handler
        node = node.parent if node.propagate else None
    return found


def _is_plain(handler: Lines) -> bool:
    form = type(handler.formatter)
    return form in (PlainFormatter, JsonFormatter) and not handler.filters and handler.level == logging.NOTSET


def _is_loggings_own(method: str) -> bool:
    function = getattr(logging.Logger, method)
    return type(function) is types.FunctionType and function.__code__.co_filename == _LOGGING
