"""What is said to the database at the bell: the keys of queues, and the places in line, are advisory locks. And it is
asked what is left for others.

Keys are from 1 up, a place is from -17 down; others of this schema are -16 and above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chancy.model import Statement
from chancy_worker.claims.pieces import IN_USE

BELL_KEYS = "SELECT queue, {schema}.bell_key(queue) FROM unnest(%(queues)s::text[]) AS queue"
BELL_TRY = """
    SELECT key FROM unnest(%(missing)s::integer[]) AS key
    WHERE pg_try_advisory_lock('{schema}'::regnamespace::oid::integer, key)
"""
# What filters is evaluated before what is selected.
BELL_WAIT = """
    SELECT {schema}.bell_wait(%(missing)s::integer[], %(others)s::integer[])
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
# Index by index entry, as a look does: of each priority the first that is due.
BELL_LEFT = """
    WITH RECURSIVE {in_use}
    SELECT in_use.queue
    FROM in_use
    CROSS JOIN LATERAL (
        SELECT FROM {schema}.job AS job
        WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = in_use.queue
            AND job.priority = in_use.priority AND job.run_at <= {schema}.clock()
        ORDER BY job.run_at LIMIT 1
    ) AS due
    UNION
    SELECT look.queue
    FROM unnest(%(looking)s::text[]) AS look (queue)
    CROSS JOIN LATERAL (
        SELECT FROM {schema}.job AS job
        WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = look.queue
        LIMIT 1
    ) AS parked
""".replace("{in_use}", IN_USE)


def bell_keys(queues: Sequence[str]) -> Statement[dict[str, int]]:
    """The key of each queue. Queues may share one: it is a hash."""
    return Statement(BELL_KEYS, {"queues": list(queues)}, lambda rows: {row[0]: row[1] for row in rows})


def bell_try(missing: Sequence[int]) -> Statement[list[int]]:
    """Take those of the keys that are free; returns them."""
    return Statement(BELL_TRY, {"missing": list(missing)}, lambda rows: [key for (key,) in rows])


def bell_wait(missing: Sequence[int], given_up: Sequence[int] = (), others: Sequence[int] = ()) -> Statement[list[int]]:
    """Give up some locks, and take those that are missing, waiting up to 1.8 s for the first that somebody else holds;
    with any of them also those of the others that are free. Returns all that it got.
    """
    params = {"missing": list(missing), "given_up": list(given_up), "others": list(others)}
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


def bell_left(queues: Iterable[str]) -> Statement[list[str]]:
    """Those of the queues in which anything waits that is due, or for a limit or a turn."""
    return Statement(BELL_LEFT, {"looking": list(queues)}, lambda rows: [queue for (queue,) in rows])
