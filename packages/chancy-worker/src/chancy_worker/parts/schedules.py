"""Ticking: writing down what tasks declare, looking at what is due, and submitting its jobs.

There is no leader. Each worker looks; of several that see the same tick one moves the schedule on, and submits in the
same statement. All instants are the database's: a worker's own clock only measures how long it sleeps.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from chancy.job import NewJob
from chancy.keys.statements import SUBMISSIONS, of_submissions
from chancy.model import Rows, Statement
from chancy.schedules.recurrence import Look, look, ticks
from chancy.schedules.schedule import decode_when, job_of
from chancy.task import BaseTask
from chancy.wires.literals import of_numbers, of_texts, readable_or_null
from chancy_worker.config import Timing
from chancy_worker.connection.link import Link, one_line

log = logging.getLogger("chancy.worker")

SPREAD = 0.03
"""Seconds, at most, between a tick and a worker's look at it, so that not all look at once."""
CONTESTED = 0.1
"""Seconds until a schedule that somebody else holds is looked at again."""
BROKEN = 60.0
"""Seconds until one that could not be ticked is tried again."""
MOST_DUE = 100


LOOK = """
    SELECT {schema}.clock(),
        (SELECT extract(epoch FROM ahead.due_at - {schema}.clock())::float8 FROM {schema}.schedule AS ahead
         WHERE ahead.due_at > {schema}.clock() AND ahead.due_at < 'infinity' AND ahead.task = ANY (%(tasks)s::text[])
         ORDER BY ahead.due_at LIMIT 1),
        due.*
    FROM (SELECT) AS always
    LEFT JOIN LATERAL (
        SELECT name, revision, task, recurrence, arguments, changes,
            {since} AS since, {next_at} AS next_at, {paused_until} AS paused_until
        FROM {schema}.schedule
        WHERE due_at <= {schema}.clock() AND task = ANY (%(tasks)s::text[]) AND revision <> ALL (%(aside)s::bigint[])
        ORDER BY due_at
        LIMIT %(most)s::integer
    ) AS due ON true
"""
for _instant in ("since", "next_at", "paused_until"):  # one that no datetime can be must not hide the others
    LOOK = LOOK.replace("{" + _instant + "}", readable_or_null(_instant))


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule whose time has come, as it was at its `revision`."""

    name: str
    revision: int
    task: str
    when: bytes
    arguments: bytes
    changes: bytes
    since: datetime
    next_at: datetime | None
    paused_until: datetime | None

    def look(self, at: datetime) -> tuple[Look, bool]:
        """What to do at this instant, and whether its jobs may overlap. Raises `ValueError` for an unknown zone."""
        when = decode_when(self.when)
        first = self.next_at or next(ticks(when, self.since))
        if self.paused_until is not None and first <= self.paused_until:
            first = next(ticks(when, self.paused_until))
        return look(when, first, at), when.overlap == "allow"


@dataclass(frozen=True, slots=True)
class Seen:
    """The database's time; seconds until the next tick, if any is ahead; and what is due, the most overdue first."""

    at: datetime
    ahead: float | None
    due: list[Due]


def look_at_schedules(tasks: Iterable[str], aside: Collection[int]) -> Statement[Seen]:
    """Up to a hundred due schedules of these tasks, but for those at the revisions that were put `aside`."""
    params = {"tasks": of_texts(tasks), "aside": of_numbers(aside), "most": MOST_DUE}
    return Statement(LOOK, params, _parse_look)


def _parse_look(rows: Rows) -> Seen:
    return Seen(rows[0][0], rows[0][1], [Due(*row[2:]) for row in rows if row[2] is not None])


TICK = (
    SUBMISSIONS
    + """
    SELECT moved, skipped FROM {schema}.tick(
        %(name)s::text, %(revision)s::bigint, %(next_at)s::timestamptz, %(note)s::text, %(allowed)s::boolean,
        ARRAY(SELECT new::{schema}.submission FROM new ORDER BY position))
"""
)


