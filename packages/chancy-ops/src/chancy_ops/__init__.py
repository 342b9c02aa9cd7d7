"""The verbs of whoever is on call, and the command `chancy`. What web processes and workers need is in `chancy`.

What is imported from here is loaded when it is first used: the command is there at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch_list import BatchRow, batches
    from .counting import Count, count
    from .declared import TaskRow, tasks
    from .diagnosis.doctor import doctor
    from .diagnosis.findings import Finding, Severity
    from .fingerprints import FailureRow, failures
    from .graphs import Graph, GraphNode, graph
    from .jobs import Swept, cancel_many, delete, delete_many, edit, requeue_many
    from .matching import JobFilter
    from .overview import QueueRow, WorkerRow, queues, workers
    from .pauses import pause, resume
    from .places import LimitRow, limits
    from .queue import Retention, keep, limit, retention
    from .reasons.why import Reason, Why, why
    from .searching import JobLine, search
    from .tally import Depth, Spread, Throughput, depths, throughput

_ROOMS = {
    "BatchRow": "batch_list",
    "Count": "counting",
    "Depth": "tally",
    "FailureRow": "fingerprints",
    "Finding": "diagnosis.findings",
    "Graph": "graphs",
    "GraphNode": "graphs",
    "JobFilter": "matching",
    "JobLine": "searching",
    "LimitRow": "places",
    "QueueRow": "overview",
    "Reason": "reasons.why",
    "Retention": "queue",
    "Severity": "diagnosis.findings",
    "Spread": "tally",
    "Swept": "jobs",
    "TaskRow": "declared",
    "Throughput": "tally",
    "Why": "reasons.why",
    "WorkerRow": "overview",
    "batches": "batch_list",
    "cancel_many": "jobs",
    "count": "counting",
    "delete": "jobs",
    "delete_many": "jobs",
    "depths": "tally",
    "doctor": "diagnosis.doctor",
    "edit": "jobs",
    "failures": "fingerprints",
    "graph": "graphs",
    "keep": "queue",
    "limit": "queue",
    "limits": "places",
    "pause": "pauses",
    "queues": "overview",
    "requeue_many": "jobs",
    "resume": "pauses",
    "retention": "queue",
    "search": "searching",
    "tasks": "declared",
    "throughput": "tally",
    "why": "reasons.why",
    "workers": "overview",
}

__all__ = [
    "BatchRow",
    "Count",
    "Depth",
    "FailureRow",
    "Finding",
    "Graph",
    "GraphNode",
    "JobFilter",
    "JobLine",
    "LimitRow",
    "QueueRow",
    "Reason",
    "Retention",
    "Severity",
    "Spread",
    "Swept",
    "TaskRow",
    "Throughput",
    "Why",
    "WorkerRow",
    "batches",
    "cancel_many",
    "count",
    "delete",
    "delete_many",
    "depths",
    "doctor",
    "edit",
    "failures",
    "graph",
    "keep",
    "limit",
    "limits",
    "pause",
    "queues",
    "requeue_many",
    "resume",
    "retention",
    "search",
    "tasks",
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
