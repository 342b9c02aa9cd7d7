"""What producers and operators say to the database: each statement is a constant, a function and a parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, NamedTuple, TypeVar

import msgspec

from .codec import encode_json
from .literals import JsonColumn, in_seconds, of_intervals, of_numbers, of_texts, readable, readable_or_null
from .model import AttemptError, JobRow, Named, NewJob, Progress, Rows, Statement
from .registry import Known
from .states import State

T = TypeVar("T")

MOVED = """id, task, queue, priority, attempt, max_attempts, claims, crashes, worker, run_at, submitted_at, started_at,
            arguments, retry, limits, gates, unique_key, unique_until, batch"""
"""The columns that a job takes along from `job` to `history`, for `{moved}` in a statement."""

_PLAIN = {"run_at": readable("run_at"), "arguments": "arguments::json", "gates": "gates::json"}
_AS_MOVED = ", ".join(_PLAIN.get(name, name) for name in MOVED.replace(",", " ").split())
"""The same as history has them, without the domains: where types differ Postgres copies each row once more."""

KEEP = "CASE WHEN EXISTS (SELECT FROM {schema}.retention) THEN {schema}.keep_days(queue, {state}) END AS keep"
"""For how long a job that ended as `{state}` is kept, and its result. NULL where there are no rules at all: that costs
one look a statement, calls no function and reads no array.
"""
_KEPT = """kept AS (
        INSERT INTO {schema}.history ({moved}, state, finished_at, result, errors, keep_days)
        SELECT {as_moved}, state, {schema}.clock(), CASE WHEN keep IS NULL OR keep[2] = 0 THEN result END, errors,
            coalesce(keep[1], 0)
        FROM ended
        WHERE keep IS NULL OR keep[1] IS NOT NULL OR batch IS NOT NULL -- which is counted from its rows
    )"""
# Results that are kept for a shorter time.
_APART = """apart AS (
        INSERT INTO {schema}.history_result (id, finished_at, result, keep_days)
        SELECT id, {schema}.clock(), result, keep[2]
        FROM ended
        WHERE keep IS NOT NULL AND keep[2] > 0 AND keep[1] IS NOT NULL AND result IS NOT NULL
    )"""


def keeping(text: str, state: str) -> str:
    """The text of a statement that ends jobs, with what keeps them.

    Its `ended` has their columns with `{keep}`, which `state` is for; then follow `{kept}`, and `{apart}` where any may
    have succeeded.
    """
    keep = KEEP.replace("{state}", state)
    text = text.replace("{kept}", _KEPT).replace("{apart}", _APART).replace("{keep}", keep)
    return text.replace("{as_moved}", _AS_MOVED).replace("{moved}", MOVED)


INSERT_JOB = """
    INSERT INTO {schema}.job
        (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, retry, limits, gates, parked)
    VALUES (%(task)s::text, %(queue)s::text, %(priority)s::smallint, 'ready', %(max_attempts)s::smallint,
        coalesce(%(run_at)s::timestamptz, {schema}.clock() + %(delay)s::interval, {schema}.clock()), {schema}.clock(),
        %(arguments)s::json, %(retry)s::json, %(limits)s::json, %(gates)s::json, %(gates)s::json->>'key')
    RETURNING id, pg_current_xact_id()::text, {schema}.ring(queue)::text
"""

# Ids are drawn before the INSERT, so that they can be given back by position: the order of RETURNING is
# Postgres' habit and not its promise.
INSERT_JOBS = """
    WITH new AS MATERIALIZED (
        SELECT nextval('{schema}.job_id_seq') AS id, given.*
        FROM unnest(
            %(tasks)s::text[], %(queues)s::text[], %(priorities)s::smallint[], %(max_attempts)s::smallint[],
            %(run_at)s::timestamptz[], %(delays)s::interval[],
            %(arguments)s::json[], %(retries)s::json[], %(limits)s::json[], %(gates)s::json[]
        ) WITH ORDINALITY AS given
            (task, queue, priority, max_attempts, run_at, delay, arguments, retry, limits, gates, position)
    ),
    inserted AS (
        INSERT INTO {schema}.job
            (id, task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, retry, limits, gates,
             parked)
        SELECT id, task, queue, priority, 'ready', max_attempts,
            coalesce(run_at, {schema}.clock() + delay, {schema}.clock()), {schema}.clock(), arguments, retry, limits,
            gates, gates->>'key'
        FROM new
        ORDER BY position
    )
    SELECT array_agg(id ORDER BY position), pg_current_xact_id()::text, {schema}.ring(%(bells)s::text[])::text
    FROM new
