"""Claiming one by one, when a claim fails as a whole: what can be claimed is, and the row that no claim can read ends.

A row may have come from another version, another language or a broken disk. Whatever it holds, it ends alone, as failed
and with the reason, and the others of its queue go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import psycopg

from chancy.history.moving import DAYS_AHEAD, MOVED, keeping, make_partitions
from chancy.model import Statement
from chancy.wires.literals import of_numbers, of_texts, readable
from chancy_worker.attempts.verdict import Claimed
from chancy_worker.connection.link import Link, one_line
from chancy_worker.fingerprint import outline
from chancy_worker.words import safe

from .pieces import ALLOWED, KNOWN, LEASE, PAUSED
from .portions import fewer
from .wanted import CLAIM_BYTES, Wanted

log = logging.getLogger("chancy.worker")

LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_OF_A_ROW = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.DataCorrupted,
    psycopg.errors.RaiseException,  # of somebody's trigger
)
MOST_SIFTED = 100
"""Jobs of one claim that are claimed one by one: verdicts wait meanwhile."""
MOST_STRIKES = 5
"""So often a job alone cannot be claimed, for a reason that may not be its own, before it is taken for the culprit."""
STRUCK_SECONDS = 60.0
"""And for so long: a disk or a server that fails for a moment costs no job."""
MOST_REASON_BYTES = 1000


def is_of_a_row(error: Exception) -> bool:
    """Whether it is about what a row, or a verdict, holds; an answer that Python cannot read is."""
    return isinstance(error, _OF_A_ROW) or not isinstance(error, psycopg.Error)


def is_unread(error: Exception) -> bool:
    """Whether Postgres has answered, and so committed, and the answer could not be read."""
    return not isinstance(error, psycopg.Error) or (isinstance(error, psycopg.DataError) and error.sqlstate is None)


# Numbers only, which can be read whatever the rows hold.
CANDIDATES = (
    """
    WITH """
    + PAUSED
    + """,
    """
    + ALLOWED
    + """
    (SELECT chosen.id, chosen.claims, false, chosen.crashes > 0
    FROM allowed AS want
    CROSS JOIN LATERAL (
        SELECT job.id, job.claims, job.crashes FROM {schema}.job AS job
        WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = want.queue
            AND job.run_at <= {schema}.clock() AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
            AND job.task <> ALL (%(full)s::text[])
            AND (job.crashes = 0 OR (job.id, job.claims) IN (
                SELECT * FROM unnest(%(suspects)s::bigint[], %(suspect_fences)s::integer[])))
        ORDER BY job.priority DESC, job.run_at, job.id
        LIMIT want.free
    ) AS chosen)
    UNION ALL
    (SELECT chosen.id, chosen.claims, true, chosen.crashes > 0
    FROM allowed AS want
    JOIN unnest(%(gated)s::text[], %(gated_suspects)s::smallint[]) AS circle (queue, suspects) USING (queue)
    CROSS JOIN LATERAL (
        SELECT job.id, job.claims, job.crashes FROM {schema}.job AS job
        WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = want.queue
            AND job.run_at <= {schema}.clock() AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
            AND job.task <> ALL (%(full)s::text[])
            AND (job.crashes = 0 OR circle.suspects > 0)
        ORDER BY job.priority DESC, job.parked COLLATE "C", job.run_at, job.id
        LIMIT want.free
    ) AS chosen)
"""
).replace("{settled}", "0")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that a claim would take, by its id and the fence that it has now."""

    id: int
    fence: int
    parked: bool = False
    suspect: bool = False


def candidates(worker: int, wanted: Wanted) -> Statement[list[Candidate]]:
    """What a claim would take, in that order. Locks no job."""
    return Statement(CANDIDATES, _wishes(worker, wanted), lambda rows: [Candidate(*row) for row in rows])


CLAIM_ONE = (
    (
        """
    WITH """
        + LEASE
        + """,
    """
        + PAUSED
        + """,
    """
        + ALLOWED
        + """,
    claimed AS (
        UPDATE {schema}.job AS job
        SET state = 'running', attempt = job.attempt + 1, claims = job.claims + 1,
            worker = %(worker)s::bigint, started_at = {schema}.clock()
        WHERE job.ctid = ANY (ARRAY(
            SELECT this.ctid
            FROM lease
            CROSS JOIN LATERAL (
                SELECT job.ctid, job.queue FROM {schema}.job AS job
                WHERE job.id = %(id)s::bigint AND job.claims = %(fence)s::integer
                    AND job.state = 'ready' AND job.parked IS NULL
                    AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
                    AND (job.crashes = 0 OR job.id = ANY (%(suspects)s::bigint[]))
                LIMIT 1
                FOR UPDATE SKIP LOCKED
            ) AS this
            WHERE EXISTS (SELECT FROM allowed AS want WHERE want.queue = this.queue AND want.free > 0)
        ))
        RETURNING job.*
    )
    SELECT id, task, queue, attempt, max_attempts, claims, crashes, arguments::json, retry, limits, errors,
        NULL, batch, priority, {run_at}, NULL::float8, {submitted_at}, meta::json
    FROM claimed
"""
    )
    .replace("{settled}", "0")
    .replace("{run_at}", readable("run_at"))
    .replace("{submitted_at}", readable("submitted_at"))
)


