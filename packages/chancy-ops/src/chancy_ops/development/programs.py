"""Programs that run beside this one and end with it. What they say is one log, each line with a name before it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import click

from chancy_ops.terminal.screen import harmless

WIDTH = 9
"""Of the column with the names."""
COLOURS = ("cyan", "magenta", "yellow")


class Log:
    """Lines of several programs, each written whole. Where nobody reads it any more, `broken` is called."""

    def __init__(self, broken: Callable[[], object]) -> None:
        self._broken = broken
        self._alone = threading.Lock()
        self._names: list[str] = []

    def say(self, name: str, line: str) -> None:
        """A line of the program of this name."""
        with self._alone:
            if name not in self._names:
                self._names.append(name)
            colour = COLOURS[self._names.index(name) % len(COLOURS)]
            try:
                click.echo(f"{click.style(f'{name:<{WIDTH}} |', fg=colour)} {harmless(line)}")
                sys.stdout.flush()
            except (OSError, ValueError):
                self._broken()


class Program:
    """A process in a session of its own, so that Ctrl-C in the terminal is for this one alone.

    Its standard input is a pipe that nobody else holds: that ends when this process does, however this comes.
    """

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], log: Log) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
        )
        self._log = log
        self._last: list[str] = []
        assert self._process.stderr is not None
        self._readers = [self._follow(self._process.stderr)]

    def first_line(self) -> str:
        """What it says on standard output before anything else; empty if it ends before."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def follow(self) -> None:
        """From here on standard output is part of the log, too."""
        assert self._process.stdout is not None
        self._readers.append(self._follow(self._process.stdout))

    def _follow(self, stream: IO[str]) -> threading.Thread:
        def copy() -> None:
            with contextlib.suppress(ValueError):  # closed at the end
                for line in stream:
                    self._log.say(self.name, line.rstrip("\n"))

        thread = threading.Thread(target=copy, daemon=True)
        thread.start()
        return thread

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.poll()

    def tell(self) -> None:
        """Tell it to end."""
        self._process.terminate()

    def let_go(self) -> None:
        """Close its standard input."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def end(self, seconds: float) -> None:
        """Wait for it so long, and kill it then; returns when its last line is in the log."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if self.code is None:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(1.0)  # what a job has started may hold the pipe for longer
