"""The numbers of one worker at one moment, as plain data: what it answers, and what a parent asks of its workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from chancy_worker.tally.tally import Cell, Key


class Depth(msgspec.Struct, frozen=True):
    """How much there is to do in a queue; each number is at most 10,000, which stands for that and more."""

    ready: int = 0
    waiting: int = 0
    """Of the ready ones."""
    scheduled: int = 0
    blocked: int = 0
    running: int = 0


class Counted(msgspec.Struct, frozen=True):
    """What came out so, since the worker began."""

    queue: str
    task: str
    outcome: str
    jobs: int
    waited: float
    ran: float
    waits: dict[int, int]
    runs: dict[int, int]


class Seen(msgspec.Struct, frozen=True):
    """What the database shows, of the queues that the worker takes."""

    oldest: dict[str, float] = {}
    """Seconds for which the longest waiting ready job was due; of a queue in which none is, nothing."""
    depths: dict[str, Depth] | None = None
    """Of any queue, as sampled in the last minutes; None where nobody may have."""


class Numbers(msgspec.Struct, frozen=True):
    """Of one worker."""

    counted: Sequence[Counted] = ()
    slots: dict[str, int] = {}
    """Of each queue that it takes."""
    running: dict[str, int] = {}
    ready: bool = False
    """As `/ready` says."""
    verdicts: int = 0
    """That wait to be written."""
    seen: Seen | None = None
    """None while the database cannot be asked."""


def counted(cells: Mapping[Key, Cell]) -> list[Counted]:
    """A copy, which no job changes."""
    return [
        Counted(*key, cell.jobs, cell.waited, cell.ran, dict(cell.waits), dict(cell.runs))
        for key, cell in cells.items()
    ]


encode = msgspec.json.encode
decode = msgspec.json.Decoder(Numbers).decode
