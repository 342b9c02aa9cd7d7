"""Suspects: jobs that were running when a worker died, any of which may have killed it; how many of them run at a time.

Those that can lose an attempt run in company: a few at first, and for each that ends, or has run for a while, without
harm one more at a time. Those that cannot, since they have one attempt left, or have met two deaths already, run
without another suspect beside them. So the recovery takes about as long as the work, and a job that kills its workers
takes nobody's last attempt. (docs/decisions/0020 has the numbers.) Jobs that are no suspects go on beside all of them.

Which ones are next is read by an index of their own, when whoever looks for the dead has seen that some wait, and when
one has ended here; the round then claims those by their ids, and leaves out all others.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from chancy.model import Rows, Statement
from chancy.wires.literals import of_texts
from chancy_worker.attempts.verdict import Claimed, Completion

Key = tuple[int, int]
"""A claim: the job's id and its fence."""

FIRST = 2
"""So many run untried at a time at first."""
MOST = 32
"""And so many in all, tried or not: as many can lose an attempt to one of them."""
AGAIN_SECONDS = 0.25
"""When those that were chosen could not be claimed, though there was room."""

# Two kinds, the second only where there is none of the first. Queues in an order that changes: none is always the last.
CHOOSE = """
    WITH wanted AS MATERIALIZED (
        SELECT want.queue FROM unnest(%(queues)s::text[]) AS want (queue)
        WHERE want.queue <> ALL (ARRAY(
            SELECT name FROM {schema}.pause WHERE kind = 'queue' AND until > {schema}.clock()))
        ORDER BY random()
    ),
    left_out AS MATERIALIZED (
        SELECT array_cat(%(without)s::text[], ARRAY(
            SELECT name FROM {schema}.pause WHERE kind = 'task' AND until > {schema}.clock())) AS tasks
    ),
    company AS MATERIALIZED (
        SELECT first.id, first.claims FROM wanted
        CROSS JOIN LATERAL (
            SELECT job.id, job.claims FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.crashes > 0
                AND job.queue = wanted.queue AND {alone} = 0 AND job.run_at <= {schema}.clock()
                AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
            ORDER BY job.priority DESC, job.run_at, job.id
            LIMIT %(together)s::integer
        ) AS first
        LIMIT %(together)s::integer
    ),
    lone AS MATERIALIZED (
        SELECT first.id, first.claims FROM wanted
        CROSS JOIN LATERAL (
            SELECT job.id, job.claims FROM {schema}.job AS job
            WHERE %(alone)s::boolean AND NOT EXISTS (SELECT FROM company)
                AND job.state = 'ready' AND job.parked IS NULL AND job.crashes > 0
                AND job.queue = wanted.queue AND {alone} = 1 AND job.run_at <= {schema}.clock()
                AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
            ORDER BY job.priority DESC, job.run_at, job.id
            LIMIT 1
        ) AS first
        LIMIT 1
    )
    SELECT id, claims FROM company UNION ALL SELECT id, claims FROM lone
""".replace("{alone}", "(CASE WHEN job.crashes = 1 AND job.max_attempts - job.attempt > 1 THEN 0 ELSE 1 END)")


def choose(queues: Collection[str], without: Sequence[str], together: int, alone: bool) -> Statement[list[Key]]:
    """The suspects that are next in these queues, by id and last fence: up to so many that may run together, or, if
    there is none of those and `alone` is said, one that may not. Locks nothing.
    """
    params = {
        "queues": of_texts(queues),
        "without": of_texts(without),
        "together": together,
        "alone": alone,
    }
    return Statement(CHOOSE, params, _parse)


def _parse(rows: Rows) -> list[Key]:
    return [(id_, fence) for id_, fence in rows]


def runs_alone(job: Claimed) -> bool:
    """Whether this claimed suspect must not lose the attempt that it is in, or has met more than one death."""
    return job.crashes > 1 or job.attempt >= job.max_attempts


