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
    left_out      the tasks of which none may be claimed here and now
    allowed       how many of each queue may be claimed: as many as are wanted, or less where an operator limits it
    chosen        for each queue as many as are wanted, in the order priority, run_at, id
    admitted      and of those that wait for a limit or a turn: the ones that may run, and come before the last chosen
    claimed       the chosen, as far as there is room beside those

There is no ORDER BY above the LATERAL: a sort would lock rows in every lane. The order is that of the nested
loop, which the worker's connections are set to. The lease is locked FOR KEY SHARE, so that no claim can commit in
the name of a worker that was declared dead meanwhile; but only where there is something to claim, so that a look that
finds nothing writes nothing.

`admitted` is in a form of its own, for rounds that have to do with gates: when a job with gates has ended, or when some
that are parked may run. What `admit` does is claimed by then, and is seen by nothing else here.

A plan is made once a connection, often while the table is empty, and has to serve for a million rows, too. So the
rows to write are found one by one, LATERAL, and are addressed by ctid; the planner has no join of `job` with anything
whose order it could choose. (A DELETE … USING read the whole index of a table that was empty when it was planned.)
What belongs to a row is taken from the arrays by its position: each id is there once. For the same reason
`worker IS NOT NULL` says "running", which it is by the table's CHECK: the planner could take the index `job_running`
for the cheaper one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import msgspec

from chancy.literals import JsonColumn, of_intervals, of_numbers, of_texts
from chancy.model import Rows, Statement
from chancy.statements import KEEP, keeping
from chancy.states import State

from .verdict import Claimed, Completion

Mark: TypeAlias = tuple[datetime, int]
"""The (run_at, id) of the last job claimed from a lane."""

START: Mark = (datetime.min.replace(tzinfo=UTC), 0)
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
        RETURNING job.queue, job.id, job.claims, job.parked, job.gates, job.slots
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
    settled AS MATERIALIZED (
        SELECT (SELECT count(*) FROM finished) + (SELECT count(*) FROM returned)
            + (SELECT count(*) FROM dropped) AS jobs
    ),
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
        SELECT want.queue, want.free AS wanted,
            CASE WHEN EXISTS (SELECT FROM {schema}.queue_limit) THEN {schema}.allowance(
                want.queue, want.free, %(worker)s::bigint,
                CASE (SELECT jobs FROM settled) WHEN %(sent)s::integer THEN want.keeps ELSE want.holds END,
                want.presses) ELSE want.free END AS free
        FROM unnest(%(queues)s::text[], %(free)s::integer[], %(holds)s::integer[], %(keeps)s::integer[],
            %(presses)s::boolean[]) AS want (queue, free, holds, keeps, presses)
        WHERE want.queue <> ALL (ARRAY(SELECT name FROM paused WHERE kind = 'queue'))
    ),
{chosen}    claimed AS (
        UPDATE {schema}.job AS job
        SET state = 'running', attempt = job.attempt + 1, claims = job.claims + 1,
            worker = %(worker)s::bigint, started_at = {schema}.clock(){slots}
        WHERE job.ctid = ANY (ARRAY(
            SELECT chosen.ctid
            FROM allowed AS want
            CROSS JOIN LATERAL (
                {first}
            ) AS chosen
            CROSS JOIN LATERAL (SELECT FROM lease WHERE chosen.ctid IS NOT NULL) AS held
        ))
        RETURNING job.*
    )
    SELECT
        (SELECT jobs FROM settled),
        EXISTS (SELECT FROM {schema}.worker WHERE id = %(worker)s::bigint),
        (SELECT extract(epoch FROM min(ahead.run_at) - {schema}.clock())::float8
         FROM in_use CROSS JOIN LATERAL (
            SELECT job.run_at FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL
                AND job.queue = in_use.queue AND job.priority = in_use.priority AND job.run_at > {schema}.clock()
            ORDER BY job.run_at LIMIT 1) AS ahead),
        ARRAY(SELECT queue FROM in_use), ARRAY(SELECT priority FROM in_use),
        ARRAY(SELECT look.queue FROM unnest(%(looking)s::text[]) AS look (queue) CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = look.queue LIMIT 1) AS parked),
        ARRAY(SELECT queue FROM allowed
              WHERE free < wanted AND free <= (SELECT count(*) FROM claimed WHERE claimed.queue = allowed.queue)),
        {answers},
        CASE WHEN EXISTS (SELECT FROM returned)
            THEN {schema}.ring(ARRAY(SELECT DISTINCT queue FROM returned))::text END,
        NULL::text, NULL::text, NULL::smallint, NULL::timestamptz, NULL::smallint, NULL::smallint, NULL::integer,
        NULL::smallint, NULL::json, NULL::json, NULL::json, NULL::json, NULL::text, NULL::bigint, NULL::text
    UNION ALL
    SELECT id, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        task, queue, priority, run_at, attempt, max_attempts, claims, crashes, arguments, retry, limits, errors,
        NULL, batch, parked
    FROM claimed{entered}
