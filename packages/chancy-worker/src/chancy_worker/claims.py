"""The hot path: one statement that writes the verdicts of finished attempts and claims more jobs.

    finished      jobs with a final verdict, fenced: a row that is not running under the fence given is left alone
    again         jobs that shall be ready again, by the same rule, and whether somebody has asked for their end:
    returned      the one kind is ready,
    dropped       and the other is cancelled
    ended         what is over,
    kept          in history, if it leaves a row,
    apart         and its result where that is kept for a shorter time
    in_use        which priorities each queue that is looked at has, by skipping through the index
    lanes         where to claim from: (queue, priority), from a high-water mark or from the start
    paused        queues and tasks of which nothing may begin now
    left_out      the tasks of which none may be claimed here and now; those that have no room are told apart, because
                  a queue in which nobody may be passed waits for them
    allowed       how many of each queue may be claimed: as many as are wanted, or less where an operator limits it
    claimed       for each queue as many as are wanted, in the order priority, run_at, id
    rated         for those that count against a rate, from when on others may have their slots

A slot of a rate opens a little after its window: between a claim and the begin of its function up to 50 ms may pass,
and by what the functions see there must not be too many in a window either.

There is no ORDER BY above the LATERAL: a sort would lock rows in every lane. The order is that of the nested
loop, which the worker's connections are set to. The lease is locked FOR KEY SHARE, so that no claim can commit in
the name of a worker that was declared dead meanwhile.

A plan is made once a connection, often while the table is empty, and has to serve for a million rows, too. So the
rows to write are found one by one, LATERAL, and are addressed by ctid; the planner has no join of `job` with anything
whose order it could choose. (A DELETE … USING read the whole index of a table that was empty when it was planned.)
What belongs to a row is taken from the arrays by its position: each id is there once. For the same reason
`worker IS NOT NULL` says "running", which it is by the table's CHECK: the planner could take the index `job_running`
for the cheaper one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import TypeAlias

from chancy.literals import JsonColumn, of_intervals, of_numbers, of_texts
from chancy.model import Rows, Statement
from chancy.statements import KEEP, keeping
from chancy.states import State

from .verdict import EARLIEST, Claimed, Completion

Mark: TypeAlias = tuple[datetime, int]
"""The (run_at, id) of the last job claimed from a lane."""

START: Mark = (EARLIEST, 0)
"""The mark of a lane that nothing has been claimed from."""

_FINISH = """
    WITH RECURSIVE finished AS (
        DELETE FROM {schema}.job AS job
        WHERE job.ctid = ANY (ARRAY(
            SELECT mine.ctid FROM unnest(%(done_ids)s::bigint[], %(done_fences)s::integer[]) AS sent (id, fence)
            CROSS JOIN LATERAL (
                SELECT job.ctid FROM {schema}.job AS job
                WHERE job.id = sent.id AND job.claims = sent.fence AND job.worker IS NOT NULL
                LIMIT 1 {lock}
            ) AS mine))
        RETURNING job.*, {done_nth} AS nth, {keep}
    ),
    again AS MATERIALIZED (
        SELECT mine.ctid, mine.cancel_at IS NOT NULL AS cancelled
        FROM unnest(%(again_ids)s::bigint[], %(again_fences)s::integer[]) AS sent (id, fence)
        CROSS JOIN LATERAL (
            SELECT job.ctid, job.cancel_at FROM {schema}.job AS job
            WHERE job.id = sent.id AND job.claims = sent.fence AND job.worker IS NOT NULL
            LIMIT 1 {lock}
        ) AS mine
    ),
    returned AS (
        UPDATE {schema}.job AS job
        SET state = 'ready', worker = NULL, progress = NULL, parked = job.gates->>'key',
            run_at = coalesce({schema}.clock() + (%(delays)s::interval[])[{nth}], job.run_at),
            attempt = job.attempt - (%(refunds)s::smallint[])[{nth}],
            errors = coalesce((%(again_errors)s::json[])[{nth}], job.errors)
        WHERE job.ctid = ANY (ARRAY(SELECT ctid FROM again WHERE NOT cancelled))
        RETURNING job.queue
    ),
    dropped AS (
        DELETE FROM {schema}.job AS job WHERE job.ctid = ANY (ARRAY(SELECT ctid FROM again WHERE cancelled))
        RETURNING job.*, (%(again_errors)s::json[])[{nth}] AS news, {keep_cancelled}
    ),
    ended AS NOT MATERIALIZED (
        SELECT {moved}, (%(states)s::text[])[nth]::{schema}.state AS state, (%(results)s::json[])[nth] AS result,
            coalesce((%(done_errors)s::json[])[nth], errors) AS errors, keep
        FROM finished
        UNION ALL
        SELECT {moved}, 'cancelled', NULL, coalesce(news, errors), keep FROM dropped
    ),
    {kept},
    {apart},
