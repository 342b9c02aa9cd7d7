"""`manage.py chancy_worker --reload`: as `chancy-worker --reload`, with the files of the project.

What is watched are the files of the project's apps and of all that is imported here, as by `runserver`.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from django.apps import apps
from django.utils.autoreload import StatReloader

from .project import modules_of_tasks


def look_at_project() -> Callable[[], Mapping[Path, object]]:
    """What looks at the files. What imports them finds them: a module of tasks that cannot be imported is the worker's
    to tell.
    """
    for module in modules_of_tasks():
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    reloader = StatReloader()
    for app in apps.get_app_configs():
        if "site-packages" not in Path(app.path).parts:
            reloader.watch_dir(app.path, "**/*.py")
    return lambda: dict(reloader.snapshot_files())
