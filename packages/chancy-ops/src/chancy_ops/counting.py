"""How many jobs there are: up to a number that says enough, since nobody acts otherwise on a million than on ten
thousand.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

from chancy.model import Rows, Statement
from chancy.states import State
from chancy.verb import verb
from chancy.verbs import ASKED, LOOK_SECONDS

from .matching import EVERY_JOB, JobFilter, filter_of

MOST_COUNTED = 10_000


class Count(int):
    """A number of jobs; or if `more`, so many at least, and written with a plus: `10,000+`."""

    more: bool
    """Whether there may be more."""

    def __new__(cls, number: int, more: bool = False) -> Self:
        """So many, or so many at least."""
        count = super().__new__(cls, number)
        count.more = more
        return count

    def __bool__(self) -> bool:
        """Whether there may be any."""
        return self.more or int(self) != 0

    def __format__(self, spec: str) -> str:
        return super().__format__(spec) + ("+" if self.more else "")

    def __str__(self) -> str:
        return format(self, "," if self.more else "d")

    def __repr__(self) -> str:
        return f"Count({int(self)}, more=True)" if self.more else int.__repr__(self)


def capped(number: int, most: int, more: bool = False) -> Count:
    """What was counted up to one more than `most`, or not even that."""
    return Count(min(number, most), more or number > most)


def sum_of(*counts: int) -> Count:
    """All together."""
    return Count(sum(counts), any(isinstance(count, Count) and count.more for count in counts))


COUNT_JOBS = (
    "SELECT state, jobs, more FROM {schema}.count_jobs(" + ASKED + ", %(most)s::integer, %(seconds)s::double precision)"
)


def count_jobs(
    which: JobFilter,
    states: Collection[State] | None = None,
    most: int = MOST_COUNTED,
    seconds: float = LOOK_SECONDS,
) -> Statement[dict[State, Count]]:
    """How many jobs fit, of these states or any, by state: each up to so many, as far as there is time."""
    return Statement(
        COUNT_JOBS,
        which.params(which.states if states is None else states) | {"most": most, "seconds": seconds},
        _parse_counts,
        name="count_jobs",
    )


def _parse_counts(rows: Rows) -> dict[State, Count]:
    counts = {state: Count(number, more) for state, number, more in rows}
    return {state: counts[state] for state in State if state in counts}


@verb
def count(which: JobFilter = EVERY_JOB, /, *, schema: str | None = None) -> Statement[dict[State, Count]]:
    """How many jobs fit, by state, each up to 10,000; states without any are left out. One round trip, which ends after
    half a second: a `Count` whose `more` is true says that there may be more.
    """
    return count_jobs(filter_of(which))
