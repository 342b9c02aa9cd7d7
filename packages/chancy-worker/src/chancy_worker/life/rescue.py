"""Taking back what the dead were running. Anybody may delete the row of a lease that has run out, and only then are its
worker's running jobs taken back; so a worker that was away and comes back before that has lost nothing.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
import psycopg

from chancy.history.moving import MOVED, keeping
from chancy.model import Rows, Statement
from chancy_worker.config import Timing
from chancy_worker.connection.link import Link
from chancy_worker.connection.turns import NextTurn
from chancy_worker.tally.tally import Tally

from .lease import log

DECLARE_DEAD = """
    WITH expired AS (
        SELECT id FROM {schema}.worker
        WHERE id = %(worker)s::bigint OR process = %(process)s::text
            OR (%(worker)s::bigint IS NULL AND %(process)s::text IS NULL
                AND expires_at < least({schema}.clock(), %(latest)s::timestamptz))
        ORDER BY id
        FOR UPDATE SKIP LOCKED
    ),
    gone AS (
        DELETE FROM {schema}.worker AS worker USING expired
        WHERE worker.id = expired.id
        RETURNING worker.id, worker.name
    ),
    noted AS (
        INSERT INTO {schema}.dead_worker (id, name, died_at) SELECT id, name, {schema}.clock() FROM gone RETURNING name
    )
    SELECT ARRAY(SELECT name FROM noted), EXISTS (SELECT FROM noted) OR EXISTS (SELECT FROM {schema}.dead_worker),
        (SELECT extract(epoch FROM min(expires_at) - {schema}.clock())::float8
         FROM {schema}.worker WHERE expires_at >= {schema}.clock()),
        {schema}.clock(),
        EXISTS (SELECT FROM {schema}.job WHERE state = 'ready' AND parked IS NULL AND crashes > 0)
"""


class Deaths(NamedTuple):
    """What a look for the dead has found."""

    names: list[str]
    """Of the workers that were declared dead by it."""
    to_bury: bool
    """Whether any dead worker may have jobs left to take back."""
    next_in: float | None
    """Seconds until the next lease runs out, if nobody extends it."""
    at: datetime
    """The database's time."""
    suspects: bool
    """Whether any job that was running when its worker died waits."""


def declare_dead(
    worker: int | None = None, process: str | None = None, *, latest: datetime | None = None
) -> Statement[Deaths]:
    """End the lease of `worker`, or those of this process, or else all that have expired.

    By no name: two workers may have the same. Where the database's time is later than `latest`, what was over by then
    has expired.
    """
    params = {"worker": worker, "process": process, "latest": latest}
    return Statement(DECLARE_DEAD, params, lambda rows: Deaths(*rows[0]))


NEVER = datetime.min.replace(tzinfo=UTC)
"""No lease has ended before this instant."""


