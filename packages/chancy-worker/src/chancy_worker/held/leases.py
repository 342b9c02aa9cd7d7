"""Under which lease each claim was made: a verdict matches its row by id, fence and lease, and a round writes those of
one lease.

Nearly always that is the worker's only one. It has more where it was declared dead and has taken a new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chancy_worker.attempts.verdict import Claimed, Completion

from .holdings import Key


class Leases:
    """The leases of all that is held."""

    def __init__(self) -> None:
        self._last = 0
        """Of the last claim that brought anything, and so of all that is held but for the `_former`."""
        self._former: dict[Key, int] = {}

    def of(self, job: Claimed | None) -> int:
        """Of a claim that is held; of one that is not, the last."""
        return self._last if job is None else job.lease

    def claimed_under(self, lease: int, held: Mapping[Key, Claimed]) -> None:
        """A claim brings something: what is held already was made under another lease, if this is new."""
        if lease != self._last:
            self._former.update({key: job.lease for key, job in held.items()})
            self._last = lease

    def heard_of(self, claim: Key, lease: int) -> None:
        """A claim under this lease was heard of otherwise than by the answer that should have brought it."""
        if lease != self._last:
            self._former[claim] = lease

    def forget(self, claims: Sequence[Key]) -> None:
        """Nothing is to be written about these any more."""
        if self._former:
            for claim in claims:
                self._former.pop(claim, None)

    def of_one(self, verdicts: Sequence[Completion]) -> tuple[Sequence[Completion], Sequence[Completion], int]:
        """The verdicts that are of one lease, those that are not, and that lease."""
        if not self._former or not verdicts:
            return verdicts, (), self._last
        leases = [self._former.get((verdict.id, verdict.fence), self._last) for verdict in verdicts]
        under = leases[0]
        mine = [verdict for verdict, lease in zip(verdicts, leases, strict=True) if lease == under]
        others = [verdict for verdict, lease in zip(verdicts, leases, strict=True) if lease != under]
        return mine, others, under
