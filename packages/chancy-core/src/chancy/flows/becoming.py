"""A job whose own result will be that of another one, and who says so in its own transaction."""

from __future__ import annotations

from chancy.errors import InvalidResult, LeaseLost
from chancy.model import Steps

from .flow import cycle, flow_in, returned
from .later import Later
from .statements import become, tell


def becoming(job_id: int, task: str, fence: int, lease: int, result: Later, schema: str) -> Steps[None]:
    """The job of this claim waits for what it has returned. Raises `LeaseLost` and, of a cycle, `InvalidResult`."""
    fate, other = yield become(job_id, fence, lease, flow_in(returned(result, schema)))
    if fate == "cycle":
        raise InvalidResult(task, cycle(job_id, other))
    if fate != "became":
        raise LeaseLost(job_id, task)
    yield from tell([other])  # it may be over already
