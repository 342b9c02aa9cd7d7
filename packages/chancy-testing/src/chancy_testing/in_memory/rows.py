"""A job and a batch as they are remembered: what the row of a job shows, and the columns that nobody is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from chancy.job import NewJob
from chancy.model import JobRow, UniqueKey
from chancy.states import FINISHED, State


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A job, live or finished."""

    row: JobRow
    transaction: str
    fence: int = 0
    retry: bytes | None = None
    limits: bytes | None = None
    gates: bytes | None = None
    unique: UniqueKey | None = None
    errors: bytes | None = None
    meta: bytes | None = None
    by_a_look: bool = False
    """It was ended because of what it needs, and not by somebody."""
    delays: tuple[timedelta, ...] = ()
    """After which delay each retry was due; all of them were made at once."""

    @property
    def holds_key(self) -> bool:
        """Whether nobody else may have its key."""
        key = self.unique
        return key is not None and self.row.state not in FINISHED and (not self.fence or key.until == "finished")

    def with_row(self, **changes: Any) -> Kept:
        """The same with other values in its row."""
        return msgspec.structs.replace(self, row=msgspec.structs.replace(self.row, **changes))


class KeptStep(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a step, as its row has it."""

    name: str
    kind: str
    at: datetime
    attempt: int
    until: datetime | None = None
    result: bytes | None = None

    def ending(self, at: datetime) -> KeptStep:
        """The same, with an end that is not later than this."""
        return self if self.until is None else msgspec.structs.replace(self, until=min(self.until, at))


class KeptBatch(msgspec.Struct, frozen=True):
    """A batch, its callbacks untold."""

    members: tuple[int, ...]
    on_success: NewJob[Any] | None
    on_finished: NewJob[Any] | None
    finished_at: datetime | None = None


def now() -> datetime:
    """By this process's clock: there is no other."""
    return datetime.now(UTC)


def state_of(row: JobRow) -> State:
    """As others see it: `scheduled` is not stored."""
    return State.SCHEDULED if row.state is State.READY and row.run_at > now() else row.state
