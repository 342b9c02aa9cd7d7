"""What is said to the database about jobs that need others, by who submits them and by workers that look after them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from chancy.arguments.submits import surrounded
from chancy.history.moving import keeping
from chancy.model import Rows, Statement, Steps
from chancy.wires.literals import of_numbers, of_texts

from .columns import FLOW, columns_of
from .flow import Flow, Order, flow_of, order_of

if TYPE_CHECKING:
    from chancy.job import Job, NewJob

T = TypeVar("T")
Looks: TypeAlias = Generator[Statement[Any], Any, T]
"""Several, one after the other."""

MOST = 500
"""Jobs a look, and a transaction."""

INSERT_FLOW = """
    SELECT made.ids, made.at, pg_current_xact_id()::text FROM {schema}.insert_flow({flow}) AS made
""".replace("{flow}", FLOW)


class Inserted(NamedTuple):
    """What became of a flow."""

    ids: list[int]
    """Of its jobs, in their order."""
    at: datetime
    """When it was submitted, in UTC."""
    transaction: str


def insert_flow(flow: Flow) -> Statement[Inserted]:
    """Add the jobs of a flow, those that need others blocked; one round trip.

    Holds the rows of jobs that were there and are needed until the caller's transaction ends; workers' rounds pass them
    by.
    """
    return Statement(
        INSERT_FLOW,
        columns_of(flow.nodes),
        lambda rows: Inserted(list(rows[0][0]), rows[0][1].astimezone(UTC), rows[0][2]),
        flow.nodes,
        name="insert_flow",
    )


def submit_graph(
    ends: Sequence[NewJob[Any]], schema: str, handle: Callable[[NewJob[Any], str, int, str, datetime], Job[Any]]
) -> Steps[tuple[list[Job[Any]], list[int]]]:
    """Add these and all that they need which is not there yet, each once; their handles, and the ids of all."""
    order = order_of(ends)

    def send(jobs: Sequence[NewJob[Any]]) -> Steps[list[Job[Any]]]:
        made: Inserted = yield insert_flow(flow_of(Order(list(jobs), order.places), schema))
        return [handle(job, schema, id_, made.transaction, made.at) for id_, job in zip(made.ids, jobs, strict=True)]

    made = yield from surrounded(order.jobs, send)
    return [made[order.places[id(job)] - 1] for job in ends], [job.id for job in made]


UNBLOCK = """
    SELECT look.released, look.upto, look.seen, look.lost, look.culprits, look.sizes
    FROM {schema}.unblock(%(ended)s::bigint[], %(after)s::bigint, %(most)s::integer, %(hints)s::bigint[]) AS look
"""


class Look(NamedTuple):
    """What a look at those who need jobs that have ended has found."""

    released: int
    """How many are ready now."""
    upto: int | None
    """Where the next look goes on, if there is one."""
    seen: Sequence[int]
    """Of jobs with many needs, one after the other: its id, and that of a need that is live."""
    lost: Sequence[int]
    """Those that have to end."""
    culprits: Sequence[int | None]
    """Of each the need that has ended otherwise, or the job that it has become; None where that is nobody's fault."""
    sizes: Sequence[int | None]
    """The bytes of what they would be given, where that is too large."""


def unblock(ended: Collection[int], after: int = 0, hints: Sequence[int] = ()) -> Statement[Look]:
    """Release jobs behind `after` that need one of these and nothing that is live. Locks only what it releases, and
    passes locked rows by. See the function.
    """
    params = {"ended": of_numbers(ended), "after": after, "most": MOST, "hints": of_numbers(hints)}
    return Statement(UNBLOCK, params, lambda rows: Look(*rows[0]), name="unblock")


