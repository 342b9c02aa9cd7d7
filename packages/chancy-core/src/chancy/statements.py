"""What producers say to the database about their jobs: each statement is a constant, a function and a parser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .arguments.codec import encode_json
from .history.moving import keeping
from .model import AttemptError, Named, Rows, Statement
from .states import State
from .wires.literals import JsonColumn, in_seconds, of_intervals, of_numbers, of_texts

if TYPE_CHECKING:
    from .job import NewJob

T = TypeVar("T")


_INSERT = """{schema}.insert_job(%(task)s::text, %(queue)s::text, %(priority)s::smallint, %(max_attempts)s::smallint,
        %(run_at)s::timestamptz, %(delay)s::interval, %(arguments)s::json, %(retry)s::json, %(limits)s::json,
        %(gates)s::json, %(meta)s::json)"""

INSERT_JOB = "SELECT " + _INSERT

INSERT_JOB_IN_COLUMNS = (
    """
    SELECT (made::json->>0)::bigint AS id, made::json->>1 AS xact,
        (made::json->>2)::timestamp AT TIME ZONE 'UTC' AS submitted_at
    FROM """
    + _INSERT
    + " AS made"
)
"""The same, a tenth dearer, for who has no parser."""

_SAYS = """
    RETURNING json_build_array(id, pg_current_xact_id(), submitted_at AT TIME ZONE 'UTC')::text,
        {schema}.ring(queue)::text
"""

INSERT_JOB_PREPARED = (
    """
    INSERT INTO {schema}.job
        (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, retry, limits, gates, parked,
         meta)
    VALUES (%(task)s::text, %(queue)s::text, %(priority)s::smallint, 'ready', %(max_attempts)s::smallint,
        coalesce(%(run_at)s::timestamptz, {schema}.clock() + %(delay)s::interval, {schema}.clock()), {schema}.clock(),
        %(arguments)s::json, %(retry)s::json, %(limits)s::json, %(gates)s::json, %(gates)s::json->>'key',
        %(meta)s::json)
"""
    + _SAYS
)
"""The same by itself: a tenth cheaper where it is prepared, and twice as dear where it is not."""

INSERT_PLAIN_JOB_PREPARED = (
    """
    INSERT INTO {schema}.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
    VALUES (%(task)s::text, %(queue)s::text, %(priority)s::smallint, 'ready', %(max_attempts)s::smallint,
        {schema}.clock(), {schema}.clock(), %(arguments)s::json)
"""
    + _SAYS
)
"""The same for a job that says nothing else: most do not, and each parameter costs its hundredth."""

_ELSE = itemgetter("run_at", "delay", "retry", "limits", "gates", "meta")
_NOTHING = (None,) * 6

# Ids are drawn before the INSERT, so that they can be given back by position: the order of RETURNING is
# Postgres' habit and not its promise.
INSERT_JOBS = """
    WITH new AS MATERIALIZED (
        SELECT nextval('{schema}.job_id_seq') AS id, given.*
        FROM unnest(
            %(tasks)s::text[], %(queues)s::text[], %(priorities)s::smallint[], %(max_attempts)s::smallint[],
            %(run_at)s::timestamptz[], %(delays)s::interval[],
            %(arguments)s::json[], %(retries)s::json[], %(limits)s::json[], %(gates)s::json[], %(metas)s::json[]
        ) WITH ORDINALITY AS given
            (task, queue, priority, max_attempts, run_at, delay, arguments, retry, limits, gates, meta, position)
    ),
    inserted AS (
        INSERT INTO {schema}.job
            (id, task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, retry, limits, gates,
             parked, meta)
        SELECT id, task, queue, priority, 'ready', max_attempts,
            coalesce(run_at, {schema}.clock() + delay, {schema}.clock()), {schema}.clock(), arguments, retry, limits,
            gates, gates->>'key', meta
        FROM new
        ORDER BY position
    )
    SELECT array_agg(id ORDER BY position), pg_current_xact_id()::text, {schema}.clock(),
        {schema}.ring(%(bells)s::text[])::text
    FROM new
