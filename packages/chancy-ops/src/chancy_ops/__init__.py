"""The verbs of whoever is on call, and the command `chancy`. What web processes and workers need is in `chancy`.

What is imported from here is loaded when it is first used: the command is there at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auditing import AuditRow, audit, note
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
    from .redaction import Hiding, hiding
    from .searching import JobLine, search
    from .sweeping import Sweep, plan_sweep, stop_sweep, sweep
    from .tally import Spread, Throughput, throughput

_ROOMS = {
    "AuditRow": "auditing",
    "Count": "counting",
    "FailureRow": "fingerprints",
    "Finding": "diagnosis.findings",
    "Graph": "graphs",
    "GraphNode": "graphs",
    "Hiding": "redaction",
    "JobFilter": "matching",
    "JobLine": "searching",
    "QueueRow": "overview",
    "Reason": "reasons.why",
    "Severity": "diagnosis.findings",
    "Spread": "tally",
    "Sweep": "sweeping",
    "Swept": "jobs",
    "Throughput": "tally",
    "Why": "reasons.why",
    "WorkerRow": "overview",
    "audit": "auditing",
    "cancel_many": "jobs",
    "count": "counting",
    "delete": "jobs",
    "delete_many": "jobs",
    "doctor": "diagnosis.doctor",
    "edit": "jobs",
    "failures": "fingerprints",
    "graph": "graphs",
    "hiding": "redaction",
    "keep": "queue",
    "limit": "queue",
    "note": "auditing",
    "pause": "pauses",
    "plan_sweep": "sweeping",
    "queues": "overview",
    "requeue_many": "jobs",
    "resume": "pauses",
    "search": "searching",
    "stop_sweep": "sweeping",
    "sweep": "sweeping",
    "throughput": "tally",
    "why": "reasons.why",
    "workers": "overview",
}

__all__ = [
    "AuditRow",
    "Count",
    "FailureRow",
    "Finding",
    "Graph",
    "GraphNode",
    "Hiding",
    "JobFilter",
    "JobLine",
    "QueueRow",
    "Reason",
    "Severity",
    "Spread",
    "Sweep",
    "Swept",
    "Throughput",
    "Why",
    "WorkerRow",
    "audit",
    "cancel_many",
    "count",
    "delete",
    "delete_many",
    "doctor",
    "edit",
    "failures",
    "graph",
    "hiding",
    "keep",
    "limit",
    "note",
    "pause",
    "plan_sweep",
    "queues",
    "requeue_many",
    "resume",
    "search",
    "stop_sweep",
    "sweep",
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
