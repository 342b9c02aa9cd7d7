"""Flows: which jobs wait for others, and what they are given.

As `insert_flow`, `unblock` and `become` of the schema, whose rules are told here once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import msgspec

from chancy.arguments.codec import encode_json
from chancy.flows.flow import Node, Pieces
from chancy.job import NewJob
from chancy.model import MAX_PAYLOAD_BYTES, AttemptError, Options
from chancy.options.limits import Limit
from chancy.options.retry import Backoff
from chancy.statements import parse_errors
from chancy.states import FINISHED, State

from .rows import Kept, now
from .store import Answer, Asked, Memory, Row


def look(memory: Memory) -> None:
    """Release what needs nothing that is live, and end what needs in vain: asked for after each answer."""
    while memory.ended:
        ended, memory.ended = memory.ended, set()
        for job_id in [job_id for job_id, kinds in memory.needs.items() if not ended.isdisjoint(kinds)]:
            _look_at(memory, job_id)


def _look_at(memory: Memory, job_id: int) -> None:
    kinds, kept = memory.needs[job_id], memory.jobs[job_id]
    states = {need: memory.jobs[need].row.state if need in memory.jobs else None for need in reversed(kinds)}
    won = {need for need, state in states.items() if state is State.SUCCEEDED}
    over = {need for need, state in states.items() if state is None or state in FINISHED}
    lost = next((need for need in sorted(over - won) if kinds[need] != "e"), None)
    if lost is None and len(over) < len(kinds):
        return
    if lost is None and any(memory.jobs.get(need) is None for need in kinds):
        lost = next(need for need in kinds if need not in memory.jobs)
    if lost is not None:
        _end(memory, kept, _why(memory, kept, lost), State.CANCELLED if kept.row.becomes is None else State.FAILED)
        return
    if kept.row.becomes is not None:
        del memory.needs[job_id]
        memory.finish(kept, State.SUCCEEDED, memory.jobs[kept.row.becomes].row.result)
        return
    pieces = msgspec.json.decode(kept.row.arguments, type=Pieces)
    needs = [memory.jobs[need] for need in kept.row.needs]
    whole = b"".join(piece.encode() if isinstance(piece, str) else _told(needs, piece) for piece in pieces.pieces)
    if len(whole) > MAX_PAYLOAD_BYTES:
        said = (
            f"what it needs has come to {len(whole)} bytes of arguments, at most {MAX_PAYLOAD_BYTES} fit: store it "
            f"elsewhere and return where it is"
        )
        error = AttemptError(attempt=kept.row.attempt, kind="InvalidArguments", message=said)
        _end(memory, kept, error, State.FAILED)
        return
    del memory.needs[job_id]
    run_at = kept.row.run_at if pieces.delay is None else now() + _delay(pieces.delay)
    memory.jobs[job_id] = kept.with_row(state=State.READY, arguments=whole, run_at=run_at)
    memory.due.append(job_id)


def _told(needs: list[Kept], piece: int) -> bytes:
    row = needs[abs(piece) - 1].row
    result = row.result or b"null"
    if piece > 0:
        return result
    return encode_json({"job": row.id, "state": row.state, "result": msgspec.Raw(result), "errors": row.errors})


def _why(memory: Memory, kept: Kept, culprit: int) -> AttemptError:
    other = memory.jobs.get(culprit)
    how = ", which is not there any more"
    if other is not None:
        state = other.row.state
        how = f" ({other.row.task}), which {'failed' if state is State.FAILED else f'was {state}'}"
    said = f"it {'needs' if kept.row.becomes is None else 'became'} job {culprit}{how}"
    return AttemptError(attempt=kept.row.attempt, kind="NeedFailed", message=said)


def _end(memory: Memory, kept: Kept, error: AttemptError, state: State) -> None:
    memory.doomed[kept.row.id] = memory.needs.pop(kept.row.id)
    errors = encode_json([*kept.row.errors, error][-10:])
    kept = msgspec.structs.replace(kept, errors=errors, by_a_look=True).with_row(errors=parse_errors(errors))
    memory.finish(kept, state)


def _delay(text: str) -> timedelta:
    """As `in_seconds` has written it."""
    *hours, seconds, _ = text.split()
    return timedelta(hours=float(hours[0]) if hours else 0, seconds=float(seconds))


def _bound(node: Node) -> NewJob[bytes]:
    return NewJob(
        node.task,
        node.arguments.encode(),
        Options(
            node.queue,
            node.priority,
            node.max_attempts,
            None if node.limits is None else msgspec.json.decode(node.limits, type=tuple[Limit, ...]),
            None if node.retry is None else msgspec.json.decode(node.retry, type=Backoff),
            node.run_at,
            None if node.delay is None else _delay(node.delay),
        ),
        bytes,
        None if node.gates is None else node.gates.encode(),
        None,
        None if node.meta is None else node.meta.encode(),
    )


def insert(memory: Memory, nodes: Sequence[Node], transaction: str) -> list[int]:
    """Remember the jobs of a flow; their ids."""
    ids = [memory.add(_bound(node), transaction) for node in nodes]
    for job_id, node in zip(ids, nodes, strict=True):
        if node.needs is None:
            memory.due.append(job_id)
            continue
        needs = [ids[place - 1] if place > 0 else -place for place in node.needs]
        memory.needs[job_id] = dict(zip(needs, node.kinds, strict=True))
        memory.jobs[job_id] = memory.jobs[job_id].with_row(state=State.BLOCKED, needs=tuple(needs))
        memory.ended.update(needs)  # those that were there may be over
    return ids


def _insert_flow(memory: Memory, asked: Asked) -> Iterator[Row]:
    transaction = asked.transaction or "0"
    ids = insert(memory, asked.adds, transaction)
    yield ids, memory.jobs[ids[0]].row.submitted_at, transaction


def _become(memory: Memory, asked: Asked) -> Iterator[Row]:
    params = asked.params
    kept = memory.jobs.get(params["id"])
    if kept is None or kept.fence != params["fence"] or kept.row.state is not State.RUNNING or kept.row.cancel_at:
        yield "lost", None
        return
    target = params["target"]
    if kept.row.id in _above(memory, _numbers(params["others"])):
        yield "cycle", -target if target < 0 else None
        return
    ids = insert(memory, asked.adds, kept.transaction)
    other = ids[target - 1] if target > 0 else -target
    memory.jobs[kept.row.id] = kept.with_row(state=State.BLOCKED, becomes=other, worker=None, progress=None)
    memory.needs[kept.row.id] = {other: "r"}
    memory.ended.add(other)
    yield "became", other


def _above(memory: Memory, jobs: set[int]) -> set[int]:
    found, left = set[int](), set(jobs)
    while left:
        found |= left
        kinds = [memory.needs.get(job) or memory.doomed.get(job, {}) for job in left]
        left = {need for each in kinds for need in each} - found
    return found


def _select_unneeded(memory: Memory, asked: Asked) -> Iterator[Row]:
    cancelled = _numbers(asked.params["ids"])
    needs = {need for job_id in cancelled for need in memory.doomed.get(job_id, ())}
    wanted = {need for kinds in memory.needs.values() for need in kinds}
    yield from ((need,) for need in sorted(needs - wanted) if memory.jobs[need].row.state not in FINISHED)


def _select_doomed(memory: Memory, asked: Asked) -> Iterator[Row]:
    found, left = set[int](), _numbers(asked.params["ids"])
    while left:
        found |= left
        left = {need for job in left for need in memory.doomed.get(job, ()) if _in_vain(memory, job, need)} - found
    left = set(found)
    while left:
        found |= left
        left = {job for job, kinds in memory.doomed.items() if left & set(kinds) and memory.jobs[job].by_a_look} - found
    over = [job for job in sorted(found) if job in memory.jobs and memory.jobs[job].row.state in FINISHED]
    yield [job for job in over if job not in memory.doomed], [job for job in over if job in memory.doomed]


def _in_vain(memory: Memory, job: int, need: int) -> bool:
    state = memory.jobs[need].row.state if need in memory.jobs else None
    return memory.doomed[job][need] != "e" and (state is None or (state in FINISHED and state is not State.SUCCEEDED))


def _block_again(memory: Memory, asked: Asked) -> Iterator[Row]:
    ids = sorted(_numbers(asked.params["ids"]))
    for job_id in ids:
        memory.needs[job_id] = memory.doomed.pop(job_id)
        back = memory.jobs[job_id].with_row(state=State.BLOCKED, finished_at=None)
        memory.jobs[job_id] = msgspec.structs.replace(back, by_a_look=False)
        memory.ended.update(memory.needs[job_id])  # some may be over
    yield ids, []


def _numbers(literal: str) -> set[int]:
    return {int(number) for number in literal.strip("{}").split(",") if number}


def _unblock(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield 0, None, [], [], [], []  # it is done after each answer


def _nothing(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield ([],)


ANSWERS: dict[str, Answer] = {
    "become": _become,
    "block_again": _block_again,
    "end_blocked": _nothing,
    "insert_flow": _insert_flow,
    "missed": _nothing,
    "select_doomed": _select_doomed,
    "select_unneeded": _select_unneeded,
    "unblock": _unblock,
}
