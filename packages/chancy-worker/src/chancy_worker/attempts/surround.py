"""What the app puts around the function of each job, in the place where it runs: loop, thread or child process."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeAlias

from chancy.current import CurrentJob, running_attempt
from chancy.errors import ChancyError
from chancy.logs.records import about
from chancy_worker import forks
from chancy_worker.words import kind_of

log = logging.getLogger("chancy.worker")

Surround: TypeAlias = Callable[[CurrentJob], AbstractContextManager[object]]
"""A plain function of the job that gives a context manager: it is entered before the function and left behind it."""


class InvalidSurround(ChancyError):
    """What the app's `surround` returned is no context manager."""

    def __init__(self, surround: Surround, given: object) -> None:
        super().__init__(
            f"surround {_called(surround)} returned {kind_of(given)}, which is no context manager: it is a plain "
            f"function of the job under @contextlib.contextmanager (and not async)"
        )


class Within:
    """The block in which the function of the attempt that runs is called.

    What it raises when it is entered or left is an error of the attempt. What it swallows counts all the same: a
    function that has raised has returned nothing. And an attempt that is being stopped is, whatever the exit raises.
    """

    __slots__ = ("_depth", "_manager", "_surround")

    def __init__(self, surround: Surround) -> None:
        self._surround = surround

    def __enter__(self) -> None:
        self._depth = forks.depth
        given: Any = self._surround(running_attempt.get())
        if not (hasattr(type(given), "__enter__") and hasattr(type(given), "__exit__")):
            if inspect.iscoroutine(given):
                given.close()
            raise InvalidSurround(self._surround, given)
        self._manager: AbstractContextManager[object] = given
        type(given).__enter__(given)
        if forks.depth != self._depth:
            forks.end()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if forks.depth != self._depth:  # the function has forked this process, which is not to leave it a second time
            forks.end(error)
        try:
            type(self._manager).__exit__(self._manager, kind, error, traceback)
        except BaseException:
            if kind is None or not issubclass(kind, asyncio.CancelledError):
                raise
            whose = about(running_attempt.get())
            log.exception("surround %s raised when its attempt was stopped", _called(self._surround), extra=whose)


Place: TypeAlias = tuple[str, str]
"""A module, and what a function is called in it."""


def place_of(surround: Surround | None) -> Place | None:
    """Where child processes find it. Raises `ValueError` for one that is not found under its own name."""
    if surround is None:
        return None
    place = getattr(surround, "__module__", None), getattr(surround, "__qualname__", None)
    try:
        is_there = found(place) is surround  # type: ignore[arg-type]
    except (AttributeError, ImportError, TypeError, ValueError):
        is_there = False
    if not is_there:
        raise ValueError(
            f"surround: child processes import it by its name, and {_called(surround)} is not there under it: write it "
            f"as a function of its own at module level"
        )
    return place  # type: ignore[return-value]


def found(place: Place) -> Surround:
    """What is there. Raises what an import raises, and `AttributeError`."""
    module = importlib.import_module(place[0])
    surround: Surround = functools.reduce(getattr, place[1].split("."), module)  # type: ignore[assignment]
    return surround


def _called(surround: Surround) -> str:
    name = getattr(surround, "__qualname__", None) or type(surround).__qualname__
    return f"{getattr(surround, '__module__', '?')}.{name}"
