"""What a job says more often than anybody reads it: the last word of each moment goes on its way, and no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

APART_SECONDS = 0.1
"""Between two words; the worker writes down one a second."""


class Lately(Generic[T]):
    """Passes on the last of what it is told, at once or up to 0.1 s later. From any thread."""

    def __init__(self, say: Callable[[T], None]) -> None:
        self._say = say
        self._changed = threading.Condition()
        self._waiting: list[T] = []
        self._said_at = 0.0
        # From the start: a job is not to be taken for the one who has left this thread behind.
        threading.Thread(target=self._listen, name="chancy progress", daemon=True).start()

    def tell(self, word: T) -> None:
        """Takes the place of what still waits."""
        with self._changed:
            if not self._waiting and time.monotonic() - self._said_at >= APART_SECONDS:
                self._pass_on(word)
                return
            self._waiting[:] = [word]
            self._changed.notify()

    def forget(self) -> None:
        """What waits is of no interest any more; nothing is on its way when this returns."""
        with self._changed:
            self._waiting.clear()

    def _pass_on(self, word: T) -> None:
        self._said_at = time.monotonic()
        self._say(word)

    def _listen(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                while self._waiting and (left := self._said_at + APART_SECONDS - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._waiting:
                    try:
                        self._pass_on(self._waiting.pop())
                    except ConnectionError:  # the worker is gone, and this process goes, too
                        return
