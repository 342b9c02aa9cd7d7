"""Which jobs are meant by a verb about many: what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from chancy.arguments.codec import encode_json
from chancy.errors import InvalidOption
from chancy.model import TaskName, names_of
from chancy.options.plain import identity, instant, one_of, shown, text
from chancy.states import State


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: those that fit all that is given. Raises `InvalidOption`, a `ValueError`."""

    queue: str | None = None
    task: TaskName | None = None
    """A task, with the names that it had before; or one name."""
    state: State | None = None
    error: str | None = None
    """The kind of the last error: `"TimeLimitExceeded"`, `"WorkerDied"`, the name of an exception's class."""
    fingerprint: str | None = None
    """Of the last error: all that one bug has done, as `failures` tells them apart."""
    since: datetime | None = None
    """From this instant on they finished; or if they are live, were submitted."""
    until: datetime | None = None
    """Before this instant."""
    batch: int | None = None
    """The id of the batch that they were submitted in."""

    def __post_init__(self) -> None:
        for name, plain in _PLAIN.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, plain(name, value))
        if self.task is not None:
            names_of("task", self.task)

    def refuse_all(self, verb: str) -> None:
        """Raise `InvalidOption` if every job fits."""
        if all(getattr(self, field.name) is None for field in fields(self)):
            raise InvalidOption("which", f"{verb}: say which jobs; JobFilter() fits every one, and that is never meant")

    @property
    def states(self) -> frozenset[State]:
        """Any that fits. What has succeeded after an error is not meant by that, unless it says so."""
        if self.state is not None:
            return frozenset({self.state})
        return frozenset(State) if self.error is self.fingerprint is None else frozenset(State) - {State.SUCCEEDED}

    def params(self, states: Collection[State]) -> dict[str, Any]:
        """For the functions of `90_looks.sql`, of jobs in any of these states."""
        return {
            "states": [state.value for state in State if state in states],
            "queue": self.queue,
            "tasks": None if self.task is None else names_of("task", self.task),
            "batch": self.batch,
            "kind": None if self.error is None else encode_json(self.error)[1:-1].decode(),
            "fingerprint": self.fingerprint,
            "since": self.since,
            "until": self.until,
        }


_PLAIN: dict[str, Callable[[str, object], object]] = {
    "queue": text,
    "state": lambda option, value: one_of(option, value, State),
    "error": text,
    "fingerprint": text,
    "since": instant,
    "until": instant,
    "batch": identity,
}

EVERY_JOB = JobFilter()


def filter_of(which: object) -> JobFilter:
    """The same, or `InvalidOption`."""
    if isinstance(which, JobFilter):
        return which
    raise InvalidOption("which", f"expected a JobFilter, got {shown(which)}")