"""


def insert_job(job: NewJob[Any], made: Callable[[int, str], T]) -> Statement[T]:
    """Add one job; one round trip. The same as `insert_jobs`, which takes a fifth longer for one.

    The answer is what is `made` of its id and of the transaction that holds it.
    """
    options = job.options
    return Statement(
        INSERT_JOB,
        {
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
        },
        lambda rows: made(rows[0][0], rows[0][1]),
        (job,),
    )


def insert_jobs(jobs: Sequence[NewJob[Any]]) -> Statement[tuple[list[int], str]]:
    """Add jobs; one round trip. Locks nothing that others wait for; rings the doorbell of each queue.

    The answer is their ids, in the order in which they were given, and the transaction that holds them.
    """
    params = _columns_of(jobs) | {"bells": of_texts({job.options.queue for job in jobs})}
    return Statement(INSERT_JOBS, params, lambda rows: (rows[0][0], rows[0][1]), jobs)


def _columns_of(jobs: Sequence[NewJob[Any]]) -> dict[str, Any]:
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
    }


# Keys are carried as JSON, which reaches the server whole whatever the connection's client_encoding is. A job whose key
# is held under another name of its task goes under that name, and finds it: so a rename leaves no key twice.
SUBMISSIONS = """
    WITH new AS MATERIALIZED (
        SELECT position, nextval('{schema}.job_id_seq') AS id,
            CASE WHEN others IS NULL THEN task ELSE coalesce(
                (SELECT held.task FROM {schema}.unique_window AS held
                 WHERE held.task = ANY (ARRAY(SELECT json_array_elements_text(others)))
                    AND held.key = given.key #>> '{}' AND within IS NOT NULL AND held.expires_at > {schema}.clock()
                 ORDER BY held.task LIMIT 1),
                (SELECT holder.task FROM {schema}.job AS holder
                 WHERE holder.task = ANY (ARRAY(SELECT json_array_elements_text(others)))
                    AND holder.unique_key = given.key #>> '{}'
                    AND (holder.claims = 0 OR holder.unique_until = 'finished')
                 ORDER BY holder.task LIMIT 1),
                task) END AS task,
            queue, priority, max_attempts, run_at, delay, arguments, retry, limits, gates, key #>> '{}' AS key,
            until, within, on_conflict
        FROM unnest(
            %(tasks)s::text[], %(queues)s::text[], %(priorities)s::smallint[], %(max_attempts)s::smallint[],
            %(run_at)s::timestamptz[], %(delays)s::interval[],
            %(arguments)s::json[], %(retries)s::json[], %(limits)s::json[], %(gates)s::json[],
            %(keys)s::json[], %(untils)s::text[], %(withins)s::interval[], %(on_conflicts)s::text[], %(others)s::json[]
        ) WITH ORDINALITY AS given
            (task, queue, priority, max_attempts, run_at, delay, arguments, retry, limits, gates,
             key, until, within, on_conflict, others, position)
    )
"""
"""Jobs of `of_submissions` as rows of the type `submission`."""

SUBMIT_UNIQUE = (
    SUBMISSIONS
    + """
    SELECT ids, outcomes, queues, own, pg_current_xact_id_if_assigned()::text
    FROM {schema}.submit_unique(ARRAY(SELECT new::{schema}.submission FROM new))
"""
)
SUBMIT_UNIQUE_OR_NONE = SUBMIT_UNIQUE.replace("submit_unique(", "submit_unique_or_none(")
"""In a savepoint of the function's own. Each costs a transaction number, so it is for where one could be needed."""


class Submission(NamedTuple):
    """What became of one job of a submit."""

    id: int
    """Of the job that has the key now."""
    outcome: str
    """A `SubmitOutcome`, or "refused"; None of one that was not looked at any more."""
    queue: str
    transaction: str | None
    """This one, if no other sees the job so yet."""


