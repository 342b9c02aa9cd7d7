"""Being believed alive: the row of `worker` is the lease, which its worker extends. Past its `expires_at` anybody may
delete it (`rescue`).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chancy.model import Rows, Statement
from chancy.wires.literals import of_texts
from chancy_worker.__about__ import __version__
from chancy_worker.config import KNOWN_TO_PARENT_BY, Timing
from chancy_worker.connection.link import Link
from chancy_worker.memory import UNKNOWN, Memory

log = logging.getLogger("chancy.worker")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker takes: for whoever asks why a job does not run."""

    queues: Sequence[str] = ()
    tasks: Sequence[str] = ()
    signatures: Sequence[str] = ()
    """Of these tasks, in this order."""
    listens: bool = True
    """At the doorbell."""


REGISTER = """
    WITH lease AS (
        INSERT INTO {schema}.worker (name, process, started_at, expires_at)
        VALUES (%(name)s::text, %(process)s::text,
            {schema}.clock(), {schema}.clock() + %(lease)s::float8 * interval '1 s')
        RETURNING id
    )
    INSERT INTO {schema}.offer (worker, queues, tasks, signatures, version, listens)
    SELECT id, %(queues)s::text[], %(tasks)s::text[], %(signatures)s::text[], %(version)s::text, %(listens)s::boolean
    FROM lease
    RETURNING worker
"""


def register(name: str, lease: float, offer: Offer = Offer(), process: str | None = None) -> Statement[int]:
    """A new lease of so many seconds; returns its id, under which the worker claims. `process` is what it can be
    declared dead by, too: by its parent, which knows no id, and by itself where the answer was lost.
    """
    params = {
        "name": name,
        "process": process,
        "lease": lease,
        "queues": of_texts(offer.queues),
        "tasks": of_texts(offer.tasks),
        "signatures": of_texts(offer.signatures),
        "version": __version__,
        "listens": offer.listens,
    }
    return Statement(REGISTER, params, lambda rows: int(rows[0][0]))


# `after` moves up with every extension, so that each claim is looked at once and the index's dead entries never.
EXTEND = """
    WITH extended AS (
        UPDATE {schema}.worker
        SET expires_at = {schema}.clock() + %(lease)s::float8 * interval '1 s',
            clock_ahead = extract(epoch FROM %(own_clock)s::timestamptz - clock_timestamp()),
            deaf = coalesce(%(deaf)s::boolean, deaf),
            memory = coalesce(%(memory)s::bigint, memory),
            memory_of_children = coalesce(%(memory_of_children)s::bigint, memory_of_children),
            memory_at = CASE WHEN %(memory)s::bigint IS NULL THEN memory_at ELSE {schema}.clock() END
        WHERE id = %(worker)s::bigint
        RETURNING id
    )
    SELECT EXISTS (SELECT FROM extended), latest.at,
        ARRAY(
            SELECT ARRAY[job.id, job.claims] FROM {schema}.job AS job
            WHERE job.state = 'running' AND job.worker = %(worker)s::bigint
                AND job.started_at > coalesce(%(after)s::timestamptz, '-infinity') AND job.started_at <= latest.at
        ),
        ARRAY(SELECT id FROM {schema}.job WHERE worker = %(worker)s::bigint AND cancel_at IS NOT NULL),
        EXISTS (SELECT FROM {schema}.batch WHERE finished_at IS NULL), EXISTS (SELECT FROM {schema}.schedule),
        EXISTS (SELECT FROM {schema}.need)
    FROM (SELECT {schema}.clock() - %(unheard)s::float8 * interval '1 s' AS at) AS latest
"""


@dataclass(frozen=True, slots=True)
class Extension:
    """Whether the lease was still there, and the (id, fence) of the jobs claimed in its name in (after, upto]."""

    holding: bool
    upto: datetime
    claims: list[tuple[int, int]]
    cancelled: list[int]
    """Jobs that run in its name and were asked to stop."""
    batches: bool
    """Whether any batch is unfinished."""
    schedules: bool
    """Whether there are any."""
    flows: bool
    """Whether any job needs another one."""


def extend(
    worker: int,
    lease: float,
    after: datetime | None,
    unheard: float,
    deaf: bool | None = None,
    memory: Memory = UNKNOWN,
) -> Statement[Extension]:
    """Extend the lease from now. Seconds; `unheard` is how long ago a claim must be to be looked at. `deaf` is whether
    the worker has found that it does not hear the doorbell, if it has looked. What is not known leaves what was.
    """
    said = {"deaf": deaf, "memory": memory.own, "memory_of_children": memory.children, "own_clock": datetime.now(UTC)}
    params = {"worker": worker, "lease": lease, "after": after, "unheard": unheard}
    return Statement(EXTEND, params | said, _parse_extension)


def _parse_extension(rows: Rows) -> Extension:
    holding, upto, claims, cancelled, *used = rows[0]
    return Extension(holding, upto, [(id_, fence) for id_, fence in claims], cancelled, *used)


class Lease:
    """This worker's lease. `lost` is called when it has to take a new one."""

    def __init__(self, name: str, timing: Timing, lost: Callable[[], None], offer: Offer = Offer()) -> None:
        self.name = name
        self.offer = offer
        self.timing = timing
        self.id = 0
        self.known_by = KNOWN_TO_PARENT_BY or secrets.token_hex(8)
        """What it can be given up by, where the answer that has its id never came."""
        self.extended_at = 0.0
        self._lost = lost
        self._seen: datetime | None = None

    async def take(self, link: Link) -> None:
        """Register, under a new id."""
        self.id = await link.send(register(self.name, self.timing.lease, self.offer, self.known_by))
        self._seen = None
        self.extended_at = time.monotonic()

    async def extend(self, link: Link, *, deaf: bool, memory: Memory) -> Extension:
        """Extend it; or take a new one if it is gone."""
        answer = await link.send(extend(self.id, self.timing.lease, self._seen, self.timing.unheard, deaf, memory))
        if not answer.holding:
            log.warning("worker %s (lease %d) was declared dead; its jobs may run elsewhere", self.name, self.id)
            self.id = 0  # what is claimed under that is nobody's, until there is another
            self._lost()
            await self.take(link)
            return answer
        self._seen = answer.upto
        self.extended_at = time.monotonic()
        return answer
