"""`CHANCY = {…}` in the project's settings: where the jobs are, and what a worker of the project does."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, TypeAlias

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

import chancy
from chancy import Queue
from chancy.schema import checked

Reference: TypeAlias = str | Any
"""Something by itself, or the path under which it is imported when a worker starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What may stand there; in the project's settings the names are in capitals."""

    database: str = "default"
    """The alias of the database in which the jobs are."""
    schema: str = "chancy"
    """The schema of Postgres there."""
    queues: tuple[Queue, ...] = ()
    """What a worker works when it is not told by `--queue`: names, `Queue`s, or a dict of names and how many at a time.
    Empty is every queue that a task names."""
    task_modules: tuple[str, ...] = ("tasks",)
    """Where a worker finds tasks: a plain name is looked for in each app, a dotted one is a module."""
    lifespan: Reference | None = None
    """See `chancy.Chancy`, also for the rest."""
    middleware: tuple[Reference, ...] = ()
    surround: Reference | None = None
    keep: timedelta | None = None
    preload: tuple[str, ...] = ()
    tally: bool = True


def resolved(reference: Reference) -> Any:
    """What a path means."""
    return import_string(reference) if isinstance(reference, str) else reference


@functools.cache
def settings_in_use() -> Settings:
    """What the project says. Raises `ImproperlyConfigured` for what it may not say."""
    given = getattr(settings, "CHANCY", {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"CHANCY: expected a dict, got {given!r}")
    plain = {str(name): value for name, value in given.items()}
    known = {field.name.upper(): field.name for field in fields(Settings)}
    if unknown := sorted(plain.keys() - known.keys()):
        raise ImproperlyConfigured(f"CHANCY: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    plain = {known[name]: value for name, value in plain.items()}
    try:
        if "queues" in plain:
            plain["queues"] = _queues(plain["queues"])
        for name in ("task_modules", "middleware", "preload"):
            if name in plain:
                plain[name] = _several(name, plain[name])
        checked(plain.get("schema", "chancy"))
    except chancy.ChancyError as error:
        raise ImproperlyConfigured(f"CHANCY: {error}") from None
    return Settings(**plain)


def _queues(given: object) -> tuple[Queue, ...]:
    if isinstance(given, Mapping):
        return tuple(Queue(name, concurrency) for name, concurrency in given.items())
    return tuple(each if isinstance(each, Queue) else Queue(each) for each in _several("queues", given))


def _several(name: str, given: object) -> tuple[Any, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ImproperlyConfigured(f"CHANCY: {name.upper()} is a list, got {given!r}")
    return tuple(given)


def forget(*, setting: str, **_: Any) -> None:
    """Of Django's signal `setting_changed`: a test has other settings."""
    if setting == "CHANCY":
        settings_in_use.cache_clear()
        chancy.configure(schema=settings_in_use().schema)
