"""What is said to the database about batches, by who submits them and by workers that look whether they are over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from chancy.arguments.codec import encode_json
from chancy.job import NewJob
from chancy.model import Rows, Statement
from chancy.wires.literals import in_seconds, of_numbers

from .values import BatchCounts, BatchProgress, Callback

DRAW_BATCH = "SELECT nextval('{schema}.batch_id_seq')"


def draw_batch() -> Statement[int]:
    """The id of a batch that is to be. Locks nothing."""
    return Statement(DRAW_BATCH, {}, lambda rows: int(rows[0][0]), name="draw_batch")


INSERT_BATCH = """
    WITH members AS (
        UPDATE {schema}.job SET batch = %(id)s::bigint WHERE id = ANY (%(jobs)s::bigint[]) RETURNING id
    ),
    made AS (
        INSERT INTO {schema}.batch (id, on_success, on_finished, total, created_at, witness)
        SELECT %(id)s::bigint, %(on_success)s::json, %(on_finished)s::json, count(*), {schema}.clock(),
            coalesce(min(id), 0)
        FROM members
    )
    SELECT count(*) FROM members
"""


def insert_batch(
    batch_id: int, jobs: Collection[int], on_success: Callback | None, on_finished: Callback | None
) -> Statement[int]:
    """Make these jobs, which this transaction has submitted, a batch; how many they are. The rows are its own."""
    params = {
        "id": batch_id,
        "jobs": of_numbers(jobs),
        "on_success": None if on_success is None else _stored(on_success.job),
        "on_finished": None if on_finished is None else _stored(on_finished.job),
    }
    callbacks = [each.job for each in (on_success, on_finished) if each is not None]
    return Statement(INSERT_BATCH, params, lambda rows: int(rows[0][0]), callbacks, name="insert_batch")


class _Stored(msgspec.Struct, frozen=True):
    """A callback, as the migrations' `call_back` reads it: what a row needs, and of the arguments two halves."""

    task: str
    queue: str
    priority: int
    max_attempts: int
    run_at: datetime | None
    delay: str | None
    retry: object
    limits: object
    gates: msgspec.Raw | None
    key: str | None
    until: str | None
    within: str | None
    on_conflict: str | None
    beside: str | None
    """What travels beside the arguments; as those, JSON within JSON."""
    argument: str
    """The name of the one that takes the counts."""
    others: str
    """JSON within JSON, so that a NUL in it is none for Postgres."""


def _stored(job: NewJob[Any]) -> msgspec.Raw:
    options, key = job.options, job.unique
    arguments = msgspec.json.decode(job.arguments, type=dict[str, msgspec.Raw])
    argument = next(iter(arguments))
    del arguments[argument]
    return msgspec.Raw(
        encode_json(
            _Stored(
                task=job.task,
                queue=options.queue,
                priority=options.priority,
                max_attempts=options.max_attempts,
                run_at=options.run_at,
                delay=None if options.delay is None else in_seconds(options.delay),
                retry=options.retry,
                limits=options.limits,
                gates=None if job.gates is None else msgspec.Raw(job.gates),
                key=None if key is None else key.text,
                until=None if key is None else key.until,
                within=None if key is None or key.within is None else in_seconds(key.within),
                on_conflict=None if key is None else key.on_conflict,
                beside=None if job.meta is None else job.meta.decode(),
                argument=argument,
                others=encode_json(arguments).decode(),
            )
        )
    )


def told(job: NewJob[Any], counts: BatchCounts) -> NewJob[Any]:
    """A callback with these counts, for a backend that reads no SQL."""
    arguments = msgspec.json.decode(job.arguments, type=dict[str, msgspec.Raw])
    arguments[next(iter(arguments))] = msgspec.Raw(encode_json(counts))
    return msgspec.structs.replace(job, arguments=encode_json(arguments))


class Ends(NamedTuple):
    """How many batches a look has ended, and what went wrong with others, or with callbacks: a sentence each."""

    ended: int
    troubles: Sequence[str] = ()


FINISH_BATCHES = "SELECT ended, troubles FROM {schema}.finish_batches(%(ids)s::bigint[])"


def finish_batches(ids: Collection[int]) -> Statement[Ends]:
    """End those of these batches of which no job is live, and submit their callbacks.

    A batch that may be over is locked, in the order of the ids, and one that somebody else is at is waited for. What
    goes wrong with one batch stops no other.
    """
    return Statement(FINISH_BATCHES, {"ids": of_numbers(ids)}, lambda rows: Ends(*rows[0]), name="finish_batches")


FINISH_UNFINISHED = """
    SELECT unfinished.last, looked.ended, looked.troubles
    FROM (
        SELECT max(id) AS last, array_agg(id) AS ids FROM (
            SELECT id FROM {schema}.batch WHERE finished_at IS NULL AND id > %(after)s::bigint ORDER BY id LIMIT 500
        ) AS listed
    ) AS unfinished
    CROSS JOIN LATERAL {schema}.finish_batches(unfinished.ids) AS looked
"""


def finish_unfinished(after: int) -> Statement[tuple[int | None, Ends]]:
    """The same for 500 that are not finished, from the one behind `after` on; also the last of them, None if there is
    none.
    """
    return Statement(
        FINISH_UNFINISHED, {"after": after}, lambda rows: (rows[0][0], Ends(*rows[0][1:])), name="finish_unfinished"
    )


SELECT_PROGRESS = """
    SELECT batch.total, live.waiting, live.running, past.succeeded, past.failed, past.discarded, past.cancelled,
        batch.finished_at
    FROM {schema}.batch AS batch
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE job.state IN ('blocked', 'ready')) AS waiting,
            count(*) FILTER (WHERE job.state = 'running') AS running
        FROM {schema}.job AS job WHERE job.batch = batch.id
    ) AS live
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE history.state = 'succeeded') AS succeeded,
            count(*) FILTER (WHERE history.state = 'failed') AS failed,
            count(*) FILTER (WHERE history.state = 'discarded') AS discarded,
            count(*) FILTER (WHERE history.state = 'cancelled') AS cancelled
        FROM {schema}.history AS history WHERE history.batch = batch.id
    ) AS past
    WHERE batch.id = %(id)s::bigint
"""


def select_progress(batch_id: int) -> Statement[BatchProgress | None]:
    """How far the batch is, or None."""
    return Statement(SELECT_PROGRESS, {"id": batch_id}, _parse_progress, name="select_progress")


def _parse_progress(rows: Rows) -> BatchProgress | None:
    if not rows:
        return None
    *counts, finished_at = rows[0]
    names = BatchProgress.__struct_fields__[:-1]
    return BatchProgress(
        **dict(zip(names, counts, strict=True)), finished_at=finished_at and finished_at.astimezone(UTC)
    )