"""
_READY = """SELECT ready.*
                FROM lanes
                CROSS JOIN LATERAL (
                    SELECT job.ctid{place} FROM {schema}.job AS job
                    WHERE job.state = 'ready' AND job.parked IS NULL
                        AND job.queue = lanes.queue AND job.priority = lanes.priority
                        AND (job.run_at, job.id) > (lanes.run_at, lanes.id) AND job.run_at <= {schema}.clock()
                        AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
                        AND (job.crashes = 0 OR %(suspects)s::boolean)
                    ORDER BY job.run_at, job.id
                    LIMIT want.free
                    FOR UPDATE SKIP LOCKED
                ) AS ready
                WHERE lanes.queue = want.queue
                LIMIT want.free"""
_ADMIT = """    chosen AS MATERIALIZED (
        SELECT want.queue, ready.*
        FROM allowed AS want
        CROSS JOIN LATERAL (
                {ready}
        ) AS ready
    ),
    ended_claim AS MATERIALIZED (
        SELECT queue, ROW(id, claims, parked, gates, slots)::{schema}.leaving AS leaving
        FROM (
            SELECT queue, id, claims, parked, gates, slots FROM finished
            UNION ALL SELECT queue, id, claims, parked, gates, slots FROM returned
            UNION ALL SELECT queue, id, claims, parked, gates, slots FROM dropped
        ) AS over
        WHERE slots IS NOT NULL
    ),
    mark AS MATERIALIZED (
        SELECT * FROM unnest(%(marked_queues)s::text[], %(marked_keys)s::text[], %(marked_lanes)s::smallint[],
            %(marked_run_at)s::timestamptz[], %(marked_ids)s::bigint[]) AS mark (queue, key, priority, run_at, id)
    ),
    admitted AS MATERIALIZED (
        SELECT want.queue, answer.*
        FROM unnest(%(gated)s::text[], %(flows)s::boolean[], %(goes_round)s::boolean[], %(spots)s::text[])
            AS want (queue, flows, goes_round, spot)
        CROSS JOIN LATERAL {schema}.admit(
            ROW(%(worker)s::bigint, want.queue,
                coalesce((SELECT tasks FROM {schema}.offer WHERE worker = %(worker)s::bigint), '{}'),
                (SELECT tasks FROM left_out), %(suspects)s::boolean,
                ARRAY(SELECT priority FROM chosen WHERE chosen.queue = want.queue),
                ARRAY(SELECT run_at FROM chosen WHERE chosen.queue = want.queue),
                ARRAY(SELECT id FROM chosen WHERE chosen.queue = want.queue),
                ARRAY(SELECT key FROM mark WHERE mark.queue = want.queue),
                ARRAY(SELECT priority FROM mark WHERE mark.queue = want.queue),
                ARRAY(SELECT run_at FROM mark WHERE mark.queue = want.queue),
                ARRAY(SELECT id FROM mark WHERE mark.queue = want.queue))::{schema}.claim,
            coalesce((SELECT free FROM allowed WHERE allowed.queue = want.queue), 0),
            want.flows, want.goes_round, want.spot,
            ARRAY(SELECT leaving FROM ended_claim WHERE ended_claim.queue = want.queue)
        ) AS answer
    ),
