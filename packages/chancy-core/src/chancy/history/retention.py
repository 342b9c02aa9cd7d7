"""How long finished jobs are kept: whole days, by how they ended."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from chancy.errors import InvalidOption
from chancy.options.plain import Duration, amount, duration

LONGEST_DAYS = 3650


def days(number: float) -> timedelta:
    """That `number` of days, which may be a fraction."""
    return timedelta(days=amount("days", number))


class Keep(msgspec.Struct, frozen=True):
    """How long the finished jobs of a queue are kept after their end, each at most a day longer.

    None follows the schema's own retention, `Chancy(keep=…)`. Zero leaves no row at all: nobody can look at such a job
    afterwards, wait for it, or requeue it. Each is a `timedelta`, or seconds. Raises `InvalidOption` for what is
    neither zero nor 1 to 3650 whole days.
    """

    succeeded: timedelta | None = None
    failed: timedelta | None = None
    discarded: timedelta | None = None
    cancelled: timedelta | None = None
    results: timedelta | None = None
    """Of the results alone, where that is shorter than `succeeded`."""

    if TYPE_CHECKING:

        def __init__(
            self,
            succeeded: Duration | None = ...,
            failed: Duration | None = ...,
            discarded: Duration | None = ...,
            cancelled: Duration | None = ...,
            results: Duration | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        for what, given in self._times().items():
            msgspec.structs.force_setattr(self, what, whole_days(what, given, timedelta(0)))
        if self.results is not None and self.succeeded is not None and self.results > self.succeeded:
            raise InvalidOption("results", f"{self.results} is longer than the jobs are kept, {self.succeeded}")

    @classmethod
    def nothing(cls) -> Keep:
        """No row, however a job ends."""
        return cls(succeeded=days(0), failed=days(0), discarded=days(0), cancelled=days(0))

    @property
    def rules(self) -> dict[str, int]:
        """The days of what has a retention of its own."""
        return {what: time.days for what, time in self._times().items()}

    def _times(self) -> dict[str, timedelta]:
        every = {name: getattr(self, name) for name in self.__struct_fields__}
        return {what: time for what, time in every.items() if time is not None}


def whole_days(option: str, value: object, least: timedelta) -> timedelta:
    """A time for which finished jobs can be kept."""
    time = duration(option, value)
    if not least <= time <= days(LONGEST_DAYS) or time % days(1):
        nothing = "0 (leave nothing) or " if not least else ""
        raise InvalidOption(
            option,
            f"history is dropped by whole days, so give {nothing}from 1 to {LONGEST_DAYS} days, as chancy.days(7), "
            f"got {time}",
        )
    return time
