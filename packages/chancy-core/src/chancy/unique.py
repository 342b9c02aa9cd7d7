"""What keeps a job from being there twice: what is the same job, until when, and what a second submit does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal, TypeAlias, get_args

import msgspec

from .limits import KeyFunction

Until: TypeAlias = Literal["started", "finished"]
OnConflict: TypeAlias = Literal["existing", "replace", "raise"]

SHORTEST, LONGEST = timedelta(milliseconds=1), timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Unique:
    """Of all jobs of a task with the same key, one is live at a time.

    `key=lambda order_id: order_id` takes arguments of the task by their names; a text is the key itself; None is all of
    the task's arguments. The key is held `until` its job is "finished", or only until it is "started": from its first
    claim on another one may wait. With `within` there is no second one in so much time after the submit of the first,
    either, whatever has become of that; it is at most 366 days.

    A submit that finds the key held gives the "existing" job, whose id the handle has, or "replace"s what that job was
    submitted with if it still waits, or "raise"s `DuplicateJob`. `Job.outcome` says what happened.
    """

    key: KeyFunction | str | None = None
    until: Until = "finished"
    within: timedelta | None = None
    on_conflict: OnConflict = "existing"

    def __post_init__(self) -> None:
        if not (self.key is None or callable(self.key) or isinstance(self.key, str)):
            raise ValueError(f"key is a function of the task's arguments, or a text, got {self.key!r}")
        if isinstance(self.key, str) and "\0" in self.key:
            raise ValueError(f"a key cannot have a NUL in it, got {self.key!r}")
        if self.until not in get_args(Until):
            raise ValueError(f'until is "started" or "finished", got {self.until!r}')
        if self.on_conflict not in get_args(OnConflict):
            raise ValueError(f'on_conflict is "existing", "replace" or "raise", got {self.on_conflict!r}')
        if self.within is not None and not (isinstance(self.within, timedelta) and SHORTEST <= self.within <= LONGEST):
            raise ValueError(f"within is a timedelta from a millisecond to 366 days, got {self.within!r}")


class UniqueKey(msgspec.Struct, frozen=True):
    """The same for one job: its key as a text. Plain data."""

    text: str
    until: Until
    within: timedelta | None
    on_conflict: OnConflict


class SubmitOutcome(StrEnum):
    """What a submit did."""

    INSERTED = "inserted"
    EXISTING = "existing"
    """Nothing: the handle is that of the job which has the key."""
    REPLACED = "replaced"
    """That job still waited, and has the arguments and options of this submit."""
