"""`--reload`: a worker that is started again when a file of the program changes. For whoever writes the program.

The worker is a process of its own, told nothing of that: it takes signals, enters its lifespan and ends as everywhere.
Files are looked at, and no service of the system is asked for changes: that works on every mount and in every
container, and needs no library.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from .life import signals
from .supervision.parent import ended_with_this, ending_with_parent

Look: TypeAlias = Callable[[], Mapping[Path, object]]
"""The files, each with what changes when it is written."""

LOOK_SECONDS = 0.2
"""How often the files are looked at, at most."""
SHARE = 0.05
"""Of a core that looking may take: where there are many files, it is done less often."""
_A_MOMENT = 0.3
"""Seconds that running jobs get when a file has changed; then they are given back, their attempt refunded."""
_TO_END = 5.0
"""Seconds, after its grace, before a worker is killed."""

_OTHERS = {"__pycache__", "node_modules", "site-packages"}
"""Folders that are no part of a program; those with a dot before their name are none, either."""


def modules_in(folders: Sequence[Path]) -> dict[Path, object]:
    """The Python files in these folders and below, without those of virtual environments. Follows no links."""
    return {Path(entry.path): _stamp(entry) for folder in folders for entry in _modules(folder)}


def _modules(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # just gone, or not ours
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        if entry.name.endswith(".py"):
            yield entry
        elif not entry.name.startswith(".") and entry.name not in _OTHERS and entry.is_dir(follow_symlinks=False):
            yield from _modules(entry.path)


def _stamp(entry: os.DirEntry[str]) -> object:
    try:
        stat = entry.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def folders_of(target: str) -> list[Path]:
    """Where one stands, and where the module's package is if that is elsewhere. Imports nothing."""
    here = Path.cwd()
    found = importlib.machinery.PathFinder.find_spec(target.partition(":")[0].partition(".")[0], ["", *sys.path])
    places = list(found.submodule_search_locations or []) if found else []
    package = [Path(place).absolute() for place in places if "site-packages" not in Path(place).parts]
    return [here, *(place for place in package if not place.is_relative_to(here))]


def without_reload(words: Sequence[str]) -> list[str]:
    """A command line, told to run a worker and nothing more: without `--reload`, or what argparse takes for it."""
    return [word for word in words if not ("--reload".startswith(word) and word.startswith("--re"))]


class Watched:
    """The files, and what they were like when they were last looked at."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._seen = look()
        self._next_at = 0.0

    def changed(self) -> list[Path]:
        """Since this was asked last: new, gone, or written. Empty, too, while it is too early for another look."""
        began = time.monotonic()
        if began < self._next_at:
            return []
        now, before = self._look(), self._seen
        self._seen = now
        self._next_at = time.monotonic() + (time.monotonic() - began) / SHARE
        return sorted(path for path in now.keys() | before.keys() if now.get(path) != before.get(path))


def run(command: Sequence[str], look: Look, say: Callable[[str], object], *, grace: float = 0.0) -> int:
    """Keep the command running until a signal, or until it ends by itself and well; its exit code.

    Where it could not even start, the next change may be what mends it. One that was killed, as by a job that takes all
    memory, is started again at once.
    """
    watched = Watched(look)
    asked, children = False, list[subprocess.Popen[bytes]]()

    def stop() -> None:
        nonlocal asked
        asked = True
        for child in children:
            child.terminate()

    def is_over() -> bool:
        return asked or children[0].poll() is not None

    with signals.taken(stop), ending_with_parent(stop, grace + _TO_END):
        while not asked:
            # A session of its own: Ctrl-C reaches it through us, once.
            child = subprocess.Popen(command, env=ended_with_this(os.environ), start_new_session=True)
            children[:] = [child]
            if asked:
                child.terminate()
            changed = _wait_for_change(watched, is_over)
            if asked:
                return _ended(child, grace + _TO_END)
            if changed:
                say(f"{_named(changed)} changed: the worker is started again")
                _end(child)
                _forget_bytecode(changed)
                continue
            if (code := child.wait()) == 0:
                return code
            if code < 0:
                say(f"the worker was killed by signal {-code}; it is started again")
                time.sleep(LOOK_SECONDS)
            else:
                say(f"the worker has ended with {code}; it is started again when a file changes")
                _forget_bytecode(_wait_for_change(watched, lambda: asked))
    return 0


def _wait_for_change(watched: Watched, is_over: Callable[[], bool]) -> list[Path]:
    """What has changed; nothing if it is over before."""
    while not is_over():
        if changed := watched.changed():
            return changed
        time.sleep(LOOK_SECONDS)
    return []


def _forget_bytecode(changed: Iterable[Path]) -> None:
    """Python takes bytecode for that of a file which has the same size and was written in the same second: of two saves
    in a second the first one would run on.
    """
    for path in changed:
        with contextlib.suppress(OSError, NotImplementedError):
            Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


def _named(changed: Iterable[Path]) -> str:
    first, *others = changed
    more = f" and {len(others)} more have" if others else " has"
    return os.path.relpath(first) + more


def _end(child: subprocess.Popen[bytes]) -> None:
    """Almost without a grace: the second signal skips it."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_A_MOMENT)
        return
    child.terminate()
    _ended(child, _TO_END)


def _ended(child: subprocess.Popen[bytes], seconds: float) -> int:
    """The code of one that is told to stop. Where a job blocks the event loop it does not hear that: it is killed."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(seconds)
    child.kill()
    return child.wait()