"""
_CLAIM = """
    in_use AS (
        SELECT look.queue, top.priority
        FROM unnest(%(looking)s::text[]) AS look (queue)
        CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = look.queue
            ORDER BY job.priority DESC LIMIT 1
        ) AS top
        UNION ALL
        SELECT upper.queue, below.priority
        FROM in_use AS upper
        CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = upper.queue
                AND job.priority < upper.priority
            ORDER BY job.priority DESC LIMIT 1
        ) AS below
    ),
    lanes AS (
        SELECT * FROM unnest(%(lane_queues)s::text[], %(lane_priorities)s::smallint[],
            %(mark_run_at)s::timestamptz[], %(mark_ids)s::bigint[]) AS marked (queue, priority, run_at, id)
        UNION ALL
        SELECT queue, priority, '-infinity', 0 FROM in_use
    ),
    lease AS MATERIALIZED (
        SELECT id FROM {schema}.worker WHERE id = %(worker)s::bigint FOR KEY SHARE
    ),
    paused AS MATERIALIZED (
        SELECT kind, name FROM {schema}.pause WHERE until > {schema}.clock()
    ),
    left_out AS MATERIALIZED (
        SELECT %(without)s::text[] || ARRAY(SELECT name FROM paused WHERE kind = 'task') AS tasks
    ),
    allowed AS MATERIALIZED (
        SELECT want.queue, want.in_line, want.free AS wanted,
            CASE WHEN EXISTS (SELECT FROM {schema}.queue_limit) THEN {schema}.allowance(want.queue, want.free)
                ELSE want.free END AS free
        FROM unnest(%(queues)s::text[], %(free)s::integer[], %(in_line)s::boolean[]) AS want (queue, free, in_line)
        WHERE want.queue <> ALL (ARRAY(SELECT name FROM paused WHERE kind = 'queue'))
    ),
    claimed AS (
        UPDATE {schema}.job AS job
        SET state = 'running', attempt = job.attempt + 1, claims = job.claims + 1,
            worker = %(worker)s::bigint, started_at = {schema}.clock()
        WHERE job.ctid = ANY (ARRAY(
            SELECT chosen.ctid
            FROM lease
            CROSS JOIN allowed AS want
            CROSS JOIN LATERAL (
                SELECT ready.ctid, ready.task
                FROM lanes
                CROSS JOIN LATERAL (
                    SELECT job.ctid, job.task FROM {schema}.job AS job
                    WHERE job.state = 'ready' AND job.parked IS NULL
                        AND job.queue = lanes.queue AND job.priority = lanes.priority
                        AND (job.run_at, job.id) > (lanes.run_at, lanes.id) AND job.run_at <= {schema}.clock()
                        AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
                        AND (want.in_line OR job.task <> ALL (%(full)s::text[]))
                        AND (job.crashes = 0 OR %(suspects)s::boolean)
                    ORDER BY job.run_at, job.id
                    LIMIT want.free
                    FOR UPDATE SKIP LOCKED
                ) AS ready
                WHERE lanes.queue = want.queue
                LIMIT want.free
            ) AS chosen
            WHERE chosen.task <> ALL (%(full)s::text[])
        ))
        RETURNING job.*
    ),
    rated AS (
        UPDATE {schema}.slot AS slot
        SET opens_at = {schema}.clock() + slot.per + least(slot.per / 20, interval '50 ms')
        WHERE slot.ctid = ANY (ARRAY(
            SELECT mine.ctid
            FROM claimed
            CROSS JOIN LATERAL (
                SELECT slot.ctid FROM {schema}.slot AS slot
                WHERE slot.job = claimed.id AND slot.per IS NOT NULL AND slot.opens_at IS NULL
            ) AS mine
            WHERE claimed.gates IS NOT NULL
        ))
    )
    SELECT
        (SELECT count(*) FROM finished) + (SELECT count(*) FROM returned) + (SELECT count(*) FROM dropped),
        EXISTS (SELECT FROM lease),
        ARRAY(SELECT queue FROM in_use), ARRAY(SELECT priority FROM in_use),
        ARRAY(SELECT (
            SELECT extract(epoch FROM job.run_at)::float8 - extract(epoch FROM {schema}.clock())::float8
            FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL
                AND job.queue = in_use.queue AND job.priority = in_use.priority AND job.run_at > {schema}.clock()
            ORDER BY job.run_at LIMIT 1) FROM in_use),
        ARRAY(SELECT look.queue FROM unnest(%(looking)s::text[]) AS look (queue) CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = look.queue LIMIT 1) AS parked),
        ARRAY(SELECT queue FROM allowed WHERE free < wanted),
        CASE WHEN EXISTS (SELECT FROM returned)
            THEN {schema}.ring(ARRAY(SELECT DISTINCT queue FROM returned))::text END,
        NULL::text, NULL::text, NULL::smallint, NULL::smallint, NULL::integer, NULL::smallint,
        NULL::json, NULL::json, NULL::json, NULL::json, NULL::text, NULL::bigint, NULL::smallint, NULL::timestamptz
    UNION ALL
    SELECT id, true, NULL, NULL, NULL, NULL, NULL, NULL,
        task, queue, attempt, max_attempts, claims, crashes, arguments, retry, limits, errors, gates->>'key', batch,
        priority, run_at
    FROM claimed
