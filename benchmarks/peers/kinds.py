"""The kinds of jobs that the other queues take."""

from __future__ import annotations

import sys


def known(kind: str) -> str:
    """The kind itself; the process ends where it is one that none of these queues has."""
    if kind not in ("noop", "thread", "sleep", "stamp"):
        sys.exit(f"the other queues have no jobs of kind {kind!r}: noop, thread, sleep and stamp are what they run")
    return kind
