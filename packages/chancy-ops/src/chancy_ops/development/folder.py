"""The folder in the project that keeps what is made while it is developed: the data of Postgres, and where that is."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from chancy_ops.terminal.faults import Refusal

IGNORED = "*\n"
"""Of Git: all of it, this file included."""


class Folder:
    """Made at the first start; held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        """Raises `Refusal` where another process holds it, or where it cannot be made."""
        import fcntl  # not on Windows, where there is no server for it either

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / ".gitignore").write_text(IGNORED, encoding="utf-8")
            self._lock = (self.path / "owner").open("a+", encoding="utf-8")
        except OSError as error:
            raise Refusal(f"{self.path} cannot be made: {error.strerror}; name another folder with --folder") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            whose = self._lock.read().strip()
            self._lock.close()
            raise Refusal(
                f"another `chancy dev` has {self.path}, process {whose}: end that, or name another folder with --folder"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._lock is not None
        self._lock.close()

    @property
    def postgres(self) -> Path:
        """Where its data are."""
        return self.path / "postgres"

    def note(self, dsn: str) -> Path:
        """Write down where Postgres is, for other terminals; the file."""
        file = self.path / "dsn"
        file.write_text(f"{dsn}\n", encoding="utf-8")
        return file
