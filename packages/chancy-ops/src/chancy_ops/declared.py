"""Which tasks there are, as workers have declared them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from chancy.model import Rows, Statement
from chancy.options.plain import text
from chancy.verb import verb
from chancy.wires.literals import FINITE

MOST_TASKS = 10_000

TASKS = """
    WITH offered AS (
        SELECT each AS task, count(*) AS workers
        FROM {schema}.offer AS offer
        JOIN {schema}.worker AS worker ON worker.id = offer.worker AND worker.expires_at > {schema}.clock()
        CROSS JOIN unnest(offer.tasks) AS each
        GROUP BY each
    ),
    paused AS (
        SELECT name AS task, until FROM {schema}.pause WHERE kind = 'task' AND until > {schema}.clock()
    )
    SELECT task, declared.queue, declared.priority, declared.max_attempts,
        convert_to(declared.gates::text, 'UTF8'), declared.unique_until, coalesce(offered.workers, 0), {until}
    FROM offered
    FULL JOIN (SELECT name AS task, * FROM {schema}.task) AS declared USING (task)
    FULL JOIN paused USING (task)
    WHERE %(task)s::text IS NULL OR task = %(task)s::text
    ORDER BY task
    LIMIT %(limit)s::integer
""".replace("{until}", FINITE.replace("{instant}", "paused.until"))


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task, under one of its names. What no worker has declared is None."""

    name: str
    queue: str | None
    priority: int | None
    max_attempts: int | None
    limits: Sequence[str]
    """Its limits over all workers, and its group, in words: `concurrency(shop.charge account=…) 3`."""
    unique_until: str | None
    """Until when one job of a key may be there, if they are unique: `started` or `finished`."""
    workers: int
    """Live workers that know it."""
    paused_until: datetime | None
    """UTC; `WITHOUT_END` is until somebody resumes it, None is not paused."""


@verb
def tasks(*, task: str | None = None, schema: str | None = None) -> Statement[list[TaskRow]]:
    """The tasks that a worker has ever declared, or that are paused, by name: all names that each has or had. One round
    trip. Raises `InvalidOption`.
    """
    params = {"task": None if task is None else text("task", task), "limit": MOST_TASKS}
    return Statement(TASKS, params, _parse_tasks, name="tasks")


class _Part(msgspec.Struct, frozen=True):
    start: str
    names: Sequence[str] | None = None
    most: int | None = None
    per: float | None = None

    def __str__(self) -> str:
        name = self.start if self.names is None else f"{self.start}…)"
        return name if self.most is None else f"{name} {self.most:,}"


_read = msgspec.json.Decoder(list[_Part]).decode


def _parse_tasks(rows: Rows) -> list[TaskRow]:
    return [
        TaskRow(
            name, queue, priority, max_attempts, () if gates is None else tuple(map(str, _read(gates))), unique_until,
            workers, until and until.astimezone(UTC),
        )
        for name, queue, priority, max_attempts, gates, unique_until, workers, until in rows
    ]  # fmt: skip
