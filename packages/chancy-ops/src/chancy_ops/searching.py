"""A list of jobs for a person: what fits on a line, and nothing large."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chancy.carried.secrets import hidden
from chancy.model import Found, JobRow, Progress, Rows, Statement
from chancy.options.plain import LARGEST_ID, number, text
from chancy.states import State
from chancy.verb import verb
from chancy.verbs import FIND_JOBS, INSTANTS, LOOK_SECONDS, parse_found, parse_progress, select_jobs

from .fingerprints import said_in_json
from .matching import EVERY_JOB, JobFilter, filter_of
from .redaction import secrets_of

_DECLARED = """
    LEFT JOIN (SELECT name AS declared_name, secrets FROM {schema}.task) AS declared ON declared_name = job.task
    """
# Of what is large nothing is read; of what has secrets all, since they are found in what is whole.
_LINE = """
    SELECT looked_to, looked_back_to, id, task, queue, state::text, priority, attempt, max_attempts, crashes, worker,
        batch, {instants}, convert_to(left(unique_key, 200), 'UTF8'), convert_to(progress::text, 'UTF8'),
        CASE WHEN secrets IS NULL AND pg_column_size(arguments) <= 100000
                THEN convert_to(left(arguments::text, 500), 'UTF8')
            WHEN pg_column_size(arguments) <= 4000 THEN convert_to(arguments::text, 'UTF8') END,
        convert_to({schema}.of_last_error(errors, 'kind'), 'UTF8'),
        convert_to(left({schema}.of_last_error(errors, 'message'), 400), 'UTF8'),
        {schema}.of_last_error(errors, 'fingerprint'), convert_to(secrets::text, 'UTF8')
    FROM """.replace("{instants}", INSTANTS)
SEARCH = _LINE + FIND_JOBS.replace("ORDER BY nth", _DECLARED + "ORDER BY nth")
THESE = (
    _LINE
    + """
    (SELECT id AS found_id, nth, NULL::bigint AS looked_to, NULL::timestamptz AS looked_back_to
        FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS each (id, nth)) AS found
    CROSS JOIN LATERAL (SELECT * FROM {schema}.any_job AS any_job WHERE any_job.id = found_id OFFSET 0) AS job
    """
    + _DECLARED
    + "ORDER BY nth"
)


@dataclass(frozen=True, slots=True)
class JobLine:
    """One job, as far as it fits on a line. Instants are UTC."""

    id: int
    task: str
    queue: str
    state: State
    priority: int
    attempt: int
    max_attempts: int
    crashes: int
    worker: int | None
    batch: int | None
    submitted_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_at: datetime | None
    """When the end of the running attempt was asked for."""
    unique_key: str | None
    """The first 200 characters."""
    progress: Progress | None
    arguments: str | None
    """The first 500 characters of the JSON, secrets hidden; None of what is larger than 100 kB, or of a task with
    secrets larger than 4 kB."""
    error: str
    """The kind of its last error; empty if it had none."""
    message: str
    """What that said, at most 400 characters."""
    fingerprint: str


@verb
def search(
    which: JobFilter = EVERY_JOB,
    /,
    *,
    words: str | None = None,
    limit: int = 100,
    before: int | None = None,
    schema: str | None = None,
) -> Statement[Found[JobLine]]:
    """The jobs that fit, in the order of `chancy.jobs`, a line each; with `words`, those that have this text in the
    JSON of their arguments or errors, exactly as it stands there. Jobs of tasks with secrets have no words.

    One round trip, which ends after half a second: the list's `looked_back_to` says how far it came, and its
    `looked_to`, given as `before`, goes on from there. For the next page give the last line's id. Raises
    `InvalidOption`, a `ValueError`.
    """
    asked = filter_of(which)
    return lines_in(
        asked,
        asked.states,
        number("limit", limit, 0),
        words=None if words is None else text("words", words),
        before=None if before is None else number("before", before, 0, LARGEST_ID),
    )


def these_lines(ids: Sequence[int]) -> Statement[Found[JobLine]]:
    """The jobs with these ids, a line each, in this order; those that are not there are missing."""
    return Statement(THESE, {"ids": list(ids)}, parse_found(_parse_line), name="lines")


def lines_in(
    which: JobFilter, states: Collection[State], limit: int, *, words: str | None = None, before: int | None = None
) -> Statement[Found[JobLine]]:
    """Those that fit and are in one of these states, a line each."""
    params = which.params(states) | {"words": words, "limit": limit, "before": before, "seconds": LOOK_SECONDS}
    parse = parse_found(_parse_line)

    def parse_lines(rows: Rows) -> Found[JobLine]:
        found = parse(rows)
        if words is not None:  # that no worker has written down yet
            found[:] = [line for line in found if not secrets_of(line.task, None)]
        return found

    return Statement(SEARCH, params, parse_lines, name="search")


def whole_jobs(which: JobFilter, limit: int, *, words: str | None, before: int | None) -> Statement[Found[JobRow]]:
    """The same with all that the jobs have, however large, secrets too."""
    return select_jobs(limit, **which.params(which.states), words=words, before=before)


def _parse_line(row: tuple[Any, ...]) -> JobLine:
    id_, task, queue, state, priority, attempt, max_attempts, crashes, worker, batch, *instants = row[:15]
    unique_key, progress, arguments, kind, message, fingerprint, declared = row[15:]
    if arguments is not None:
        arguments = hidden(arguments, secrets_of(task, declared).arguments).decode("utf-8", "replace")[:500]
    submitted_at, run_at, started_at, finished_at, cancel_at = (at and at.astimezone(UTC) for at in instants)
    return JobLine(
        id_, task, queue, State(state), priority, attempt, max_attempts, crashes, worker, batch,
        submitted_at, run_at, started_at, finished_at, cancel_at,
        None if unique_key is None else unique_key.decode(), parse_progress(progress),
        arguments, said_in_json(kind), said_in_json(message), fingerprint or "",
    )  # fmt: skip