"""

_NTH = "array_position(%(again_ids)s::bigint[], job.id)"
_DONE_NTH = "array_position(%(done_ids)s::bigint[], job.id)"
_ROUND = (
    keeping(_FINISH + _CLAIM, "(%(states)s::text[])[{done_nth}]")
    .replace("{keep_cancelled}", KEEP.replace("{state}", "'cancelled'"))
    .replace("{nth}", _NTH)
    .replace("{done_nth}", _DONE_NTH)
)

ROUND = _ROUND.replace("{lock}", "")
"""Waits for a locked row as long as the connection's lock_timeout lets it."""
PATIENT_ROUND = _ROUND.replace("{lock}", "FOR UPDATE SKIP LOCKED")
"""Passes locked rows by; a third dearer. For when the first form ran into a lock, until nothing is left over."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to claim: of which queue how many, where to start in each lane, and which tasks to leave out."""

    free: dict[str, int] = field(default_factory=dict)
    lanes: dict[tuple[str, int], Mark] = field(default_factory=dict)
    looking: tuple[str, ...] = ()
    """Queues to look at from the start, learning their priorities."""
    without: tuple[str, ...] = ()
    suspects: bool = True
    """Whether to take jobs that were running when a worker died."""
    full: tuple[str, ...] = ()
    """Tasks to leave out, too, because there is no room where they run."""
    in_line: frozenset[str] = frozenset()
    """Queues in which such a job is not passed by: if it is the first, nothing is claimed. Of each, one job is wanted.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """What a round did."""

    settled: int
    """How many of the verdicts found their row; the others are asked for by `settle`."""
    holding: bool
    """Whether this worker's lease was still there; without it nothing is claimed."""
    lanes: list[tuple[str, int]]
    """The lanes that a look has found, best first within each queue."""
    next_in: Mapping[str, float | None]
    """Of the queues looked at that have any lane, seconds until the next scheduled job, if there is one."""
    claimed: list[Claimed]
    """In the order in which those of each queue are to begin: priority, run_at, id."""
    marks: dict[tuple[str, int], Mark]
    parked: Sequence[str] = ()
    """Of the queues looked at, those in which jobs wait to be admitted."""
    at_limit: Sequence[str] = ()
    """Queues of which a limit let less be claimed than was wanted."""


def play_round(worker: int, verdicts: Sequence[Completion], wanted: Wanted, *, text: str = ROUND) -> Statement[Answer]:
    """Write verdicts and claim, in one statement and one commit. `text` is one of the two forms.

    Of two claims of one job the later alone has a say; the other's verdict is not sent, and counts as not settled.
    """
    if len({verdict.id for verdict in verdicts}) < len(verdicts):
        verdicts = list({verdict.id: verdict for verdict in sorted(verdicts, key=attrgetter("fence"))}.values())
    done = [v for v in verdicts if v.state is not State.READY]
    again = [v for v in verdicts if v.state is State.READY]
    return Statement(
        text,
        {
            "worker": worker,
            "done_ids": of_numbers(v.id for v in done),
            "done_fences": of_numbers(v.fence for v in done),
            "states": of_texts(v.state.value for v in done),
            "results": JsonColumn(v.result for v in done),
            "done_errors": JsonColumn(v.errors for v in done),
            "again_ids": of_numbers(v.id for v in again),
            "again_fences": of_numbers(v.fence for v in again),
            "delays": of_intervals(v.delay for v in again),
            "refunds": of_numbers(int(v.refund) for v in again),
            "again_errors": JsonColumn(v.errors for v in again),
            "looking": of_texts(wanted.looking),
            "lane_queues": of_texts(queue for queue, _ in wanted.lanes),
            "lane_priorities": of_numbers(priority for _, priority in wanted.lanes),
            "mark_run_at": of_texts(run_at for run_at, _ in wanted.lanes.values()),
            "mark_ids": of_numbers(id_ for _, id_ in wanted.lanes.values()),
            "queues": of_texts(wanted.free),
            "free": of_numbers(wanted.free.values()),
            "in_line": of_texts(str(queue in wanted.in_line).lower() for queue in wanted.free),
            "without": of_texts(wanted.without),
            "full": of_texts(wanted.full),
            "suspects": wanted.suspects,
        },
        _parse_answer,
    )


