"""`manage.py chancy_worker --reload`: a worker that is started again when a file of the project changes.

The worker is a process of its own, told nothing of that: it takes signals, enters its lifespan and ends as everywhere.
What is watched are the files of the project's apps and of all that is imported here, as by `runserver`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from django.apps import apps
from django.utils.autoreload import StatReloader

from chancy_worker.life import signals

from .project import modules_of_tasks

LOOK_SECONDS = 0.5
"""How often the files are looked at."""
_A_MOMENT = 0.3
"""Seconds that running jobs get when a file has changed; then they are given back, their attempt refunded."""


class Watched:
    """The files, and what they were like when they were last looked at."""

    def __init__(self) -> None:
        self._reloader = StatReloader()
        for app in apps.get_app_configs():
            if "site-packages" not in Path(app.path).parts:
                self._reloader.watch_dir(app.path, "**/*.py")
        self._seen = self._look()

    def _look(self) -> dict[Path, float]:
        return dict(self._reloader.snapshot_files())

    def changed(self) -> list[Path]:
        """Since this was asked last: new, gone, or written."""
        now, before = self._look(), self._seen
        self._seen = now
        return sorted(path for path in now.keys() | before.keys() if now.get(path) != before.get(path))


def run(command: Sequence[str], say: Callable[[str], object]) -> int:
    """Keep the command running until a signal, or until it ends by itself and well; its exit code.

    Where it could not even start, the next change may be what mends it.
    """
    for module in modules_of_tasks():
        with contextlib.suppress(Exception):  # the worker says what is wrong with it
            importlib.import_module(module)
    watched = Watched()
    asked, children = False, list[subprocess.Popen[bytes]]()

    def stop() -> None:
        nonlocal asked
        asked = True
        for child in children:
            child.terminate()

    with signals.taken(stop):
        while not asked:
            child = subprocess.Popen(command, start_new_session=True)  # Ctrl-C reaches it through us, once
            children[:] = [child]
            changed = _wait_for_change(watched, functools.partial(_has_ended, child))
            if changed and not asked:
                say(f"{changed[0]} has changed: the worker is started again")
                _end(child)
            code = child.wait()
            if asked or (code == 0 and not changed):
                return code
            if not changed:
                say(f"the worker has ended with {code}; it is started again when a file changes")
                _wait_for_change(watched, lambda: asked)
    return 0


def _wait_for_change(watched: Watched, is_over: Callable[[], bool]) -> list[Path]:
    """What has changed; nothing if it is over before."""
    while not is_over():
        if changed := watched.changed():
            return changed
        time.sleep(LOOK_SECONDS)
    return []


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    return child.poll() is not None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Almost without a grace: the second signal skips it."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_A_MOMENT)
        return
    child.terminate()
