"""What a round says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

import msgspec

from chancy.model import Rows
from chancy_worker.attempts.verdict import Claimed

from .wanted import Mark


class Admission(NamedTuple):
    """What was done for the parked jobs of one queue."""

    queue: str
    admitted: int
    stopped_at: str | None
    """Where the circle goes on; None if it was not gone."""
    next_in: float | None
    """Seconds until time alone may open a gate, or a parked job is due."""
    more: bool
    """Not all were looked at."""
    again: bool = False
    """Another try soon is worth it: others were just at it, or there was no room."""
    gates: str | None = None
    """Of the first, if all that it has to pass is one limit."""
    held_up: bool = False
    """The next one has no room where it runs, and nobody passes it by: its queue has one slot."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a round did."""

    settled: int
    """How many of the verdicts found their row; the others are asked for by `settle`."""
    holding: bool
    """Whether this worker's lease was still there; without it nothing is claimed."""
    lanes: list[tuple[str, int]]
    """The lanes that a look has found, best first within each queue."""
    next_in: Mapping[str, float | None]
    """Of the queues looked at that have any lane, seconds until the next scheduled job, if there is one."""
    claimed: list[Claimed]
    """In the order in which those of each queue are to begin: priority, run_at, id. Large ones come without arguments
    where the round did not weigh, and have to go back."""
    marks: dict[tuple[str, int], Mark]
    parked: Sequence[str] = ()
    """Of the queues looked at, those in which jobs wait to be admitted."""
    at_limit: Sequence[str] = ()
    """Queues of which a limit let less be claimed than was wanted and may be there."""
    admissions: Sequence[Admission] = ()
    gate_marks: Mapping[str, Mapping[tuple[int, str], Mark]] = field(default_factory=dict)
    """Of the priorities and keys of each queue, the last that was admitted."""
    flow_free: int | None = None
    """How many a share let be claimed, where there was a flow."""
    needed: Sequence[int] = ()
    """Of the jobs that it has ended, those that others need."""


_FIRST_OF_JOB = 10
"""Of a claimed job's row: id, true, and then empty columns, which the first row has."""
_ID, _RUN_AT, _PRIORITY, _CRASHES = map(attrgetter, ("id", "run_at", "priority", "crashes"))
_LANE = attrgetter("queue", "priority", "parked", "share")


def parse_answer(rows: Rows, worker: int) -> Answer:
    """What the rows of a round mean that claimed under the lease `worker`."""
    (settled, holding, queues, priorities, ahead, parked, at_limit, answers, needed, *_), *claimed_rows = rows
    claimed = [Claimed(*(row[0], *row[_FIRST_OF_JOB:-2], worker, *row[-2:])) for row in claimed_rows]
    _sort(claimed)
    marks: dict[tuple[str, int], Mark] = {}
    gate_marks: dict[str, dict[tuple[int, str], Mark]] = {}
    # The last of each, since they are in order; a suspect comes before its turn.
    harmless = [job for job in claimed if not job.crashes] if any(map(_CRASHES, claimed)) else claimed
    for (queue, priority, gate, share), job in dict(zip(map(_LANE, harmless), harmless, strict=True)).items():
        if (key := gate or share) is None:
            marks[queue, priority] = job.run_at, job.id
        else:
            gate_marks.setdefault(queue, {})[priority, key] = job.run_at, job.id
    lanes = list(zip(queues, priorities, strict=True))
    said = None if answers is None else msgspec.json.decode(answers)
    admissions = [Admission(*each) for each in said] if isinstance(said, list) else []
    return Answer(
        settled, holding, lanes, _soonest(queues, ahead), claimed, marks, parked, at_limit,
        admissions, gate_marks, said if isinstance(said, int) else None, needed,
    )  # fmt: skip


def _sort(claimed: list[Claimed]) -> None:
    """By priority, run_at and id: RETURNING gives rows in no order."""
    claimed.sort(key=_ID)
    claimed.sort(key=_RUN_AT)
    if len(set(map(_PRIORITY, claimed))) > 1:
        claimed.sort(key=_PRIORITY, reverse=True)


def _soonest(queues: Sequence[str], ahead: Sequence[float | None]) -> dict[str, float | None]:
    soonest: dict[str, float | None] = dict.fromkeys(queues)
    for queue, next_in in zip(queues, ahead, strict=True):
        before = soonest[queue]
        if next_in is not None and (before is None or next_in < before):
            soonest[queue] = next_in
    return soonest
