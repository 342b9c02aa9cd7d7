"""What there is around a job that waits or runs: who would take it, and what comes before it.

What comes before it is counted in the order of an index and up to a bound: without an order the planner would rather
read the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chancy.keys.gates import Gate, Passes
from chancy.model import JobRow, Statement

MOST_JOBS = 10_000
"""Up to which jobs are counted."""
MOST_GROUPS = 1_000

AROUND = """
    WITH live AS MATERIALIZED (
        SELECT offer.worker IS NULL AS silent, offer.queues,
            %(queue)s::text = ANY (offer.queues) AS takes, %(task)s::text = ANY (offer.tasks) AS knows
        FROM {schema}.worker AS worker
        LEFT JOIN {schema}.offer AS offer ON offer.worker = worker.id
        WHERE worker.expires_at > {schema}.clock()
    )
    SELECT {schema}.clock(), job.state::text,
        CASE WHEN job.parked IS NOT NULL THEN convert_to(job.gates::text, 'UTF8') END,
        queue_pause.paused_at, CASE WHEN isfinite(queue_pause.until) THEN queue_pause.until END,
        task_pause.paused_at, CASE WHEN isfinite(task_pause.until) THEN task_pause.until END,
        (SELECT count(*) FROM live), (SELECT count(*) FROM live WHERE silent),
        (SELECT count(*) FROM live WHERE takes), (SELECT count(*) FROM live WHERE takes AND knows),
        ARRAY(SELECT DISTINCT unnest(queues) FROM live ORDER BY 1),
        (SELECT concurrency FROM {schema}.queue_limit WHERE queue = %(queue)s::text),
        coalesce(worker.name, dead.name), worker.expires_at, dead.died_at,
        EXISTS (SELECT FROM {schema}.need AS need WHERE need.job = %(id)s::bigint AND need.by_a_look)
    FROM (SELECT) AS always
    LEFT JOIN {schema}.job AS job ON job.id = %(id)s::bigint
    LEFT JOIN {schema}.pause AS queue_pause
        ON queue_pause.kind = 'queue' AND queue_pause.name = %(queue)s::text AND queue_pause.until > {schema}.clock()
    LEFT JOIN {schema}.pause AS task_pause
        ON task_pause.kind = 'task' AND task_pause.name = %(task)s::text AND task_pause.until > {schema}.clock()
    LEFT JOIN {schema}.worker AS worker ON worker.id = %(worker)s::bigint
    LEFT JOIN {schema}.dead_worker AS dead ON dead.id = %(worker)s::bigint
"""


@dataclass(frozen=True, slots=True)
class Around:
    """What there is around a job: in the order of the columns."""

    now: datetime
    state: str | None
    """Of the row in `job`, if it is there."""
    gates: bytes | None
    """If it is parked."""
    queue_paused_at: datetime | None
    queue_until: datetime | None
    task_paused_at: datetime | None
    task_until: datetime | None
    workers: int
    silent: int
    """Those of a version that does not say what it takes."""
    takers: int
    knowers: int
    """Of the takers."""
    queues: Sequence[str]
    limit: int | None
    worker: str | None
    """That it ran on last, if anything is still known about it."""
    expires_at: datetime | None
    died_at: datetime | None
    in_vain: bool
    """It was ended because of what it needs, and not by somebody."""


def around(job: JobRow) -> Statement[Around]:
    """Always an answer, also when the job has moved on."""
    params = {"id": job.id, "queue": job.queue, "task": job.task, "worker": job.worker}
    return Statement(AROUND, params, lambda rows: Around(*rows[0]), name="around")


PLACES = """
    SELECT count(held.job), (array_agg(held.job ORDER BY held.job) FILTER (WHERE held.job IS NOT NULL))[1:3],
        (array_agg(held.opens_at ORDER BY held.opens_at))[greatest(count(held.job) - gate.most, 0) + 1],
        (SELECT coalesce(sum(greatest(
            share.most - {schema}.running_under(share.kind, share.name, share.worker), 0)), 0)::integer
         FROM {schema}.share AS share WHERE share.kind = 'gate' AND share.name = gate.name)
    FROM unnest(%(names)s::text[], %(mosts)s::integer[]) WITH ORDINALITY AS gate (name, most, nth)
    LEFT JOIN LATERAL (
        SELECT slot.job, slot.opens_at FROM {schema}.slot AS slot
        WHERE slot.gate = gate.name
            AND CASE WHEN slot.opens_at IS NULL THEN {schema}.is_owned(slot.job, slot.fence)
                ELSE slot.opens_at > {schema}.clock() END
        UNION ALL
        SELECT job.id, NULL -- in a share: see 50_gates
        FROM (SELECT FROM {schema}.share WHERE share.kind = 'gate' AND share.name = gate.name LIMIT 1) AS shared
        CROSS JOIN LATERAL (
            SELECT job.id FROM {schema}.job AS job
            WHERE job.state = 'running' AND job.worker IS NOT NULL AND job.parked = gate.name AND job.slots IS NULL
            OFFSET 0
        ) AS job
    ) AS held ON true
    GROUP BY gate.nth, gate.name, gate.most
    ORDER BY gate.nth
