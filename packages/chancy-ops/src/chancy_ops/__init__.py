"""The verbs of whoever is on call, and the command `chancy`. What web processes and workers need is in `chancy`.

What is imported from here is loaded when it is first used: the command is there at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .counting import Count, count
    from .diagnosis.doctor import doctor
    from .diagnosis.findings import Finding, Severity
    from .fingerprints import FailureRow, failures
    from .graphs import Graph, GraphNode, graph
    from .jobs import Swept, cancel_many, delete, delete_many, edit, requeue_many
    from .matching import JobFilter
    from .overview import QueueRow, WorkerRow, queues, workers
    from .pauses import pause, resume
    from .queue import keep, limit
    from .reasons.why import Reason, Why, why
    from .searching import JobLine, search
    from .tally import Spread, Throughput, throughput

_ROOMS = {
    "Count": "counting",
    "FailureRow": "fingerprints",
    "Finding": "diagnosis.findings",
    "Graph": "graphs",
    "GraphNode": "graphs",
    "JobFilter": "matching",
    "JobLine": "searching",
    "QueueRow": "overview",
    "Reason": "reasons.why",
    "Severity": "diagnosis.findings",
    "Spread": "tally",
    "Swept": "jobs",
    "Throughput": "tally",
    "Why": "reasons.why",
    "WorkerRow": "overview",
    "cancel_many": "jobs",
    "count": "counting",
    "delete": "jobs",
    "delete_many": "jobs",
    "doctor": "diagnosis.doctor",
    "edit": "jobs",
    "failures": "fingerprints",
    "graph": "graphs",
    "keep": "queue",
    "limit": "queue",
    "pause": "pauses",
    "queues": "overview",
    "requeue_many": "jobs",
    "resume": "pauses",
    "search": "searching",
    "throughput": "tally",
    "why": "reasons.why",
    "workers": "overview",
}

__all__ = [
    "Count",
    "FailureRow",
    "Finding",
    "Graph",
    "GraphNode",
    "JobFilter",
    "JobLine",
    "QueueRow",
    "Reason",
    "Severity",
    "Spread",
    "Swept",
    "Throughput",
    "Why",
    "WorkerRow",
    "cancel_many",
    "count",
    "delete",
    "delete_many",
    "doctor",
    "edit",
    "failures",
    "graph",
    "keep",
    "limit",
    "pause",
    "queues",
    "requeue_many",
    "resume",
    "search",
    "throughput",
    "why",
    "workers",
]


def __getattr__(name: str) -> Any:  # as in chancy_testing: one for both would be in chancy, whose import this puts off
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)
    globals()[name] = value
    return value
