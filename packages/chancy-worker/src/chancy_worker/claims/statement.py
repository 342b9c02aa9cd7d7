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
    suspects      jobs that were running when a worker died, of those that were chosen: no others of their kind
    allowed       how many of each queue may be claimed: as many as are wanted, or less where an operator limits it
    chosen        for each queue as many as are wanted, in the order priority, run_at, id, up to so many bytes
    admitted      and of those that wait for a limit or a turn: the ones that may run, and come before the last chosen
    claimed       the chosen, as far as there is room beside those

There is no ORDER BY above the LATERAL: a sort would lock rows in every lane. The order is that of the nested
loop, which the worker's connections are set to. The lease is locked FOR KEY SHARE, so that no claim can commit in
the name of a worker that was declared dead meanwhile; but only where there is something to claim, so that a look that
finds nothing writes nothing.

`admitted` is in a form of its own, for rounds that have to do with gates: when a job with gates has ended, or when some
that are parked may run. What `admit` does is claimed by then, and is seen by nothing else here. `flow` is in a third
form, for a limit that is far from full: who waits for it is claimed as anybody else, by this worker's share of it.

A plan is made once a connection, often while the table is empty, and has to serve for a million rows, too. So the
rows to write are found one by one, LATERAL, and are addressed by ctid; the planner has no join of `job` with anything
whose order it could choose. (A DELETE … USING read the whole index of a table that was empty when it was planned.)
What belongs to a row is taken from the arrays by its position: each id is there once. For the same reason
`worker = …` says "running", which it is by the table's CHECK: the planner could take the index `job_running`
for the cheaper one.

A verdict matches the id, the fence and the lease of its claim. After a failover that has lost the last transactions
Postgres gives ids and fences out again, and the row of that id may be another job.

Nothing in here can be made to raise by what a row holds but for the claimed rows themselves: no arithmetic with
instants that may be infinite, and none comes back that Python could not read. A row that raises all the same is found
by `sifting`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import msgspec

from chancy.history.moving import KEEP, keeping
from chancy.model import Rows, Statement
from chancy.states import State
from chancy.wires.literals import JsonColumn, of_intervals, of_numbers, of_texts, readable
from chancy_worker.attempts.verdict import EARLIEST, Claimed, Completion

Mark: TypeAlias = tuple[datetime, int]
"""The (run_at, id) of the last job claimed from a lane."""

CLAIM_BYTES = 8 * 1024**2
"""Of large jobs that a queue brings in one claim, and the last of them may go above it."""

START: Mark = (EARLIEST, 0)
"""The mark of a lane that nothing has been claimed from."""

