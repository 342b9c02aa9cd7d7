"""What `doctor` asks about jobs that wait to be told something."""

from __future__ import annotations

from datetime import timedelta

from chancy.model import Rows, Statement
from chancy.options.phrases import argument, counted, moment, one_line, span

from .findings import Finding, Severity, unless_any

FORGOTTEN = timedelta(days=30)
"""Who waits for so long, and without an end, waits for somebody who does not know it."""
MISHEARD = timedelta(hours=1)
"""Who waits for so long and was told something else by then was told it by another name, perhaps."""
_MOST = 10_000

WAITS = """
    WITH waits AS MATERIALIZED (
        SELECT job.id, job.task, job.submitted_at, step.name, step.at, step.until
        FROM {schema}.step AS step
        JOIN {schema}.job AS job ON job.id = step.job AND step.at >= job.submitted_at
        WHERE step.kind = 'wait' AND job.state = 'ready' AND (step.until IS NULL OR step.until > {schema}.clock())
            AND NOT EXISTS (
                SELECT FROM {schema}.step AS word
                WHERE word.job = job.id AND word.name = step.name AND word.kind IN ('signal', 'timeout')
                    AND word.at >= job.submitted_at AND word.kept_at >= job.submitted_at)
        LIMIT %(most)s::integer + 1
    ),
    misheard AS MATERIALIZED (
        SELECT waits.id, waits.task, waits.name, waits.at, told.name AS said
        FROM waits
        JOIN {schema}.step AS told ON told.job = waits.id AND told.kind = 'signal'
            AND told.at >= waits.submitted_at AND told.kept_at >= waits.submitted_at
        WHERE waits.at < {schema}.clock() - %(misheard)s::interval
            AND NOT EXISTS (
                SELECT FROM {schema}.step AS heard
                WHERE heard.job = waits.id AND heard.name = told.name AND heard.kind IN ('sleep', 'wait'))
    )
    SELECT {schema}.clock(), 'all', count(*), NULL::bigint, NULL::text, NULL::text, NULL::timestamptz, NULL::text
    FROM waits
    UNION ALL (
        SELECT {schema}.clock(), 'forgotten', count(*) OVER (), id, task, name, at, NULL FROM waits
        WHERE until IS NULL AND at < {schema}.clock() - %(forgotten)s::interval
        ORDER BY at, id LIMIT 1
    )
    UNION ALL (
        SELECT {schema}.clock(), 'misheard', count(*) OVER (), id, task, name, at, said FROM misheard
        ORDER BY at, id LIMIT 1
    )
"""


def waits() -> Statement[list[Finding]]:
    """Whether somebody may have forgotten a job, or told it something by a wrong name. Looks at 10,000 that wait."""

    def parse(rows: Rows) -> list[Finding]:
        bad, all_ = [], 0
        for now, kind, number, id_, task, name, at, said in rows:
            if kind == "all":
                all_ = number
                continue
            what = f"job {id_} ({one_line(task)}) has waited for the signal '{one_line(name)}' since {moment(at)}"
            tell = f"`chancy signal {id_} {argument(name)}` tells it"
            more = f"; {number - 1:,} more" if number > 1 else ""
            if kind == "forgotten":
                message = f"{what} ({span(now - at)} ago), without an end{more}."
                remedy = f"{tell}, `chancy cancel {id_}` gives it up; a wait with timeout= ends by itself."
            else:
                message = f"{what}, and was told '{one_line(said)}', which it has not come to{more}."
                remedy = f"If that was meant, {tell}."
            bad.append(Finding("waits", Severity.WARNING, message, remedy))
        verb = "waits" if all_ == 1 else "wait"
        well = f"{counted(all_, 'job', _MOST)} {verb} to be told something, nobody for too long."
        return unless_any(bad, "waits", well)

    params = {"most": _MOST, "forgotten": FORGOTTEN, "misheard": MISHEARD}
    return Statement(WAITS, params, parse, name="waits")
