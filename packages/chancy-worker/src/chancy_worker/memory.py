"""How much memory a worker has, as it says with each heartbeat. Linux says it; on other systems it is unknown."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that are resident now; None is unknown."""

    own: int | None = None
    """In the worker's process."""
    children: int | None = None
    """In its child processes and their fork server, one by one: pages that they share with each other are counted in
    each. What jobs start besides is not in it.
    """


UNKNOWN = Memory()


def measured(children: Collection[int]) -> Memory:
    """Of this process, and of these: some microseconds each. One that has just ended has none."""
    if (own := _resident("self")) is None:
        return UNKNOWN
    return Memory(own, sum(_resident(pid) or 0 for pid in children))


def _resident(process: int | str) -> int | None:
    try:
        file = os.open(f"/proc/{process}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(file, 256).split()[1]) * os.sysconf("SC_PAGE_SIZE")
        finally:
            os.close(file)
    except (AttributeError, OSError, IndexError, ValueError):  # Windows has neither the files nor the names
        return None