# A job ends as cancelled because of a need; as what it was to become has ended, or else as failed.
END_BLOCKED = keeping(
    """
    WITH gone AS (
        DELETE FROM {schema}.job AS job
        WHERE job.ctid = ANY (ARRAY(
            SELECT mine.ctid FROM unnest(%(ids)s::bigint[]) AS sent (id)
            CROSS JOIN LATERAL (
                SELECT job.ctid FROM {schema}.job AS job
                WHERE job.id = sent.id AND job.state = 'blocked' LIMIT 1 FOR UPDATE SKIP LOCKED
            ) AS mine))
        RETURNING job.*, array_position(%(ids)s::bigint[], job.id) AS nth
    ),
    judged AS MATERIALIZED (
        SELECT gone.*, culprit.id AS culprit, other.state AS how, other.task AS whose, other.result AS its_result,
            too_large.size, CASE
                WHEN too_large.size IS NOT NULL THEN 'failed'
                WHEN gone.becomes IS NULL THEN 'cancelled'
                WHEN other.state = 'succeeded' AND other.result IS NOT NULL THEN 'succeeded'
                ELSE 'failed' END AS verdict
        FROM gone
        CROSS JOIN LATERAL (SELECT (%(culprits)s::bigint[])[gone.nth] AS id) AS culprit
        CROSS JOIN LATERAL (SELECT (%(sizes)s::bigint[])[gone.nth] AS size) AS too_large
        LEFT JOIN LATERAL (
            SELECT past.state, past.task, past.result FROM {schema}.any_job AS past WHERE past.id = culprit.id LIMIT 1
        ) AS other ON true
    ),
    ended AS (
        SELECT {moved}, verdict::{schema}.state AS state,
            CASE WHEN verdict = 'succeeded' THEN its_result END AS result,
            CASE WHEN verdict = 'succeeded' THEN errors ELSE {schema}.with_error(errors, json_build_object(
                'attempt', attempt,
                'kind', CASE WHEN size IS NULL THEN 'NeedFailed' ELSE 'InvalidArguments' END,
                'message', CASE WHEN size IS NULL
                    THEN CASE WHEN becomes IS NULL THEN 'it needs job ' ELSE 'it became job ' END || culprit::text
                        || coalesce(' (' || whose || '), which ' || CASE how::text
                            WHEN 'succeeded' THEN 'has no result any more'
                            WHEN 'failed' THEN 'failed'
                            ELSE 'was ' || how::text END, ', which is not there any more')
                    ELSE 'what it needs has come to ' || size::text || ' bytes of arguments, at most 16777216 fit: '
                        || 'store it elsewhere and return where it is' END)) END AS errors,
            keep
        FROM (SELECT judged.*, {keep} FROM judged) AS judged
    ),
    {kept},
    {apart},
    doomed AS (
        UPDATE {schema}.need SET doomed_at = {schema}.clock(), by_a_look = true
        WHERE job = ANY (ARRAY(SELECT id FROM judged WHERE verdict <> 'succeeded'))
    ),
    met AS (
        DELETE FROM {schema}.need WHERE job = ANY (ARRAY(SELECT id FROM judged WHERE verdict = 'succeeded'))
    )
    SELECT ARRAY(SELECT id FROM judged WHERE needed ORDER BY id), (
        SELECT json_agg(json_build_array(queue, task, verdict, jobs))::text
        FROM (SELECT queue, task, verdict, count(*) AS jobs FROM judged GROUP BY queue, task, verdict) AS alike)
""",
    "verdict",
)

Counts: TypeAlias = Sequence[tuple[str, str, str, int]]
"""Of which queue, of which task, how they ended, and how many."""


class EndedBlocked(NamedTuple):
    """What has ended without an attempt of its own."""

    needed: Sequence[int]
    """Those that others need."""
    counts: Counts


def end_blocked(look: Look) -> Statement[EndedBlocked]:
    """End what a look has found lost. Passes locked rows by: a later look."""
    params = {
        "ids": of_numbers(look.lost),
        "culprits": of_texts(look.culprits),
        "sizes": of_texts(look.sizes),
    }

    def parse(rows: Rows) -> EndedBlocked:
        needed, counts = rows[0]
        return EndedBlocked(needed, () if counts is None else _COUNTS.decode(counts))

    return Statement(END_BLOCKED, params, parse, name="end_blocked")