"""
_BESIDE = """SELECT chosen.ctid FROM chosen WHERE chosen.queue = want.queue
                LIMIT want.free - coalesce(
                    (SELECT cardinality(entered) FROM admitted WHERE admitted.queue = want.queue), 0)"""
_ENTERED = """
    UNION ALL
    SELECT id, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        task, queue, priority, run_at, attempt, max_attempts, claims, crashes, arguments, retry, limits, errors,
        parked, batch, NULL
    FROM (SELECT job.* FROM admitted CROSS JOIN LATERAL unnest(admitted.entered) AS job) AS entered"""
_ANSWERS = """(SELECT json_agg(json_build_array(queue, cardinality(entered), stopped_at, next_in, more, again,
            CASE WHEN {schema}.is_one_limit(entered[1].parked) THEN entered[1].gates::text END)) FROM admitted)"""
_FLOW = """    flow AS MATERIALIZED (
        SELECT queue, {schema}.part_of(
            'gate', %(flow_key)s::text, (%(flow_gates)s::json->'gates'->0->>'most')::integer, '0', free,
            %(worker)s::bigint,
            CASE (SELECT jobs FROM settled) WHEN %(sent)s::integer THEN %(flow_keeps)s::integer
                ELSE %(flow_holds)s::integer END,
            true) AS free
        FROM allowed
        WHERE queue = %(flow_queue)s::text
    ),
    known AS MATERIALIZED (
        SELECT coalesce((SELECT tasks FROM {schema}.offer WHERE worker = %(worker)s::bigint), '{}') AS tasks
    ),
"""
_FLOWING = """SELECT ready.*
                FROM (
                    ({ready})
                    UNION ALL
                    (SELECT ready.*
                    FROM flow
                    CROSS JOIN unnest(
                        %(flow_lanes)s::smallint[], %(flow_run_at)s::timestamptz[], %(flow_ids)s::bigint[]
                    ) AS lane (priority, run_at, id)
                    CROSS JOIN LATERAL (
                        SELECT job.ctid FROM {schema}.job AS job
                        WHERE job.state = 'ready' AND job.parked IS NOT NULL
                            AND job.queue = want.queue AND job.priority = lane.priority
                            AND job.parked COLLATE "C" = %(flow_key)s::text
                            AND (job.run_at, job.id) > (lane.run_at, lane.id) AND job.run_at <= {schema}.clock()
                            AND job.gates::text = %(flow_gates)s::text
                            AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
                            AND ((SELECT tasks FROM known) = '{}' OR job.task = ANY ((SELECT tasks FROM known)::text[]))
                            AND (job.crashes = 0 OR %(suspects)s::boolean)
                        ORDER BY job.run_at, job.id
                        LIMIT flow.free
                        FOR UPDATE SKIP LOCKED
                    ) AS ready
                    WHERE flow.queue = want.queue
                    LIMIT (SELECT free FROM flow))
                ) AS ready
                LIMIT want.free"""

_NTH = "array_position(%(again_ids)s::bigint[], job.id)"
_DONE_NTH = "array_position(%(done_ids)s::bigint[], job.id)"
_ROUND = (
    keeping(_FINISH + _CLAIM, "(%(states)s::text[])[{done_nth}]")
    .replace("{keep_cancelled}", KEEP.replace("{state}", "'cancelled'"))
    .replace("{nth}", _NTH)
    .replace("{done_nth}", _DONE_NTH)
)

_PLAIN_READY = _READY.replace("{place}", "")
_PLACED_READY = _READY.replace("{place}", ", job.priority, job.run_at, job.id")
_PLAIN = (
    _ROUND.replace("{chosen}", "")
    .replace("{first}", _PLAIN_READY)
    .replace("{slots}", "")
    .replace("{answers}", "NULL::json")
    .replace("{entered}", "")
)
_FLOW_ROUND = (
    _ROUND.replace("{chosen}", _FLOW)
    .replace("{first}", _FLOWING.replace("{ready}", _PLAIN_READY))
    .replace("{slots}", ", slots = NULL")
    .replace("{answers}", "NULL::json")
    .replace("{entered}", "")
)
_ADMITTING = (
    _ROUND.replace("{chosen}", _ADMIT.replace("{ready}", _PLACED_READY))
    .replace("{first}", _BESIDE)
    .replace("{slots}", "")
    .replace("{answers}", _ANSWERS)
    .replace("{entered}", _ENTERED)
)
_WAITING, _PASSING_BY = "", "FOR UPDATE SKIP LOCKED"

ROUND = _PLAIN.replace("{lock}", _WAITING)
"""Waits for a locked row as long as the connection's lock_timeout lets it."""
PATIENT_ROUND = _PLAIN.replace("{lock}", _PASSING_BY)
"""Passes locked rows by; a third dearer. For when the first form ran into a lock, until nothing is left over."""
ADMITTING = {
    ROUND: _ADMITTING.replace("{lock}", _WAITING),
    PATIENT_ROUND: _ADMITTING.replace("{lock}", _PASSING_BY),
}
"""The same two, for rounds that go through parked jobs, or hand on slots."""
FLOWING = {
    ROUND: _FLOW_ROUND.replace("{lock}", _WAITING),
    PATIENT_ROUND: _FLOW_ROUND.replace("{lock}", _PASSING_BY),
}
"""The same two, for rounds that claim of one limit that is far from full, by this worker's share of it."""


