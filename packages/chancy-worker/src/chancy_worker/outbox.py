"""The verdicts on their way to the database: none is lost, and one that cannot be stored spoils no other."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence

from .verdict import Completion, without_data

log = logging.getLogger("chancy.worker")

MAX_ROUND_BYTES = 8 * 1024**2
MAX_ROUND_VERDICTS = 1000


class Outbox:
    """Verdicts that wait for a round, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[Completion] = deque()
        self._most = MAX_ROUND_VERDICTS

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, verdict: Completion) -> None:
        """One more."""
        self._waiting.append(verdict)

    def put_back(self, verdicts: Iterable[Completion]) -> None:
        """These have to be sent again, behind the others."""
        self._waiting.extend(verdicts)

    def take(self) -> list[Completion]:
        """What goes with the next round: at most 8 MiB, but always one."""
        taken: list[Completion] = []
        size = 0
        while self._waiting and len(taken) < self._most:
            size += self._waiting[0].size
            if taken and size > MAX_ROUND_BYTES:
                break
            taken.append(self._waiting.popleft())
        return taken

    @property
    def is_searching(self) -> bool:
        """Whether a verdict that cannot be stored is being looked for: then nothing else may be in the round."""
        return bool(self._waiting) and self._most < MAX_ROUND_VERDICTS

    def accepted(self) -> None:
        """The round went through: the next may be larger again."""
        self._most = min(self._most * 2, MAX_ROUND_VERDICTS)

    def refused(self, verdicts: Sequence[Completion], reason: str) -> None:
        """The database refused the round because of its data: halve until the culprit is alone, and bare it then."""
        if len(verdicts) == 1:
            log.error(
                "the verdict of job %d could not be stored (%s); it fails without its data", verdicts[0].id, reason
            )
            self._waiting.appendleft(without_data(verdicts[0]))
            return
        self._most = max(1, len(verdicts) // 2)
        self._waiting.extendleft(reversed(verdicts))