def submit_unique(jobs: Sequence[NewJob[Any]]) -> Statement[list[Submission]]:
    """Add jobs of which some have keys, all or none; one round trip. What became of each, in the order given.

    Waits for transactions that hold one of the keys and are not committed. Takes the keys in their order, and with each
    the row of a job that is replaced.
    """
    keys = [job.unique for job in jobs]
    or_none = len(jobs) > 1 and any(key is not None and key.on_conflict == "raise" for key in keys)
    return Statement(
        SUBMIT_UNIQUE_OR_NONE if or_none else SUBMIT_UNIQUE,
        of_submissions(jobs),
        _parse_submissions,
        jobs,
    )


def of_submissions(jobs: Sequence[NewJob[Any]]) -> dict[str, Any]:
    """The parameters of `SUBMISSIONS`."""
    keys = [job.unique for job in jobs]
    return _columns_of(jobs) | {
        "keys": JsonColumn(None if key is None else encode_json(key.text) for key in keys),
        "untils": of_texts(None if key is None else key.until for key in keys),
        "withins": of_intervals(None if key is None else key.within for key in keys),
        "on_conflicts": of_texts(None if key is None else key.on_conflict for key in keys),
        "others": JsonColumn(None if key is None or not key.others else encode_json(key.others) for key in keys),
    }


def _parse_submissions(rows: Rows) -> list[Submission]:
    ids, outcomes, queues, own, transaction = rows[0]
    return [
        Submission(id_, outcome, queue, transaction if mine else None)
        for id_, outcome, queue, mine in zip(ids, outcomes, queues, own, strict=True)
    ]


def _raw(value: object) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(encode_json(value))


def _json(value: object) -> bytes | None:
    return None if value is None else encode_json(value)


# JSON is read as bytea: it arrives as UTF-8 whatever the connection's client_encoding is.
_INSTANTS = ", ".join(map(readable_or_null, ("submitted_at", "run_at", "started_at", "finished_at", "cancel_at")))
_COLUMNS = """
    id, task, queue, state::text, priority, attempt, max_attempts, crashes, worker,
    {instants},
    convert_to(arguments::text, 'UTF8'), convert_to(result::text, 'UTF8'), convert_to(errors::text, 'UTF8'),
    convert_to(progress::text, 'UTF8'), convert_to(unique_key, 'UTF8'), batch
""".replace("{instants}", _INSTANTS)

SELECT_JOB = "SELECT " + _COLUMNS + " FROM {schema}.any_job WHERE id = %(id)s::bigint"

SELECT_JOBS = (
    "SELECT "
    + _COLUMNS
    + """
    FROM {schema}.any_job
    WHERE (%(queue)s::text IS NULL OR queue = %(queue)s::text)
        AND (%(tasks)s::text[] IS NULL OR task = ANY (%(tasks)s::text[]))
        AND (%(state)s::text IS NULL OR state = %(state)s::text::{schema}.state)
        AND (%(batch)s::bigint IS NULL OR batch = %(batch)s::bigint)
        AND (%(before)s::bigint IS NULL OR id < %(before)s::bigint)
    ORDER BY id DESC
    LIMIT %(limit)s::integer
"""
)


def select_job(job_id: int) -> Statement[JobRow | None]:
    """One job, live or finished, or None."""
    return Statement(SELECT_JOB, {"id": job_id}, lambda rows: _parse_job(rows[0]) if rows else None)


def select_jobs(
    queue: str | None,
    tasks: Sequence[str] | None,
    state: State | None,
    limit: int,
    before: int | None,
    batch: int | None = None,
) -> Statement[list[JobRow]]:
    """Jobs, live and finished, newest id first; of any of these tasks."""
    return Statement(
        SELECT_JOBS,
        {
            "queue": queue,
            "tasks": None if tasks is None else list(tasks),
            "state": state and state.value,
            "batch": batch,
            "limit": limit,
            "before": before,
        },
        lambda rows: [_parse_job(row) for row in rows],
    )


def _parse_job(row: tuple[Any, ...]) -> JobRow:
    (
        id_,
        task,
        queue,
        state,
        priority,
        attempt,
        max_attempts,
        crashes,
        worker,
        *instants,
        arguments,
        result,
        errors,
        progress,
        unique_key,
        batch,
    ) = row
    submitted_at, run_at, started_at, finished_at, cancel_at = (at and at.astimezone(UTC) for at in instants)
    return JobRow(
        id=id_,
        task=task,
        queue=queue,
        state=State(state),
        priority=priority,
        attempt=attempt,
        max_attempts=max_attempts,
        crashes=crashes,
        worker=worker,
        submitted_at=submitted_at,
        run_at=run_at,
        started_at=started_at,
        finished_at=finished_at,
        arguments=arguments,
        result=result,
        errors=parse_errors(errors),
        cancel_at=cancel_at,
        progress=_parse_progress(progress),
        unique_key=None if unique_key is None else unique_key.decode(),
        batch=batch,
    )


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


