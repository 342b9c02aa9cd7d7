"""Whether jobs that need others are looked after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chancy.model import Statement
from chancy.options.phrases import counted, jobs_named

from .findings import Finding, Severity, unless_any

# Nothing that they need is live, and that for a minute: each worker looks every few seconds.
STRANDED = """
    SELECT count(*), (array_agg(stranded.id ORDER BY stranded.id))[1:3] FROM (
        SELECT job.id FROM {schema}.job AS job
        WHERE job.state = 'blocked' AND job.submitted_at < {schema}.clock() - interval '1 min'
            AND NOT EXISTS (
                SELECT FROM {schema}.need AS need
                CROSS JOIN LATERAL (SELECT FROM {schema}.job AS alive WHERE alive.id = need.needs LIMIT 1) AS live
                WHERE need.job = job.id)
            AND NOT EXISTS (
                SELECT FROM {schema}.need AS need
                CROSS JOIN LATERAL (
                    SELECT FROM {schema}.history AS past
                    WHERE past.id = need.needs AND past.finished_at > {schema}.clock() - interval '1 min' LIMIT 1
                ) AS lately
                WHERE need.job = job.id)
        LIMIT 1000
    ) AS stranded
"""


def needs() -> Statement[list[Finding]]:
    """Whether a blocked job waits for nothing any more. Reads the live jobs."""

    def parse(rows: Sequence[Sequence[Any]]) -> list[Finding]:
        count, some = rows[0]
        bad = []
        if count:
            waits = "waits" if count == 1 else "wait"
            what = f"{counted(count, 'blocked job', 999)} {waits} for nothing that is live: {jobs_named(some, count)}."
            remedy = "Workers look after such jobs every few seconds: see whether any runs, and its log for `flows`."
            bad.append(Finding("needs", Severity.ERROR, what, remedy))
        return unless_any(bad, "needs", "no job is blocked by what is over.")

    return Statement(STRANDED, {}, parse, name="stranded")
