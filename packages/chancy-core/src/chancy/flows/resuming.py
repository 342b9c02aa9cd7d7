"""Coming back: jobs that were ended because of a need wait again, and what is to blame runs again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from chancy.model import Statement
from chancy.wires.literals import of_numbers

# Upwards from those that are given: whatever they needed in vain. Then downwards from all of these: whatever was ended
# because of them. A job that somebody has cancelled, and not a look, has no such error.
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
            WHERE need.needs = below.id AND need.doomed_at IS NOT NULL AND EXISTS (
                SELECT FROM {schema}.history AS past
                WHERE past.id = need.job AND {schema}.last_error_is(past.errors, 'NeedFailed'))
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
            needed
        FROM doomed
        ORDER BY id
        ON CONFLICT DO NOTHING
        RETURNING id
    ),
    gone AS (
        DELETE FROM {schema}.history WHERE id = ANY (%(ids)s::bigint[]) AND id IN (SELECT id FROM back)
    ),
    alive AS (
        UPDATE {schema}.need SET doomed_at = NULL
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