def _parse_progress(progress: bytes | None) -> Progress | None:
    try:
        return None if progress is None else msgspec.json.decode(progress, type=Progress)
    except (ValueError, RecursionError):  # of somebody else
        return None


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


@dataclass(frozen=True, slots=True)
class Outlook:
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
    return Statement(SELECT_OUTCOME, {"id": job_id}, _parse_outcome)


def select_live_outcome(job_id: int) -> Statement[Outlook]:
    """How far the job is while it is live; without a state once it is not."""
    return Statement(SELECT_LIVE_OUTCOME, {"id": job_id}, _parse_outcome)


def _parse_outcome(rows: Rows) -> Outlook:
    state, task, attempt, result, errors, transaction, isolation = rows[0]
    return Outlook(state and State(state), task, attempt, result, parse_errors(errors), transaction, isolation)


DAYS_AHEAD = 1
"""For who is about to write to history: until midnight has passed, somebody else has made more."""

MAKE_PARTITIONS = """
    SELECT {schema}.make_partitions(
        ({schema}.clock() AT TIME ZONE 'UTC')::date,
        ({schema}.clock() AT TIME ZONE 'UTC')::date + %(days)s::integer
    )
"""


def make_partitions(days: int) -> Statement[int]:
    """Make the history partitions that are missing from today to `days` ahead; returns how many it made."""
    return Statement(MAKE_PARTITIONS, {"days": days}, lambda rows: int(rows[0][0]))


