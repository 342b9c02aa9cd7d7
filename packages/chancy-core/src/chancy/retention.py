"""How long finished jobs are kept: whole days, by how they ended."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta

LONGEST_DAYS = 3650


def days(number: int) -> timedelta:
    """So many days."""
    return timedelta(days=number)


@dataclass(frozen=True, slots=True)
class Keep:
    """How long the finished jobs of a queue are kept after their end, each at most a day longer.

    None follows the schema's own retention, `Chancy(keep=…)`. Zero leaves no row at all: nobody can look at such a job
    afterwards, wait for it, or requeue it. Raises `ValueError` for what is neither zero nor 1 to 3650 whole days.
    """

    succeeded: timedelta | None = None
    failed: timedelta | None = None
    discarded: timedelta | None = None
    cancelled: timedelta | None = None
    results: timedelta | None = None
    """Of the results alone, where that is shorter than `succeeded`."""

    def __post_init__(self) -> None:
        for what, time in self._times().items():
            if not timedelta(0) <= time <= days(LONGEST_DAYS) or time % days(1):
                raise ValueError(
                    f"Keep({what}={time}): history is dropped by whole days, so give 0 (leave nothing) or from 1 to "
                    f"{LONGEST_DAYS} days"
                )
        if self.results is not None and self.succeeded is not None and self.results > self.succeeded:
            raise ValueError(f"Keep(results={self.results}) is longer than the jobs are kept, {self.succeeded}")

    @classmethod
    def nothing(cls) -> Keep:
        """No row, however a job ends."""
        return cls(succeeded=days(0), failed=days(0), discarded=days(0), cancelled=days(0))

    @property
    def rules(self) -> dict[str, int]:
        """The days of what has a retention of its own."""
        return {what: time.days for what, time in self._times().items()}

    def _times(self) -> dict[str, timedelta]:
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {what: time for what, time in every.items() if time is not None}
