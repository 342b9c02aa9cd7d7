"""Batches: which jobs they have, and how far those are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from chancy.batches.statements import told
from chancy.batches.values import BatchCounts
from chancy.states import FINISHED, State

from .rows import KeptBatch, now
from .store import Answer, Asked, Memory, Row
from .unique import submit_one

_ENDS = (State.SUCCEEDED, State.FAILED, State.DISCARDED, State.CANCELLED)


def finish_batches(memory: Memory) -> None:
    """End the batches of which no job is live, and submit their callbacks: asked for after each answer."""
    for batch_id, kept in memory.batches.items():
        if kept.finished_at is None and not any(_is_live(memory, job_id) for job_id in reversed(kept.members)):
            memory.batches[batch_id] = msgspec.structs.replace(kept, finished_at=now())
            counts = BatchCounts(batch_id, len(kept.members), **_ended(memory, kept))
            success = counts.succeeded == counts.total
            for callback in (kept.on_success if success else None, kept.on_finished):
                if callback is not None:
                    job_id, outcome = submit_one(memory, told(callback, counts), "0", memory.next_id())
                    memory.due += [job_id] if outcome == "inserted" else []


def _is_live(memory: Memory, job_id: int) -> bool:
    return job_id in memory.jobs and memory.jobs[job_id].row.state not in FINISHED


def _states(memory: Memory, kept: KeptBatch) -> Counter[State]:
    """Of its jobs, without those that were deleted."""
    return Counter(memory.jobs[job_id].row.state for job_id in kept.members if job_id in memory.jobs)


def _ended(memory: Memory, kept: KeptBatch) -> dict[str, int]:
    states = _states(memory, kept)
    return {state.value: states[state] for state in _ENDS}


def _draw_batch(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield (memory.next_batch_id(),)


def _insert_batch(memory: Memory, asked: Asked) -> Iterator[Row]:
    params = asked.params
    members = tuple(int(id_) for id_ in params["jobs"].strip("{}").split(",") if int(id_ or 0) in memory.jobs)
    for job_id in members:
        memory.jobs[job_id] = memory.jobs[job_id].with_row(batch=params["id"])
    left = iter(asked.adds)
    on_success, on_finished = (next(left) if params[name] else None for name in ("on_success", "on_finished"))
    memory.batches[params["id"]] = KeptBatch(members, on_success, on_finished)
    yield (len(members),)


def _finish_batches(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield 0, ()  # it is done after each answer


def _select_progress(memory: Memory, asked: Asked) -> Iterator[Row]:
    if kept := memory.batches.get(asked.params["id"]):
        states, ended = _states(memory, kept), _ended(memory, kept).values()
        yield (
            len(kept.members),
            states[State.READY] + states[State.BLOCKED],
            states[State.RUNNING],
            *ended,
            kept.finished_at,
        )


ANSWERS: dict[str, Answer] = {
    "draw_batch": _draw_batch,
    "finish_batches": _finish_batches,
    "insert_batch": _insert_batch,
    "select_progress": _select_progress,
}
