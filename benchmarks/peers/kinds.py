"""The kinds of jobs that the other queues take."""

from __future__ import annotations

import sys

from contender import KINDS


def known(kind: str) -> str:
    """The kind itself; the process ends where it is one that none of these queues has."""
    if kind == "child" or kind not in KINDS:
        sys.exit(f"the other queues have no jobs of kind {kind!r}: noop, thread, sleep and stamp are what they run")
    return kind
