"""What a function has returned, as a verdict: a result, or a graph of jobs whose result is to be its own."""

from __future__ import annotations

from types import NoneType
from typing import Any, NamedTuple

from chancy.errors import InvalidArguments, InvalidOption, InvalidResult
from chancy.flows.flow import returned as flow_of
from chancy.flows.later import Later
from chancy.schema import schema_in_use
from chancy.states import State
from chancy.task import BaseTask
from chancy_worker import forks

from .verdict import Claimed, Completion, Since, failure, succeeded

_OF_NOTHING = (NoneType, Any)
"""Of these None is null and comes back as None: most functions return nothing, and that needs no proof."""


class _Said(NamedTuple):
    """A verdict that is there already."""

    verdict: Completion


def as_said(job: Claimed, result: Any, since: Since, here: int) -> Any:
    """What a function has returned, and a graph as what will be sent of it: that is a submit of the function's own, for
    who surrounds it. Not in a process that the function has forked: `here` is how deep it was.
    """
    if type(result) is not Later or forks.depth != here:
        return result
    try:
        return _Said(_waits(job, flow_of(result, schema_in_use())))
    except (InvalidArguments, InvalidOption) as error:
        return _Said(failure(job, State.FAILED, error, since))


def returned(job: Claimed, task: BaseTask[..., Any], result: Any, since: Since) -> Completion:
    """The function of this job has returned."""
    if type(result) is Later:
        result = as_said(job, result, since, forks.depth)
    if type(result) is _Said:
        return result.verdict
    if result is None and getattr(task.signature.result, "type", None) in _OF_NOTHING:
        return succeeded(job, b"null")
    try:
        return succeeded(job, task.signature.encode_result(result))
    except InvalidResult as error:
        # Final: the effects are there, and another attempt would return the same kind of value.
        return failure(job, State.FAILED, error, since)


def _waits(job: Claimed, flow: bytes) -> Completion:
    return Completion(job.id, job.fence, State.BLOCKED, note="waits for what it has returned", flow=flow)
