"""Where a task's function runs inside the worker's own process: on its loop. (In a thread: the wing `threads`.)"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from .attempt import Attempt, as_it_is, call_async
from .surround import Surround
from .verdict import Completion


class Loop:
    """`async def` on the worker's own event loop. One that is cancelled may catch that, and go on."""

    size: int | None = None
    problem: str | None = None

    def __init__(self, surround: Surround | None = None) -> None:
        self._surround = surround

    def run(self, attempt: Attempt) -> Coroutine[Any, Any, Completion]:
        """Await the function."""
        attempt.began()
        return call_async(attempt.job, attempt.task, attempt.since, as_it_is, self._surround)

    async def close(self) -> None:
        """Nothing of its own is left."""