def tick(
    due: Due, next_at: datetime, note: str | None, allowed: bool, jobs: list[NewJob[Any]]
) -> Statement[tuple[bool, str | None]]:
    """Move the schedule on and submit the jobs of its ticks, both or neither. False if somebody else has moved it.

    Also why the last of them got no job, if so. Locks the row, and what a submit of these jobs locks.
    """
    mine = {"name": due.name, "revision": due.revision, "next_at": next_at, "note": note, "allowed": allowed}
    return Statement(TICK, of_submissions(jobs) | mine, lambda rows: (rows[0][0], rows[0][1]))


NOTE = """
    UPDATE {schema}.schedule SET note = %(note)s::text
    WHERE name = %(name)s::text AND revision = %(revision)s::bigint AND note IS DISTINCT FROM %(note)s::text
    RETURNING name
"""


def write_note(due: Due, note: str) -> Statement[bool]:
    """Say in the row why it does not tick. It stays at its revision."""
    return Statement(NOTE, {"name": due.name, "revision": due.revision, "note": note}, bool)


async def keep_time(link: Link, tasks: Mapping[str, BaseTask[..., Any]], timing: Timing, found: asyncio.Event) -> None:
    """Submit the jobs of these tasks' schedules for ever, each within some 30 ms of its tick.

    Looks when the next tick is, and at least every `timing.look`; while none of theirs is ahead, only when somebody has
    `found` that there are any at all. Connects at the first look.
    """
    aside: dict[int, float] = {}
    due_at = 0.0

    async def turn() -> float:
        nonlocal aside, due_at
        if (left := due_at - time.monotonic()) > 0 and due_at < math.inf:  # `found` once more
            return left
        await link.open()
        aside = {revision: until for revision, until in aside.items() if until > time.monotonic()}
        seen = await link.send(look_at_schedules(tasks, aside))
        for due in seen.due:
            if (pause := await _see_to(link, due, tasks[due.task], seen.at)) is not None:
                aside[due.revision] = time.monotonic() + pause
        now = time.monotonic()
        waits = [until - now for until in aside.values()]
        if seen.ahead is not None:
            waits.append(seen.ahead + random.uniform(0, SPREAD))
        if seen.due:
            waits.append(0.0)
        rest = min([timing.look * random.uniform(0.75, 1), *waits]) if waits else math.inf
        due_at = now + rest
        return rest

    await link.forever(turn, found, first=math.inf)


async def _see_to(link: Link, due: Due, task: BaseTask[..., Any], at: datetime) -> float | None:
    """Tick it. Seconds for which to leave it alone if that was not possible."""
    try:
        found, allowed = due.look(at)
        jobs = [job_of(task, due.arguments, due.changes, each) for each in found.run]
        note = found.dropped and f"ticks from {_told(found.dropped[0])} until {_told(found.dropped[1])} were missed"
        moved, skipped = await link.send(tick(due, found.next_at, note, allowed, jobs))
    except Exception as error:  # what the keys of its task say is the user's code, too
        if isinstance(error, psycopg.Error) and link.is_broken(error):
            raise
        if isinstance(error, psycopg.OperationalError):  # a unique key that another transaction holds
            log.warning("schedule %s: %s; trying again", due.name, one_line(error))
            return 10 * CONTESTED
        reason = one_line(error).encode(errors="backslashreplace").decode().replace("\0", "\\0")[:500]
        log.error("schedule %s cannot tick, its next try is in a minute: %s", due.name, reason)
        try:
            await link.send(write_note(due, f"no jobs for ticks from {_told(due.next_at or due.since)} on: {reason}"))
        except psycopg.Error as worse:
            if link.is_broken(worse):
                raise
            log.error("schedule %s: what is wrong with it cannot be noted: %s", due.name, one_line(worse))
        return BROKEN
    if moved and note:
        log.warning("schedule %s: %s", due.name, note)
    if moved and skipped:  # as it was told to, perhaps at each tick for hours
        log.info("schedule %s: %s", due.name, skipped)
    return None if moved else CONTESTED


def _told(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
