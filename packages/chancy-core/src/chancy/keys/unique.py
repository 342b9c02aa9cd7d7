"""What keeps a job from being there twice: what is the same job, until when, and what a second submit does."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, get_args

import msgspec

from chancy.model import OnConflict, Until
from chancy.options.limits import KeyFunction, checked_key
from chancy.options.plain import Duration, duration, word

SHORTEST, LONGEST = timedelta(milliseconds=1), timedelta(days=366)


class Unique(msgspec.Struct, frozen=True):
    """Of all jobs of a task with the same key, one is live at a time.

    `key=lambda order_id: order_id` takes arguments of the task by their names; a text is the key itself; None is all of
    the task's arguments. The key is held `until` its job is "finished", or only until it is "started": from its first
    claim on another one may wait. With `within` there is no second one in so much time after the submit of the first,
    either, whatever has become of that; it is a `timedelta` or seconds, at most 366 days.

    A submit that finds the key held gives the "existing" job, whose id the handle has, or "replace"s what that job was
    submitted with if it still waits, or "raise"s `DuplicateJob`. `Job.outcome` says what happened.
    """

    key: KeyFunction | str | None = None
    until: Until = "finished"
    within: timedelta | None = None
    on_conflict: OnConflict = "existing"

    if TYPE_CHECKING:

        def __init__(
            self,
            key: KeyFunction | str | None = ...,
            until: Until = ...,
            within: Duration | None = ...,
            on_conflict: OnConflict = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        plain = {
            "key": checked_key("key", self.key),
            "until": word("until", self.until, get_args(Until)),
            "within": None if self.within is None else duration("within", self.within, SHORTEST, LONGEST),
            "on_conflict": word("on_conflict", self.on_conflict, get_args(OnConflict)),
        }
        for field, value in plain.items():
            msgspec.structs.force_setattr(self, field, value)


class SubmitOutcome(StrEnum):
    """What a submit did."""

    INSERTED = "inserted"
    EXISTING = "existing"
    """Nothing: the handle is that of the job which has the key."""
    REPLACED = "replaced"
    """That job still waited, and has the arguments and options of this submit."""
