"""The verdicts on their way to the database: none is lost, and one that cannot be stored spoils no other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType

from chancy_worker.attempts.verdict import OVERHEAD_BYTES, Completion, without_data

log = logging.getLogger("chancy.worker")

MAX_ROUND_BYTES = 8 * 1024**2
MAX_ROUND_VERDICTS = 1000
MOST_CUTS = 5
"""So many times a verdict goes out alone and the connection breaks over it, before it is taken for too large."""
LARGE_VERDICT_BYTES = 1024**2

_RESULT, _ERRORS = map(attrgetter, ("result", "errors"))


class Outbox:
    """Verdicts that wait for a round, oldest first.

    `large` are the bytes of arguments that the verdicts of large jobs move to history, by (id, fence).
    """

    def __init__(self, large: Mapping[tuple[int, int], int] = MappingProxyType({})) -> None:
        self._large = large
        self._waiting: deque[Completion] = deque()
        self.add = self._waiting.append
        """One more."""
        self._most, self._most_bytes = MAX_ROUND_VERDICTS, MAX_ROUND_BYTES
        self._searched: int | None = None
        """How many at most go into a round while one that cannot be stored is looked for."""
        self._bared: set[tuple[int, int]] = set()
        self._cuts = 0
        self.postponed = 0
        """Verdicts that come back after a pause, and are not among those that wait."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Completion]:
        return iter(self._waiting)

    def postpone(self, seconds: float, verdict: Completion, told: Callable[[], None]) -> None:
        """Send this one again after a pause, as when somebody has locked its row; `told` is called then."""
        self.postponed += 1
        asyncio.get_running_loop().call_later(seconds, self._comes_back, verdict, told)

    def _comes_back(self, verdict: Completion, told: Callable[[], None]) -> None:
        self.postponed -= 1
        self.add(verdict)
        told()

    def put_back(self, verdicts: Iterable[Completion]) -> None:
        """These have to be sent again, behind the others."""
        self._waiting.extend(verdicts)

    def take(self) -> list[Completion]:
        """What goes with the next round: at most 8 MiB, moved arguments included, but always one."""
        most = self._most if self._searched is None else min(self._most, self._searched)
        taken = list(self._waiting)
        if not self._large and len(taken) <= most and _sizes(taken) <= self._most_bytes:
            self._waiting.clear()
            return taken
        taken.clear()
        size = 0
        while self._waiting and len(taken) < most:
            size += self._weight(self._waiting[0]) if self._large else self._waiting[0].size
            if taken and size > self._most_bytes:
                break
            taken.append(self._waiting.popleft())
        return taken

    def _weight(self, verdict: Completion) -> int:
        return verdict.size + self._large.get((verdict.id, verdict.fence), 0)

    @property
    def is_searching(self) -> bool:
        """Whether a refused round is being halved to find the verdict that cannot be stored. Nothing else may be sent
        meanwhile.
        """
        return bool(self._waiting) and self._searched is not None

    def accepted(self) -> None:
        """The round went through: the next may be larger again."""
        if self._searched is not None:
            self._searched = None if self._searched >= MAX_ROUND_VERDICTS else self._searched * 2
        self._most = min(self._most * 2, MAX_ROUND_VERDICTS)
        self._most_bytes = min(self._most_bytes * 2, MAX_ROUND_BYTES)
        self._cuts = 0
        if self._searched is None:
            self._bared.clear()

    def alone(self, verdicts: Sequence[Completion]) -> None:
        """A round failed that had a claim, too: the next one is for these alone, and shows whose fault it was."""
        self._waiting.extendleft(reversed(verdicts))
        self._searched = min(self._searched or MAX_ROUND_VERDICTS, MAX_ROUND_VERDICTS)

    def cut(self, verdicts: Sequence[Completion], reason: str) -> None:
        """The connection broke over the round, or it took too long: the next is for half of them, or half of the bytes.

        One that is large and alone, and has been cut five times, is stored bare: the line does not carry it.
        """
        if not verdicts:
            return
        self._most = max(1, len(verdicts) // 2)
        self._most_bytes = max(1, sum(map(self._weight, verdicts)) // 2)
        self._cuts = self._cuts + 1 if len(verdicts) == 1 else 0
        if self._cuts >= MOST_CUTS and verdicts[0].size > LARGE_VERDICT_BYTES:
            self._cuts = 0
            self._bare(verdicts[0], f"{verdicts[0].size:,} bytes, over which the connection broke each time: {reason}")
        else:
            self._waiting.extendleft(reversed(verdicts))

    def refused(self, verdicts: Sequence[Completion], reason: str) -> Completion | None:
        """The database refused a round of nothing but these: halve until the culprit is alone, and bare it then.

        One that is refused bare, too, is returned, and waits no more: it is the row that cannot be moved.
        """
        if len(verdicts) > 1:
            self._searched = max(1, len(verdicts) // 2)
            self._waiting.extendleft(reversed(verdicts))
            return None
        (verdict,) = verdicts
        key = verdict.id, verdict.fence
        if key in self._bared:
            self._bared.discard(key)
            return verdict
        self._bare(verdict, reason)
        return None

    def _bare(self, verdict: Completion, reason: str) -> None:
        log.error("the verdict of job %d could not be stored (%s); it fails without its data", verdict.id, reason)
        self._bared.add((verdict.id, verdict.fence))
        self._waiting.appendleft(without_data(verdict, reason))


def _sizes(verdicts: Sequence[Completion]) -> int:
    """The sum of their `size`."""
    results, errors = filter(None, map(_RESULT, verdicts)), filter(None, map(_ERRORS, verdicts))
    return OVERHEAD_BYTES * len(verdicts) + sum(map(len, results)) + sum(map(len, errors))
