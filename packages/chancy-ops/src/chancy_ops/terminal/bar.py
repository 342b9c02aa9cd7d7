"""How far something is, while a person waits for it."""

from __future__ import annotations

import sys
from typing import Any, Self


class Bar:
    """How far it is, on standard error, if that is a terminal; of a total that nobody knows, None."""

    def __init__(self, title: str, total: int | None) -> None:
        self._progress: Any = None
        if total != 0 and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._bar = self._progress.add_task(title, total=total)

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def move(self, to: int) -> None:
        """So many of them."""
        if self._progress:
            self._progress.update(self._bar, completed=to)