_FINISH = """
    WITH RECURSIVE finished AS (
        DELETE FROM {schema}.job AS job
        WHERE job.ctid = ANY (ARRAY(
            SELECT mine.ctid FROM unnest(%(done_ids)s::bigint[], %(done_fences)s::integer[]) AS sent (id, fence)
            CROSS JOIN LATERAL (
                SELECT job.ctid FROM {schema}.job AS job
                WHERE job.id = sent.id AND job.claims = sent.fence AND job.worker = %(under)s::bigint
                LIMIT 1 {lock}
            ) AS mine))
        RETURNING job.*, {done_nth} AS nth, {keep}
    ),
    again AS MATERIALIZED (
        SELECT mine.ctid, mine.cancel_at IS NOT NULL AS cancelled
        FROM unnest(%(again_ids)s::bigint[], %(again_fences)s::integer[]) AS sent (id, fence)
        CROSS JOIN LATERAL (
            SELECT job.ctid, job.cancel_at FROM {schema}.job AS job
            WHERE job.id = sent.id AND job.claims = sent.fence AND job.worker = %(under)s::bigint
            LIMIT 1 {lock}
        ) AS mine
    ),
    returned AS (
        UPDATE {schema}.job AS job
        SET state = 'ready', worker = NULL, progress = NULL, parked = job.gates->>'key',
            run_at = coalesce({schema}.clock() + (%(delays)s::interval[])[{nth}], job.run_at),
            attempt = job.attempt - (%(refunds)s::smallint[])[{nth}],
            errors = coalesce((%(again_errors)s::json[])[{nth}], job.errors),
            refused_at = CASE WHEN (%(refusals)s::smallint[])[{nth}] = 1
                THEN CASE WHEN {refused_of_late} THEN job.refused_at ELSE {schema}.clock() END END
        WHERE job.ctid = ANY (ARRAY(SELECT ctid FROM again WHERE NOT cancelled))
        RETURNING job.queue, job.id, job.claims, job.parked, job.gates, job.slots,
            (%(refusals)s::smallint[])[{nth}] = 1 AS refused
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
IN_USE = """in_use AS (
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
    )"""
"""Of each of the queues `looking` the priorities in which anything is ready, entry by entry of an index: recursive."""
_CLAIM = """
    settled AS MATERIALIZED (
        SELECT (SELECT count(*) FROM finished) + (SELECT count(*) FROM returned)
            + (SELECT count(*) FROM dropped) AS jobs
    ),
    {in_use},
    lanes AS (
        SELECT * FROM unnest(%(lane_queues)s::text[], %(lane_priorities)s::smallint[],
            %(mark_run_at)s::timestamptz[], %(mark_ids)s::bigint[]) AS marked (queue, priority, run_at, id)
        UNION ALL
        SELECT queue, priority, '-infinity', 0 FROM in_use
    ),
    {lease},
    {paused},
    {suspects}
    {allowed},
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
            WHERE chosen.task <> ALL (%(full)s::text[]){within}
        ))
        RETURNING job.*
    )
    SELECT
        (SELECT jobs FROM settled),
        EXISTS (SELECT FROM {schema}.worker WHERE id = %(worker)s::bigint),
        ARRAY(SELECT queue FROM in_use), ARRAY(SELECT priority FROM in_use),
        ARRAY(SELECT (
            SELECT extract(epoch FROM least(job.run_at, {schema}.clock() + interval '1 day'))::float8
                - extract(epoch FROM {schema}.clock())::float8
            FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL
                AND job.queue = in_use.queue AND job.priority = in_use.priority AND job.run_at > {schema}.clock()
            ORDER BY job.run_at LIMIT 1) FROM in_use),
        ARRAY(SELECT look.queue FROM unnest(%(looking)s::text[]) AS look (queue) CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = look.queue LIMIT 1) AS parked),
        ARRAY(SELECT queue FROM allowed
              WHERE free < wanted
                  AND free <= (SELECT count(*) FROM claimed WHERE claimed.queue = allowed.queue){and_entered}),
        {answers},
        ARRAY(SELECT id FROM finished WHERE needed UNION ALL SELECT id FROM dropped WHERE needed),
        CASE WHEN EXISTS (SELECT FROM returned)
            THEN {schema}.ring(ARRAY(SELECT DISTINCT queue FROM returned))::text END,
        NULL::text, NULL::text, NULL::smallint, NULL::smallint, NULL::integer, NULL::smallint,
        NULL::json, NULL::json, NULL::json, NULL::json, NULL::text, NULL::bigint, NULL::smallint, NULL::timestamptz,
        NULL::float8, NULL::timestamptz, NULL::json, NULL::text
    UNION ALL
    SELECT id, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        task, queue, attempt, max_attempts, claims, crashes, {arguments}, retry, limits, {errors}, NULL, batch,
        priority, {run_at},
        CASE WHEN {refused_of_late} THEN extract(epoch FROM {schema}.clock() - job.refused_at)::float8 END,
        {submitted_at}, meta::json, parked
    FROM claimed AS job{entered}