class Suspects:
    """The suspects that run in this worker, and which of those that wait are to be claimed next.

    `changed` is called when more may be claimed than when they were asked for last.
    """

    def __init__(self, harmless: float, changed: Callable[[], None]) -> None:
        self._harmless = harmless
        self._changed = changed
        self._untried: dict[Key, asyncio.TimerHandle] = {}
        self._tried: set[Key] = set()
        self._alone: Key | None = None
        self._may = FIRST
        self._asks = True
        self.chosen: Sequence[Key] = ()
        """Those that the next round has to claim, as they were when they were chosen: who was claimed and given back
        since then may have to be alone by now.
        """

    def ask(self) -> None:
        """There may be more by now, or there is room for more: ask before the next round."""
        self._asks, self.chosen = True, ()
        self._changed()

    @property
    def asks(self) -> bool:
        """Whether `wish` may have a question."""
        return self._asks and not self.chosen

    def wish(self, free: Mapping[str, int], without: Sequence[str]) -> Statement[list[Key]] | None:
        """What has to be asked before the next round, if anything, by a worker with so many free slots a queue."""
        together = min(self._room(), sum(free.values()))
        if not self._asks or self.chosen or together < 1:
            return None
        self._asks = False
        return choose(free, without, together, alone=not self._is_any_here)

    def may_come(self, queues: Sequence[str]) -> dict[str, int]:
        """From which of these queues one suspect may be claimed that waits for a limit or a turn, beside none that was
        chosen: see `claims.Circle`. One that has to be alone comes where no other suspect is.
        """
        if self.chosen or not queues:
            return {}
        if not self._is_any_here:
            return {random.choice(queues): 2}
        return dict.fromkeys(random.sample(queues, min(len(queues), max(self._room(), 0))), 1)

    def learn(self, chosen: Sequence[Key]) -> None:
        """The answer to that."""
        self.chosen = chosen
        if not chosen and not self._is_any_here:
            self._may = FIRST

    def claimed(self, jobs: Collection[Claimed], wanted: Mapping[str, int]) -> None:
        """A round has claimed these jobs, of so many that were wanted of each queue. Where that has filled one, what
        was chosen and does not come waits behind others; or else another worker was faster, or its queue is at a limit.
        """
        if self.chosen:
            per_queue = Counter(job.queue for job in jobs)
            full = any(per_queue[queue] == n for queue, n in wanted.items())
            got = {job.id for job in jobs}
            left = [key for key in self.chosen if key[0] not in got]
            self.chosen = left if full else ()
            if left and not full:
                asyncio.get_running_loop().call_later(AGAIN_SECONDS * random.uniform(0.5, 1.5), self.ask)

    def begins(self, job: Claimed) -> None:
        """A suspect that was claimed is about to run."""
        key = job.id, job.fence
        if runs_alone(job):
            self._alone = key
            self._may = FIRST  # nobody was left who could run in company
        else:
            loop = asyncio.get_running_loop()
            self._untried[key] = loop.call_later(self._harmless, self._goes_on, key)

    def ended(self, job: Claimed, verdict: Completion) -> None:
        """An attempt is over, of whatever job."""
        key = job.id, job.fence
        if key == self._alone:
            self._alone = None
        elif (timer := self._untried.pop(key, None)) is not None:
            timer.cancel()
            self._may += not verdict.refund  # of one that was released nothing is known
        elif key in self._tried:
            self._tried.remove(key)
        else:  # it never began
            return
        self.ask()

    @property
    def _is_any_here(self) -> bool:
        return bool(self._untried or self._tried or self._alone is not None)

    def _room(self) -> int:
        """How many more may begin in company."""
        if self._alone is not None:
            return 0
        return min(self._may - len(self._untried), MOST - len(self._untried) - len(self._tried))

    def _goes_on(self, key: Key) -> None:
        """It has run for so long without harm that the next may begin beside it."""
        del self._untried[key]
        self._tried.add(key)
        self._may += 1
        self.ask()
