"""What a job may use. A limit that an executor cannot enforce is refused, never ignored."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, TypeAlias

import msgspec


class LimitType(StrEnum):
    """What is limited."""

    TIME = "time"
    MEMORY = "memory"


_Types: TypeAlias = type[LimitType]  # inside `Limit`, `type` is a field


class Limit(msgspec.Struct, frozen=True):
    """One limit of a job: seconds of wall time, or bytes of memory."""

    type: LimitType
    value: float

    Type: ClassVar[_Types] = LimitType

    def __post_init__(self) -> None:
        if not 0 < self.value < float("inf"):
            raise ValueError(f"a {self.type} limit must be positive and finite, got {self.value}")

    @staticmethod
    def time(limit: float | timedelta) -> Limit:
        """Wall time of one attempt, in seconds."""
        return Limit(LimitType.TIME, limit.total_seconds() if isinstance(limit, timedelta) else limit)

    @staticmethod
    def memory(limit: int) -> Limit:
        """Memory of one attempt, in bytes."""
        return Limit(LimitType.MEMORY, limit)
