"""Submits of which some have keys: all or none, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from chancy.arguments.codec import encode_json
from chancy.model import Rows, Statement
from chancy.statements import columns_of
from chancy.wires.literals import JsonColumn, of_intervals, of_texts

if TYPE_CHECKING:
    from chancy.job import NewJob

# Keys are carried as JSON, which reaches the server whole whatever the connection's client_encoding is. A job whose key
# is held under another name of its task goes under that name, and finds it: so a rename leaves no key twice.
SUBMISSIONS = """
    WITH new AS MATERIALIZED (
        SELECT position, nextval('{schema}.job_id_seq') AS id,
            CASE WHEN others IS NULL THEN task ELSE coalesce(
                (SELECT held.task FROM {schema}.unique_window AS held
                 WHERE held.task = ANY (ARRAY(SELECT json_array_elements_text(others)))
                    AND held.key = given.key #>> '{}' AND within IS NOT NULL AND held.expires_at > {schema}.clock()
                 ORDER BY held.task LIMIT 1),
                (SELECT holder.task FROM {schema}.job AS holder
                 WHERE holder.task = ANY (ARRAY(SELECT json_array_elements_text(others)))
                    AND holder.unique_key = given.key #>> '{}'
                    AND (holder.claims = 0 OR holder.unique_until = 'finished')
                 ORDER BY holder.task LIMIT 1),
                task) END AS task,
            queue, priority, max_attempts, run_at, delay, arguments, retry, limits, gates, key #>> '{}' AS key,
            until, within, on_conflict, meta
        FROM unnest(
            %(tasks)s::text[], %(queues)s::text[], %(priorities)s::smallint[], %(max_attempts)s::smallint[],
            %(run_at)s::timestamptz[], %(delays)s::interval[],
            %(arguments)s::json[], %(retries)s::json[], %(limits)s::json[], %(gates)s::json[], %(metas)s::json[],
            %(keys)s::json[], %(untils)s::text[], %(withins)s::interval[], %(on_conflicts)s::text[], %(others)s::json[]
        ) WITH ORDINALITY AS given
            (task, queue, priority, max_attempts, run_at, delay, arguments, retry, limits, gates, meta,
             key, until, within, on_conflict, others, position)
    )
"""
"""Jobs of `of_submissions` as rows of the type `submission`."""

SUBMIT_UNIQUE = (
    SUBMISSIONS
    + """
    SELECT ids, outcomes, queues, own, instants, pg_current_xact_id_if_assigned()::text
    FROM {schema}.submit_unique(ARRAY(SELECT new::{schema}.submission FROM new))
"""
)
SUBMIT_UNIQUE_ONE = (
    SUBMISSIONS
    + """
    SELECT made.id, made.xact, made.submitted_at, made.outcome
    FROM new CROSS JOIN LATERAL {schema}.submit_unique_one(new::{schema}.submission) AS made
"""
)
"""A single one, of which no Python reads the answer: it raises."""
SUBMIT_UNIQUE_OR_NONE = SUBMIT_UNIQUE.replace("submit_unique(", "submit_unique_or_none(")
"""Undoes the whole call if one job is refused. That needs a savepoint, which costs a transaction id, so it is used only
with `on_conflict="raise"`."""


class Submission(NamedTuple):
    """What became of one job of a submit."""

    id: int
    """Of the job that has the key now."""
    outcome: str
    """A `SubmitOutcome`, or "refused"; None of one that was not looked at any more."""
    queue: str
    transaction: str | None
    """This one, if no other sees the job so yet."""
    submitted_at: datetime | None
    """In UTC; None of one that was not looked at, or of which no row is left."""


def submit_unique(jobs: Sequence[NewJob[Any]]) -> Statement[list[Submission]]:
    """Add jobs of which some have keys, all or none; one round trip. What became of each, in the order given.

    Waits for transactions that hold one of the keys and are not committed. Takes the keys in their order, and with each
    the row of a job that is replaced.
    """
    keys = [job.unique for job in jobs]
    or_none = len(jobs) > 1 and any(key is not None and key.on_conflict == "raise" for key in keys)
    return Statement(
        SUBMIT_UNIQUE_OR_NONE if or_none else SUBMIT_UNIQUE,
        of_submissions(jobs),
        _parse_submissions,
        jobs,
        name="submit_unique",
    )


def of_submissions(jobs: Sequence[NewJob[Any]]) -> dict[str, Any]:
    """The parameters of `SUBMISSIONS`."""
    keys = [job.unique for job in jobs]
    return columns_of(jobs) | {
        "keys": JsonColumn(None if key is None else encode_json(key.text) for key in keys),
        "untils": of_texts(None if key is None else key.until for key in keys),
        "withins": of_intervals(None if key is None else key.within for key in keys),
        "on_conflicts": of_texts(None if key is None else key.on_conflict for key in keys),
        "others": JsonColumn(None if key is None or not key.others else encode_json(key.others) for key in keys),
    }


def _parse_submissions(rows: Rows) -> list[Submission]:
    ids, outcomes, queues, own, instants, transaction = rows[0]
    return [
        Submission(id_, outcome, queue, transaction if mine else None, at and at.astimezone(UTC))
        for id_, outcome, queue, mine, at in zip(ids, outcomes, queues, own, instants, strict=True)
    ]