CANCEL_JOBS = keeping(
    """
    WITH cancelled AS (
        DELETE FROM {schema}.job WHERE id = ANY (%(ids)s::bigint[]) AND state = 'ready' RETURNING *, {keep}
    ),
    ended AS (
        SELECT {moved}, 'cancelled'::{schema}.state AS state, NULL::json AS result, errors, keep FROM cancelled
    ),
    {kept},
    asked AS (
        UPDATE {schema}.job SET cancel_at = coalesce(cancel_at, {schema}.clock())
        WHERE id = ANY (%(ids)s::bigint[]) AND worker IS NOT NULL -- it runs; by its state, another index might be read
        RETURNING id, worker
    )
    SELECT sent.id IN (SELECT id FROM cancelled) OR sent.id IN (SELECT id FROM asked),
        EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = sent.id),
        EXISTS (SELECT FROM {schema}.history AS past WHERE past.id = sent.id),
        (SELECT pg_notify('{name}.cancel', worker::text || ' ' || asked.id::text)::text
         FROM asked WHERE asked.id = sent.id AND current_setting('chancy.quiet', true) IS DISTINCT FROM 'on')
    FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS sent (id, position)
    ORDER BY sent.position
""",
    "'cancelled'",
)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Whether the job was stopped or asked to stop; where it was when the statement began."""

    done: bool
    live: bool
    finished: bool


def cancel_jobs(ids: Sequence[int]) -> Statement[list[Cancellation]]:
    """Move ready and scheduled jobs to history, where their queues keep such; ask the workers of running ones to stop
    them. Answers in that order.

    Waits for whoever holds a row, which is never longer than one round of a worker; a job whose state has changed
    meanwhile is left alone, and is live.
    """
    return Statement(CANCEL_JOBS, {"ids": list(ids)}, lambda rows: [Cancellation(*row[:3]) for row in rows])


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
    return Statement(COMPLETE_JOB, params, lambda rows: bool(rows[0][0]))


# How often a task lets its jobs be tried, and what else it is called, is known by the code at hand, or else by the last
# worker that knew the task; else it is as many attempts as the job had. A key is held by any name of its task: of two
# finished jobs with one key, too, only the first becomes ready.
REQUEUE_JOBS = """
    WITH finished AS MATERIALIZED (
        SELECT past.*,
            coalesce(%(attempts)s::integer, known.attempts, declared.max_attempts, past.max_attempts) AS more,
            array_cat(ARRAY[past.task],
                ARRAY(SELECT json_array_elements_text(coalesce(known.names, declared.names)))) AS names,
            coalesce(coalesce(known.names, declared.names)->>-1, past.task) AS root
        FROM {schema}.history AS past
        LEFT JOIN unnest(%(tasks)s::text[], %(declared)s::smallint[], %(names)s::json[])
            AS known (task, attempts, names) ON known.task = past.task
        LEFT JOIN {schema}.task AS declared ON declared.name = past.task
        WHERE past.id = ANY (%(ids)s::bigint[])
        FOR UPDATE OF past
    ),
    held AS MATERIALIZED (
        SELECT id, (
                SELECT job.id FROM {schema}.job AS job
                WHERE job.task = ANY (finished.names)
                    AND job.unique_key = finished.unique_key AND (job.claims = 0 OR job.unique_until = 'finished')
                ORDER BY job.id
                LIMIT 1
            ) AS holder
        FROM finished
        WHERE unique_key IS NOT NULL
    ),
    first AS (
        SELECT DISTINCT ON (unique_key, root) id
        FROM finished
        WHERE unique_key IS NOT NULL AND (claims = 0 OR unique_until = 'finished')
            AND id NOT IN (SELECT id FROM held WHERE holder IS NOT NULL)
        ORDER BY unique_key, root, id
    ),
    requeued AS (
        INSERT INTO {schema}.job
            (id, task, queue, priority, state, attempt, max_attempts, claims, crashes,
             run_at, submitted_at, started_at, arguments, retry, limits, gates, parked, errors,
             unique_key, unique_until, batch)
        SELECT id, task, queue, priority, 'ready', least(attempt, 32767 - more), least(attempt + more, 32767), claims,
            crashes, {schema}.clock(), submitted_at, started_at, arguments, retry, limits, gates, gates->>'key', errors,
            unique_key, unique_until, batch
        FROM finished
        WHERE unique_key IS NULL OR (claims > 0 AND unique_until <> 'finished') OR id IN (SELECT id FROM first)
        ORDER BY id
        ON CONFLICT (task, unique_key) WHERE unique_key IS NOT NULL AND (claims = 0 OR unique_until = 'finished')
            DO NOTHING
        RETURNING id, queue
    ),
    gone AS (
        DELETE FROM {schema}.history WHERE id = ANY (%(ids)s::bigint[]) AND id IN (SELECT id FROM requeued)
    ),
    results_gone AS (
        DELETE FROM {schema}.history_result WHERE id = ANY (%(ids)s::bigint[]) AND id IN (SELECT id FROM requeued)
    )
    SELECT sent.id IN (SELECT id FROM requeued),
        EXISTS (SELECT FROM {schema}.any_job AS job WHERE job.id = sent.id),
        CASE WHEN finished.unique_key IS NOT NULL THEN finished.task END,
        convert_to(finished.unique_key, 'UTF8'),
        held.holder,
        (SELECT {schema}.ring(ARRAY(SELECT DISTINCT queue FROM requeued))::text)
    FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS sent (id, position)
    LEFT JOIN finished ON finished.id = sent.id
    LEFT JOIN held ON held.id = sent.id
    ORDER BY sent.position
"""


@dataclass(frozen=True, slots=True)
class Requeue:
    """Whether the job is ready again, and whether it exists. If it is finished and unique: its task, its key, and the
    live job that had that key when the statement began.
    """

    done: bool
    exists: bool
    task: str | None
    key: str
    holder: int | None


def requeue_jobs(ids: Sequence[int], attempts: int | None, tasks: Mapping[str, Known]) -> Statement[list[Requeue]]:
    """Make finished jobs ready under their old ids, with so many attempts more, unless a live job has their key; None
    is what their task declares, of which these are known here.

    Their fences, attempt and crash counts go with them, so that a worker of the first life stays fenced out. Answers in
    that order.
    """
    params = {
        "ids": list(ids),
        "attempts": attempts,
        "tasks": of_texts(tasks),
        "declared": of_numbers(task.options.max_attempts for task in tasks.values()),
        "names": JsonColumn(map(names_known, tasks.values())),
    }
    return Statement(REQUEUE_JOBS, params, _parse_requeues)


def names_known(task: Named) -> bytes | None:
    """The names of a task as JSON, where there are several."""
    return encode_json(task.names) if len(task.names) > 1 else None


def _parse_requeues(rows: Rows) -> list[Requeue]:
    return [Requeue(done, exists, task, (key or b"").decode(), holder) for done, exists, task, key, holder, _ in rows]
