"""Jobs: added, looked at, and changed from outside, one or many."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from chancy import registry
from chancy.arguments.codec import encode_json
from chancy.model import MOST_ATTEMPTS, JobRow
from chancy.states import FINISHED, LIVE, State

from .rows import Kept, now, state_of
from .store import Answer, Asked, Memory, Row
from .unique import holder


def _insert(memory: Memory, asked: Asked) -> list[int]:
    ids = [memory.add(job, asked.transaction or "0") for job in asked.adds]
    memory.due += ids
    return ids


def _insert_job(memory: Memory, asked: Asked) -> Iterator[Row]:
    (job_id,) = _insert(memory, asked)
    at = memory.jobs[job_id].row.submitted_at.replace(tzinfo=None)
    yield (encode_json((job_id, asked.transaction or "0", at)),)


def _insert_jobs(memory: Memory, asked: Asked) -> Iterator[Row]:
    ids = _insert(memory, asked)
    yield ids, asked.transaction or "0", memory.jobs[ids[0]].row.submitted_at


def _select_job(memory: Memory, asked: Asked) -> Iterator[Row]:
    if kept := memory.jobs.get(asked.params["id"]):
        yield _columns(kept)


def _select_jobs(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield from ((None, None, *_columns(kept)) for kept in _found(memory, asked.params))


def _search(memory: Memory, asked: Asked) -> Iterator[Row]:
    for kept in _found(memory, asked.params):
        row = kept.row
        said = row.errors[-1] if row.errors else None
        yield (
            None, None, row.id, row.task, row.queue, state_of(row).value, row.priority, row.attempt, row.max_attempts,
            row.crashes, row.worker, row.batch, row.submitted_at, row.run_at, row.started_at, row.finished_at,
            row.cancel_at, None if row.unique_key is None else row.unique_key[:200].encode(),
            None if row.progress is None else encode_json(row.progress), row.arguments,
            said and encode_json(said.kind)[1:-1], said and encode_json(said.message[:400])[1:-1],
            said and said.fingerprint, None,
        )  # fmt: skip


def _found(memory: Memory, params: Mapping[str, Any]) -> list[Kept]:
    """In the order of `find_jobs`, behind the job `before`."""
    past = FINISHED.intersection(params["states"])
    by_end = bool(past) and State.SUCCEEDED not in past

    def place(kept: Kept) -> tuple[datetime, int]:
        ended = kept.row.finished_at if by_end else None
        return ended or (datetime.max.replace(tzinfo=UTC) if by_end else datetime.min.replace(tzinfo=UTC)), kept.row.id

    words = params["words"]
    fitting = [kept for kept in _matching(memory, params) if words is None or _says(kept, words.encode())]
    if (before := params["before"]) is not None:
        last = memory.jobs.get(before)
        limit = (datetime.max.replace(tzinfo=UTC), before) if by_end else (datetime.min.replace(tzinfo=UTC), before)
        limit = limit if last is None else place(last)
        fitting = [kept for kept in fitting if place(kept) < limit]
    return sorted(fitting, key=place, reverse=True)[: params["limit"]]


def _says(kept: Kept, words: bytes) -> bool:
    return words in kept.row.arguments or words in (kept.errors or b"")


def _columns(kept: Kept) -> Row:
    row = kept.row
    return (
        row.id, row.task, row.queue, state_of(row).value, row.priority, row.attempt, row.max_attempts, row.crashes,
        row.worker, row.submitted_at, row.run_at, row.started_at, row.finished_at, row.cancel_at,
        row.arguments, row.result, kept.errors, None if row.progress is None else encode_json(row.progress),
        None if row.unique_key is None else row.unique_key.encode(), row.batch, kept.meta, row.needs, row.becomes,
    )  # fmt: skip


def _select_outcome(memory: Memory, asked: Asked) -> Iterator[Row]:
    kept = memory.jobs.get(asked.params["id"])
    seen: Row = (None,) * 5
    if kept is not None:
        row = kept.row
        seen = state_of(row), row.task, row.attempt, row.result, kept.errors
    yield *seen, asked.transaction, "read committed"


def _complete_job(memory: Memory, asked: Asked) -> Iterator[Row]:
    kept = memory.jobs.get(asked.params["id"])
    mine = kept is not None and kept.row.state is State.RUNNING and kept.fence == asked.params["fence"]
    if kept is not None and mine:
        memory.finish(kept, State.SUCCEEDED, bytes(asked.params["result"]))
    yield (mine,)


def _cancel_jobs(memory: Memory, asked: Asked) -> Iterator[Row]:
    for job_id in asked.params["ids"]:
        kept = memory.jobs.get(job_id)
        state = kept and kept.row.state
        becomes = None
        if kept is not None and state in (State.BLOCKED, State.READY):
            becomes = kept.row.becomes
            memory.finish(kept, State.CANCELLED)
            memory.doomed.update({job_id: memory.needs.pop(job_id)} if job_id in memory.needs else {})
        elif kept is not None and state is State.RUNNING:
            memory.jobs[job_id] = kept.with_row(cancel_at=kept.row.cancel_at or now())
        if current := memory.running.get(job_id):
            current.cancelled = True
        live = state in (State.BLOCKED, State.READY, State.RUNNING)
        yield live, live, state in FINISHED, False, becomes, None


def _requeue_jobs(memory: Memory, asked: Asked) -> Iterator[Row]:
    for job_id in asked.params["ids"]:
        yield _requeued(memory, job_id, asked.params["attempts"])


def _requeued(memory: Memory, job_id: int, attempts: int | None) -> Row:
    kept = memory.jobs.get(job_id)
    if kept is None or kept.row.state not in FINISHED:
        return False, kept is not None, None, _key(kept), None, False, None
    if job_id in memory.doomed:
        return False, True, None, None, None, True, None
    row, task = kept.row, registry.tasks.get(kept.row.task)
    declared = row.max_attempts if task is None else task.options.max_attempts
    again = kept.with_row(
        state=State.READY,
        max_attempts=min(row.attempt + (declared if attempts is None else attempts), MOST_ATTEMPTS),
        run_at=now(),
        result=None,
        finished_at=None,
        worker=None,
        becomes=None,
    )
    other = None
    if again.holds_key:
        names = (row.task,) if task is None else task.names
        other = next(filter(None, (holder(memory, name, row.unique_key) for name in names)), None)
    if other is None:
        memory.jobs[job_id] = again
        memory.due.append(job_id)
    needed = any(job_id in kinds for kinds in memory.doomed.values())
    return other is None, True, row.task if kept.unique is not None else None, _key(kept), other, needed, None


def _key(kept: Kept | None) -> bytes | None:
    return kept.unique.text.encode() if kept is not None and kept.unique is not None else None


def _edit_job(memory: Memory, asked: Asked) -> Iterator[Row]:
    params = asked.params
    kept = memory.jobs.get(params["id"])
    waits = kept is not None and kept.row.state is State.READY
    if kept is not None and waits:
        given = {name: params[name] for name in ("priority", "run_at") if params[name] is not None}
        memory.jobs[params["id"]] = kept.with_row(**given)
    yield waits, kept is not None, None


def _delete_jobs(memory: Memory, asked: Asked) -> Iterator[Row]:
    there = [job_id for job_id in asked.params["ids"] if job_id in memory.jobs]
    gone = [job_id for job_id in there if memory.jobs[job_id].row.state is not State.RUNNING]
    for job_id in gone:
        del memory.jobs[job_id]
        memory.needs.pop(job_id, None)
        memory.doomed.pop(job_id, None)
        memory.steps.pop(job_id, None)
        memory.ended.add(job_id)
    yield len(gone), bool(there), []


def _count_jobs(memory: Memory, asked: Asked) -> Iterator[Row]:
    most = asked.params["most"]
    for state, number in Counter(str(state_of(kept.row)) for kept in _matching(memory, asked.params)).items():
        yield state, min(number, most), number > most


def _choose(states: Collection[State], memory: Memory, asked: Asked) -> Iterator[Row]:
    matching = _matching(memory, asked.params)
    ids = sorted(kept.row.id for kept in matching if state_of(kept.row) in states)
    yield from ((id_,) for id_ in ids if id_ > asked.params["after"])


def _matching(memory: Memory, params: Mapping[str, Any]) -> Iterator[Kept]:
    """Those that fit a `JobFilter`."""
    for kept in memory.jobs.values():
        row = kept.row
        instant = row.finished_at or row.submitted_at
        if (
            _is_of(kept, params)
            and state_of(row) in params["states"]
            and (params["since"] is None or instant >= params["since"])
            and (params["until"] is None or instant < params["until"])
            and params["batch"] in (None, row.batch)
            and (
                params["kind"] is None
                or (row.errors and encode_json(row.errors[-1].kind)[1:-1] == params["kind"].encode())
            )
            and (params["fingerprint"] is None or (row.errors and row.errors[-1].fingerprint == params["fingerprint"]))
        ):
            yield kept


def _failures(memory: Memory, asked: Asked) -> Iterator[Row]:
    params = {**asked.params, "states": ("failed", "discarded"), "batch": None, "kind": None, "fingerprint": None}
    groups: dict[str, list[JobRow]] = {}
    for kept in _matching(memory, params):
        groups.setdefault(kept.row.errors[-1].fingerprint, []).append(kept.row)
    for print_, rows in sorted(groups.items(), key=lambda group: -len(group[1]))[: params["limit"]]:
        rows.sort(key=lambda row: (row.finished_at or row.run_at, row.id))
        last, said = rows[-1], rows[-1].errors[-1]
        kind, message = (encode_json(text)[1:-1] for text in (said.kind, said.message[:2000]))
        tasks = sorted({row.task for row in rows})
        yield print_, kind, len(rows), rows[0].finished_at, last.finished_at, tasks, last.id, message, None


def _is_of(kept: Kept, params: Mapping[str, Any]) -> bool:
    queue, tasks = params["queue"], params["tasks"]
    return queue in (None, kept.row.queue) and (tasks is None or kept.row.task in tasks)


ANSWERS: dict[str, Answer] = {
    "cancel_jobs": _cancel_jobs,
    "choose_finished": functools.partial(_choose, FINISHED),
    "choose_live": functools.partial(_choose, LIVE),
    "complete_job": _complete_job,
    "count_jobs": _count_jobs,
    "delete_jobs": _delete_jobs,
    "edit_job": _edit_job,
    "failures": _failures,
    "insert_job": _insert_job,
    "insert_jobs": _insert_jobs,
    "requeue_jobs": _requeue_jobs,
    "search": _search,
    "select_job": _select_job,
    "select_jobs": _select_jobs,
    "select_live_outcome": _select_outcome,
    "select_outcome": _select_outcome,
}
