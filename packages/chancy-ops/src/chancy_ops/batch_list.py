"""Which batches there are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from chancy.model import Rows, Statement
from chancy.options.plain import LARGEST_ID, number
from chancy.verb import verb

BATCHES = """
    SELECT id, total, created_at, finished_at, on_success->>'task', on_finished->>'task', note
    FROM {schema}.batch
    WHERE %(before)s::bigint IS NULL OR id < %(before)s::bigint
    ORDER BY id DESC
    LIMIT %(limit)s::integer
"""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One batch. Instants are UTC."""

    id: int
    total: int
    """Jobs."""
    created_at: datetime
    """When it was made."""
    finished_at: datetime | None
    on_success: str | None
    """The task that is submitted when all have succeeded."""
    on_finished: str | None
    """The task that is submitted when all have ended."""
    note: str | None
    """Why one of these could not be submitted."""


@verb
def batches(*, before: int | None = None, limit: int = 100, schema: str | None = None) -> Statement[list[BatchRow]]:
    """The batches, newest first. One round trip, which reads no jobs: `chancy.batch_progress` says how far one is.

    For the next page give the last id as `before`. Raises `InvalidOption`.
    """
    params = {
        "before": None if before is None else number("before", before, 0, LARGEST_ID),
        "limit": number("limit", limit, 0),
    }
    return Statement(BATCHES, params, _parse_batches, name="batches")


def _parse_batches(rows: Rows) -> list[BatchRow]:
    return [
        BatchRow(id_, total, created_at.astimezone(UTC), ended and ended.astimezone(UTC), *rest)
        for id_, total, created_at, ended, *rest in rows
    ]
