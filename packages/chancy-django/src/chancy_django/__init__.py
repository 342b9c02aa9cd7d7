"""Chancy in a Django project: `INSTALLED_APPS = [..., "chancy_django"]`, and as a backend of `django.tasks`

    TASKS = {"default": {"BACKEND": "chancy_django.ChancyBackend"}}

What is imported from here is loaded when it is first used: an app is imported before its settings can be read.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tasks.backend import ChancyBackend
    from .tasks.task import ChancyTask, task

_ROOMS = {"ChancyBackend": "tasks.backend", "ChancyTask": "tasks.task", "task": "tasks.task"}

__all__ = ["ChancyBackend", "ChancyTask", "task"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)
    globals()[name] = value
    return value