class Circle(NamedTuple):
    """Of a queue in which jobs are parked: whether to go through them now, and behind which key to go on."""

    goes_round: bool = False
    after: str = ""
    marks: Mapping[tuple[int, str], Mark] = MappingProxyType({})
    """The last job claimed of a priority and key, as far as it is worth to go on there."""
    flows: bool = False
    """Those of the marks have filled all the room until now: ask them first."""


class Flow(NamedTuple):
    """Jobs of one limit that is far from full: whoever waits behind the marks may run."""

    queue: str
    key: str
    gates: str
    """As they are stored, of all of them."""
    marks: Mapping[int, Mark]
    """Of each priority the last that was claimed, the highest first."""


class Admission(NamedTuple):
    """What was done for the parked jobs of one queue."""

    queue: str
    admitted: int
    stopped_at: str | None
    """Where the circle goes on; None if it was not gone."""
    next_in: float | None
    """Seconds until time alone may open a gate, or a parked job is due."""
    more: bool
    """Not all were looked at."""
    again: bool = False
    """Another try soon is worth it: others were just at it, or there was no room."""
    gates: str | None = None
    """Of the first, if all that it has to pass is one limit."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to claim: from which queue how many, where to start in each lane, and which tasks to leave out."""

    free: dict[str, int] = field(default_factory=dict)
    lanes: dict[tuple[str, int], Mark] = field(default_factory=dict)
    looking: tuple[str, ...] = ()
    """Queues to look at from the start, learning their priorities."""
    without: tuple[str, ...] = ()
    suspects: bool = True
    """Whether to take jobs that were running when a worker died."""
    holds: Mapping[str, tuple[int, int]] | None = None
    """How many of each queue, and of each limit of which it has a share, this worker has before the verdicts; and after
    them, if all find their rows. None is not known: they are counted.
    """
    pressing: Collection[str] = ()
    """Queues of whose limit it had less than it could have used."""
    gated: Mapping[str, Circle] = field(default_factory=dict)
    """Queues with parked jobs to be admitted, and of jobs with slots that end now."""
    flow: Flow | None = None

    def holds_of(self, name: str) -> tuple[int | None, int | None]:
        """Of a queue or a limit."""
        return (None, None) if self.holds is None else self.holds.get(name, (0, 0))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a round did."""

    settled: int
    """How many of the verdicts found their row; the others are asked for by `settle`."""
    holding: bool
    """Whether this worker's lease was still there; without it nothing is claimed."""
    next_in: float | None
    """Seconds until the next scheduled job of the queues looked at."""
    lanes: list[tuple[str, int]]
    """The lanes that a look has found, best first within each queue."""
    claimed: list[Claimed]
    marks: dict[tuple[str, int], Mark]
    parked: Sequence[str] = ()
    """Of the queues looked at, those in which jobs wait to be admitted."""
    at_limit: Sequence[str] = ()
    """Queues of which a limit let less be claimed than was wanted and may be there."""
    admissions: Sequence[Admission] = ()
    gate_marks: Mapping[str, Mapping[tuple[int, str], Mark]] = field(default_factory=dict)
    """Of the priorities and keys of each queue, the last that was admitted."""