# By `let_in`, which is begun just before it.
ADMIT_ONE = (
    (
        """
    WITH """
        + PAUSED
        + """,
    """
        + ALLOWED
        + """,
    this AS MATERIALIZED (
        SELECT job.queue, job.priority, job.parked, job.run_at, job.id, circle.suspects
        FROM {schema}.job AS job
        JOIN unnest(%(gated)s::text[], %(gated_suspects)s::smallint[]) AS circle (queue, suspects) USING (queue)
        WHERE job.id = %(id)s::bigint AND job.claims = %(fence)s::integer
            AND job.state = 'ready' AND job.parked IS NOT NULL
            AND EXISTS (SELECT FROM allowed AS want WHERE want.queue = job.queue AND want.free > 0)
    )
    SELECT entered.id, entered.task, entered.queue, entered.attempt, entered.max_attempts, entered.claims,
        entered.crashes, entered.arguments::json, entered.retry, entered.limits, entered.errors, entered.parked,
        entered.batch, entered.priority, {run_at}, NULL::float8, {submitted_at}, entered.meta::json
    FROM this
    CROSS JOIN LATERAL {schema}.let_in(
        ROW(%(worker)s::bigint, this.queue, {known}, (SELECT tasks FROM left_out), '{}', this.suspects,
            %(most_bytes)s::integer, this.id, '{}', '{}', '{}',
            ARRAY[this.parked], ARRAY[this.priority], ARRAY[this.run_at],
            ARRAY[this.id - 1])::{schema}.claim,
        this.priority, this.parked, 1, 1, 1
    ) AS answer
    CROSS JOIN LATERAL unnest(answer.entered) AS entered
"""
    )
    .replace("{settled}", "0")
    .replace("{known}", KNOWN)
    .replace("{run_at}", readable("entered.run_at"))
    .replace("{submitted_at}", readable("entered.submitted_at"))
)


def claim_one(worker: int, this: Candidate, wanted: Wanted) -> Statement[list[Claimed]]:
    """Claim this job and no other, however large it is; none if it is no longer as it was, or its limits are full."""
    params = _wishes(worker, wanted) | {"id": this.id, "fence": this.fence, "most_bytes": CLAIM_BYTES}
    text = ADMIT_ONE if this.parked else CLAIM_ONE
    return Statement(text, params, lambda rows: [Claimed(*(*row, worker)) for row in rows])


def _wishes(worker: int, wanted: Wanted) -> dict[str, object]:
    return {
        "worker": worker,
        "queues": of_texts(wanted.free),
        "free": of_numbers(wanted.free.values()),
        "in_line": of_texts("false" for _ in wanted.free),
        "bytes": of_numbers(0 for _ in wanted.free),
        "without": of_texts(wanted.without),
        "full": of_texts(wanted.full),
        "suspects": of_numbers(id_ for id_, _ in wanted.suspects),
        "suspect_fences": of_numbers(fence for _, fence in wanted.suspects),
        "holds": of_texts(None for _ in wanted.free),  # they are counted: each claim adds one
        "keeps": of_texts(None for _ in wanted.free),
        "presses": of_texts("true" for _ in wanted.free),
        "sent": -1,
        "gated": of_texts(wanted.gated),
        "gated_suspects": of_numbers(circle.suspects for circle in wanted.gated.values()),
    }


UNHEARD = """
    SELECT id, claims FROM {schema}.job WHERE worker = %(worker)s::bigint AND state = 'running'
"""


def claimed_by(worker: int) -> Statement[list[tuple[int, int]]]:
    """The (id, fence) of all that runs in the name of this lease."""
    return Statement(UNHEARD, {"worker": worker}, lambda rows: [(id_, fence) for id_, fence in rows])


# The row as it was picked, or as this worker has claimed it.
_END_ALONE = """
    WITH gone AS (
        DELETE FROM {schema}.job AS job
        WHERE job.id = %(id)s::bigint AND (job.state = 'ready' AND job.claims = %(fence)s::integer
            OR job.worker = %(worker)s::bigint AND job.claims = %(claimed)s::integer)
        RETURNING job.*, {keep}
    ),
    ended AS (
        SELECT {taken}, 'failed'::{schema}.state AS state, NULL::json AS result, {all_errors} AS errors, keep FROM gone
    ),
    {kept}
    SELECT count(*) FROM gone
"""
_ERROR = """json_build_object('attempt', attempt, 'kind', 'InvalidJob', 'message', %(reason)s::text,
            'fingerprint', {schema}.fingerprint('InvalidJob', task, %(outline)s::text))"""
