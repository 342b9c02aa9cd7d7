"""What handlers say of their progress, and what they log, written down once a second, of all jobs at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import psycopg

from chancy.arguments.codec import encode_json
from chancy.history.moving import DAYS_AHEAD, make_partitions
from chancy.model import Progress, Statement
from chancy.wires.literals import JsonColumn, of_numbers
from chancy_worker.attempts.logs import Keeper, Kept, write_logs
from chancy_worker.attempts.verdict import Owner
from chancy_worker.connection.link import Link, one_line
from chancy_worker.connection.turns import NextTurn

from .part import Part

T = TypeVar("T")

log = logging.getLogger("chancy.worker")

EVERY_SECONDS = 1.0
LAST_SECONDS = 5.0
"""That the last records get to reach the database when the worker stops."""

_BAD_DATA = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)

WRITE_PROGRESS = """
    UPDATE {schema}.job AS job SET progress = told.progress
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[], %(leases)s::bigint[], %(progress)s::json[])
        AS told (id, fence, lease, progress)
    WHERE job.id = told.id AND job.claims = told.fence AND job.worker = told.lease
        AND job.ctid = ANY (ARRAY(
            SELECT free.ctid FROM {schema}.job AS free WHERE free.id = ANY (%(ids)s::bigint[])
            ORDER BY free.id
            FOR UPDATE SKIP LOCKED))
    RETURNING job.id
"""


def write_down(told: Mapping[Owner, Progress]) -> Statement[int]:
    """Keep the last word of these claims; how many still were. Passes locked rows by: there will be another word."""
    return Statement(
        WRITE_PROGRESS,
        {
            "ids": of_numbers(id_ for id_, _, _ in told),
            "fences": of_numbers(fence for _, fence, _ in told),
            "leases": of_numbers(lease for _, _, lease in told),
            "progress": JsonColumn(map(encode_json, told.values())),
        },
        len,
    )


class Reports(Part):
    """What is said between two turns, and the last words of the log.

    Connects at the first word, and asks nothing while nobody says any.
    """

    def __init__(self, told: dict[Owner, Progress], keeper: Keeper | None) -> None:
        """Empties both."""
        self.due = NextTurn("reports", EVERY_SECONDS)
        self._told = told
        self._keeper = keeper

    async def turn(self, link: Link) -> float:
        """Write all of it down."""
        if self._told or (self._keeper and self._keeper.waiting):
            await link.open()
            await _write_progress(link, self._told)
            await _write_logs(link, self._keeper)
        return EVERY_SECONDS

    async def close(self, link: Link) -> None:
        """Write down what the log still has, if the database can be reached."""
        if self._keeper and self._keeper.waiting:
            await _last_words(link, self._keeper)


async def _write_progress(link: Link, told: dict[Owner, Progress]) -> None:
    # One by one: a thread may say something between any two steps, and what it says is taken now or stays.
    batch = dict(told.popitem() for _ in range(len(told)))

    def keep(part: Sequence[tuple[Owner, Progress]]) -> None:
        for owner, progress in part:
            told.setdefault(owner, progress)  # unless it has said something newer

    def refused(one: tuple[Owner, Progress], error: psycopg.Error) -> None:
        keep([one])
        log.warning("the progress of job %d was not written, and is kept for now: %s", one[0][0], one_line(error))

    async def send(part: Sequence[tuple[Owner, Progress]]) -> None:
        try:
            await link.send(write_down(dict(part)))
        except _BAD_DATA:
            raise
        except psycopg.Error:
            keep(part)
            raise

    await _in_parts(list(batch.items()), send, refused)


async def _write_logs(link: Link, keeper: Keeper | None) -> None:
    """All that wait now, and not for ever what is said meanwhile."""

    def refused(one: Kept, error: psycopg.Error) -> None:  # it would be refused again
        log.error("a log record of job %d is lost, the database refuses it: %s", one.job, one_line(error))

    async def send(part: Sequence[Kept]) -> None:
        try:
            await link.send(write_logs(part))
        except psycopg.errors.CheckViolation:  # nobody has made the partition of this day yet
            await link.send(make_partitions(DAYS_AHEAD))
            await link.send(write_logs(part))

    left = keeper.waiting if keeper else 0
    while keeper and left > 0 and (batch := keeper.take()):
        left -= len(batch)
        try:
            await _in_parts(batch, send, refused)
        except BaseException:
            keeper.put_back(batch)  # what was written already is there twice, and read once
            raise


async def _in_parts(
    batch: Sequence[T], send: Callable[[Sequence[T]], Awaitable[None]], refused: Callable[[T, psycopg.Error], None]
) -> None:
    """Send them at once; where the database refuses something, by halves, down to the one that is to blame."""
    if not batch:
        return
    try:
        await send(batch)
    except _BAD_DATA as error:
        half = len(batch) // 2
        if not half:
            refused(batch[0], error)
        else:
            await _in_parts(batch[:half], send, refused)
            await _in_parts(batch[half:], send, refused)


async def _last_words(link: Link, keeper: Keeper) -> None:
    with contextlib.suppress(psycopg.Error, TimeoutError):
        async with asyncio.timeout(LAST_SECONDS):
            await link.open()
            await _write_logs(link, keeper)
    if keeper.waiting:
        log.error("%d log records of jobs are lost: the database could not be reached", keeper.waiting)