_COUNTS = msgspec.json.Decoder(list[tuple[str, str, str, int]])


class Told(msgspec.Struct):
    """What has come of looks."""

    needed: set[int] = msgspec.field(default_factory=set)
    """What has ended by that, and is needed itself."""
    released: int = 0
    seen: list[int] = msgspec.field(default_factory=list)
    """As `Look.seen`."""
    counts: list[tuple[str, str, str, int]] = msgspec.field(default_factory=list)
    """Of what has ended by that."""


def tell(ended: Collection[int]) -> Looks[int]:
    """Look at all that need one of these, which have ended, and at what ends by that in turn; how many are released."""
    news, released = set(ended), 0
    while news:
        part = sorted(news)[:MOST]
        news.difference_update(part)
        told = yield from tell_some(part)
        news |= told.needed
        released += told.released
    return released


def tell_some(ended: Collection[int], hints: Sequence[int] = ()) -> Looks[Told]:
    """The same for up to 500, and not at what ends by that."""
    told, after = Told(), 0
    while True:
        look: Look = yield unblock(ended, after, hints)
        told.released += look.released
        told.seen += look.seen
        if look.lost:
            lost: EndedBlocked = yield end_blocked(look)
            told.needed.update(lost.needed)
            told.counts += lost.counts
        if look.upto is None:
            return told
        after = look.upto


SELECT_UNNEEDED = """
    SELECT DISTINCT need.needs FROM {schema}.need AS need
    WHERE need.job = ANY (%(ids)s::bigint[])
        AND EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = need.needs)
        AND NOT EXISTS (
            SELECT FROM {schema}.need AS other WHERE other.needs = need.needs AND other.doomed_at IS NULL)
    ORDER BY need.needs
"""


def select_unneeded(ids: Collection[int]) -> Statement[list[int]]:
    """Of what these jobs needed, which have been cancelled: the live ones that nobody else needs."""
    params = {"ids": of_numbers(ids)}
    return Statement(SELECT_UNNEEDED, params, lambda rows: [id_ for (id_,) in rows], name="select_unneeded")


# One at a time: the others have nothing to add.
MISSED = """
    SELECT CASE WHEN pg_try_advisory_xact_lock('{schema}'::regnamespace::oid::integer, -3)
        THEN {schema}.missed(%(after)s::bigint, %(most)s::integer) ELSE '{}' END
"""


def missed(after: int) -> Statement[list[int]]:
    """The next 500 jobs behind `after` that are needed and not live; none while somebody else asks."""
    return Statement(MISSED, {"after": after, "most": MOST}, lambda rows: list(rows[0][0]), name="missed")


def tell_all() -> Looks[int]:
    """Look at all that are needed and have ended, as each worker does now and then; how many are released."""
    after, released = 0, 0
    while ends := (yield missed(after)):
        released += yield from tell(ends)
        after = ends[-1]
    return released


BECOME = """
    SELECT went.fate, went.other
    FROM {schema}.become(%(id)s::bigint, %(fence)s::integer, %(lease)s::bigint, {flow}, %(target)s::bigint,
        %(others)s::bigint[]) AS went
""".replace("{flow}", FLOW)


class Becoming(NamedTuple):
    """What came of it."""

    fate: str
    """'became', or 'done' already; 'lost' of a claim that is over, or was to be cancelled; 'cycle'."""
    other: int | None
    """The job that it waits for."""


def become(job_id: int, fence: int, lease: int, flow: Flow) -> Statement[Becoming]:
    """Have the job of this claim wait for the target of the flow, which is submitted with it: both or nothing."""
    params = {
        "id": job_id,
        "fence": fence,
        "lease": lease,
        "target": flow.target,
        "others": of_numbers(flow.others),
    }
    return Statement(
        BECOME, params | columns_of(flow.nodes), lambda rows: Becoming(*rows[0]), flow.nodes, name="become"
    )