END_ALONE = keeping(
    _END_ALONE.replace("{taken}", "{moved}").replace("{all_errors}", "{schema}.with_error(errors, " + _ERROR + ")"),
    "'failed'",
)
_BARE = {name: f"NULL::json AS {name}" for name in ("retry", "limits", "gates", "meta")} | {
    "arguments": "'{}'::json AS arguments",
    "run_at": f"{readable('run_at')} AS run_at",
}
END_BARE = keeping(
    _END_ALONE.replace("{taken}", ", ".join(_BARE.get(name, name) for name in MOVED.replace(",", " ").split())).replace(
        "{all_errors}", "json_build_array(" + _ERROR + ")"
    ),
    "'failed'",
)
"""Without any of its JSON, which may be what cannot be read."""


def end_alone(
    worker: int, id_: int, fence: int, reason: str, *, claimed: bool, text: str = END_ALONE
) -> Statement[int]:
    """End this job as failed, for a reason that an operator reads, and move it to history; 0 if it has changed since.

    `fence` is that of its row, which waits, or was `claimed` by this lease, or may have been since.
    """
    said = safe(reason, MOST_REASON_BYTES).replace("\0", "\\0")
    params = {
        "worker": worker,
        "id": id_,
        "fence": -1 if claimed else fence,
        "claimed": fence if claimed else fence + 1,
        "reason": said,
        "outline": outline(said),
    }
    return Statement(text, params, lambda rows: int(rows[0][0]))


async def end(link: Link, worker: int, id_: int, fence: int, why: str, *, claimed: bool = False) -> None:
    """End a job of which nothing else can be made. Raises psycopg's errors when that does not go, either."""
    reason = f"no worker can take this job: {why}; its row has to be mended before it can be requeued"
    log.error("job %d fails: %s", id_, reason)
    try:
        await _moved(link, end_alone(worker, id_, fence, reason, claimed=claimed))
    except psycopg.Error as error:
        if link.is_broken(error) or isinstance(error, LOCKED):
            raise
        bare = f"{reason}. What it held could not be kept: {one_line(error)}"
        await _moved(link, end_alone(worker, id_, fence, bare, claimed=claimed, text=END_BARE))


async def _moved(link: Link, statement: Statement[int]) -> None:
    try:
        await link.send(statement)
    except psycopg.errors.CheckViolation:
        await link.send(make_partitions(DAYS_AHEAD))
        await link.send(statement)


class Sieve:
    """What becomes of the jobs of a claim that has failed, one after the other."""

    def __init__(self) -> None:
        self._strikes: dict[int, tuple[int, float]] = {}
        """Per job: how often, and since when on the monotonic clock."""

    async def sift(
        self,
        link: Link,
        worker: int,
        wanted: Wanted,
        accept: Callable[[Claimed], None],
        stopping: Callable[[], bool],
    ) -> int:
        """Claim what is wanted, one by one, 8 MiB at most but one job; how many ended because of what they hold.

        Raises psycopg's errors when the connection breaks, and when nothing of it can be claimed for a reason that is
        not one of rows.
        """
        wanted = msgspec.structs.replace(wanted, free=fewer(wanted.free, MOST_SIFTED))
        ended = brought = 0
        failed: dict[int, tuple[Candidate, Exception]] = {}
        any_suspect = False
        for this in await link.send(candidates(worker, wanted)):
            if this.parked and this.suspect and any_suspect:
                continue
            try:
                for job in await link.send(claim_one(worker, this, wanted)):
                    accept(job)
                    brought += job.size + 1
                    any_suspect = any_suspect or job.crashes > 0
            except LOCKED:
                continue
            except Exception as error:
                if isinstance(error, psycopg.Error) and link.is_broken(error):
                    raise
                if is_of_a_row(error):
                    await end(link, worker, this.id, this.fence, one_line(error))
                    ended += 1
                else:
                    failed[this.id] = this, error
            if stopping() or brought > CLAIM_BYTES or (len(failed) > MOST_STRIKES and not brought):
                break
        if failed and not brought:
            raise next(why for _, why in failed.values())
        now = time.monotonic()
        before = {id_: self._strikes.get(id_, (0, now)) for id_ in failed}
        self._strikes = {id_: (count + 1, since) for id_, (count, since) in before.items()}
        for id_, (this, why) in failed.items():
            count, since = self._strikes[id_]
            if count >= MOST_STRIKES and now - since >= STRUCK_SECONDS:
                await end(link, worker, this.id, this.fence, one_line(why))
                ended += 1
        return ended
