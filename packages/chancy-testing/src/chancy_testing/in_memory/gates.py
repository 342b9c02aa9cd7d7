"""Limits over all workers, and turns of groups: one job at a time is within every limit, and what it passes is told."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from chancy.keys.gates import Passes

from .store import Answer, Asked, Memory, Row


def not_enforced(gates: bytes | None) -> list[str]:
    """What a worker would have had the job pass."""
    if gates is None:
        return []
    passes = msgspec.json.decode(gates, type=Passes)
    turn = ["the turn of its group"] if passes.turn else []
    return [f"{gate.name} at {gate.most}" for gate in passes.gates] + turn


def _limit_queue(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield (None,)


ANSWERS: dict[str, Answer] = {"limit_queue": _limit_queue}
