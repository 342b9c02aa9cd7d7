"""The list of the cases, and what each of them may use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from chancy import run
from conformance.grounds import Case, Ground, Steps, transaction

CASES: list[Case] = []

seen: list[Any] = []
"""What the handlers of the case that runs have noted."""
ground: list[Ground] = []
"""Of the case that runs, for handlers that submit."""


def case(function: Callable[[Ground], Steps]) -> Case:
    """One more of `CASES`."""

    def steps(where: Ground) -> Steps:
        seen.clear()
        ground[:] = [where]
        yield from function(where)

    steps.__name__ = function.__name__
    steps.__doc__ = function.__doc__
    CASES.append(steps)
    return steps


def is_async(g: Ground) -> bool:
    """Whether the ground's connection is."""
    return run.awaited(g.conn)


def block(g: Ground, *acts: Callable[[], Any], roll_back: bool = False) -> Any:
    """What these verbs give, made in one transaction, which is committed or rolled back."""
    if is_async(g):
        return _block_async(g.conn, acts, roll_back)
    made: list[Any] = []
    with contextlib.suppress(ArithmeticError), transaction(g.conn):
        made += [act() for act in acts]
        if roll_back:
            raise ArithmeticError
    return made


async def _block_async(conn: Any, acts: tuple[Callable[[], Any], ...], roll_back: bool) -> Any:
    made: list[Any] = []
    with contextlib.suppress(ArithmeticError):
        async with transaction(conn):
            made += [await act() for act in acts]
            if roll_back:
                raise ArithmeticError
    return made
