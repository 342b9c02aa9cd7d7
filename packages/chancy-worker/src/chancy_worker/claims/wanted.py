"""What a round is asked to claim."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import msgspec

from chancy_worker.attempts.verdict import EARLIEST

Mark: TypeAlias = tuple[datetime, int]
"""The (run_at, id) of the last job claimed from a lane."""

CLAIM_BYTES = 8 * 1024**2
"""Of large jobs that a queue brings in one claim, and the last of them may go above it."""

START: Mark = (EARLIEST, 0)
"""The mark of a lane that nothing has been claimed from."""


class Circle(NamedTuple):
    """Of a queue in which jobs are parked: whether to go through them now, and behind which key to go on."""

    goes_round: bool = False
    after: str = ""
    marks: Mapping[tuple[int, str], Mark] = MappingProxyType({})
    """The last job claimed of a priority and key, as far as it is worth to go on there."""
    flows: bool = False
    """Those of the marks have filled all the room until now: ask them first."""
    suspects: int = 0
    """Whether one suspect may be among them: 0 none, 1 one that may run beside others, 2 one of any kind."""
    hands_on: bool = False
    """Nothing but slots that are left is given, each to the next who waits for the same limit and for no other."""
    leaving: int = 0
    """So many slots are left by the jobs that end with this round."""


class Flow(NamedTuple):
    """Jobs of one limit that is far from full: whoever waits behind the marks may run."""

    queue: str
    key: str
    gates: str
    """As they are stored, of all of them."""
    marks: Mapping[int, Mark]
    """Of each priority the last that was claimed, the highest first."""


Held: TypeAlias = tuple[str, str]
"""What jobs run in: ("queue", its name), or ("gate", the key) of a limit of which this worker has a share."""


class Wanted(msgspec.Struct, frozen=True):
    """What to claim: of which queue how many, where to start in each lane, and which tasks to leave out."""

    free: dict[str, int] = {}
    lanes: dict[tuple[str, int], Mark] = {}
    looking: tuple[str, ...] = ()
    """Queues to look at from the start, learning their priorities."""
    without: tuple[str, ...] = ()
    suspects: Sequence[tuple[int, int]] = ()
    """The jobs to take that were running when a worker died, by id and last fence; others of that kind are left out."""
    full: tuple[str, ...] = ()
    """Tasks to leave out, too, because there is no room where they run."""
    in_line: frozenset[str] = frozenset()
    """Queues in which such a job is not passed by: if it is the first, nothing is claimed. One job is wanted there."""
    large: dict[str, int] = {}
    """How many bytes each queue may bring in large jobs, `CLAIM_BYTES` where it does not say: as many jobs as are
    within that, in their order, and the one that goes above it; with 0 none that is large. For the forms that weigh."""
    holds: Mapping[Held, tuple[int, int]] | None = None
    """How many of each queue, and of each limit of which it has a share, this worker has before the verdicts; and after
    them, if all find their rows. None is not known: they are counted.
    """
    pressing: Collection[str] = ()
    """Queues of whose limit it had less than it could have used."""
    gated: Mapping[str, Circle] = {}
    """Queues with parked jobs to be admitted, and of jobs with slots that end now."""
    places: Mapping[int, str] = {}
    """Where the slots of jobs that end now are, by the jobs' ids, as far as that is known."""
    flow: Flow | None = None
    """Not together with suspects."""

    @property
    def hands_on(self) -> bool:
        """Whether all that is to be done for parked jobs is to hand slots on."""
        alone = bool(self.gated) and not (self.suspects or self.in_line)
        return alone and all(circle.hands_on for circle in self.gated.values())

    def holds_of(self, held: Held) -> tuple[int | None, int | None]:
        """Before the verdicts, and after them."""
        return (None, None) if self.holds is None else self.holds.get(held, (0, 0))
