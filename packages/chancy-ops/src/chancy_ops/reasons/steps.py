"""For what a job sleeps or waits, as it has said in a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chancy.model import Rows, Statement
from chancy.steps.values import StepKind
from chancy.wires.literals import readable_or_null

# What nobody has told it yet, and what is not over; the last that it has come to first.
OPEN_RESTS = (
    """
    SELECT step.name, step.kind, step.at, """
    + readable_or_null("step.until")
    + """, ARRAY(
            SELECT told.name FROM {schema}.step AS told
            WHERE told.job = job.id AND told.kind = 'signal' AND told.at >= job.submitted_at AND NOT EXISTS (
                SELECT FROM {schema}.step AS heard
                WHERE heard.job = job.id AND heard.name = told.name AND heard.kind IN ('sleep', 'wait'))
            ORDER BY told.at
        )
    FROM {schema}.job AS job
    JOIN {schema}.step AS step
        ON step.job = job.id AND step.at >= job.submitted_at AND step.kept_at >= job.submitted_at
    WHERE job.id = %(job)s::bigint AND step.kind IN ('sleep', 'wait')
        AND (step.until IS NULL OR step.until > {schema}.clock())
        AND NOT EXISTS (
            SELECT FROM {schema}.step AS word
            WHERE word.job = job.id AND word.name = step.name AND word.kind IN ('signal', 'timeout')
                AND word.at >= job.submitted_at)
    ORDER BY step.at DESC, step.name
"""
)


@dataclass(frozen=True, slots=True)
class OpenRest:
    """What a job sleeps or waits for."""

    name: str
    kind: StepKind
    since: datetime
    until: datetime | None
    unheard: Sequence[str]
    """By which other names it was told something that it has not come to."""


def open_rests(job_id: int) -> Statement[list[OpenRest]]:
    """For what a live job sleeps or waits, the last first."""
    return Statement(OPEN_RESTS, {"job": job_id}, _parse_rests, name="open_rests")


def _parse_rests(rows: Rows) -> list[OpenRest]:
    return [
        OpenRest(name, StepKind(kind), at.astimezone(UTC), until and until.astimezone(UTC), unheard)
        for name, kind, at, until, unheard in rows
    ]
