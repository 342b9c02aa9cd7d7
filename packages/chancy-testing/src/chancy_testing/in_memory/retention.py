"""How long finished jobs are kept: here until the test is over, so there is nothing to drop, and no day to make."""

from __future__ import annotations

from collections.abc import Iterator

from .store import Answer, Asked, Memory, Row


def _keep_queues(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield (None,)


def _make_partitions(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield (0,)


ANSWERS: dict[str, Answer] = {"keep_queues": _keep_queues, "make_partitions": _make_partitions}
