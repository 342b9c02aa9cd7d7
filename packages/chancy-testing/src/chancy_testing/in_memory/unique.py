"""Keys: of two jobs with one key, the second finds the first, takes its place, or is refused.

As `submit_unique` of the schema, whose rules are told here once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from chancy.job import NewJob
from chancy.model import UniqueKey
from chancy.states import State

from .rows import now
from .store import Answer, Asked, Memory, Row


def _submit_unique(memory: Memory, asked: Asked) -> Iterator[Row]:
    """The ids, outcomes, queues, what only the caller sees yet, instants, and the transaction."""
    restore, jobs = memory.save(), asked.adds
    made: list[Row] = [(None, None, None, True, None)] * len(jobs)
    given = [(job, position, memory.next_id()) for position, job in enumerate(jobs)]
    for job, position, new_id in sorted(given, key=lambda one: (one[0].task, _text(one[0].unique), one[1])):
        job_id, outcome = submit_one(memory, job, asked.transaction or "0", new_id)
        kept = memory.jobs.get(job_id)  # none that was deleted, and whose time is not over
        own = outcome in ("inserted", "replaced") or (kept is not None and kept.transaction == asked.transaction)
        queue, at = (job.options.queue, None) if kept is None else (kept.row.queue, kept.row.submitted_at)
        made[position] = job_id, outcome, queue, own, at
        if outcome == "refused":
            restore()
            break
    memory.due += [job_id for job_id, outcome, *_ in made if outcome == "inserted" and job_id in memory.jobs]
    yield (*map(list, zip(*made, strict=True)), asked.transaction or "0")


def submit_one(memory: Memory, job: NewJob[Any], transaction: str, new_id: int) -> tuple[int, str]:
    """Add a job, under this id, unless its key is held: the job that has it then, and what became of this one."""
    key = job.unique
    if key is None:
        return memory.add(job, transaction, new_id), "inserted"
    at = now()
    job = msgspec.structs.replace(job, task=_name_with_key(memory, job.task, key, at))
    place = job.task, key.text
    ends, other = memory.windows.get(place, (at, 0))
    if key.within is None or ends <= at:
        other = holder(memory, *place) or 0
        if not other:
            if key.within is not None:
                memory.windows[place] = at + key.within, new_id
            return memory.add(job, transaction, new_id), "inserted"
    kept = memory.jobs.get(other)
    if kept is None or key.on_conflict != "replace" or kept.row.state is not State.READY:
        return other, "refused" if key.on_conflict == "raise" else "existing"
    memory.add(job, transaction, other)
    wanted, brought = job.options, memory.jobs[other]
    changed = {name: getattr(brought.row, name) for name in ("arguments", "priority", "max_attempts", "meta")}
    if wanted.run_at is not None or wanted.delay is not None:
        changed["run_at"] = brought.row.run_at
    memory.jobs[other] = msgspec.structs.replace(
        kept,
        transaction=transaction,
        retry=brought.retry,
        limits=brought.limits,
        gates=brought.gates,
        meta=brought.meta,
    ).with_row(**changed)
    return other, "replaced"


def _name_with_key(memory: Memory, task: str, key: UniqueKey, at: datetime) -> str:
    """Under which of its names the key is held already."""
    names = sorted(key.others)
    timed = [name for name in names if key.within and memory.windows.get((name, key.text), (at, 0))[0] > at]
    held = [name for name in names if holder(memory, name, key.text)]
    return next(iter(timed + held), task)


def holder(memory: Memory, task: str, key: str | None) -> int | None:
    """The job that has the key."""
    jobs = memory.jobs.items()
    holders = (id_ for id_, kept in jobs if kept.row.unique_key == key and kept.row.task == task and kept.holds_key)
    return next(holders, None)


def _text(key: UniqueKey | None) -> str:
    return "" if key is None else key.text


ANSWERS: dict[str, Answer] = {"submit_unique": _submit_unique}
