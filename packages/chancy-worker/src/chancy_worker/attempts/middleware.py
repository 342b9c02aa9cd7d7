"""What the app puts around each attempt, in the worker's own process and loop, and what it may make of a verdict."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import NoneType
from typing import Any, cast

from chancy.current import CurrentJob
from chancy.errors import ChancyError
from chancy.states import FINISHED, State
from chancy_worker.words import kind_of

from .verdict import Claimed, Completion, Since, failure

Proceed = Callable[[], Awaitable[Completion]]
"""What a middleware is given to go on: awaited once, it gives what the attempt came to."""
Middleware = Callable[[CurrentJob, Proceed], Awaitable[Completion]]
"""A plain async function around an attempt: it awaits `proceed()` once and returns its completion, or another."""

_FIELDS: dict[str, tuple[type, ...]] = {
    "id": (int,),
    "fence": (int,),
    "state": (State,),
    "result": (bytes, NoneType),
    "errors": (bytes, NoneType),
    "delay": (timedelta, NoneType),
    "refund": (bool,),
    "note": (str,),
    "flow": (bytes, NoneType),
    "snooze": (str, NoneType),
}


async def go_through(
    middleware: Sequence[Middleware], run: Proceed, job: Claimed, current: CurrentJob, since: Since
) -> Completion:
    """Run the attempt inside all of these, the first outermost. Raises what they raise."""
    succeeding = False

    async def function() -> Completion:
        nonlocal succeeding
        verdict = await run()
        succeeding = verdict.state is State.SUCCEEDED
        return verdict

    proceed: Proceed = function
    for around in reversed(middleware):
        proceed = functools.partial(_through, around, job, current, proceed)
    try:
        return await proceed()
    except InvalidVerdict as error:
        if succeeding:  # final: the effects are there, and another attempt would come to the same end
            return failure(job, State.FAILED, error, since)
        raise


async def _through(around: Middleware, job: Claimed, current: CurrentJob, proceed: Proceed) -> Completion:
    """One middleware; what it returns is looked at before anybody relies on it."""
    given: Any = around(current, proceed)
    if inspect.isawaitable(given):
        given = await given
    if flaw := flaw_of(given, job):
        raise InvalidVerdict(around, flaw)
    return cast(Completion, given)


class InvalidVerdict(ChancyError):
    """A middleware returned something that cannot be the verdict of its attempt."""

    def __init__(self, middleware: Middleware, flaw: str) -> None:
        name = getattr(middleware, "__qualname__", None) or type(middleware).__qualname__
        super().__init__(
            f"middleware {getattr(middleware, '__module__', '?')}.{name} returned no verdict of this attempt: {flaw}. "
            f"It has to return the Completion that `await proceed()` gives (is a `return` missing?), or another one"
        )


def flaw_of(given: object, job: Claimed) -> str | None:
    """Why this is no verdict of this attempt, if so."""
    if type(given) is not Completion:
        return f"{kind_of(given)} is no Completion"
    for name, kinds in _FIELDS.items():
        if type(value := getattr(given, name)) not in kinds:
            return f"its {name} is {kind_of(value)}"
    if (given.id, given.fence) != (job.id, job.fence):
        return f"it is of another attempt (job {given.id})"
    if given.state not in FINISHED | {State.READY} and (given.state is not State.BLOCKED or given.flow is None):
        return f"no attempt ends as {given.state}"
    if given.state is State.READY and not given.refund and job.attempt >= job.max_attempts:
        return "it makes a job ready again that has no attempt left"
    return None
