"""What a blocked job waits for in the end: the first job on its way that is not blocked itself."""

from __future__ import annotations

from dataclasses import dataclass

from chancy.model import JobRow, Statement
from chancy.options.phrases import counted, one_line

MOST_NEEDS = 10_000
"""Up to which needs are counted."""
DEEPEST = 1_000

WAY = """
    WITH RECURSIVE way AS (
        SELECT %(id)s::bigint AS id, 'blocked' AS state, 0 AS depth
        UNION ALL
        SELECT next.id, next.state, way.depth + 1 FROM way
        CROSS JOIN LATERAL (
            SELECT alive.id, alive.state FROM {schema}.need AS need
            CROSS JOIN LATERAL (
                SELECT job.id, job.state::text AS state FROM {schema}.job AS job WHERE job.id = need.needs LIMIT 1
            ) AS alive
            WHERE need.job = way.id
            ORDER BY need.needs LIMIT 1
        ) AS next
        WHERE way.state = 'blocked' AND way.depth < %(deepest)s::integer
    )
    SELECT last.id, last.depth, (
            SELECT count(*) FROM (
                SELECT FROM {schema}.need AS need
                WHERE need.job = %(id)s::bigint
                    AND EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = need.needs)
                LIMIT %(most)s::integer + 1
            ) AS live)
    FROM (SELECT id, depth FROM way ORDER BY depth DESC LIMIT 1) AS last
"""


@dataclass(frozen=True, slots=True)
class Way:
    """From a blocked job upwards."""

    first: int
    """The first job that is not blocked; or the last one that was looked at."""
    depth: int
    """Steps to it; 0 where nothing is live that the job needs."""
    live: int
    """Of what it needs itself."""


def way_of(job: JobRow) -> Statement[Way]:
    """Looks at a thousand jobs at most, one after the other by their ids."""
    params = {"id": job.id, "deepest": DEEPEST, "most": MOST_NEEDS}
    return Statement(WAY, params, lambda rows: Way(*rows[0]), name="way_of")


def blocked(job: JobRow, way: Way, reason: str) -> str:
    """The sentence. `reason` is that of the first in its way, if there is one."""
    subject = f"Job {job.id} ({one_line(job.task)})"
    if not way.depth:
        return (
            f"{subject} waits for nothing that is live any more: a worker's look releases it within seconds; if that "
            f"does not happen, ask `chancy doctor`."
        )
    waits = f"has returned what job {job.becomes} will come to"
    if job.becomes is None:
        some = counted(way.live, "job", MOST_NEEDS) if way.live == len(job.needs) else f"{way.live:,} of the "
        waits = f"waits for {some}" if way.live == len(job.needs) else f"waits for {some}{len(job.needs):,} jobs"
        waits += " that it needs"
    head, _, rest = reason.partition(") ")
    first = f"j{head[1:]}), which {rest}" if rest else reason
    return f"{subject} {waits}; first in its way is {first}"
