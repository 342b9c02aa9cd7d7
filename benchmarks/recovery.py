"""How a fleet's connections come back after an outage, simulated: `python benchmarks/recovery.py`.

Each of 100 workers has four connections that try by one rule. What is counted: attempts of one connection while the
server is away, and how long after its return connections are there again; and, for who looks for the dead after an
outage longer than a lease, how many of the living are declared dead because somebody looked before they could extend.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

WORKERS, LINKS = 100, 4
OUTAGES = (1.3, 20.4, 300.6)
"""Seconds."""
LEASE, RESCUE, EXTEND = 15.0, 3.0, 5.0


@dataclass(frozen=True, slots=True)
class Rule:
    """Pauses between the begins of attempts: the first, its growth, the longest, and by how much each is spread."""

    name: str
    first: float
    factor: float
    longest: float
    spread: float

    def attempts(self, at: float) -> Iterator[float]:
        """When they begin, of a connection that was lost then after long good work."""
        yield at
        pause = self.first
        while True:
            pause = min(pause * self.factor, self.longest)
            at += pause * random.uniform(1 - self.spread, 1 + self.spread)
            yield at


RULES = (
    Rule("every 50 ms", 0.05, 1, 0.05, 0),
    Rule("every second", 1, 1, 1, 0),
    Rule("doubled, at most 5 s, no spread", 0.05, 2, 5, 0),
    Rule("doubled, at most 5 s, a quarter of spread", 0.05, 2, 5, 0.25),
    Rule("doubled, at most 30 s, a quarter of spread", 0.05, 2, 30, 0.25),
)


def comes_back(rule: Rule, outage: float) -> tuple[int, float]:
    """Attempts in vain, and seconds from the server's return to the first one that is not."""
    return next((vain, at - outage) for vain, at in enumerate(rule.attempts(0.0)) if at >= outage)


def declared_dead(rule: Rule, outage: float, patience: float) -> float:
    """Which part of the living, whose lease is over when the server is back. Each heart beats and each looks for the
    dead as soon as the connection of that purpose is there; a look before `patience` is over ends nobody.
    """
    beats = [comes_back(rule, outage)[1] for _ in range(WORKERS)]
    looks = [max(comes_back(rule, outage)[1], patience) for _ in range(WORKERS)]
    return sum(beat > min(looks) for beat in beats) / WORKERS


def main() -> None:
    """The tables of decision 0026."""
    print("rule".ljust(46), *(f"away {outage:g} s".rjust(28) for outage in OUTAGES))
    for rule in RULES:
        cells = []
        for outage in OUTAGES:
            ends = [comes_back(rule, outage) for _ in range(WORKERS * LINKS)]
            late = sorted(seconds for _, seconds in ends)
            vain = statistics.mean(attempts for attempts, _ in ends)
            peak = most_in(0.1, late)
            cells.append(f"{vain:6.0f} {statistics.median(late):6.2f} {late[-1]:6.2f} {peak:5d}".rjust(28))
        print(rule.name.ljust(46), *cells)
    print("\nof the living, declared dead after an outage longer than a lease, by patience in s")
    for rule in RULES[3:]:
        shares = [
            statistics.mean(declared_dead(rule, 300 + random.uniform(0, 5), patience) for _ in range(200))
            for patience in (0.0, 5.0, LEASE)
        ]
        print(rule.name.ljust(46), *(f"{share:8.1%}" for share in shares))


def most_in(seconds: float, at: list[float]) -> int:
    """The most that come within so short a time."""
    return max(sum(begin <= other < begin + seconds for other in at) for begin in at)


if __name__ == "__main__":
    random.seed(26)
    main()