"""


def insert_job(job: NewJob[Any], made: Callable[[int, str, datetime], T]) -> Statement[T]:
    """Add one job; one round trip. The same as `insert_jobs`, for half of what that takes for one.

    The answer is what is `made` of its id, of the transaction that holds it, and of when that is.
    """

    def parse(rows: Rows) -> T:
        job_id, transaction, at = _decode_insert(rows[0][0])
        return made(job_id, transaction, at.replace(tzinfo=UTC))

    params = params_of(job)
    prepared = INSERT_PLAIN_JOB_PREPARED if _ELSE(params) == _NOTHING else INSERT_JOB_PREPARED
    return Statement(INSERT_JOB, params, parse, (job,), name="insert_job", prepared=prepared)


_decode_insert = msgspec.json.Decoder(tuple[int, str, datetime]).decode


def params_of(job: NewJob[Any]) -> dict[str, Any]:
    """The parameters of `INSERT_JOB`."""
    options = job.options
    return {
        "task": job.task,
        "queue": options.queue,
        "priority": options.priority,
        "max_attempts": options.max_attempts,
        "run_at": options.run_at,
        "delay": None if options.delay is None else in_seconds(options.delay),
        # ASCII means the same on every connection, and psycopg sends a str sooner than what it has to ask us about.
        "arguments": job.arguments.decode() if job.arguments.isascii() else msgspec.Raw(job.arguments),
        "retry": _raw(options.retry),
        "limits": _raw(options.limits),
        "gates": None if job.gates is None else msgspec.Raw(job.gates),
        "meta": None if job.meta is None else msgspec.Raw(job.meta),
    }


def insert_jobs(jobs: Sequence[NewJob[Any]]) -> Statement[tuple[list[int], str, datetime]]:
    """Add jobs; one round trip. Locks nothing that others wait for; rings the doorbell of each queue.

    The answer is their ids, in the order in which they were given, the transaction that holds them, and when that is.
    """
    params = columns_of(jobs) | {"bells": of_texts({job.options.queue for job in jobs})}
    return Statement(
        INSERT_JOBS, params, lambda rows: (*rows[0][:2], rows[0][2].astimezone(UTC)), jobs, name="insert_jobs"
    )


def columns_of(jobs: Sequence[NewJob[Any]]) -> dict[str, Any]:
    """The jobs as parameters, an array a column."""
    return {
        "tasks": of_texts(job.task for job in jobs),
        "queues": of_texts(job.options.queue for job in jobs),
        "priorities": of_numbers(job.options.priority for job in jobs),
        "max_attempts": of_numbers(job.options.max_attempts for job in jobs),
        "run_at": of_texts(job.options.run_at for job in jobs),
        "delays": of_intervals(job.options.delay for job in jobs),
        "arguments": JsonColumn(job.arguments for job in jobs),
        "retries": JsonColumn(_json(job.options.retry) for job in jobs),
        "limits": JsonColumn(_json(job.options.limits) for job in jobs),
        "gates": JsonColumn(job.gates for job in jobs),
        "metas": JsonColumn(job.meta for job in jobs),
    }


def _raw(value: object) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(encode_json(value))


def _json(value: object) -> bytes | None:
    return None if value is None else encode_json(value)


_decode_errors: Callable[[bytes], tuple[AttemptError, ...]] = msgspec.json.Decoder(tuple[AttemptError, ...]).decode
"""Made here and now: at the first use a library might stop the clock, and `datetime` be something else."""


def parse_errors(errors: bytes | None) -> tuple[AttemptError, ...]:
    """The errors of a job, oldest first, from their column. What somebody else has written there is one error, which
    says so: it must not hide the other jobs of a list.
    """
    if errors is None:
        return ()
    try:
        return _decode_errors(errors)
    except (ValueError, RecursionError) as error:
        return (AttemptError(attempt=0, kind="InvalidErrors", message=f"what its row has of errors: {error}"),)


SELECT_OUTCOME = """
    SELECT job.state::text, job.task, job.attempt,
        convert_to(job.result::text, 'UTF8'), convert_to(job.errors::text, 'UTF8'),
        pg_current_xact_id_if_assigned()::text, current_setting('transaction_isolation')
    FROM (SELECT) AS always
    LEFT JOIN {schema}.any_job AS job ON job.id = %(id)s::bigint
"""


# Of a live job the same, without a look into the history, whose days would stay locked until the transaction ends.
SELECT_LIVE_OUTCOME = """
    SELECT CASE WHEN job.state = 'ready' AND job.run_at > {schema}.clock() THEN 'scheduled' ELSE job.state END::text,
        job.task, job.attempt, NULL, NULL,
        pg_current_xact_id_if_assigned()::text, current_setting('transaction_isolation')
    FROM (SELECT) AS always
    LEFT JOIN {schema}.job AS job ON job.id = %(id)s::bigint
"""


class Outlook(msgspec.Struct, frozen=True):
    """How far a job is, and whether this transaction could ever see it finish."""

    state: State | None
    task: str
    attempt: int
    result: bytes | None
    errors: tuple[AttemptError, ...]
    transaction: str | None
    isolation: str


def select_outcome(job_id: int) -> Statement[Outlook]:
    """How far the job is: always one row."""
    return Statement(SELECT_OUTCOME, {"id": job_id}, _parse_outcome, name="select_outcome")


def select_live_outcome(job_id: int) -> Statement[Outlook]:
    """How far the job is while it is live; without a state once it is not."""
    return Statement(SELECT_LIVE_OUTCOME, {"id": job_id}, _parse_outcome, name="select_live_outcome")


def _parse_outcome(rows: Rows) -> Outlook:
    state, task, attempt, result, errors, transaction, isolation = rows[0]
    return Outlook(state and State(state), task, attempt, result, parse_errors(errors), transaction, isolation)


COMPLETE_JOB = keeping(
    """
    WITH completed AS (
        DELETE FROM {schema}.job
        WHERE id = %(id)s::bigint AND claims = %(fence)s::integer AND worker = %(lease)s::bigint
        RETURNING *, {keep}
    ),
    ended AS NOT MATERIALIZED (
        SELECT {moved}, 'succeeded'::{schema}.state AS state, %(result)s::json AS result, errors, keep FROM completed
    ),
    {kept},
    {apart}
    SELECT EXISTS (SELECT FROM completed)
""",
    "'succeeded'",
)


def complete_job(job_id: int, fence: int, lease: int, result: bytes) -> Statement[bool]:
    """Write the verdict "succeeded" of the claim `fence`, under this lease; whether the job was still that claim's.

    Holds the row until the caller's transaction ends; the worker's rounds pass it by.
    """
    params = {"id": job_id, "fence": fence, "lease": lease, "result": msgspec.Raw(result)}
    return Statement(COMPLETE_JOB, params, lambda rows: bool(rows[0][0]), name="complete_job")


def names_known(task: Named) -> bytes | None:
    """The names of a task as JSON, where there are several."""
    return encode_json(task.names) if len(task.names) > 1 else None
