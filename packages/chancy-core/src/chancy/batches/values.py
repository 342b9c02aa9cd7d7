"""How the jobs of a batch have ended, or where they are: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from chancy.job import NewJob


class BatchCounts(msgspec.Struct, frozen=True):
    """How the jobs of a batch have ended: what its callbacks are told.

    The rest of the `total` is no longer there: deleted, or past the retention.
    """

    batch: int
    """Its id."""
    total: int = 0
    succeeded: int = 0
    failed: int = 0
    discarded: int = 0
    cancelled: int = 0


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a batch are where. The instant is UTC, by the database's clock."""

    total: int
    """How many were submitted in it."""
    waiting: int
    """Ready, scheduled or blocked."""
    running: int
    succeeded: int
    failed: int
    discarded: int
    cancelled: int
    finished_at: datetime | None
    """When its callbacks were submitted, or would have been; None while a job is live, and for a moment after."""


# No Struct: `inspect.signature` of one looks its types up, and these come from a room that imports this one.
@dataclass(frozen=True, slots=True)
class Callback:
    """A task for the end of a batch, with all its arguments but the first one."""

    job: NewJob[Any]
    """As it would be if it were told counts of 0."""
