"""Jobs on their way back to their places: until the database has them there, nothing that comes after them is claimed.

A claim does not see what its own round returns, so it would take what stands behind that. Nor would later ones: their
marks are past it.
"""

from __future__ import annotations

from collections import Counter

Key = tuple[int, int]
"""A claim: the job's id and its fence."""


class Returns:
    """The claims whose jobs are going back, and the queues that wait for them."""

    def __init__(self) -> None:
        self._queues: dict[Key, str] = {}
        self._of: Counter[str] = Counter()

    def __contains__(self, queue: str) -> bool:
        return queue in self._of

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, claim: Key, queue: str) -> None:
        """It has been decided that this job goes back."""
        if claim not in self._queues:
            self._queues[claim] = queue
            self._of[queue] += 1

    def arrived(self, claim: Key) -> str | None:
        """The database has the job, or another claim of it; the queue, if nothing else is on its way there."""
        queue = self._queues.pop(claim, None)
        if queue is None:
            return None
        self._of[queue] -= 1
        if self._of[queue]:
            return None
        del self._of[queue]
        return queue
