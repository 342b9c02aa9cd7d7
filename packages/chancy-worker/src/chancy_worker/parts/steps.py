"""The steps of jobs that are still there move out of a day before it is dropped: see 75_steps."""

from __future__ import annotations

from chancy.model import Statement
from chancy_worker.connection.link import Link

CARRY = "SELECT {schema}.carry_steps(%(day)s::text, %(after)s::bigint)"


async def carry_steps(link: Link, day: str) -> None:
    """Of 1,000 jobs a statement, until the day has none that is needed. Nothing comes into a day that is over."""
    after: int | None = 0
    while after is not None:
        after = await link.send(Statement(CARRY, {"day": day, "after": after}, lambda rows: rows[0][0]))