_FIRST_OF_JOB = 8
"""Of a claimed job's row: id, true, and then empty columns, which the first row has."""
_MARK, _PRIORITY = attrgetter("run_at", "id"), attrgetter("priority")


def _parse_answer(rows: Rows) -> Answer:
    (settled, holding, queues, priorities, ahead, parked, at_limit, *_), *claimed_rows = rows
    claimed = [Claimed(row[0], *row[_FIRST_OF_JOB:]) for row in claimed_rows]
    _sort(claimed)
    marks: dict[tuple[str, int], Mark] = {(job.queue, job.priority): (job.run_at, job.id) for job in claimed}
    lanes = list(zip(queues, priorities, strict=True))
    return Answer(settled, holding, lanes, _soonest(queues, ahead), claimed, marks, parked, at_limit)


def _sort(claimed: list[Claimed]) -> None:
    """By priority, run_at and id: RETURNING gives rows in no order."""
    claimed.sort(key=_MARK)
    if len(set(map(_PRIORITY, claimed))) > 1:
        claimed.sort(key=_PRIORITY, reverse=True)


def _soonest(queues: Sequence[str], ahead: Sequence[float | None]) -> dict[str, float | None]:
    soonest: dict[str, float | None] = dict.fromkeys(queues)
    for queue, next_in in zip(queues, ahead, strict=True):
        before = soonest[queue]
        if next_in is not None and (before is None or next_in < before):
            soonest[queue] = next_in
    return soonest


SETTLE = """
    SELECT sent.id, sent.fence,
        CASE
            WHEN job.state = 'running' THEN 'busy'
            WHEN job.id IS NOT NULL THEN 'done'
            WHEN past.state = 'succeeded' AND sent.state <> 'succeeded' THEN 'completed'
            WHEN past.id IS NOT NULL THEN 'done'
            WHEN EXISTS (SELECT FROM {schema}.retention WHERE days = 0)
                AND (SELECT rule.days FROM {schema}.retention AS rule
                     WHERE rule.queue = sent.queue AND rule.days = 0 AND rule.what <> 'results' LIMIT 1) IS NOT NULL
                AND (SELECT job.id FROM {schema}.job AS job WHERE job.id = sent.id LIMIT 1) IS NULL
                AND (SELECT past.id FROM {schema}.history AS past WHERE past.id = sent.id LIMIT 1) IS NULL THEN 'done'
            ELSE 'lost'
        END
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[], %(states)s::text[], %(queues)s::text[])
        AS sent (id, fence, state, queue)
    LEFT JOIN LATERAL (
        SELECT id, state FROM {schema}.job AS job WHERE job.id = sent.id AND job.claims = sent.fence LIMIT 1
    ) AS job ON true
    LEFT JOIN LATERAL (
        SELECT id, state FROM {schema}.history AS past WHERE past.id = sent.id AND past.claims = sent.fence LIMIT 1
    ) AS past ON true
"""


def settle(
    verdicts: Sequence[Completion], held: Mapping[tuple[int, int], Claimed]
) -> Statement[dict[tuple[int, int], str]]:
    """What became of verdicts, by (id, fence); `held` knows the queues of their jobs.

    'done'; 'busy' (still ours, the row was locked); 'completed' (as succeeded, by the handler's own transaction);
    'lost' (another claim has it). A job that is nowhere any more is done if its queue has ends that leave no row: a
    lost job that has ended so since is told as done, too.
    """
    jobs = [held.get((v.id, v.fence)) for v in verdicts]
    params = {
        "ids": of_numbers(v.id for v in verdicts),
        "fences": of_numbers(v.fence for v in verdicts),
        "states": of_texts(v.state.value for v in verdicts),
        "queues": of_texts(None if job is None else job.queue for job in jobs),
    }
    return Statement(SETTLE, params, lambda rows: {(id_, fence): fate for id_, fence, fate in rows})
