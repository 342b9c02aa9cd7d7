"""What an address asks for: which jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from chancy.errors import InvalidOption
from chancy.states import State
from chancy_ops.matching import JobFilter
from chancy_ops.terminal.times import moment, read_instant_or_age

T = TypeVar("T")

FILTERS = ("state", "queue", "task", "error", "fingerprint", "batch", "since", "until")
"""What the fields of a filter are called in an address."""


def filter_asked(asked: Mapping[str, str], now: datetime) -> JobFilter:
    """The jobs that an address is about; an age is one before `now`. Raises `InvalidOption`."""
    since, until = window_asked(asked, now)
    return JobFilter(
        state=read(asked, "state", State), queue=asked.get("queue"), task=asked.get("task"),
        error=asked.get("error"), fingerprint=asked.get("fingerprint"), batch=read(asked, "batch", int),
        since=since, until=until,
    )  # fmt: skip


def window_asked(asked: Mapping[str, str], now: datetime) -> tuple[datetime | None, datetime | None]:
    """Its `since` and `until`; an age is one before `now`. Raises `InvalidOption`."""
    since, until = (moment(read(asked, name, read_instant_or_age), now) for name in ("since", "until"))
    return since, until


def first(found: Sequence[T], size: int) -> tuple[Sequence[T], T | None]:
    """A page of so many; and the last of them, if there are more, behind which the next page begins."""
    return found[:size], found[size - 1] if len(found) > size else None


def read(asked: Mapping[str, str], name: str, kind: Callable[[str], T]) -> T | None:
    """One of what is asked, if it is. Raises `InvalidOption`."""
    if name not in asked:
        return None
    try:
        return kind(asked[name].strip())
    except ValueError as error:
        raise InvalidOption(name, str(error)) from None
