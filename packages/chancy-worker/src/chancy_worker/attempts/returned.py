"""What a function has returned, as a verdict: a result, or a graph of jobs whose result is to be its own."""

from __future__ import annotations

from typing import Any

from chancy.errors import InvalidArguments, InvalidOption, InvalidResult
from chancy.flows.flow import returned as flow_of
from chancy.flows.later import Later
from chancy.schema import schema_in_use
from chancy.states import State
from chancy.task import BaseTask

from .verdict import Claimed, Completion, Since, failure, succeeded


def returned(job: Claimed, task: BaseTask[..., Any], result: Any, since: Since) -> Completion:
    """The function of this job has returned."""
    try:
        if type(result) is Later:
            return _waits(job, flow_of(result, schema_in_use()))
        return succeeded(job, task.signature.encode_result(result))
    except (InvalidResult, InvalidArguments, InvalidOption) as error:
        # Final: the effects are there, and another attempt would return the same kind of value.
        return failure(job, State.FAILED, error, since)


def _waits(job: Claimed, flow: bytes) -> Completion:
    return Completion(job.id, job.fence, State.BLOCKED, note="waits for what it has returned", flow=flow)