"""
# Nobody has tried it for a while where all workers were away, or its queue was paused: then the time counts anew.
_REFUSED_OF_LATE = "job.refused_at IS NOT NULL AND job.run_at > {schema}.clock() - interval '10 minutes'"

_PLAIN_FIRST = """SELECT ready.ctid, ready.task{weighed}{place_of_ready}
                FROM lanes
                CROSS JOIN LATERAL (
                    {ready}
                ) AS ready
                WHERE lanes.queue = want.queue
                LIMIT want.free"""
_READY = """SELECT job.ctid, job.task{weight}{place} FROM {schema}.job AS job
                    WHERE job.state = 'ready' AND job.parked IS NULL AND job.crashes = 0
                        AND job.queue = lanes.queue AND job.priority = lanes.priority
                        AND (job.run_at, job.id) > (lanes.run_at, lanes.id) AND job.run_at <= {schema}.clock()
                        AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
                        AND (want.in_line OR job.task <> ALL (%(full)s::text[]))
                    ORDER BY job.run_at, job.id
                    LIMIT want.free
                    FOR UPDATE SKIP LOCKED"""
_SUSPECTS = """suspects AS MATERIALIZED (
        SELECT mine.place, mine.task, mine.queue, mine.priority, mine.run_at, mine.id{weight_of_mine}
        FROM unnest(%(suspects)s::bigint[], %(suspect_fences)s::integer[]) AS chosen (id, fence)
        CROSS JOIN LATERAL (
            SELECT job.ctid AS place, job.* FROM {schema}.job AS job
            WHERE job.id = chosen.id
            LIMIT 1
            FOR UPDATE SKIP LOCKED
        ) AS mine
        WHERE mine.state = 'ready' AND mine.parked IS NULL AND mine.crashes > 0 AND mine.claims = chosen.fence
            AND mine.run_at <= {schema}.clock() AND mine.task <> ALL ((SELECT tasks FROM left_out)::text[])
    ),"""
_SUSPECTS_FIRST = """SELECT suspect.place AS ctid, suspect.task{bytes_of_suspect}{place_of_suspect}
                    FROM suspects AS suspect
                    WHERE suspect.queue = lanes.queue AND suspect.priority = lanes.priority
                    UNION ALL
                    SELECT plain.ctid, plain.task{bytes_of_plain}{place_of_plain} FROM ({ready}) AS plain"""

LEASE = """lease AS MATERIALIZED (
        SELECT id FROM {schema}.worker WHERE id = %(worker)s::bigint FOR KEY SHARE
    )"""
PAUSED = """paused AS MATERIALIZED (
        SELECT kind, name FROM {schema}.pause WHERE until > {schema}.clock()
    ),
    left_out AS MATERIALIZED (
        SELECT array_cat(%(without)s::text[], ARRAY(SELECT name FROM paused WHERE kind = 'task')) AS tasks
    )"""
ALLOWED = """allowed AS MATERIALIZED (
        SELECT want.queue, want.in_line, want.free AS wanted, want.bytes,
            CASE WHEN EXISTS (SELECT FROM {schema}.queue_limit) THEN {schema}.allowance(
                want.queue, want.free, %(worker)s::bigint,
                CASE {settled} WHEN %(sent)s::integer THEN want.keeps ELSE want.holds END, want.presses)
                ELSE want.free END AS free
        FROM unnest(%(queues)s::text[], %(free)s::integer[], %(in_line)s::boolean[], %(bytes)s::integer[],
            %(holds)s::integer[], %(keeps)s::integer[], %(presses)s::boolean[])
            AS want (queue, free, in_line, bytes, holds, keeps, presses)
        WHERE want.queue <> ALL (ARRAY(SELECT name FROM paused WHERE kind = 'queue'))
    )"""

_ADMIT = """    chosen AS MATERIALIZED (
        SELECT want.queue, first.*
        FROM allowed AS want
        CROSS JOIN LATERAL (
                {plain_first}
        ) AS first
    ),
    ended_claim AS MATERIALIZED (
        SELECT queue, ROW(id, claims, parked, gates, slots, refused)::{schema}.leaving AS leaving
        FROM (
            SELECT queue, id, claims, parked, gates, slots, false AS refused FROM finished
            UNION ALL SELECT queue, id, claims, parked, gates, slots, refused FROM returned
            UNION ALL SELECT queue, id, claims, parked, gates, slots, false FROM dropped
        ) AS over
        WHERE slots IS NOT NULL
    ),
    mark AS MATERIALIZED (
        SELECT * FROM unnest(%(marked_queues)s::text[], %(marked_keys)s::text[], %(marked_lanes)s::smallint[],
            %(marked_run_at)s::timestamptz[], %(marked_ids)s::bigint[]) AS mark (queue, key, priority, run_at, id)
    ),
    admitted AS MATERIALIZED (
        SELECT want.queue, answer.*
        FROM unnest(%(gated)s::text[], %(flows)s::boolean[], %(goes_round)s::boolean[], %(spots)s::text[],
            %(gated_bytes)s::integer[], %(gated_suspects)s::smallint[])
            AS want (queue, flows, goes_round, spot, bytes, suspects)
        CROSS JOIN LATERAL (
            SELECT want.queue IN (SELECT queue FROM allowed WHERE in_line) AS is_in_line
        ) AS line
        CROSS JOIN LATERAL {schema}.admit(
            ROW(%(worker)s::bigint, want.queue, {known},
                CASE WHEN line.is_in_line THEN (SELECT tasks FROM left_out)
                    ELSE array_cat((SELECT tasks FROM left_out), %(full)s::text[]) END,
                CASE WHEN line.is_in_line THEN %(full)s::text[] ELSE '{}' END, want.suspects, want.bytes, NULL,
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
KNOWN = "coalesce((SELECT tasks FROM {schema}.offer WHERE worker = %(worker)s::bigint), '{}')"
"""The tasks that this worker offers; none is any."""
_BESIDE = """SELECT chosen.* FROM chosen WHERE chosen.queue = want.queue
                LIMIT want.free - coalesce((
                    SELECT CASE WHEN held_up THEN want.free ELSE cardinality(entered) END
                    FROM admitted WHERE admitted.queue = want.queue), 0)"""
_AND_ENTERED = """ + coalesce(
                      (SELECT cardinality(entered) FROM admitted WHERE admitted.queue = allowed.queue), 0)"""
_ENTERED = """
    UNION ALL
    SELECT id, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        task, queue, attempt, max_attempts, claims, crashes, job.arguments::json, retry, limits, job.errors, parked,
        batch, priority, {run_at},
        CASE WHEN {refused_of_late} THEN extract(epoch FROM {schema}.clock() - job.refused_at)::float8 END,
        {submitted_at}, meta::json, NULL
    FROM (SELECT job.* FROM admitted CROSS JOIN LATERAL unnest(admitted.entered) AS job) AS job"""
_ANSWERS = """(SELECT json_agg(json_build_array(queue, cardinality(entered), stopped_at, next_in, more, again,
            CASE WHEN {schema}.is_one_limit(entered[1].parked) THEN entered[1].gates::text END, held_up))
        FROM admitted)"""
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
        SELECT {known} AS tasks
    ),
"""
_FLOWING = """SELECT ready.ctid, ready.task{weighed}
                FROM (
                    (SELECT ready.ctid, ready.task{bytes_of_ready}
                    FROM lanes
                    CROSS JOIN LATERAL (
                        {ready}
                    ) AS ready
                    WHERE lanes.queue = want.queue
                    LIMIT want.free)
                    UNION ALL
                    (SELECT ready.ctid, ready.task{bytes_of_ready}
                    FROM flow
                    CROSS JOIN unnest(
                        %(flow_lanes)s::smallint[], %(flow_run_at)s::timestamptz[], %(flow_ids)s::bigint[]
                    ) AS lane (priority, run_at, id)
                    CROSS JOIN LATERAL (
                        SELECT job.ctid, job.task{weight} FROM {schema}.job AS job
                        WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.crashes = 0
                            AND job.queue = want.queue AND job.priority = lane.priority
                            AND job.parked COLLATE "C" = %(flow_key)s::text
                            AND (job.run_at, job.id) > (lane.run_at, lane.id) AND job.run_at <= {schema}.clock()
                            AND job.gates::text = %(flow_gates)s::text
                            AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
                            AND job.task <> ALL (%(full)s::text[])
                            AND ((SELECT tasks FROM known) = '{}' OR job.task = ANY ((SELECT tasks FROM known)::text[]))
                        ORDER BY job.run_at, job.id
                        LIMIT flow.free
                        FOR UPDATE SKIP LOCKED
                    ) AS ready
                    WHERE flow.queue = want.queue
                    LIMIT (SELECT free FROM flow))
                ) AS ready
                LIMIT want.free"""

LARGE_BYTES = 4 * 1024
"""Jobs with more than that in arguments and errors, as stored, are large: claims count their bytes."""

_SIZE = "pg_catalog.pg_column_size(job.arguments) + coalesce(pg_catalog.pg_column_size(job.errors), 0)"
"""In bytes as stored. To know how long a compressed JSON is would be to read and write out all of it."""
_WEIGHT = """CASE WHEN pg_catalog.pg_column_compression(job.arguments) IS NULL THEN 1 ELSE 8 END
                        * pg_catalog.pg_column_size(job.arguments)
                        + coalesce(pg_catalog.pg_column_size(job.errors), 0) - {large}"""
"""Of a large job: JSON is seldom compressed to less than an eighth. Where it is, and the answer is too long for the
line, the next claim asks for fewer."""

_UNWEIGHED = {
    "weight": "",
    "weight_of_mine": "",
    "bytes_of_suspect": "",
    "bytes_of_plain": "",
    "bytes_of_ready": "",
    "weighed": "",
    "within": "",
    "arguments": "CASE WHEN {size} <= {large} THEN job.arguments::json END",
    "errors": "CASE WHEN pg_catalog.pg_column_size(job.errors) <= {large} THEN job.errors END",
}
"""Large jobs come without their arguments: they have to go back, and the next claims weigh. So a claim of the usual
jobs costs next to nothing more, and what it brings has a bound.
"""
_WEIGHED = {
    "weight": ", greatest({weight_of}, 0) AS bytes",
    "weight_of_mine": ", greatest(" + _WEIGHT.replace("job.", "mine.") + ", 0) AS bytes",
    "bytes_of_suspect": ", suspect.bytes",
    "bytes_of_plain": ", plain.bytes",
    "bytes_of_ready": ", ready.bytes",
    "weighed": ", ready.bytes, sum(ready.bytes) OVER (ROWS UNBOUNDED PRECEDING) AS total",
    "within": """
                AND (chosen.total <= want.bytes OR chosen.total - chosen.bytes < want.bytes)""",
    "arguments": "job.arguments::json",
    "errors": "job.errors",
}

_NTH = "array_position(%(again_ids)s::bigint[], job.id)"
_DONE_NTH = "array_position(%(done_ids)s::bigint[], job.id)"


def _filled(text: str, pieces: Mapping[str, str]) -> str:
    for slot, piece in pieces.items():
        text = text.replace("{" + slot + "}", piece)
    return text


_NOWHERE = {"place": "", "place_of_ready": "", "place_of_suspect": "", "place_of_plain": ""}
_PLACES = {
    "place": ", job.priority, job.run_at, job.id",
    "place_of_ready": ", ready.priority, ready.run_at, ready.id",
    "place_of_suspect": ", suspect.priority, suspect.run_at, suspect.id",
    "place_of_plain": ", plain.priority, plain.run_at, plain.id",
}
_PLAIN = {
    "chosen": "",
    "first": _filled(_PLAIN_FIRST, _NOWHERE),
    "slots": "",
    "and_entered": "",
    "answers": "NULL::json",
    "entered": "",
}
_ADMITTING = {
    "chosen": _ADMIT.replace("{plain_first}", _filled(_PLAIN_FIRST, _PLACES)),
    "first": _BESIDE,
    "slots": "",
    "and_entered": _AND_ENTERED,
    "answers": _ANSWERS,
    "entered": _ENTERED,
}
_FLOWS = {
    "chosen": _FLOW,
    "first": _FLOWING,
    "slots": ", slots = NULL",
    "and_entered": "",
    "answers": "(SELECT to_json(free) FROM flow)",
    "entered": "",
}


def _form(pieces: Mapping[str, str]) -> str:
    text = _FINISH + _filled(
        _filled(_CLAIM, {"in_use": IN_USE, "lease": LEASE, "paused": PAUSED, "allowed": ALLOWED}), pieces
    )
    return (
        keeping(text.replace("{settled}", "(SELECT jobs FROM settled)"), "(%(states)s::text[])[{done_nth}]")
        .replace("{keep_cancelled}", KEEP.replace("{state}", "'cancelled'"))
        .replace("{refused_of_late}", _REFUSED_OF_LATE)
        .replace("{known}", KNOWN)
        .replace("{nth}", _NTH)
        .replace("{done_nth}", _DONE_NTH)
        .replace("{run_at}", readable("run_at"))
        .replace("{submitted_at}", readable("submitted_at"))
    )


def _without_suspects(pieces: Mapping[str, str], places: Mapping[str, str]) -> str:
    return _filled(_form(pieces).replace("    {suspects}\n", "").replace("{ready}", _READY), places)


def _with_suspects(pieces: Mapping[str, str], places: Mapping[str, str]) -> str:
    first = _SUSPECTS_FIRST.replace("{ready}", _READY)
    return _filled(_form(pieces).replace("{suspects}", _SUSPECTS).replace("{ready}", first), places)


def _round(lock: str, weighing: Mapping[str, str], text: str) -> str:
    pieces = {"lock": lock, **weighing, "size": _SIZE, "weight_of": _WEIGHT, "large": str(LARGE_BYTES)}
    return _filled(text, pieces)


_WAITS, _PASSES_BY = "", "FOR UPDATE SKIP LOCKED"
_WAYS = ((_WAITS, _UNWEIGHED), (_PASSES_BY, _UNWEIGHED), (_WAITS, _WEIGHED), (_PASSES_BY, _WEIGHED))
ROUND, PATIENT_ROUND, WEIGHED_ROUND, PATIENT_WEIGHED_ROUND = FORMS = tuple(
    _round(*way, _without_suspects(_PLAIN, _NOWHERE)) for way in _WAYS
)
"""The first waits for a locked row as long as the connection's lock_timeout lets it. A patient one passes locked rows
by; a third dearer: for when the first form ran into a lock, until nothing is left over. A weighed one claims large
jobs, up to so many bytes; a twentieth dearer: for when there have been any lately.
"""


def _like(text: str) -> Mapping[str, str]:
    """The four that differ from one another as those do, by those."""
    return {form: _round(*way, text) for form, way in zip(FORMS, _WAYS, strict=True)}


WITH_SUSPECTS = _like(_with_suspects(_PLAIN, _NOWHERE))
"""The four for when there are suspects to claim: what they need would cost every other round a twentieth."""
ADMITTING = _like(_without_suspects(_ADMITTING, _PLACES))
"""The four for rounds that go through parked jobs, or hand on slots."""
ADMITTING_WITH_SUSPECTS = _like(_with_suspects(_ADMITTING, _PLACES))
"""The same with suspects that are not parked."""
FLOWING = _like(_without_suspects(_FLOWS, _NOWHERE))
"""The four for rounds that claim of one limit that is far from full, by this worker's share of it."""


class Circle(NamedTuple):
    """Of a queue in which jobs are parked: whether to go through them now, and behind which key to go on."""

    goes_round: bool = False
    after: str = ""
    marks: Mapping[tuple[int, str], Mark] = MappingProxyType({})
    """The last job claimed of a priority and key, as far as it is worth to go on there."""
    flows: bool = False
    """Those of the marks have filled all the room until now: ask them first."""
    suspects: int = 0
    """Whether one suspect may be among them: 0 none, 1 one that may run beside others, 2 one of any kind."""


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
    held_up: bool = False
    """The next one has no room where it runs, and nobody passes it by: its queue has one slot."""


Held: TypeAlias = tuple[str, str]
"""What jobs run in: ("queue", its name), or ("gate", the key) of a limit of which this worker has a share."""


class Wanted(msgspec.Struct, frozen=True):
    """What to claim: of which queue how many, where to start in each lane, and which tasks to leave out."""

    free: dict[str, int] = {}
    lanes: dict[tuple[str, int], Mark] = {}
    looking: tuple[str, ...] = ()
    """Queues to look at from the start, learning their priorities."""
    without: tuple[str, ...] = ()
    suspects: Sequence[tuple[int, int]] = ()
    """The jobs to take that were running when a worker died, by id and last fence; others of that kind are left out."""
    full: tuple[str, ...] = ()
    """Tasks to leave out, too, because there is no room where they run."""
    in_line: frozenset[str] = frozenset()
    """Queues in which such a job is not passed by: if it is the first, nothing is claimed. One job is wanted there."""
    large: dict[str, int] = {}
    """How many bytes each queue may bring in large jobs, `CLAIM_BYTES` where it does not say: as many jobs as are
    within that, in their order, and the one that goes above it; with 0 none that is large. For the forms that weigh."""
    holds: Mapping[Held, tuple[int, int]] | None = None
    """How many of each queue, and of each limit of which it has a share, this worker has before the verdicts; and after
    them, if all find their rows. None is not known: they are counted.
    """
    pressing: Collection[str] = ()
    """Queues of whose limit it had less than it could have used."""
    gated: Mapping[str, Circle] = {}
    """Queues with parked jobs to be admitted, and of jobs with slots that end now."""
    flow: Flow | None = None
    """Not together with suspects."""

    def holds_of(self, held: Held) -> tuple[int | None, int | None]:
        """Before the verdicts, and after them."""
        return (None, None) if self.holds is None else self.holds.get(held, (0, 0))


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
    """In the order in which those of each queue are to begin: priority, run_at, id. Large ones come without arguments
    where the round did not weigh, and have to go back."""
    marks: dict[tuple[str, int], Mark]
    parked: Sequence[str] = ()
    """Of the queues looked at, those in which jobs wait to be admitted."""
    at_limit: Sequence[str] = ()
    """Queues of which a limit let less be claimed than was wanted and may be there."""
    admissions: Sequence[Admission] = ()
    gate_marks: Mapping[str, Mapping[tuple[int, str], Mark]] = field(default_factory=dict)
    """Of the priorities and keys of each queue, the last that was admitted."""
    flow_free: int | None = None
    """How many a share let be claimed, where there was a flow."""
    needed: Sequence[int] = ()
    """Of the jobs that it has ended, those that others need."""


# Columns of verdicts are taken in C: rounds carry a hundred, thousands of times a second.
_ID, _FENCE, _STATE, _RESULT, _ERRORS, _DELAY = map(attrgetter, ("id", "fence", "state", "result", "errors", "delay"))


def play_round(
    worker: int, verdicts: Sequence[Completion], wanted: Wanted, *, under: int | None = None, text: str = ROUND
) -> Statement[Answer]:
    """Write verdicts and claim, in one statement and one commit. `text` is one of the four forms. With `wanted.gated`,
    parked jobs are admitted, and slots of those that end are handed on.

    The verdicts are of claims under one lease, `under`; None is `worker`, under which is claimed.
    Of two claims of one job the later alone has a say; the other's verdict is not sent, and counts as not settled.
    """
    if len(set(map(_ID, verdicts))) < len(verdicts):
        verdicts = list({verdict.id: verdict for verdict in sorted(verdicts, key=attrgetter("fence"))}.values())
    done = [v for v in verdicts if v.state is not State.READY]
    again = [v for v in verdicts if v.state is State.READY]
    form, more = text, dict[str, Any]()
    if wanted.flow is not None:
        form, more = FLOWING[text], _of_flow(wanted.flow, wanted)
    elif wanted.gated:
        form = (ADMITTING_WITH_SUSPECTS if wanted.suspects else ADMITTING)[text]
        more = _of_gated(wanted)
    elif wanted.suspects:
        form = WITH_SUSPECTS[text]
    return Statement(
        form,
        more
        | {
            "worker": worker,
            "under": worker if under is None else under,
            "done_ids": of_numbers(map(_ID, done)),
            "done_fences": of_numbers(map(_FENCE, done)),
            "states": of_texts(map(_STATE, done)),
            "results": JsonColumn(map(_RESULT, done)),
            "done_errors": _errors_of(done),
            "again_ids": of_numbers(map(_ID, again)),
            "again_fences": of_numbers(map(_FENCE, again)),
            "delays": of_intervals(map(_DELAY, again)),
            "refunds": of_numbers([int(v.refund) for v in again]),
            "refusals": of_numbers([int(v.refusal) for v in again]),
            "again_errors": _errors_of(again),
            "looking": of_texts(wanted.looking),
            "lane_queues": of_texts(queue for queue, _ in wanted.lanes),
            "lane_priorities": of_numbers(priority for _, priority in wanted.lanes),
            "mark_run_at": of_texts(run_at for run_at, _ in wanted.lanes.values()),
            "mark_ids": of_numbers(id_ for _, id_ in wanted.lanes.values()),
            "queues": of_texts(wanted.free),
            "free": of_numbers(wanted.free.values()),
            "in_line": of_texts(str(queue in wanted.in_line).lower() for queue in wanted.free),
            "bytes": of_numbers(wanted.large.get(queue, CLAIM_BYTES) for queue in wanted.free),
            "holds": of_texts(wanted.holds_of(("queue", queue))[0] for queue in wanted.free),
            "keeps": of_texts(wanted.holds_of(("queue", queue))[1] for queue in wanted.free),
            "presses": of_texts(queue in wanted.pressing for queue in wanted.free),
            "sent": len(verdicts),
            "without": of_texts(wanted.without),
            "full": of_texts(wanted.full),
            "suspects": of_numbers(id_ for id_, _ in wanted.suspects),
            "suspect_fences": of_numbers(fence for _, fence in wanted.suspects),
        },
        lambda rows: _parse_answer(rows, worker),
    )


def _errors_of(verdicts: Sequence[Completion]) -> JsonColumn:
    """Column of errors; one without any says the same shorter, since nothing is at a place that there is not."""
    return JsonColumn(map(_ERRORS, verdicts) if any(map(_ERRORS, verdicts)) else ())


def _of_gated(wanted: Wanted) -> dict[str, Any]:
    gated = wanted.gated
    marks = [(queue, key, lane, mark) for queue, circle in gated.items() for (lane, key), mark in circle.marks.items()]
    share = CLAIM_BYTES // len(gated)
    return {
        "gated": of_texts(gated),
        "flows": of_texts(circle.flows for circle in gated.values()),
        "goes_round": of_texts(circle.goes_round for circle in gated.values()),
        "spots": of_texts(circle.after for circle in gated.values()),
        "gated_bytes": of_numbers(wanted.large.get(queue, share) for queue in gated),
        "gated_suspects": of_numbers(circle.suspects for circle in gated.values()),
        "marked_queues": of_texts(queue for queue, _, _, _ in marks),
        "marked_keys": of_texts(key for _, key, _, _ in marks),
        "marked_lanes": of_numbers(lane for _, _, lane, _ in marks),
        "marked_run_at": of_texts(run_at for _, _, _, (run_at, _) in marks),
        "marked_ids": of_numbers(id_ for _, _, _, (_, id_) in marks),
    }


def _of_flow(flow: Flow, wanted: Wanted) -> dict[str, Any]:
    holds, keeps = wanted.holds_of(("gate", flow.key))
    return {
        "flow_queue": flow.queue,
        "flow_key": flow.key,
        "flow_gates": flow.gates,
        "flow_holds": holds,
        "flow_keeps": keeps,
        "flow_lanes": of_numbers(flow.marks),
        "flow_run_at": of_texts(run_at for run_at, _ in flow.marks.values()),
        "flow_ids": of_numbers(id_ for _, id_ in flow.marks.values()),
    }


_FIRST_OF_JOB = 10
"""Of a claimed job's row: id, true, and then empty columns, which the first row has."""
_RUN_AT, _PRIORITY = attrgetter("run_at"), attrgetter("priority")


def _parse_answer(rows: Rows, worker: int) -> Answer:
    (settled, holding, queues, priorities, ahead, parked, at_limit, answers, needed, *_), *claimed_rows = rows
    claimed = [Claimed(*(row[0], *row[_FIRST_OF_JOB:-1], worker, row[-1])) for row in claimed_rows]
    _sort(claimed)
    marks: dict[tuple[str, int], Mark] = {}
    gate_marks: dict[str, dict[tuple[int, str], Mark]] = {}
    # The last of each, since they are in order; a suspect comes before its turn.
    last = {(job.queue, job.priority, job.parked or job.share): job for job in claimed if not job.crashes}
    for (queue, priority, key), job in last.items():
        if key is None:
            marks[queue, priority] = job.run_at, job.id
        else:
            gate_marks.setdefault(queue, {})[priority, key] = job.run_at, job.id
    lanes = list(zip(queues, priorities, strict=True))
    said = None if answers is None else msgspec.json.decode(answers)
    admissions = [Admission(*each) for each in said] if isinstance(said, list) else []
    return Answer(
        settled, holding, lanes, _soonest(queues, ahead), claimed, marks, parked, at_limit,
        admissions, gate_marks, said if isinstance(said, int) else None, needed,
    )  # fmt: skip


def _sort(claimed: list[Claimed]) -> None:
    """By priority, run_at and id: RETURNING gives rows in no order."""
    claimed.sort(key=_ID)
    claimed.sort(key=_RUN_AT)
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
            WHEN job.state = 'running' THEN CASE WHEN job.worker = sent.lease THEN 'busy' ELSE 'lost' END
            WHEN job.id IS NOT NULL THEN 'done'
            WHEN past.worker <> sent.lease THEN 'lost'
            WHEN past.state = 'succeeded' AND sent.state <> 'succeeded' THEN 'completed'
            WHEN past.id IS NOT NULL THEN 'done'
            WHEN EXISTS (SELECT FROM {schema}.retention WHERE days = 0)
                AND (SELECT rule.days FROM {schema}.retention AS rule
                     WHERE rule.queue = sent.queue AND rule.days = 0 AND rule.what <> 'results' LIMIT 1) IS NOT NULL
                AND (SELECT job.id FROM {schema}.job AS job WHERE job.id = sent.id LIMIT 1) IS NULL
                AND (SELECT past.id FROM {schema}.history AS past WHERE past.id = sent.id LIMIT 1) IS NULL THEN 'done'
            ELSE 'lost'
        END
    FROM unnest(
        %(ids)s::bigint[], %(fences)s::integer[], %(leases)s::bigint[], %(states)s::text[], %(queues)s::text[]
    ) AS sent (id, fence, lease, state, queue)
    LEFT JOIN LATERAL (
        SELECT id, state, worker FROM {schema}.job AS job WHERE job.id = sent.id AND job.claims = sent.fence LIMIT 1
    ) AS job ON true
    LEFT JOIN LATERAL (
        SELECT id, state, worker FROM {schema}.history AS past
        WHERE past.id = sent.id AND past.claims = sent.fence
        LIMIT 1
    ) AS past ON true
"""


def settle(
    under: int, verdicts: Sequence[Completion], held: Mapping[tuple[int, int], Claimed]
) -> Statement[dict[tuple[int, int], str]]:
    """What became of verdicts, by (id, fence); `held` knows the queues and leases of their jobs, and of one that it
    does not know the lease is `under`.

    'done'; 'busy' (still ours, the row was locked); 'completed' (as succeeded, by the handler's own transaction);
    'lost' (another claim has it). A job that is nowhere any more is done if its queue has ends that leave no row: a
    lost job that has ended so since is told as done, too.
    """
    jobs = [held.get((v.id, v.fence)) for v in verdicts]
    params = {
        "ids": of_numbers(v.id for v in verdicts),
        "fences": of_numbers(v.fence for v in verdicts),
        "leases": of_numbers(under if job is None else job.lease for job in jobs),
        "states": of_texts(v.state.value for v in verdicts),
        "queues": of_texts(None if job is None else job.queue for job in jobs),
    }
    return Statement(SETTLE, params, lambda rows: {(id_, fence): fate for id_, fence, fate in rows})
