"""What jobs have logged: the records of `logging` that were kept with them, by `@task(keep_logs=True)`."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from chancy.errors import InvalidOption
from chancy.model import MOST_ATTEMPTS, Rows, Statement
from chancy.options.plain import identity, number, shown
from chancy.verb import verb


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record as it is stored."""

    level: str
    logger: str
    message: str
    traceback: str = ""


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One record that a job has logged."""

    at: datetime
    """UTC, by the database's clock."""
    attempt: int
    n: int
    """Rises within an attempt, from 1; behind a claim that did not count (a snooze, a release) it is above 1,000."""
    level: str
    """Its name: "WARNING"."""
    logger: str
    message: str
    traceback: str = ""


# A batch that was sent twice, because its answer was lost, is there twice, at two instants.
SELECT_LOGS = """
    SELECT DISTINCT ON (attempt, n) at, attempt, n, convert_to(entry::text, 'UTF8')
    FROM {schema}.log
    WHERE job = %(job)s::bigint AND (attempt, n) > (%(attempt)s::smallint, %(n)s::integer)
    ORDER BY attempt, n, at
    LIMIT %(limit)s::integer
"""


def select_logs(job_id: int, after: tuple[int, int], limit: int) -> Statement[list[LogEntry]]:
    """The records of a job after that (attempt, n), oldest first."""
    return Statement(
        SELECT_LOGS,
        {"job": job_id, "attempt": after[0], "n": after[1], "limit": limit},
        _parse_entries,
        name="select_logs",
    )


def _parse_entries(rows: Rows) -> list[LogEntry]:
    read = msgspec.json.Decoder(Entry).decode
    return [
        LogEntry(
            at=at.astimezone(UTC),
            attempt=attempt,
            n=n,
            level=entry.level,
            logger=entry.logger,
            message=entry.message,
            traceback=entry.traceback,
        )
        for at, attempt, n, entry in ((at, attempt, n, read(entry)) for at, attempt, n, entry in rows)
    ]


@verb
def logs(
    job_id: int, /, *, after: tuple[int, int] | None = None, limit: int = 1000, schema: str | None = None
) -> Statement[list[LogEntry]]:
    """What a job of a task with `keep_logs` has logged, live or finished: oldest first, by attempt and `n`.

    One round trip, no lock. What a running job says is there a second later. For the next page, or for what has come
    since, give `(attempt, n)` of the last entry as `after`. Empty for a job without any, and for an unknown one.
    Raises `InvalidOption`, a `ValueError`.
    """
    return select_logs(identity("job_id", job_id), _place("after", after), number("limit", limit, 0))


def _place(option: str, after: object) -> tuple[int, int]:
    if after is None:
        return 0, 0
    if not isinstance(after, (tuple, list)) or len(after) != 2:
        raise InvalidOption(option, f"expected attempt and n of an entry, as (2, 17), got {shown(after)}")
    return number(option, after[0], 0, MOST_ATTEMPTS), number(option, after[1], 0)
