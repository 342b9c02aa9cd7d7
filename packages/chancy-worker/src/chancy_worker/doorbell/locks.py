"""What is said to the database at the bell: the keys of queues, and the places in line, are advisory locks.

Keys are from 1 up, a place is from -17 down; others of this schema are -16 and above.
"""

from __future__ import annotations

from collections.abc import Sequence

from chancy.model import Statement

BELL_KEYS = "SELECT queue, {schema}.bell_key(queue) FROM unnest(%(queues)s::text[]) AS queue"
BELL_TRY = """
    SELECT key FROM unnest(%(missing)s::integer[]) AS key
    WHERE pg_try_advisory_lock('{schema}'::regnamespace::oid::integer, key)
"""
# What filters is evaluated before what is selected.
BELL_WAIT = """
    SELECT {schema}.bell_wait(%(missing)s::integer[])
    FROM (
        SELECT count(pg_advisory_unlock('{schema}'::regnamespace::oid::integer, key)) AS n
        FROM unnest(%(given_up)s::integer[]) AS key
    ) AS given_up
    WHERE given_up.n >= 0
"""
BELL_UNLOCK = """
    SELECT pg_advisory_unlock('{schema}'::regnamespace::oid::integer, key) FROM unnest(%(held)s::integer[]) AS key
"""
BELL_UNLOCK_ALL = "SELECT pg_catalog.pg_advisory_unlock_all()"
BELL_HAND_ON = """
    SELECT pg_try_advisory_lock('{schema}'::regnamespace::oid::integer, %(place)s::integer)
    FROM (
        SELECT pg_advisory_unlock('{schema}'::regnamespace::oid::integer, %(place)s::integer) AS was_held OFFSET 0
    ) AS given_up
    WHERE given_up.was_held
"""


def bell_keys(queues: Sequence[str]) -> Statement[dict[str, int]]:
    """The key of each queue. Queues may share one: it is a hash."""
    return Statement(BELL_KEYS, {"queues": list(queues)}, lambda rows: {row[0]: row[1] for row in rows})


def bell_try(missing: Sequence[int]) -> Statement[list[int]]:
    """Take those of the keys that are free; returns them."""
    return Statement(BELL_TRY, {"missing": list(missing)}, lambda rows: [key for (key,) in rows])


def bell_wait(missing: Sequence[int], given_up: Sequence[int] = ()) -> Statement[list[int]]:
    """Give up some locks, and take others, waiting up to 1.8 s for the first that somebody else holds; returns those
    that it got.
    """
    params = {"missing": list(missing), "given_up": list(given_up)}
    return Statement(BELL_WAIT, params, lambda rows: list(rows[0][0]))


def bell_unlock(held: Sequence[int]) -> Statement[None]:
    """Give the locks to the next in line."""
    return Statement(BELL_UNLOCK, {"held": list(held)}, lambda rows: None)


def bell_unlock_all() -> Statement[None]:
    """Give up all that this session holds."""
    return Statement(BELL_UNLOCK_ALL, {}, lambda rows: None)


def bell_hand_on(place: int) -> Statement[bool]:
    """Leave the place to who waits for it; whether it was kept, because nobody does."""
    return Statement(BELL_HAND_ON, {"place": place}, lambda rows: bool(rows and rows[0][0]))