"""


@dataclass(frozen=True, slots=True)
class Places:
    """How many places are taken, the first three jobs that have one, and when one is free by time alone."""

    count: int
    jobs: Sequence[int]
    opens_at: datetime | None = None
    kept: int = 0
    """More that are in the shares of workers, which do not use them now."""


def places_of(gates: Sequence[Gate]) -> Statement[list[Places]]:
    """Of each gate, in that order."""
    params = {"names": [gate.name for gate in gates], "mosts": [gate.most for gate in gates]}
    return Statement(
        PLACES, params, lambda rows: [Places(count, jobs or (), *rest) for count, jobs, *rest in rows], name="places_of"
    )


PARKED_BEFORE = """
    WITH RECURSIVE higher AS (
        (SELECT priority FROM {schema}.job
         WHERE state = 'ready' AND parked IS NOT NULL AND queue = %(queue)s::text AND priority > %(priority)s::smallint
         ORDER BY priority DESC LIMIT 1)
        UNION ALL
        SELECT below.priority FROM higher CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = %(queue)s::text
                AND job.priority < higher.priority AND job.priority > %(priority)s::smallint
            ORDER BY job.priority DESC LIMIT 1) AS below
    ),
    groups AS (
        (SELECT left(parked, coalesce((gates->>'turn')::integer, length(parked))) AS name,
            gates->>'turn' IS NOT NULL AND run_at <= {schema}.clock() AS waits, 1 AS nth
         FROM {schema}.job
         WHERE state = 'ready' AND parked IS NOT NULL AND queue = %(queue)s::text AND priority = %(priority)s::smallint
            AND %(turn)s::integer > 0
         ORDER BY parked COLLATE "C", run_at, id LIMIT 1)
        UNION ALL
        SELECT left(job.parked, coalesce((job.gates->>'turn')::integer, length(job.parked))),
            job.gates->>'turn' IS NOT NULL AND job.run_at <= {schema}.clock(), groups.nth + 1
        FROM groups CROSS JOIN LATERAL (
            SELECT parked, gates, run_at FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = %(queue)s::text
                AND job.priority = %(priority)s::smallint AND job.parked COLLATE "C" > groups.name || ' '
            ORDER BY job.parked COLLATE "C", job.run_at, job.id LIMIT 1) AS job
        WHERE groups.nth <= %(most_groups)s::integer + 1
    )
    SELECT
        (SELECT count(*) FROM (
            SELECT FROM higher CROSS JOIN LATERAL (
                SELECT FROM {schema}.job AS job
                WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = %(queue)s::text
                    AND job.priority = higher.priority AND job.parked COLLATE "C" = %(key)s::text
                    AND job.run_at <= {schema}.clock()
                ORDER BY job.run_at, job.id LIMIT %(most)s::integer + 1) AS job
            LIMIT %(most)s::integer + 1) AS before)
        + (SELECT count(*) FROM (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = %(queue)s::text
                AND job.priority = %(priority)s::smallint AND job.parked COLLATE "C" = %(key)s::text
                AND (job.run_at, job.id) < (%(run_at)s::timestamptz, %(id)s::bigint)
            ORDER BY job.run_at, job.id LIMIT %(most)s::integer + 1) AS before),
        (SELECT count(*) FROM groups WHERE waits AND name <> left(%(key)s::text, %(turn)s::integer))
