"""A Django project as a worker sees it: its tasks, its database as a connection string, and around each function what
Django does around a request.

An async function gets a `ThreadSensitiveContext`, as a request of ASGI does: what it asks of the ORM goes to a thread
of its own. Without that all async jobs of a worker would share one thread, and one connection.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.apps import apps
from django.conf import settings as django_settings

import chancy
from chancy import AsyncTask, Chancy, Queue
from chancy.registry import registered, tasks

from .database import cared_for, close_all, dsn_of
from .settings import Settings, resolved, settings_in_use

CHILD = "chancy_django.child"
"""The module that a child process imports in place of those of the tasks: Django has to be set up before them."""


def modules_of_tasks() -> list[str]:
    """The modules in which a worker looks for tasks, of those that there are."""
    return list(_modules(settings_in_use()))


def _modules(settings: Settings) -> Iterator[str]:
    for name in settings.task_modules:
        if "." in name:
            yield name
        else:
            found = (f"{app.name}.{name}" for app in apps.get_app_configs())
            yield from (module for module in found if find_spec(module) is not None)


def strangers() -> list[tuple[str, str]]:
    """Tasks of this process, and their modules, that no worker is seen to import: neither with the models, nor as or by
    one of the modules in which it looks for tasks.
    """
    reached = {
        *modules_of_tasks(),
        *(app.models_module.__name__ for app in apps.get_app_configs() if app.models_module),
    }
    there = [sys.modules[name] for name in reached if name in sys.modules]
    brought = {getattr(value, "__module__", None) for module in there for value in vars(module).values()}
    return [
        (name, module)
        for name, task in sorted(registered().items())
        if not {module := task.function.__module__, module.rpartition(".")[0]} & (reached | brought)
        and module.partition(".")[0] not in ("chancy_django", "__main__")
    ]


def prepare() -> None:
    """Import all tasks, and take care of Django's connections around each of them, in this process."""
    for module in modules_of_tasks():
        importlib.import_module(module)
    for task in {id(each): each for each in registered().values()}.values():
        if task.function.__module__ != CHILD:
            function = _awaited(task.function) if isinstance(task, AsyncTask) else _called(task.function)
            function.__module__ = CHILD
            tasks.update(dict.fromkeys(task.names, replace(task, function=function)))


def _called(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with cared_for():
            return function(*args, **kwargs)

    return called


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        async with ThreadSensitiveContext() as context:
            try:
                return await function(*args, **kwargs)
            finally:
                if context in SyncToAsync.context_to_thread_executor:  # it has a thread, and so perhaps a connection
                    await sync_to_async(close_all)()

    return awaited


def app_of_project() -> Chancy:
    """What a worker of the project does. Without settings about that, it works every queue that is named somewhere."""
    settings = settings_in_use()
    more: dict[str, Any] = {} if settings.surround is None else {"surround": surround}
    return Chancy(
        dsn_of(settings.database),
        queues=settings.queues or [Queue(name) for name in sorted(queues_named())],
        schema=settings.schema,
        lifespan=resolved(settings.lifespan),
        middleware=[resolved(each) for each in settings.middleware],
        keep=settings.keep,
        preload=settings.preload,
        tally=settings.tally,
        **more,
    )


def surround(current: chancy.CurrentJob) -> Any:
    """What the project has around each function. Child processes import it from the same module as the tasks, and the
    project's own function only when Django has been set up.
    """
    return resolved(settings_in_use().surround)(current)


surround.__module__ = CHILD


def queues_named() -> set[str]:
    """By the tasks of this process, and by `TASKS` for what is enqueued through it."""
    backends = getattr(django_settings, "TASKS", {}).values()
    given = (name for backend in backends for name in backend.get("QUEUES", ()))
    return {"default", *(task.options.queue for task in registered().values()), *given}