# Locked rows are passed by and taken at the next look: a dead worker is kept until nothing is left of it. Nothing is
# joined with `job` in an order that the planner could choose, for the reason that `claims` gives.
TAKE_BACK = keeping(
    """
    WITH suspect AS (
        SELECT job.id, job.place, dead.name,
            {schema}.with_error(job.errors, json_build_object(
                'attempt', job.attempt, 'kind', 'WorkerDied', 'worker', dead.name, 'started_at', job.started_at,
                'duration', extract(epoch FROM {schema}.clock() - job.started_at)::float8,
                'message', 'worker ' || dead.name || ' died while it ran this job, or could not reach the database',
                'fingerprint', {schema}.fingerprint('WorkerDied', job.task, ''))
            ) AS errors
        FROM {schema}.dead_worker AS dead
        CROSS JOIN LATERAL (
            SELECT id, ctid AS place, task, attempt, started_at, errors FROM {schema}.job
            WHERE worker = dead.id AND state = 'running'
            LIMIT 500
            FOR UPDATE SKIP LOCKED
        ) AS job
        LIMIT 500
    ),
    over AS (
        DELETE FROM {schema}.job AS job USING suspect
        WHERE job.ctid = ANY (ARRAY(SELECT place FROM suspect)) AND job.id = suspect.id
            AND (job.attempt >= job.max_attempts OR job.cancel_at IS NOT NULL)
        RETURNING job.*, suspect.errors AS news, {keep}
    ),
    ended AS (
        SELECT {moved_by_a_crash}, NULL::json AS result, news AS errors, keep,
            CASE WHEN cancel_at IS NULL THEN 'failed' ELSE 'cancelled' END::{schema}.state AS state
        FROM over
    ),
    {kept},
    rescued AS (
        UPDATE {schema}.job AS job
        SET state = 'ready', worker = NULL, crashes = least(job.crashes, 32766) + 1, run_at = {schema}.clock(),
            errors = suspect.errors, progress = NULL, parked = job.gates->>'key'
        FROM suspect
        WHERE job.ctid = ANY (ARRAY(SELECT place FROM suspect)) AND job.id = suspect.id
            AND job.attempt < job.max_attempts AND job.cancel_at IS NULL
        RETURNING job.queue, job.task
    ),
    attempt AS (
        SELECT queue, task, outcome, count(*) AS jobs
        FROM (
            SELECT queue, task, state::text AS outcome FROM ended
            UNION ALL SELECT queue, task, 'died' FROM rescued
        ) AS each
        GROUP BY queue, task, outcome
    ),
    tallied AS (
        INSERT INTO {schema}.tally (at, queue, task, outcome, jobs)
        SELECT date_trunc('minute', {schema}.clock()), queue, task, outcome, jobs FROM attempt
        WHERE %(tallies)s::boolean
    ),
    buried AS (
        DELETE FROM {schema}.dead_worker AS dead
        WHERE died_at < {schema}.clock() - interval '1 minute'
            AND (SELECT id FROM {schema}.job WHERE worker = dead.id AND state = 'running' LIMIT 1) IS NULL
    )
    SELECT (SELECT count(*) FROM rescued), (SELECT count(*) FROM over),
        (SELECT json_agg(json_build_array(queue, task, outcome, jobs))::text FROM attempt),
        CASE WHEN EXISTS (SELECT FROM rescued) THEN {schema}.ring(ARRAY(SELECT DISTINCT queue FROM rescued))::text END
""".replace("{moved_by_a_crash}", MOVED.replace("crashes", "least(crashes, 32766) + 1 AS crashes")),
    "CASE WHEN cancel_at IS NULL THEN 'failed' ELSE 'cancelled' END",
)


class TakenBack(NamedTuple):
    """Jobs of the dead."""

    again: int
    """That are ready again, as suspects."""
    over: int
    """That had no attempt left, or were asked to stop."""
    attempts: Sequence[tuple[str, str, str, int]]
    """Of which queue, of which task, how they came out, and how many."""

    def came_out(self, outcome: str) -> int:
        """How many of them came out so."""
        return sum(jobs for _, _, each, jobs in self.attempts if each == outcome)


def take_back(*, tallies: bool = True) -> Statement[TakenBack]:
    """Take back up to 500 jobs of dead workers.

    With `tallies` their attempts are counted in the same transaction: whose they were can do that no more.
    """

    def parse(rows: Rows) -> TakenBack:
        again, over, attempts, _ = rows[0]
        return TakenBack(again, over, () if attempts is None else _ATTEMPTS.decode(attempts))

    return Statement(TAKE_BACK, {"tallies": tallies}, parse)


_ATTEMPTS = msgspec.json.Decoder(list[tuple[str, str, str, int]])


