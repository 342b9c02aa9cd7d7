"""Coming back: a finished job is made ready again; what was ended because of a need waits again, and what is to blame
runs again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from chancy.model import Rows, Statement, Steps
from chancy.registry import Known, registered
from chancy.statements import names_known
from chancy.wires.literals import JsonColumn, of_numbers, of_texts

from .statements import tell

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
        WHERE past.id = ANY (%(ids)s::bigint[]) AND NOT EXISTS (
            SELECT FROM {schema}.need AS need WHERE need.job = past.id AND need.doomed_at IS NOT NULL)
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
             unique_key, unique_until, batch, meta, needs, needed)
        SELECT id, task, queue, priority, 'ready', least(attempt, 32767 - more), least(attempt + more, 32767), claims,
            crashes, {schema}.clock(), submitted_at, started_at, arguments, retry, limits, gates, gates->>'key', errors,
            unique_key, unique_until, batch, meta, needs,
            coalesce(needed, (SELECT true FROM {schema}.need AS need WHERE need.needs = finished.id LIMIT 1))
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
        coalesce(finished.needed, false)
            OR EXISTS (SELECT FROM {schema}.need AS need WHERE need.needs = sent.id)
            OR EXISTS (SELECT FROM {schema}.need AS need WHERE need.job = sent.id AND need.doomed_at IS NOT NULL),
        (SELECT {schema}.ring(ARRAY(SELECT DISTINCT queue FROM requeued))::text)
    FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS sent (id, position)
    LEFT JOIN finished ON finished.id = sent.id
    LEFT JOIN held ON held.id = sent.id
    ORDER BY sent.position
"""


class Requeue(msgspec.Struct, frozen=True):
    """Whether the job is ready again, and whether it exists. If it is finished and unique: its task, its key, and the
    live job that had that key when the statement began.
    """

    done: bool
    exists: bool
    task: str | None
    key: str
    holder: int | None
    flow: bool = False
    """Others need it; or it was ended because of a need, and is left as it is."""


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
    return Statement(REQUEUE_JOBS, params, _parse_requeues, name="requeue_jobs")


def _parse_requeues(rows: Rows) -> list[Requeue]:
    return [
        Requeue(done, exists, task, (key or b"").decode(), holder, flow)
        for done, exists, task, key, holder, flow, _ in rows
    ]


# Upwards from those that are given: whatever they needed in vain. Then downwards from all of these: whatever was ended
# because of them, by a look and not by somebody.
SELECT_DOOMED = """
    WITH RECURSIVE above AS (
        SELECT given.id FROM unnest(%(ids)s::bigint[]) AS given (id)
        UNION
        SELECT need.needs FROM above
        CROSS JOIN LATERAL (
            SELECT need.needs FROM {schema}.need AS need
            WHERE need.job = above.id AND need.doomed_at IS NOT NULL AND need.kind <> 'e'
                AND NOT EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = need.needs)
                AND NOT EXISTS (
                    SELECT FROM {schema}.history AS won WHERE won.id = need.needs AND won.state = 'succeeded')
        ) AS need
    ),
    below AS (
        SELECT id FROM above
        UNION
        SELECT need.job FROM below
        CROSS JOIN LATERAL (
            SELECT need.job FROM {schema}.need AS need
            WHERE need.needs = below.id AND need.by_a_look
        ) AS need
    ),
    chosen AS MATERIALIZED (
        SELECT below.id, EXISTS (
            SELECT FROM {schema}.need AS need WHERE need.job = below.id AND need.doomed_at IS NOT NULL) AS waits
        FROM below
    )
    SELECT ARRAY(
            SELECT id FROM chosen
            WHERE NOT waits AND EXISTS (SELECT FROM {schema}.history AS past WHERE past.id = chosen.id)
            ORDER BY id),
        ARRAY(SELECT id FROM chosen WHERE waits ORDER BY id)
"""


class Doomed(NamedTuple):
    """What comes back."""

    to_blame: Sequence[int]
    """To run again."""
    doomed: Sequence[int]
    """To wait again."""


def select_doomed(ids: Collection[int]) -> Statement[Doomed]:
    """What comes back with these jobs, of those that are finished."""
    return Statement(SELECT_DOOMED, {"ids": of_numbers(ids)}, lambda rows: Doomed(*rows[0]), name="select_doomed")


BLOCK_AGAIN = """
    WITH doomed AS MATERIALIZED (
        SELECT past.* FROM {schema}.history AS past WHERE past.id = ANY (%(ids)s::bigint[]) ORDER BY past.id FOR UPDATE
    ),
    back AS (
        INSERT INTO {schema}.job
            (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, run_at, submitted_at,
             started_at, arguments, retry, limits, gates, errors, unique_key, unique_until, batch, meta, needs, becomes,
             needed)
        SELECT id, task, queue, priority, 'blocked', attempt, max_attempts, claims, crashes, run_at, submitted_at,
            started_at, arguments, retry, limits, gates, errors, unique_key, unique_until, batch, meta, needs, becomes,
            coalesce(needed, (SELECT true FROM {schema}.need AS need WHERE need.needs = doomed.id LIMIT 1))
        FROM doomed
        ORDER BY id
        ON CONFLICT DO NOTHING
        RETURNING id
    ),
    gone AS (
        DELETE FROM {schema}.history WHERE id = ANY (%(ids)s::bigint[]) AND id IN (SELECT id FROM back)
    ),
    alive AS (
        UPDATE {schema}.need SET doomed_at = NULL, by_a_look = NULL
        WHERE job = ANY (ARRAY(SELECT id FROM back)) AND doomed_at IS NOT NULL
        RETURNING needs
    )
    SELECT ARRAY(SELECT id FROM back ORDER BY id), ARRAY(
        SELECT DISTINCT alive.needs FROM alive
        WHERE NOT EXISTS (SELECT FROM {schema}.job AS job WHERE job.id = alive.needs)
            AND alive.needs NOT IN (SELECT id FROM back))
"""


class BlockedAgain(NamedTuple):
    """Those that wait again, and which of their needs are over."""

    back: Sequence[int]
    over: Sequence[int]


def block_again(ids: Collection[int]) -> Statement[BlockedAgain]:
    """Move jobs that were ended because of a need from history back, blocked as they were; not where a live job has
    their key.
    """
    return Statement(BLOCK_AGAIN, {"ids": of_numbers(ids)}, lambda rows: BlockedAgain(*rows[0]), name="block_again")


def resume_flows(ids: Sequence[int], attempts: int | None) -> Steps[int]:
    """Have what was ended because of these jobs wait again; and where they have ended because of a need themselves, run
    again what is to blame. How many are live again.
    """
    to_blame, doomed = yield select_doomed(ids)
    again: list[Requeue] = (yield requeue_jobs(to_blame, attempts, registered())) if to_blame else []
    back: list[int] = []
    if doomed:
        back, over = yield block_again(doomed)
        yield from tell(over)
    return len(back) + sum(each.done for each in again)
