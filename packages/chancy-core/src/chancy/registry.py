"""The tasks of this process, by all their names: what they declare, where a row has no more than a name."""

from __future__ import annotations

from typing import Any, Protocol

from .model import Named, Options


class Known(Named, Protocol):
    """A task, as far as verbs have to know it."""

    @property
    def options(self) -> Options:
        """What it declares of each of its jobs."""


tasks: dict[str, Any] = {}
"""Filled by `@task`, aliases too. Each is a `Known`."""


def known() -> dict[str, Known]:
    """As they are now, by all their names."""
    return dict(tasks)
