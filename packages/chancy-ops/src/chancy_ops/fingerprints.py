"""What goes wrong: failed and discarded jobs, those of one bug in one line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from chancy.model import Found, Rows, Statement, TaskName, names_of
from chancy.options.plain import instant, number, text
from chancy.verb import verb

MOST_LOOKED_AT = 20_000
"""Failures, of which only an index is read."""

FAILURES = """
    SELECT fingerprint, convert_to(error_kind, 'UTF8'), jobs, first_at, last_at, names, job,
        convert_to(message, 'UTF8'), looked_back_to
    FROM {schema}.look_at_failures(
        %(since)s::timestamptz, %(until)s::timestamptz, %(queue)s::text, %(tasks)s::text[], %(limit)s::integer,
        %(most)s::integer)
"""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Jobs that have failed, or were discarded, for the same reason. Instants are UTC."""

    fingerprint: str
    """For `JobFilter`; empty for those that have none."""
    kind: str
    """The name of the exception's class."""
    count: int
    first_at: datetime
    last_at: datetime
    tasks: tuple[str, ...]
    job: int
    """The newest of them."""
    message: str
    """What its last error said, at most 2,000 characters."""


@verb
def failures(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    queue: str | None = None,
    task: TaskName | None = None,
    limit: int = 100,
    schema: str | None = None,
) -> Statement[Found[FailureRow]]:
    """Failed and discarded jobs by what went wrong, the most frequent first. One round trip.

    Looks at the newest 20,000 that fit; of a task or a queue, at those among the newest 100,000 of all, if any fits.
    The list's `looked_back_to` says how far that was, if there may be more. `since` and `until` are about when they
    finished. `limit` is of the groups. Raises `InvalidOption`, a `ValueError`.
    """
    params = {
        "since": None if since is None else instant("since", since),
        "until": None if until is None else instant("until", until),
        "queue": None if queue is None else text("queue", queue),
        "tasks": None if task is None else names_of("task", task),
        "limit": number("limit", limit, 0),
        "most": MOST_LOOKED_AT,
    }
    return Statement(FAILURES, params, _parse_failures, name="failures")


def _parse_failures(rows: Rows) -> Found[FailureRow]:
    found = [
        FailureRow(
            fingerprint or "", said_in_json(kind), count, first_at.astimezone(UTC), last_at.astimezone(UTC),
            tuple(tasks), job, said_in_json(message),
        )
        for fingerprint, kind, count, first_at, last_at, tasks, job, message, _ in rows
    ]  # fmt: skip
    looked_back_to = rows[0][-1] if rows else None
    return Found(found, looked_back_to=looked_back_to and looked_back_to.astimezone(UTC))


_CUT = re.compile(rb"\\(u[0-9a-fA-F]{0,3})?\Z")


def said_in_json(escaped: bytes | None) -> str:
    """A text as it stands in JSON between its quotes, perhaps cut short."""
    whole = _CUT.sub(b"", (escaped or b"").replace(b"\\\\", b"\\u005c"))
    try:
        return str(json.loads(b'"' + whole + b'"', strict=False))
    except ValueError:  # of somebody else
        return whole.decode("utf-8", "replace")
