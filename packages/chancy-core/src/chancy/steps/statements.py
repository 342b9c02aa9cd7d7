"""What attempts say to the database about their steps, and what others ask."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from chancy.model import Rows, Statement
from chancy.wires.literals import in_seconds, readable_or_null

from .values import MOST_STEPS, StepKind, StepRow

LARGE_BYTES = 16 * 1024
"""A result above that is fetched when its step is asked for."""

KNOWN_STEPS = """
    SELECT step.name, CASE WHEN pg_column_size(step.result) <= %(large)s::integer
        THEN convert_to(step.result::text, 'UTF8') END
    FROM {schema}.job AS job
    JOIN {schema}.step AS step
        ON step.job = job.id AND step.at >= job.submitted_at AND step.kept_at >= job.submitted_at
    WHERE job.id = %(job)s::bigint AND step.kind = 'step'
    ORDER BY step.at
    LIMIT %(most)s::integer
"""


def known_steps(job_id: int) -> Statement[dict[str, bytes | None]]:
    """The steps that earlier attempts have done, with their results, but for large ones."""
    params = {"job": job_id, "large": LARGE_BYTES, "most": MOST_STEPS}
    return Statement(KNOWN_STEPS, params, lambda rows: dict(reversed(rows)), name="known_steps")


KNOWN_STEP = """
    SELECT convert_to(step.result::text, 'UTF8')
    FROM {schema}.job AS job
    JOIN {schema}.step AS step
        ON step.job = job.id AND step.at >= job.submitted_at AND step.kept_at >= job.submitted_at
    WHERE job.id = %(job)s::bigint AND step.kind = 'step' AND step.name = %(name)s::text
    ORDER BY step.at
    LIMIT 1
"""


def known_step(job_id: int, name: str) -> Statement[bytes | None]:
    """The result of one step, of whatever size; None if it is not there any more."""
    params = {"job": job_id, "name": name}
    return Statement(KNOWN_STEP, params, lambda rows: rows[0][0] if rows else None, name="known_step")


# FOR KEY SHARE: whoever claims jobs, or takes them back from the dead, passes the row by until this transaction ends,
# so that no other attempt can begin while a step of this one may still be committed. A cancel is not kept waiting.
KEEP_STEP = """
    WITH mine AS MATERIALIZED (
        SELECT job.id, job.attempt, greatest({schema}.clock(), job.submitted_at) AS at FROM {schema}.job AS job
        WHERE job.id = %(job)s::bigint AND job.claims = %(fence)s::integer AND job.worker = %(lease)s::bigint
        FOR KEY SHARE
    )
    INSERT INTO {schema}.step (job, name, kind, at, attempt, result, kept_at)
    SELECT id, %(name)s::text, 'step', at, attempt, %(result)s::json, at FROM mine
    RETURNING true
"""


def keep_step(job_id: int, fence: int, lease: int, name: str, result: bytes) -> Statement[bool]:
    """Keep that this step is done, as a part of the caller's transaction; whether the job is still this claim's."""
    params = {"job": job_id, "fence": fence, "lease": lease, "name": name, "result": msgspec.Raw(result)}
    return Statement(KEEP_STEP, params, bool, name="keep_step")


REST = """
    SELECT fate, convert_to(value::text, 'UTF8'), until, extract(epoch FROM until - {schema}.clock())::float8
    FROM {schema}.rest(%(job)s::bigint, %(fence)s::integer, %(lease)s::bigint, %(name)s::text, %(kind)s::text,
        %(delay)s::interval)
"""


class Rest(msgspec.Struct, frozen=True):
    """What an attempt has to do at a sleep or a wait."""

    fate: str
    """'lost', 'signal', 'over', or 'rest': see `rest` in 75_steps."""
    value: bytes | None
    until: datetime | None
    seconds: float | None
    """That are left."""


def rest(job_id: int, fence: int, lease: int, name: str, kind: StepKind, delay: timedelta | None) -> Statement[Rest]:
    """Begin a sleep or a wait, or see how it is. Holds the job's row until the transaction ends."""
    params = {
        "job": job_id,
        "fence": fence,
        "lease": lease,
        "name": name,
        "kind": kind.value,
        "delay": None if delay is None else in_seconds(delay),
    }
    return Statement(REST, params, _parse_rest, name="rest")


def _parse_rest(rows: Rows) -> Rest:
    fate, value, until, seconds = rows[0]
    return Rest(fate, value, until and until.astimezone(UTC), seconds)


SIGNAL = "SELECT {schema}.signal(%(job)s::bigint, %(name)s::text, %(value)s::json)"


def tell(job_id: int, name: str, value: bytes) -> Statement[bool]:
    """Tell a job something; whether it is the first word of this name, of a live job, and comes in time."""
    params = {"job": job_id, "name": name, "value": msgspec.Raw(value)}
    return Statement(SIGNAL, params, lambda rows: bool(rows[0][0]), name="signal")


SELECT_STEPS = (
    """
    SELECT step.name, step.kind, step.at, step.attempt, """
    + readable_or_null("step.until")
    + """, convert_to(step.result::text, 'UTF8')
    FROM {schema}.any_job AS job
    JOIN {schema}.step AS step
        ON step.job = job.id AND step.at >= job.submitted_at AND step.kept_at >= job.submitted_at
    WHERE job.id = %(job)s::bigint
    ORDER BY step.at, step.kind <> 'signal', step.name
    LIMIT %(limit)s::integer
"""
)


def select_steps(job_id: int, limit: int) -> Statement[list[StepRow]]:
    """What is kept of the steps of a job, oldest first."""
    return Statement(SELECT_STEPS, {"job": job_id, "limit": limit}, _parse_steps, name="select_steps")


def _parse_steps(rows: Rows) -> list[StepRow]:
    return [
        StepRow(
            name=name,
            kind=StepKind(kind),
            at=at.astimezone(UTC),
            attempt=attempt,
            until=until and until.astimezone(UTC),
            result=result,
        )
        for name, kind, at, attempt, until, result in rows
    ]


FORGET_STEPS = """
    WITH mine AS MATERIALIZED (
        SELECT job.id, job.state FROM {schema}.job AS job WHERE job.id = %(job)s::bigint FOR NO KEY UPDATE
    ),
    forgotten AS (
        DELETE FROM {schema}.step
        WHERE job = %(job)s::bigint AND (%(names)s::text[] IS NULL OR name = ANY (%(names)s::text[]))
            AND NOT EXISTS (SELECT FROM mine WHERE state = 'running')
        RETURNING name
    )
    SELECT (SELECT count(DISTINCT name) FROM forgotten), EXISTS (SELECT FROM mine WHERE state = 'running'),
        EXISTS (SELECT FROM {schema}.any_job WHERE id = %(job)s::bigint)
"""


class Forgotten(msgspec.Struct, frozen=True):
    """How many steps were forgotten, and where the job was."""

    count: int
    runs: bool
    exists: bool


def forget_steps(job_id: int, names: Sequence[str] | None) -> Statement[Forgotten]:
    """Forget these steps of a job that does not run, or all of them."""
    params = {"job": job_id, "names": None if names is None else list(names)}
    return Statement(FORGET_STEPS, params, lambda rows: Forgotten(*rows[0]), name="forget_steps")
