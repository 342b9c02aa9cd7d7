"""Whether jobs that need others are looked after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chancy.model import Rows, Statement
from chancy.options.phrases import counted, jobs_named, one_line

from .findings import Finding, Severity, unless_any

# Nothing that they need is live, and that for a minute: each worker looks every few seconds.
STRANDED = """
    SELECT count(*), (array_agg(stranded.id ORDER BY stranded.id))[1:3] FROM (
        SELECT job.id FROM {schema}.job AS job
        WHERE job.state = 'blocked' AND job.worker IS NULL AND job.submitted_at < {schema}.clock() - interval '1 min'
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
    """Whether a blocked job waits for nothing any more. Reads the blocked jobs."""

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


MOST_NEEDS = 1_000
"""So many of the oldest that are over are looked at."""

# A day of history stays while any of its jobs is needed, however long ago its time was over (30_retention).
HELD = """
    WITH needed AS MATERIALIZED (
        SELECT need.job, need.needs FROM {schema}.need AS need
        WHERE need.doomed_at IS NULL AND NOT EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = need.needs)
        ORDER BY need.needs, need.job
        LIMIT %(most)s::integer
    ),
    held AS (
        SELECT (past.finished_at AT TIME ZONE 'UTC')::date AS day, past.id, past.task, needed.job, past.finished_at
        FROM needed
        CROSS JOIN LATERAL (
            SELECT id, task, finished_at, keep_days FROM {schema}.history AS past WHERE past.id = needed.needs LIMIT 1
        ) AS past
        WHERE (past.finished_at AT TIME ZONE 'UTC')::date + 1 <= ({schema}.clock() AT TIME ZONE 'UTC')
            - CASE past.keep_days WHEN 0 THEN (
                SELECT value::interval FROM {schema}.setting AS setting WHERE setting.name = 'keep')
                ELSE past.keep_days::double precision * interval '1 day' END
    )
    SELECT (SELECT count(DISTINCT day) FROM held), held.day::text, held.id, held.task, held.job, holder.task
    FROM held
    LEFT JOIN LATERAL (SELECT job.task FROM {schema}.job AS job WHERE job.id = held.job LIMIT 1) AS holder ON true
    ORDER BY held.finished_at, held.id, held.job
    LIMIT 1
"""


def held() -> Statement[list[Finding]]:
    """Whether days of history whose time is over stay because a job waits that needs one of theirs."""

    def parse(rows: Rows) -> list[Finding]:
        bad = []
        for days, day, id_, task, job, holder in rows:
            more = "" if days == 1 else f", and {counted(days - 1, 'day')} more for others"
            message = (
                f"the history of {day} is over and stays: job {job} ({one_line(holder or 'which is gone')}) waits, and "
                f"needs job {id_} ({one_line(task)}) of that day{more}."
            )
            remedy = (
                f"`chancy why {job}` says what it waits for; `chancy cancel {job}` gives it up, and lets the day go."
            )
            bad.append(Finding("held", Severity.WARNING, message, remedy))
        return unless_any(bad, "held", "no day of history stays because a job that waits needs it.")

    return Statement(HELD, {"most": MOST_NEEDS}, parse, name="held")