def play_round(worker: int, verdicts: Sequence[Completion], wanted: Wanted, *, text: str = ROUND) -> Statement[Answer]:
    """Write verdicts and claim, in one statement and one commit. `text` is one of the two forms. With `wanted.gated`,
    parked jobs are admitted, and slots of those that end are handed on.

    Of two claims of one job the later alone has a say; the other's verdict is not sent, and counts as not settled.
    """
    if len({verdict.id for verdict in verdicts}) < len(verdicts):
        verdicts = list({verdict.id: verdict for verdict in sorted(verdicts, key=attrgetter("fence"))}.values())
    done = [v for v in verdicts if v.state is not State.READY]
    again = [v for v in verdicts if v.state is State.READY]
    form, more = text, dict[str, Any]()
    if wanted.flow is not None:
        form, more = FLOWING[text], _of_flow(wanted.flow, wanted)
    elif wanted.gated:
        form, more = ADMITTING[text], _of_gated(wanted.gated)
    return Statement(
        form,
        more
        | {
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
            "without": of_texts(wanted.without),
            "suspects": wanted.suspects,
            "holds": of_texts(wanted.holds_of(queue)[0] for queue in wanted.free),
            "keeps": of_texts(wanted.holds_of(queue)[1] for queue in wanted.free),
            "sent": len(verdicts),
            "presses": of_texts(queue in wanted.pressing for queue in wanted.free),
        },
        _parse_answer,
    )


def _of_gated(gated: Mapping[str, Circle]) -> dict[str, Any]:
    marks = [(queue, key, lane, mark) for queue, circle in gated.items() for (lane, key), mark in circle.marks.items()]
    return {
        "gated": of_texts(gated),
        "flows": of_texts(circle.flows for circle in gated.values()),
        "goes_round": of_texts(circle.goes_round for circle in gated.values()),
        "spots": of_texts(circle.after for circle in gated.values()),
        "marked_queues": of_texts(queue for queue, _, _, _ in marks),
        "marked_keys": of_texts(key for _, key, _, _ in marks),
        "marked_lanes": of_numbers(lane for _, _, lane, _ in marks),
        "marked_run_at": of_texts(run_at for _, _, _, (run_at, _) in marks),
        "marked_ids": of_numbers(id_ for _, _, _, (_, id_) in marks),
    }


def _of_flow(flow: Flow, wanted: Wanted) -> dict[str, Any]:
    return {
        "flow_queue": flow.queue,
        "flow_key": flow.key,
        "flow_gates": flow.gates,
        "flow_holds": wanted.holds_of(flow.key)[0],
        "flow_keeps": wanted.holds_of(flow.key)[1],
        "flow_lanes": of_numbers(flow.marks),
        "flow_run_at": of_texts(run_at for run_at, _ in flow.marks.values()),
        "flow_ids": of_numbers(id_ for _, id_ in flow.marks.values()),
    }


_FIRST_OF_JOB = 9
"""Of a claimed job's row: id, true, and then empty columns, which the first row has."""


def _parse_answer(rows: Rows) -> Answer:
    (settled, holding, next_in, queues, priorities, parked, at_limit, answers, *_), *claimed_rows = rows
    claimed: list[Claimed] = []
    marks: dict[tuple[str, int], Mark] = {}
    gate_marks: dict[str, dict[tuple[int, str], Mark]] = {}
    for row in claimed_rows:
        id_, (task, queue, priority, run_at, *rest) = row[0], row[_FIRST_OF_JOB:]
        job = Claimed(id_, task, queue, *rest)
        claimed.append(job)
        mark = run_at, id_
        if (key := job.parked or job.share) is None:
            if mark > marks.get((queue, priority), START):
                marks[queue, priority] = mark
        else:
            of_queue = gate_marks.setdefault(queue, {})
            if mark > of_queue.get((priority, key), START):
                of_queue[priority, key] = mark
    lanes = list(zip(queues, priorities, strict=True))
    admissions = [] if answers is None else [Admission(*answer) for answer in msgspec.json.decode(answers)]
    return Answer(settled, holding, next_in, lanes, claimed, marks, parked, at_limit, admissions, gate_marks)


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
