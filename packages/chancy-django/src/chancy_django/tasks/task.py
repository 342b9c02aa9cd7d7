"""A task of `django.tasks` with what Chancy has beyond Django's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from django.utils.module_loading import import_string

from chancy import Backoff, Cron, Every, Limit, SharedLimit, Unique
from chancy.options.limits import KeyFunction, PlaceWish
from chancy.options.retry import RetryFunction

from .api import Task, task_backends


@dataclass(frozen=True, slots=True, kw_only=True)
class ChancyTask(Task):
    """`@task(max_attempts=5, retry=Backoff(), limits=[Limit.time(60)])`, each as `chancy.task` has it.

    Key functions take the arguments of the task's own function by their names: `Unique(key=lambda order: order)`.
    Without `retry`, an exception is final, as with Django's own backends; a worker that dies, and a database that goes
    away, are not.
    """

    max_attempts: int | None = None
    retry: Backoff | RetryFunction | None = None
    limits: Iterable[Limit | SharedLimit] = ()
    unique: Unique | None = None
    group: KeyFunction | str | None = None
    executor: PlaceWish | None = None
    keep_logs: bool = False
    schedule: Cron | Every | None = None
    aliases: tuple[str, ...] = ()
    """Older module paths of the function: jobs that were enqueued under them are its own."""

    def using(self, **changes: Any) -> Self:
        """The same with other options for what is enqueued through it; beside Django's own, `max_attempts`, `limits`,
        `unique` and `group`. They go into the job's row, so functions are refused at the enqueue.
        """
        ours = {name: changes.pop(name) for name in (*CHANGED, "max_attempts") if name in changes}
        return replace(Task.using(self, **changes), **ours)

    def __reduce__(self) -> Any:
        """By its path: its options may be functions."""
        kept = {field.name: getattr(self, field.name) for field in fields(Task) if field.name != "func"}
        return _again, (self.module_path, kept)


def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Django's `@task`, with the options of `ChancyTask` on Django 6.0, too, whose own takes none but Django's."""
    if function is None:
        return functools.partial(task, **options)
    given: dict[str, Any] = {
        "priority": 0,
        "queue_name": "default",
        "backend": "default",
        "takes_context": False,
        "run_after": None,
    }
    given |= options
    return task_backends[given["backend"]].task_class(func=function, **given)


CHANGED = ("limits", "unique", "group")
"""What one job may have otherwise than its task, beside Django's own and `max_attempts`."""


def _again(path: str, kept: dict[str, Any]) -> Any:
    """The task of this path. Raises `ValueError`, as Django does."""
    try:
        found = import_string(path)
    except ImportError as error:
        raise ValueError(f"Expected {path!r} to point to a Task instance.") from error
    if not isinstance(found, Task):
        raise ValueError(f"Expected {path!r} to point to a Task instance.")
    return replace(found, **kept)
