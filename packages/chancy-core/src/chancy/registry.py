"""The tasks of this process, by all their names: what they declare, where a row has no more than a name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from .arguments.functions import is_same, place_of_code
from .errors import InvalidTask
from .model import Named, Options

if TYPE_CHECKING:
    from .task import BaseTask


class Known(Named, Protocol):
    """A task, as far as verbs have to know it."""

    @property
    def options(self) -> Options:
        """What it declares of each of its jobs."""


tasks: dict[str, Any] = {}
"""Filled by `@task`, aliases too. Each is a `Known`."""


def registered() -> Mapping[str, BaseTask[..., Any]]:
    """The tasks of this process by name, aliases too."""
    return MappingProxyType(tasks)


def register(made: BaseTask[..., Any]) -> None:
    """Add it, in place of the same function under these names. Raises `InvalidTask` where another has one."""
    for name in made.names:
        known = tasks.get(name)
        if known is not None and not is_same(known.function, made.function):
            raise InvalidTask(
                name,
                f"another function has this name already, {place_of_code(known.function)}: give one of them another "
                f"one, as @task(name=…)",
            )
    tasks.update(dict.fromkeys(made.names, made))
