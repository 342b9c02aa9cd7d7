"""A graph that a task has returned, performed here and now: what a direct call of that task comes to."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from chancy.arguments.codec import encode_json
from chancy.errors import ChancyError
from chancy.model import AttemptError
from chancy.registry import registered
from chancy.run import follow, walk
from chancy.states import State

from .flow import is_new, order_of
from .later import Later, Outcome, filled

if TYPE_CHECKING:
    from chancy.job import NewJob


def performed(result: Any) -> Any:
    """The result of the job that it stands for, after all that it needs. Raises what the function of one raises."""
    return walk(_calls(result), _call)


async def performed_async(result: Any) -> Any:
    """The same; what can be awaited is."""
    return await follow(_calls(result), _call_async)


def _call(function: Callable[[], Any]) -> Any:
    answer = function()
    if not inspect.iscoroutine(answer):
        return answer
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(answer)
    answer.close()
    raise ChancyError(
        "a function that is not async has returned a graph with async tasks, and was called by a coroutine: make it "
        "async, and await it"
    )


async def _call_async(function: Callable[[], Any]) -> Any:
    answer = function()
    return (await answer) if inspect.isawaitable(answer) else answer


class _Ended(msgspec.Struct):
    """The jobs of one graph that are over, by their identities."""

    results: dict[int, bytes] = msgspec.field(default_factory=dict)
    errors: dict[int, Exception] = msgspec.field(default_factory=dict)
    outcomes: dict[int, bytes] = msgspec.field(default_factory=dict)

    def fill(self, need: Later) -> bytes:
        """What a need has come to, as JSON."""
        return (self.outcomes if need.kind == "e" else self.results)[id(need.job)]

    def culprit(self, job: NewJob[Any]) -> Exception | None:
        """Why it cannot be performed."""
        lost = (self.errors.get(id(need.job)) for need in job.needs if need.kind != "e")
        return next(filter(None, lost), None)


def _calls(result: Later) -> Generator[Callable[[], Any], Any, Any]:
    """Yields one call after the other, and is sent back what comes of it."""
    goal, ended = _bound(result), _Ended()
    for job in order_of([goal]).jobs:
        for need in job.needs:
            _bound(need)
        if (error := ended.culprit(job)) is None:
            try:
                args, kwargs = _arguments(job, ended)
                value = yield functools.partial(registered()[job.task].function, *args, **kwargs)
                if type(value) is Later:
                    value = yield from _calls(value)
                ended.results[id(job)] = registered()[job.task].signature.encode_result(value)
            except Exception as raised:
                error = raised
        if error is not None:
            ended.errors[id(job)] = error
        ended.outcomes[id(job)] = _outcome(ended.results.get(id(job)), error)
    if (error := ended.errors.get(id(goal))) is not None:
        raise error
    return goal.decode_result(ended.results[id(goal)])


def _bound(need: Later) -> NewJob[Any]:
    if not is_new(need.job):
        raise ChancyError(
            f"job {need.job.id} ({need.job.task}) is in a database: a direct call performs bound jobs alone"
        )
    job: NewJob[Any] = need.job
    return job


def _arguments(job: NewJob[Any], ended: _Ended) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    payload = filled(job.arguments, lambda number: ended.fill(job.needs[number]))
    return registered()[job.task].signature.decode_arguments(payload)


def _outcome(result: bytes | None, error: Exception | None) -> bytes:
    if error is None:
        return encode_json(Outcome(0, State.SUCCEEDED, msgspec.Raw(result or b"null")))
    said = AttemptError(attempt=1, kind=type(error).__qualname__, message=str(error))
    return encode_json(Outcome(0, State.FAILED, None, (said,)))
