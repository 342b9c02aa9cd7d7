"""Chancy's task of a Django task: registered under its module path when the Django task is made, so that rows, pauses,
limits and `chancy why` speak of `shop.tasks.ship`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
from django.utils import timezone

import chancy
from chancy import InvalidTask, SharedLimit, Unique
from chancy.registry import registered
from chancy.task import BaseTask
from chancy_django.database import was_lost

from .api import normalize_json
from .attempt import Attempt
from .task import CHANGED

ATTEMPTS = 3
"""Of a task that does not say: the first one, and two more after a dead worker or a lost database."""
_AFTER_A_LOSS = timedelta(seconds=1)


def final_unless_lost(attempt: int, error: BaseException) -> timedelta | None:
    """As Django has it, what has raised has failed; but a database that went away says nothing about the task."""
    return _AFTER_A_LOSS * attempt if was_lost(error) else None


def declared(task: Any, attempts: int = ATTEMPTS) -> BaseTask[..., Any]:
    """Chancy's task of it, made where there is none yet. Raises `InvalidTask` for options that do not fit."""
    known = registered().get(task.module_path)
    if known is not None and _django_task(known) is not None and _django_task(known).func is task.func:
        return known
    more: dict[str, Any] = {
        name: value
        for name in ("executor", "keep_logs", "schedule", "aliases")
        if (value := getattr(task, name, None)) is not None
    }
    made: BaseTask[..., Any] = chancy.task(
        name=task.module_path,
        queue=task.queue_name,
        priority=task.priority,
        max_attempts=getattr(task, "max_attempts", None) or attempts,
        retry=getattr(task, "retry", None) or final_unless_lost,
        limits=[_limit(task, each) for each in getattr(task, "limits", ())],
        unique=_unique(task, getattr(task, "unique", None)),
        group=_key(task, "group", getattr(task, "group", None)),
        **more,
    )(_function(task))
    return made


def bound(task: Any, args: Any, kwargs: Any, attempts: int) -> chancy.NewJob[Any]:
    """The job of a call, with what this task says otherwise than it was declared. Sends nothing."""
    base = declared(task, attempts)
    origin = _django_task(base)
    run_at = task.run_after
    if run_at is not None and timezone.is_naive(run_at):
        run_at = timezone.make_aware(run_at)
    tries = getattr(task, "max_attempts", None) or attempts  # of the backend that takes it
    wanted = {"priority": task.priority, "queue": task.queue_name, "run_at": run_at, "max_attempts": tries}
    changes: dict[str, Any] = {name: v for name, v in wanted.items() if v != getattr(base.options, name)}
    for name in CHANGED:
        value = getattr(task, name, None)
        if value is not getattr(origin, name, None):
            changes[name] = value
    made = base.using(**changes) if changes else base
    return made.bind(normalize_json(list(args)), normalize_json(kwargs), task.backend)


def django_task_of(name: str) -> Any:
    """The Django task of a job whose row says this name, also an older one; None for one that is not Django's."""
    known = registered().get(name)
    return None if known is None else _django_task(known)


def _django_task(known: BaseTask[..., Any]) -> Any:
    return getattr(known.function, "django_task", None)


def _function(task: Any) -> Callable[..., Any]:
    """What a worker calls. Its arguments are those of the call as JSON, and the alias of the backend that took it."""
    func = task.func
    run: Any = _awaited(task, func) if inspect.iscoroutinefunction(func) else _called(task, func)
    run.__module__, run.__qualname__, run.__name__ = func.__module__, func.__qualname__, func.__name__
    run.__doc__ = func.__doc__
    run.django_task = task
    return run


def _called(task: Any, func: Callable[..., Any]) -> Callable[..., Any]:
    def run(args: list[Any] = [], kwargs: dict[str, Any] = {}, backend: str = "") -> Any:  # noqa: B006
        attempt = Attempt(task, args, kwargs, backend)
        try:
            positional = attempt.begin()
            value = normalize_json(func(*positional, **kwargs))
        except BaseException as error:
            attempt.fail(error)
            raise
        attempt.end(value)
        return value

    return run


def _awaited(task: Any, func: Callable[..., Any]) -> Callable[..., Any]:
    async def run(args: list[Any] = [], kwargs: dict[str, Any] = {}, backend: str = "") -> Any:  # noqa: B006
        attempt = Attempt(task, args, kwargs, backend)
        try:
            positional = await attempt.abegin()
            value = normalize_json(await func(*positional, **kwargs))
        except BaseException as error:
            await attempt.afail(error)
            raise
        await attempt.aend(value)
        return value

    return run


# Keys: who writes a task thinks of the function's own arguments, and the row has them in `args` and `kwargs`.


def _unique(task: Any, unique: Unique | None) -> Unique | None:
    if unique is None or isinstance(unique.key, str):
        return unique
    return msgspec.structs.replace(unique, key=_key(task, "unique", unique.key or _every_argument(task)))


def _limit(task: Any, limit: Any) -> Any:
    if not isinstance(limit, SharedLimit) or not callable(limit.key):
        return limit
    return msgspec.structs.replace(limit, key=_key(task, "limits", limit.key))


def _key(task: Any, option: str, key: Any) -> Any:
    if not callable(key):
        return key
    signature = _signature(task)
    try:
        names = list(inspect.signature(key).parameters)
    except (TypeError, ValueError):
        names = ["?"]
    if unknown := [name for name in names if name not in signature.parameters]:
        known = ", ".join(signature.parameters) or "none"
        raise InvalidTask(
            task.module_path,
            f"the key function of its {option} takes {unknown[0]!r}, which is no argument of the task "
            f"(they are: {known})",
        )

    def of_call(args: list[Any], kwargs: dict[str, Any]) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        return key(**{name: call.arguments[name] for name in names})

    return of_call


def _every_argument(task: Any) -> Callable[..., Any]:
    """A key function of all of them, so that it is one job whether they are given by name or by position."""

    def every(**arguments: Any) -> Any:
        return arguments

    every.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=inspect.Parameter.empty)
         for each in _signature(task).parameters.values()]
    )  # fmt: skip
    return every


def _signature(task: Any) -> inspect.Signature:
    """Of what is given at the enqueue."""
    signature = inspect.signature(task.func)
    own = list(signature.parameters.values())[1:] if task.takes_context else list(signature.parameters.values())
    return signature.replace(parameters=own)
