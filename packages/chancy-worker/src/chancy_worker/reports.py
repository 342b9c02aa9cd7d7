"""What handlers say of their progress, and what they log, written down once a second, of all jobs at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

import psycopg

from chancy.codec import encode_json
from chancy.literals import JsonColumn, of_numbers
from chancy.model import Progress, Statement
from chancy.statements import DAYS_AHEAD, make_partitions

from .link import Link, one_line
from .records import Keeper, write_logs

log = logging.getLogger("chancy.worker")

EVERY_SECONDS = 1.0
LAST_SECONDS = 5.0
"""That the last records get to reach the database when the worker stops."""

_BAD_DATA = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)

WRITE_PROGRESS = """
    UPDATE {schema}.job AS job SET progress = told.progress
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[], %(progress)s::json[]) AS told (id, fence, progress)
    WHERE job.id = told.id AND job.claims = told.fence AND job.worker IS NOT NULL
        AND job.ctid = ANY (ARRAY(
            SELECT free.ctid FROM {schema}.job AS free WHERE free.id = ANY (%(ids)s::bigint[])
            ORDER BY free.id
            FOR UPDATE SKIP LOCKED))
    RETURNING job.id
"""


def write_down(told: Mapping[tuple[int, int], Progress]) -> Statement[int]:
    """Keep the last word of these claims; how many still were. Passes locked rows by: there will be another word."""
    return Statement(
        WRITE_PROGRESS,
        {
            "ids": of_numbers(id_ for id_, _ in told),
            "fences": of_numbers(fence for _, fence in told),
            "progress": JsonColumn(map(encode_json, told.values())),
        },
        len,
    )


async def report(link: Link, told: dict[tuple[int, int], Progress], keeper: Keeper | None) -> None:
    """Empty both into the database for ever, and the log once more when it is cancelled.

    Connects at the first word, and asks nothing while nobody says any.
    """

    async def turn() -> float:
        if told or (keeper and keeper.waiting):
            await link.open()
            await _write_progress(link, told)
            await _write_logs(link, keeper)
        return EVERY_SECONDS

    try:
        await link.forever(turn, first=EVERY_SECONDS)
    finally:
        if keeper and keeper.waiting:
            await _last_words(link, keeper)


async def _write_progress(link: Link, told: dict[tuple[int, int], Progress]) -> None:
    if not told:
        return
    # One by one: a thread may say something between any two steps, and what it says is taken now or stays.
    batch = dict(told.popitem() for _ in range(len(told)))
    try:
        await link.send(write_down(batch))
    except psycopg.Error:
        for claim, progress in batch.items():
            told.setdefault(claim, progress)  # unless it has said something newer
        raise


async def _write_logs(link: Link, keeper: Keeper | None) -> None:
    """All that wait now, and not for ever what is said meanwhile."""
    left = keeper.waiting if keeper else 0
    while keeper and left > 0 and (batch := keeper.take()):
        left -= len(batch)
        try:
            try:
                await link.send(write_logs(batch))
            except psycopg.errors.CheckViolation:  # nobody has made the partition of this day yet
                await link.send(make_partitions(DAYS_AHEAD))
                await link.send(write_logs(batch))
        except _BAD_DATA as error:  # it would be refused again
            log.error("%d log records of jobs are lost, the database refuses them: %s", len(batch), one_line(error))
        except BaseException:
            keeper.put_back(batch)
            raise


async def _last_words(link: Link, keeper: Keeper) -> None:
    with contextlib.suppress(psycopg.Error, TimeoutError):
        async with asyncio.timeout(LAST_SECONDS):
            if link.conn is None:
                await link.connect()
            await _write_logs(link, keeper)
    if keeper.waiting:
        log.error("%d log records of jobs are lost: the database could not be reached", keeper.waiting)
