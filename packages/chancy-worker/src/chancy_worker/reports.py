"""What handlers say of their progress, written down once a second, of all jobs at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import psycopg

from chancy.codec import encode_json
from chancy.literals import JsonColumn, of_numbers
from chancy.model import Progress, Statement

from .link import Link, one_line

log = logging.getLogger("chancy.worker")

EVERY_SECONDS = 1.0

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


async def write_progress(link: Link, told: dict[tuple[int, int], Progress]) -> None:
    """Empty `told` into the database for ever. Connects at the first word, and asks nothing while nobody says any."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        if not told:
            continue
        if link.conn is None:
            await link.reconnect()
        batch = dict(told)
        told.clear()
        try:
            await link.send(write_down(batch))
        except psycopg.Error as error:
            log.warning("progress of %d jobs was not written: %s", len(batch), one_line(error))
