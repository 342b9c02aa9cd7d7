"""What an application, or a library of it, puts around each submit: a span, a count."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from chancy.errors import InvalidOption
from chancy.model import Steps
from chancy.options.plain import shown

from .functions import put

if TYPE_CHECKING:
    from chancy.job import Job, NewJob


# No Struct: `inspect.signature` of one looks its types up, and these come from a room that imports this one.
@dataclass(slots=True)
class Submit:
    """Jobs on their way into the database, in one statement."""

    jobs: Sequence[NewJob[Any]]
    """What is sent. Others may be put in their place, as many and in the same order: with other `meta`, for example."""
    made: Sequence[Job[Any]] = ()
    """The handles, in that order, once it is sent. Empty for a graph that a handler returns: its worker sends that when
    the attempt is over."""


AroundSubmit: TypeAlias = Callable[[Submit], AbstractContextManager[object]]
F = TypeVar("F", bound=AroundSubmit)
R = TypeVar("R")

functions: list[AroundSubmit] = []
"""Filled by `around_submit`, the first outermost."""


def around_submit(function: F, /) -> F:
    """Have this function be around each submit of this process: it takes the `Submit` and gives a context manager,
    which is entered before the statement is sent and left behind it.

    It sees what goes wrong with the statement, and its context variables are those of whoever submits. What it raises
    is raised there, and on the way in nothing is sent. Sync also around an async submit, where it must not block. It is
    around a graph that a handler returns where that runs, within what surrounds the function. And it is not around what
    the database submits by itself: ticks of schedules, callbacks of batches, `chancy.submit` in SQL.
    The same function again, as after a reload, takes its own place. Raises `InvalidOption` for what cannot be called.
    """
    if not callable(function):
        raise InvalidOption("around_submit", f"expected a function of the submit, got {shown(function)}")
    put(function, functions)
    return function


def surrounded(
    jobs: Sequence[NewJob[R]], send: Callable[[Sequence[NewJob[Any]]], Steps[list[Job[R]]]]
) -> Steps[list[Job[R]]]:
    """What `send` does with the jobs, inside of all that is around a submit."""
    if not functions:
        return (yield from send(jobs))
    with around(jobs) as submit:
        submit.made = made = yield from send(submit.jobs)
    return made


@contextlib.contextmanager
def around(jobs: Sequence[NewJob[Any]]) -> Iterator[Submit]:
    """All that is around a submit of these; what the block raises is raised, whoever swallows it."""
    submit, wrong = Submit(jobs), None
    with contextlib.ExitStack() as stack:
        for function in functions:
            stack.enter_context(function(submit))
        try:
            yield submit
        except BaseException as error:
            wrong = error
            raise
    if wrong is not None:
        raise wrong  # there is no job
