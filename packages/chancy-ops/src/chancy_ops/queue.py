"""What is set for a queue: how many of its jobs run at a time, and how long they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from chancy.errors import InvalidOption
from chancy.history.retention import Keep
from chancy.history.rules import keep_queues
from chancy.model import Rows, Statement
from chancy.options.plain import name as name_of
from chancy.options.plain import number, shown
from chancy.verb import verb

LIMIT_QUEUE = """
    WITH gone AS (
        DELETE FROM {schema}.queue_limit WHERE queue = %(queue)s::text AND %(concurrency)s::integer IS NULL
    ),
    kept AS (
        INSERT INTO {schema}.queue_limit (queue, concurrency)
        SELECT %(queue)s::text, %(concurrency)s::integer WHERE %(concurrency)s::integer IS NOT NULL
        ON CONFLICT (queue) DO UPDATE SET concurrency = excluded.concurrency, revision = excluded.revision
    )
    SELECT {schema}.ring(%(queue)s::text)::text
"""


@verb
def limit(queue: str, /, *, concurrency: int | None, schema: str | None = None) -> Statement[None]:
    """Let at most so many jobs of the queue run at a time, over all workers; None lifts the limit. One round trip.

    Holds from the commit on for whatever is claimed then; what runs, runs on. 0 lets nothing begin. Claims of a queue
    with a limit wait for one another; those of other queues do not. Raises `ValueError` for a number below 0.
    """
    params = {
        "queue": name_of("queue", queue),
        "concurrency": None if concurrency is None else number("concurrency", concurrency, 0),
    }
    return Statement(LIMIT_QUEUE, params, lambda rows: None, name="limit_queue")


@verb
def keep(queue: str, rules: Keep | None, /, *, schema: str | None = None) -> Statement[None]:
    """Set how long finished jobs of the queue are kept, in place of all its rules; None lifts them. One round trip.

    Holds for jobs that finish after the commit; where those are that have finished before, they stay. A worker whose
    `Queue` has a `keep=` sets that again when it starts. Makes the tables of the days that it names: it waits for
    whoever else does so, 5 s at most (then psycopg's `LockNotAvailable`), and they for the end of this transaction.
    """
    if not (rules is None or isinstance(rules, Keep)):
        raise InvalidOption("rules", f"expected a Keep, or None to lift them, got {shown(rules)}")
    return keep_queues({name_of("queue", queue): rules})


RETENTION = """
    SELECT NULL, NULL, value::interval FROM {schema}.setting WHERE name = 'keep'
    UNION ALL
    SELECT queue, what, days::double precision * interval '1 day' FROM {schema}.retention
    WHERE %(queue)s::text IS NULL OR queue = %(queue)s::text
    ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long finished jobs are kept."""

    default: timedelta
    """Where a queue has no rule of its own."""
    queues: Mapping[str, Mapping[str, timedelta]]
    """Of those that have any: by how jobs ended, and of `results`."""


@verb
def retention(*, queue: str | None = None, schema: str | None = None) -> Statement[Retention]:
    """How long finished jobs are kept, of all queues or of one. One round trip."""
    params = {"queue": None if queue is None else name_of("queue", queue)}
    return Statement(RETENTION, params, _parse_retention, name="retention")


def _parse_retention(rows: Rows) -> Retention:
    default = timedelta(0)
    queues: dict[str, dict[str, timedelta]] = {}
    for queue, what, time in rows:
        if queue is None:
            default = time
        else:
            queues.setdefault(queue, {})[what] = time
    return Retention(default, queues)
