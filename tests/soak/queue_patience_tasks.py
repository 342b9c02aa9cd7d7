"""Tasks that tell how long slots were empty. In a module that child processes can import."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque

from chancy import current_job, task


class Seen:
    """When slots were empty, as their jobs tell."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.emptied: defaultdict[str, deque[float]] = defaultdict(deque)
        self.empty: defaultdict[str, list[float]] = defaultdict(list)
        """Seconds from the end of a job to the begin of the next one in its slot, by queue."""
        self.lagged_at = 0.0

    def begins(self, queue: str) -> None:
        if self.emptied[queue] and (since := self.emptied[queue].popleft()) > self.lagged_at:
            self.empty[queue].append(time.monotonic() - since)

    def ends(self, queue: str) -> None:
        self.ended[queue] += 1
        self.emptied[queue].append(time.monotonic())

    def longest(self) -> float:
        return max((max(each) for each in self.empty.values() if each), default=0.0)


seen = Seen()


@task(name="queues_as_shipped.doze")
async def doze(seconds: float) -> None:
    queue = current_job().queue
    seen.begins(queue)
    try:
        await asyncio.sleep(seconds)
    finally:
        seen.ends(queue)