"""


def parked_before(job: JobRow, passes: Passes) -> Statement[tuple[int, int]]:
    """How many parked jobs that wait for the same come first, and how many other groups take turns with its own."""
    params = _place_of(job) | {"key": passes.key, "turn": passes.turn, "most_groups": MOST_GROUPS}
    return Statement(PARKED_BEFORE, params, lambda rows: (rows[0][0], rows[0][1]), name="parked_before")


def _place_of(job: JobRow) -> dict[str, Any]:
    return {"id": job.id, "queue": job.queue, "priority": job.priority, "run_at": job.run_at, "most": MOST_JOBS}


RUNNING_OF_QUEUE = """
    SELECT count(*), (array_agg(id ORDER BY id))[1:3],
        (SELECT coalesce(sum(greatest(
            share.most - {schema}.running_under(share.kind, share.name, share.worker), 0)), 0)::integer
         FROM {schema}.share AS share WHERE share.kind = 'queue' AND share.name = %(queue)s::text)
    FROM {schema}.job
    WHERE state = 'running' AND worker IS NOT NULL AND queue = %(queue)s::text
"""


def running_of(queue: str) -> Statement[Places]:
    """What counts against the limit of a queue."""
    params = {"queue": queue}
    return Statement(
        RUNNING_OF_QUEUE, params, lambda rows: Places(rows[0][0], rows[0][1] or (), kept=rows[0][2]), name="running_of"
    )


# Of those before it, what a worker would pass by does not count: a paused task, a task that no worker knows.
LINE = """
    WITH RECURSIVE takers AS MATERIALIZED (
        SELECT worker.id, offer.tasks
        FROM {schema}.offer AS offer
        JOIN {schema}.worker AS worker ON worker.id = offer.worker AND worker.expires_at > {schema}.clock()
        WHERE %(queue)s::text = ANY (offer.queues)
    ),
    startable AS MATERIALIZED (
        SELECT unnest(tasks) AS task FROM takers
        EXCEPT SELECT name FROM {schema}.pause WHERE kind = 'task' AND until > {schema}.clock()
    ),
    running AS MATERIALIZED (
        SELECT id, worker, crashes FROM {schema}.job
        WHERE state = 'running' AND worker = ANY (ARRAY(SELECT id FROM takers))
    ),
    higher AS (
        (SELECT priority FROM {schema}.job
         WHERE state = 'ready' AND parked IS NULL AND queue = %(queue)s::text AND priority > %(priority)s::smallint
         ORDER BY priority DESC LIMIT 1)
        UNION ALL
        SELECT below.priority FROM higher CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = %(queue)s::text
                AND job.priority < higher.priority AND job.priority > %(priority)s::smallint
            ORDER BY job.priority DESC LIMIT 1) AS below
    ),
    over AS (
        SELECT job.task FROM higher CROSS JOIN LATERAL (
            SELECT job.task FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = %(queue)s::text
                AND job.priority = higher.priority AND job.run_at <= {schema}.clock()
            ORDER BY job.run_at, job.id LIMIT %(most)s::integer + 1) AS job
        LIMIT %(most)s::integer + 1
    ),
    earlier AS (
        SELECT job.task FROM {schema}.job AS job
        WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = %(queue)s::text
            AND job.priority = %(priority)s::smallint
            AND (job.run_at, job.id) < (%(run_at)s::timestamptz, %(id)s::bigint)
        ORDER BY job.run_at, job.id LIMIT %(most)s::integer + 1
    )
    SELECT (SELECT count(*) FROM over WHERE task IN (SELECT task FROM startable)),
        (SELECT count(*) FROM earlier WHERE task IN (SELECT task FROM startable)),
        greatest((SELECT count(*) FROM over), (SELECT count(*) FROM earlier)) <= %(most)s::integer,
        (SELECT count(*) FROM running),
        (SELECT count(DISTINCT worker) FROM running WHERE crashes > 0),
        ARRAY(SELECT id FROM running WHERE crashes > 0 ORDER BY id)
"""


@dataclass(frozen=True, slots=True)
class Line:
    """What comes before a job that is not parked, and what runs on the workers of its queue."""

    higher: int
    earlier: int
    complete: bool
    """Whether all were looked at."""
    running: int
    """On those workers, of whichever queue."""
    with_suspect: int
    suspects: Sequence[int]


def line_before(job: JobRow) -> Statement[Line]:
    """Looks at so many of a higher priority, and at so many before it in its own."""
    return Statement(LINE, _place_of(job), lambda rows: Line(*rows[0]), name="line_before")
