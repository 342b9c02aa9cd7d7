"""Tests for code that uses Chancy: in memory, in a temporary schema, with a clock, with faults, with a real worker.

The fixtures come by themselves (`pytest --fixtures`); what is imported from here is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asserts import assert_submitted, refute_submitted, submitted
    from .background import Background
    from .clock import Clock
    from .draining import AttemptFailed, Drain, Drained, drain
    from .faults import Faults
    from .in_memory.backend import Eager, EagerJob, NotPerformed, eager
    from .server.postgres import DURABLE, QUICK, Postgres

_ROOMS = {
    "AttemptFailed": "draining",
    "Background": "background",
    "Clock": "clock",
    "DURABLE": "server.postgres",
    "Drain": "draining",
    "Drained": "draining",
    "Eager": "in_memory.backend",
    "EagerJob": "in_memory.backend",
    "Faults": "faults",
    "NotPerformed": "in_memory.backend",
    "Postgres": "server.postgres",
    "QUICK": "server.postgres",
    "assert_submitted": "asserts",
    "drain": "draining",
    "eager": "in_memory.backend",
    "refute_submitted": "asserts",
    "submitted": "asserts",
}

__all__ = [
    "DURABLE",
    "QUICK",
    "AttemptFailed",
    "Background",
    "Clock",
    "Drain",
    "Drained",
    "Eager",
    "EagerJob",
    "Faults",
    "NotPerformed",
    "Postgres",
    "assert_submitted",
    "drain",
    "eager",
    "refute_submitted",
    "submitted",
]


def __getattr__(name: str) -> Any:  # as in chancy_ops: one for both would be in chancy, whose import this puts off
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)
    globals()[name] = value
    return value
