"""What a worker does beside its rounds, and a drain between them: looks at batches, and jobs that become others."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from chancy.batches.statements import Ends, finish_unfinished
from chancy.errors import ChancyError
from chancy.flows.flow import flow_in
from chancy.flows.statements import become, tell
from chancy_worker.attempts.verdict import Claimed, Completion

from .attempts import not_become


def finish_all_batches() -> Generator[Any, Any, int]:
    """Look at all that are not finished, as each worker does now and then; how many are by now."""
    last, finished = 0, 0
    while last is not None:
        last, ends = yield finish_unfinished(last)
        finished += refuse_troubles(ends)
    return finished


def refuse_troubles(ends: Ends) -> int:
    """How many have ended. Raises `ChancyError` for a callback that could not be submitted; a worker logs it."""
    if ends.troubles:
        raise ChancyError("; ".join(ends.troubles))
    return ends.ended


def become_other(job: Claimed, verdict: Completion) -> Generator[Any, Any, Completion]:
    """Have it wait for what it has returned. The same verdict, or another one where it cannot."""
    flow = flow_in(verdict.flow or b"")
    fate, other = yield become(*job.owner, flow)
    if fate not in ("became", "done"):
        return not_become(job, fate, other)
    yield from tell({other} & set(flow.others))
    return verdict
