"""The jobs that a worker holds, and how many of them are of each queue and of each share of a limit.

They are counted once an answer and once a confirmation, all together; what ends in between is counted one by one, in a
plain dict: in a `Counter`, each step takes three times as long.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from chancy_worker.attempts.verdict import Claimed
from chancy_worker.claims.wanted import Held

Key: TypeAlias = tuple[int, int]
"""A claim: the job's id and its fence."""

_KEY, _QUEUE, _SHARE = attrgetter("id", "fence"), attrgetter("queue"), attrgetter("share")


class Gone(NamedTuple):
    """What is held no more."""

    claims: Sequence[Claimed | None]
    """In the order in which they were named; None was none of those that are held."""
    jobs: Sequence[Claimed]
    """Those that were."""
    queues: Mapping[str, int]
    """How many of each."""


class Holdings:
    """What is this worker's now: those that run, and those whose verdicts are not written."""

    def __init__(self, queues: Iterable[str]) -> None:
        self.jobs: dict[Key, Claimed] = {}
        """Until the database has confirmed their verdict, by (id, fence)."""
        self.running = dict.fromkeys(queues, 0)
        """How many of each queue run, or are about to."""
        self._held = dict.fromkeys(queues, 0)
        self._running_in: defaultdict[str, int] = defaultdict(int)
        self._held_in: defaultdict[str, int] = defaultdict(int)
        """The same of those that run in a share of a limit, by its key."""
        self.unsure_of: int | None = None
        """A lease under which more may have been claimed, by a round whose answer was lost."""

    def take(self, jobs: Sequence[Claimed]) -> tuple[Mapping[str, int], Collection[Key]]:
        """These have been claimed, and are about to run: how many of each queue, and which claims were held already.
        Of those the job before is held no more.
        """
        keys = list(map(_KEY, jobs))
        twice = () if self.jobs.keys().isdisjoint(keys) else self.jobs.keys() & keys
        if twice:
            self.let_go(twice)
        got = Counter(map(_QUEUE, jobs))
        for queue, n in got.items():
            self.running[queue] += n
            self._held[queue] += n
        if any(map(_SHARE, jobs)):
            for share, n in _shares(jobs).items():
                self._running_in[share] += n
                self._held_in[share] += n
        self.jobs.update(zip(keys, jobs, strict=True))
        return got, twice

    def ends(self, job: Claimed) -> None:
        """Its attempt is over."""
        self.running[job.queue] -= 1
        if job.share is not None:
            self._running_in[job.share] -= 1

    def let_go(self, keys: Iterable[Key]) -> Gone:
        """The database has their verdicts."""
        claims = list(map(self.jobs.pop, keys, repeat(None)))
        jobs = list(filter(None, claims))
        queues = Counter(map(_QUEUE, jobs))
        for queue, n in queues.items():
            self._held[queue] -= n
        if any(map(_SHARE, jobs)):
            for share, n in _shares(jobs).items():
                self._held_in[share] -= n
        return Gone(claims, jobs, queues)

    def all_run(self, queue: str) -> bool:
        """Whether no verdict of this queue is on its way."""
        return self._held[queue] == self.running[queue]

    def of(
        self, lease: int, queues: Iterable[str], share: str | None, *, all_end: bool
    ) -> Mapping[Held, tuple[int, int]] | None:
        """How many of each of these queues, and of this share of a limit, are held under a lease at most: before the
        verdicts of a round, and after them, if it carries `all_end` that there are. None where there may be more than
        is known.
        """
        if self.unsure_of == lease:
            return None
        held: dict[Held, tuple[int, int]] = {}
        for queue in queues:
            if n := self._held[queue]:
                held["queue", queue] = n, self.running[queue] if all_end else n
        if share is not None and (n := self._held_in[share]):
            held["gate", share] = n, self._running_in[share] if all_end else n
        return held


def _shares(jobs: Iterable[Claimed]) -> Counter[str]:
    return Counter(job.share for job in jobs if job.share is not None)
