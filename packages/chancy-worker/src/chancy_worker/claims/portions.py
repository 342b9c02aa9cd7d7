"""How much a claim may bring: so many bytes that its answer comes within the deadline and fits into memory.

Jobs of the usual size are bounded by their number, and cost nothing here. Large ones, whose arguments and errors take
more than `forms.LARGE_BYTES`, are weighed: a queue brings about 8 MiB of them in a claim and one job more, and a
worker holds 128 MiB of them in all. Above that a queue has one large job at a time, so that none stands still.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping

import msgspec

from chancy_worker.attempts.verdict import Claimed

from .forms import LARGE_BYTES
from .wanted import CLAIM_BYTES, Wanted

HELD_BYTES = 128 * 1024**2
"""Of the large jobs of a worker, from the claim to the verdict; what functions make of them is beside that."""
MOST_QUEUES = 16
"""That bring large jobs in one claim, in turn; the others bring none."""
WEIGHING_SECONDS = 60.0
"""After the last large job; until then claims weigh."""
MOST_JOBS = 10_000
"""More slots than any worker has."""


class Portion:
    """What the next claim may bring."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}
        """The bytes of large jobs that are this worker's now, by (id, fence)."""
        self._bytes, self._jobs = CLAIM_BYTES, MOST_JOBS
        self._weighs_until = 0.0
        self._full = False
        """The last claim that weighed had room for no large job."""

    @property
    def weighs(self) -> bool:
        """Whether claims have to weigh."""
        return bool(self.held) or time.monotonic() < self._weighs_until

    def of(self, wanted: Wanted, running: Mapping[str, int]) -> Wanted:
        """The part of what is wanted that may be claimed at once. `running` is how many jobs of each queue are held."""
        if not wanted.free:
            return wanted
        if self._jobs < MOST_JOBS:
            wanted = msgspec.structs.replace(wanted, free=fewer(wanted.free, self._jobs))
        return msgspec.structs.replace(wanted, large=self._shares(wanted.free, running)) if self.weighs else wanted

    def _shares(self, free: Mapping[str, int], running: Mapping[str, int]) -> dict[str, int]:
        """Bytes for each queue; those that are left out have none."""
        spare = min(self._bytes, HELD_BYTES - sum(self.held.values()))
        self._full = spare <= 0
        queues = [queue for queue in free if not running.get(queue)] if self._full else list(free)
        chosen = random.sample(queues, min(len(queues), MOST_QUEUES))
        share = 1 if self._full else max(1, spare // len(chosen))
        return dict.fromkeys(free, 0) | dict.fromkeys(chosen, share)

    def came(self, jobs: Iterable[Claimed]) -> None:
        """These have been claimed, by a claim that weighed."""
        for job in jobs:
            if job.size > LARGE_BYTES:
                self.held[job.id, job.fence] = job.size
                self.weigh()

    def weigh(self) -> None:
        """There are large jobs: the next claims weigh."""
        self._weighs_until = time.monotonic() + WEIGHING_SECONDS

    def let_go(self, keys: Iterable[tuple[int, int]]) -> bool:
        """These jobs are no longer held; whether there is room again, and there was none."""
        if not self.held:
            return False
        gone = [key for key in keys if self.held.pop(key, None) is not None]
        if not gone or not self._full:
            return False
        self._full = sum(self.held.values()) >= HELD_BYTES
        return not self._full

    def cut(self, wanted: Wanted) -> None:
        """The connection broke over the claim, or it took too long: the next asks for half."""
        if wanted.free:
            self._jobs = max(1, sum(wanted.free.values()) // 2)
            self._bytes = max(1, self._bytes // 2)

    def grow(self) -> None:
        """A claim has brought something: the next may bring twice as much."""
        self._jobs, self._bytes = min(self._jobs * 2, MOST_JOBS), min(self._bytes * 2, CLAIM_BYTES)


def fewer(free: Mapping[str, int], most: int) -> dict[str, int]:
    """About so many in all, by the share of each queue; of some queues only, if there are more of them."""
    total = sum(free.values())
    chosen = random.sample(sorted(free), min(len(free), most))
    return {queue: max(1, min(free[queue], free[queue] * most // total)) for queue in chosen}