class Patience:
    """Whether anybody may be declared dead yet. After an outage, and when the database's clock was set forward, all who
    live need time to extend their leases: nobody is dead until a whole lease has passed since this worker could write
    again. A connection that was cut and could be made anew at once was no outage.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._since = math.inf
        self._failing_since: float | None = None
        self._seen: tuple[datetime, float] | None = None

    @property
    def latest(self) -> datetime:
        """Leases that ended before this instant are over."""
        if self._is_outage or time.monotonic() - self._since < self._timing.lease:
            return NEVER
        return self._expected

    def failed(self, began: float) -> None:
        """A look that began then could not be made."""
        if self._failing_since is None:
            self._failing_since = began

    def looked(self, at: datetime) -> bool:
        """What the database's clock did show; whether it has jumped."""
        jumped = self._seen is not None and at > self._expected
        if jumped or self._is_outage or self._since == math.inf:
            self._since = time.monotonic()
        self._failing_since, self._seen = None, (at, time.monotonic())
        return jumped

    @property
    def _expected(self) -> datetime:
        """What that clock can show now, by our own. A jump of less than a third of a lease ends nobody's."""
        assert self._seen is not None
        at, then = self._seen
        return at + timedelta(seconds=time.monotonic() - then + self._timing.lease / 3)

    @property
    def _is_outage(self) -> bool:
        return self._failing_since is not None and time.monotonic() - self._failing_since > self._timing.lease / 15


class Rescuer:
    """Looks for the dead, with `Patience`: now and then, and when a lease that nobody extends runs out. Takes back what
    they were running, 500 jobs a turn.
    """

    def __init__(self, timing: Timing, rescued: Callable[[], None], tally: Tally, *, tallies: bool = True) -> None:
        """`rescued` is called when jobs of the dead are ready again, or still. `tallies`: see `take_back`."""
        self.due = NextTurn("rescue")
        self._timing = timing
        self._rescued = rescued
        self._tally = tally
        self._tallies = tallies
        self._patience = Patience(timing)
        self._takes_back = False
        """The last look has found dead with jobs, and there may be more of those."""
        self._look_at = 0.0

    async def turn(self, link: Link) -> float:
        """Take back more, if there is more; else look."""
        takes_back, self._takes_back = self._takes_back, False
        if takes_back or await self._look(link):
            self._takes_back = await take_back_some(link, self._rescued, self._tally, tallies=self._tallies)
        return 0.0 if self._takes_back else max(self._look_at - time.monotonic(), 0.0)

    async def _look(self, link: Link) -> bool:
        """Declare dead who is; whether there may be jobs to take back, and it is time for that."""
        began = time.monotonic()
        try:
            await link.open()
            latest = self._patience.latest
            found = await link.send(declare_dead(latest=latest))
        except psycopg.Error:
            self._patience.failed(began)
            raise
        timing = self._timing
        if self._patience.looked(found.at):
            log.warning(
                "the database's clock has jumped to %s; nobody is declared dead for %.0f s", found.at, timing.lease
            )
        for name in found.names:
            log.warning("worker %s is dead: its lease ran out", name)
        if found.suspects:
            self._rescued()
        pause = timing.rescue * random.uniform(0.75, 1.25)
        if found.next_in is not None:
            pause = min(pause, found.next_in + timing.lease * random.uniform(0, 0.05))
        self._look_at = time.monotonic() + pause
        return found.to_bury and latest != NEVER


async def take_back_some(link: Link, rescued: Callable[[], None], tally: Tally, *, tallies: bool = True) -> bool:
    """One statement; whether there may be more than what somebody has locked, which is for the next look."""
    taken = await link.send(take_back(tallies=tallies))
    if not taken.again and not taken.over:
        return False
    tally.taken_back(taken.attempts)
    if taken.again:
        log.warning("took back %d jobs of dead workers", taken.again)
    if failed := taken.came_out("failed"):
        log.error("%d jobs of dead workers had no attempt left, and have failed", failed)
    if cancelled := taken.came_out("cancelled"):
        log.info("%d jobs of dead workers had been asked to stop, and are cancelled", cancelled)
    rescued()
    return True
