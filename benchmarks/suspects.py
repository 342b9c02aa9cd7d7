"""Suspects in company, simulated: jobs that were running when their worker died, on the workers that are left.

    python benchmarks/suspects.py [SEEDS]

The numbers of docs/decisions/0020. Events are exact, and nothing but suspects runs. A poison job kills its worker so
many seconds after it began; what ran there comes back RESCUE_SECONDS later with one attempt less, and another worker
takes the dead one's place at once.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

RESCUE_SECONDS = 15.0
SLOTS = 100


@dataclass(frozen=True)
class Policy:
    """How the company of suspects grows in a worker."""

    name: str
    first: int
    """So many at first that are untried: have not ended, nor run for `harmless` seconds."""
    grows: Callable[[int], int] = lambda may: may + 1
    """What one that turned out harmless makes of that number."""
    most: float = inf
    """So many in all, tried or not."""
    harmless: float = 10.0
    after_two_deaths: bool = False
    """Those that have met two deaths run in company, too."""
    in_line: bool = False
    """Those that have to be alone have their turn in the order of the queue, and not after all others."""


@dataclass(eq=False)
class Job:
    """One that was running when its worker died: its first attempt is gone."""

    place: int
    seconds: float
    max_attempts: int
    kills_after: float = inf
    attempt: int = 1
    crashes: int = 1
    failed: bool = False

    def runs_alone(self, policy: Policy) -> bool:
        """Whether no other suspect may be beside it."""
        return self.max_attempts - self.attempt < 2 or (self.crashes > 1 and not policy.after_two_deaths)


@dataclass(eq=False)
class Worker:
    """What runs in it, and how many may be untried."""

    may: int
    untried: set[Job] = field(default_factory=set)
    tried: set[Job] = field(default_factory=set)
    alone: Job | None = None
    dead: bool = False

    @property
    def running(self) -> set[Job]:
        """All of them."""
        return self.untried | self.tried | ({self.alone} if self.alone else set())


@dataclass
class Life:
    """From the rescue to the end of the last job."""

    policy: Policy
    jobs: Sequence[Job]
    workers: list[Worker]
    now: float = 0.0
    burnt: int = 0
    """Attempts of innocent jobs."""

    def __post_init__(self) -> None:
        self.ready = list(self.jobs)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self) -> None:
        """Until nothing happens any more."""
        last = 0.0
        self._fill()
        while self._events:
            self.now, _, happen = heapq.heappop(self._events)
            busy = len(self.ready) + sum(len(worker.running) for worker in self.workers)
            happen()
            last = self.now if busy or self.ready else last
            self._fill()
        self.now = last

    def _at(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), happen))

    def _fill(self) -> None:
        for worker in random.sample(self.workers, len(self.workers)):
            while (job := self._next(worker)) is not None:
                self._begin(worker, job)

    def _next(self, worker: Worker) -> Job | None:
        if worker.alone or not self.ready:
            return None
        company = [job for job in self.ready if not job.runs_alone(self.policy)]
        if not company or (self.policy.in_line and self.ready[0] is not company[0]):
            return None if worker.running else self.ready[0]
        most = min(self.policy.most, SLOTS)
        return company[0] if len(worker.untried) < worker.may and len(worker.running) < most else None

    def _begin(self, worker: Worker, job: Job) -> None:
        self.ready.remove(job)
        if job.runs_alone(self.policy):
            worker.alone = job
        else:
            worker.untried.add(job)
            self._at(self.policy.harmless, lambda attempt=job.attempt + 1: self._lasts(worker, job, attempt))
        job.attempt += 1
        if job.kills_after < job.seconds:
            self._at(job.kills_after, lambda: self._die(worker))
        else:
            self._at(job.seconds, lambda: self._end(worker, job))

    def _lasts(self, worker: Worker, job: Job, attempt: int) -> None:
        if not worker.dead and job in worker.untried and job.attempt == attempt:
            worker.untried.remove(job)
            worker.tried.add(job)
            worker.may = self.policy.grows(worker.may)

    def _end(self, worker: Worker, job: Job) -> None:
        if worker.dead:
            return
        if job in worker.untried:
            worker.may = self.policy.grows(worker.may)
        worker.untried.discard(job)
        worker.tried.discard(job)
        worker.alone = None if worker.alone is job else worker.alone

    def _die(self, worker: Worker) -> None:
        if worker.dead:
            return
        worker.dead = True
        self.workers[self.workers.index(worker)] = Worker(self.policy.first)
        lost = sorted(worker.running, key=lambda job: job.place)
        for job in lost:
            job.crashes += 1
            job.failed = job.attempt >= job.max_attempts
            self.burnt += job.kills_after == inf
        back = [job for job in lost if not job.failed]
        self._at(RESCUE_SECONDS, lambda: self._take_back(back))

    def _take_back(self, jobs: Sequence[Job]) -> None:
        self.ready = sorted([*self.ready, *jobs], key=lambda job: job.place)


TWO = Policy("two at first, one more at each", 2)
POLICIES = [
    Policy("one at a time", 1, lambda may: may, most=1),
    Policy("one at first, doubled at each", 1, lambda may: min(may * 2, 1000)),
    Policy("one at first, one more at each", 1),
    TWO,
    *(replace(TWO, name=f"the same, at most {most}", most=most) for most in (64, 32, 16, 8)),
    replace(TWO, name="four at first, at most 16", first=4, most=16),
    replace(TWO, name="two, harmless after 5 s", harmless=5),
    replace(TWO, name="two, harmless after 20 s", harmless=20),
    replace(TWO, name="two, after two deaths as well", after_two_deaths=True),
    replace(TWO, name="two, in the order of the queue", in_line=True),
]
CASES: list[tuple[str, int, float, tuple[int, ...], float, int]] = [
    ("30 of 5 s", 30, 5, (3,), inf, 1),
    ("100 of 60 s", 100, 60, (3,), inf, 1),
    ("300 of 10 s on two workers", 300, 10, (3,), inf, 2),
    ("100 of an hour", 100, 3600, (3,), inf, 1),
    ("100 of 5 s and poison", 100, 5, (3,), 0, 1),
    ("100 of 60 s and poison", 100, 60, (3,), 0, 1),
    ("100 of 60 s and poison that takes 30 s", 100, 60, (3,), 30, 1),
    ("100 of 60 s and poison that takes 30 s, 10 attempts", 100, 60, (10,), 30, 1),
    ("100 of 5 s and poison, 2 attempts", 100, 5, (2,), 0, 1),
    ("100 of 5 s, half with 2 attempts", 100, 5, (2, 3), inf, 1),
]


def main() -> None:
    """Median seconds, and the mean of innocent attempts burnt and of innocent jobs failed."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    for name, number, seconds, attempts, kills_after, workers in CASES:
        print(f"\n{name}")
        for policy in POLICIES:
            lives = []
            for seed in range(seeds):
                random.seed(seed)
                jobs = [Job(place, seconds, attempts[place % len(attempts)]) for place in range(number)]
                if kills_after < inf:
                    random.choice(jobs).kills_after = kills_after
                lives.append(Life(policy, jobs, [Worker(policy.first) for _ in range(workers)]))
                lives[-1].run()
            innocent = [job for life in lives for job in life.jobs if job.kills_after == inf]
            print(
                f"  {policy.name:32} {statistics.median(life.now for life in lives):8,.0f} s"
                f"  burnt {statistics.mean(life.burnt for life in lives):5.1f}"
                f"  failed {sum(job.failed for job in innocent) / seeds:.1f}"
            )


if __name__ == "__main__":
    main()
