"""What jobs have logged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from chancy_worker.attempts.logs import Kept

from .rows import now
from .store import Answer, Asked, Memory, Row


def note_logs(memory: Memory, logged: Sequence[Kept]) -> None:
    """Attempts have logged this."""
    for kept in logged:
        at = now() - timedelta(seconds=time.monotonic() - kept.at)
        memory.logs.setdefault(kept.job, []).append((at, kept.attempt, kept.n, kept.entry))


def _select_logs(memory: Memory, asked: Asked) -> Iterator[Row]:
    after = asked.params["attempt"], asked.params["n"]
    later = [row for row in memory.logs.get(asked.params["job"], ()) if row[1:3] > after]
    yield from sorted(later, key=lambda row: row[1:3])[: asked.params["limit"]]


ANSWERS: dict[str, Answer] = {"select_logs": _select_logs}
