"""Looks at jobs that need one which has ended: at once when it has ended here, and now and then at all of them. And has
jobs wait for others whose functions have returned what those will come to.

A job may also end by a cancel, by a rescue, or with a worker that dies before it has looked.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import psycopg

from chancy.errors import InvalidResult
from chancy.flows.flow import cycle, flow_in
from chancy.flows.statements import MOST, become, missed, tell_some
from chancy.run import follow
from chancy.states import State
from chancy_worker.attempts.verdict import Claimed, Completion, cancelled, failure, since_now
from chancy_worker.claims.sifting import is_of_a_row
from chancy_worker.config import Timing
from chancy_worker.connection.link import Link, one_line
from chancy_worker.connection.turns import NextTurn
from chancy_worker.life.lease import Extension
from chancy_worker.tally.tally import Tally

from .part import Part

log = logging.getLogger("chancy.worker")

REMEMBERED = 20
"""Jobs with many needs of which it is known which of these was live at the last look."""


class Rounds(Protocol):
    """Who writes all other verdicts."""

    def became(self, verdict: Completion, /) -> None:
        """This one is written."""

    def write(self, verdict: Completion, /) -> None:
        """Write this one, of a job that is held."""

    def wake(self) -> None:
        """There may be work in any queue."""


class Flows(Part):
    """Which ends to look at, and the looks. `rounds` is set before any job begins."""

    rounds: Rounds

    def __init__(self, timing: Timing, tally: Tally) -> None:
        self.due = NextTurn("flows", math.inf)
        self._tally = tally
        self._timing = timing
        self._ended: set[int] = set()
        self._becoming: deque[tuple[Claimed, Completion]] = deque()
        self._live: dict[int, int] = {}
        """Of jobs with many needs one that was live at the last look."""
        self._look_at = math.inf
        """When to look at all; not while no job needs another one."""
        self._after = 0
        """Needs up to this one have been looked at then."""

    def ended(self, ids: Sequence[int]) -> None:
        """These have ended here, and are needed."""
        self._ended.update(ids)
        self.due.now()

    def may_have_ended(self, ids: Sequence[int]) -> None:
        """Of these it is not known whether they are needed."""
        if self._look_at != math.inf:
            self.ended(ids)

    def becomes(self, job: Claimed, verdict: Completion) -> None:
        """Have it wait for the target of its flow, which is submitted with that."""
        self._becoming.append((job, verdict))
        self.due.now()

    def heard(self, news: Extension) -> None:
        """Whether any job needs another one."""
        if not news.flows:
            self._look_at = math.inf
        elif self._look_at == math.inf:
            self._look_at = 0.0
            self.due.now()

    async def turn(self, link: Link) -> float:
        """One that becomes another, or those that need up to 500 which have ended; else, when it is time, what nobody
        has looked at.
        """
        if self._becoming:
            await link.open()
            await self._become(link, *self._becoming[0])
        elif self._ended:
            await link.open()
            await self._tell(link)
        elif self._look_at <= time.monotonic():
            await link.open()
            await self._look(link)
        if self._becoming or self._ended:
            return 0.0
        return max(self._look_at - time.monotonic(), 0.0)

    async def _become(self, link: Link, job: Claimed, verdict: Completion) -> None:
        assert verdict.flow is not None
        flow, refused = flow_in(verdict.flow), ""
        try:
            fate, other = await link.send(become(*job.owner, flow))
        except psycopg.Error as error:
            if not is_of_a_row(error):
                raise
            fate, other, refused = "refused", None, one_line(error)
        self._becoming.popleft()
        match fate:
            case "became" | "done":
                if other is not None and other in flow.others:
                    self._ended.add(other)  # perhaps it has
                self.rounds.became(verdict)
                self.rounds.wake()
            case "lost":
                self.rounds.write(cancelled(job))
            case _:
                said = cycle(job.id, other) if fate == "cycle" else refused
                error_ = InvalidResult(job.task, said)
                self.rounds.write(failure(job, State.FAILED, error_, since_now("")))

    async def _tell(self, link: Link) -> None:
        part = sorted(self._ended)[:MOST]
        self._ended.difference_update(part)
        try:
            await self._look_at_needing(link, part)
        except psycopg.Error:
            self._ended.update(part)
            raise

    async def _look_at_needing(self, link: Link, ended: Sequence[int]) -> None:
        hints = [number for pair in self._live.items() for number in pair]
        told = await follow(tell_some(ended, hints), link.send)
        self._tally.came_out_unasked(told.counts)
        self._ended |= told.needed
        for job, need in zip(told.seen[::2], told.seen[1::2], strict=True):
            self._live.pop(job, None)
            self._live[job] = need
        while len(self._live) > REMEMBERED:
            del self._live[next(iter(self._live))]
        if told.released:
            self.rounds.wake()

    async def _look(self, link: Link) -> None:
        """At the next 500 needs that are not live any more, and of whom nobody was told."""
        began = time.monotonic()
        found = await link.send(missed(self._after))
        if found:
            await self._look_at_needing(link, found)
        if len(found) == MOST:
            self._after, self._look_at = found[-1], 0.0
            return
        self._after = 0
        pause = max(self._timing.look, 20 * (time.monotonic() - began))
        self._look_at = time.monotonic() + pause * random.uniform(0.75, 1.25)
