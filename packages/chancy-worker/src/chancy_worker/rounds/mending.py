"""After a round that failed: nothing that was to be written is lost, and whatever is to blame harms nothing else.

The claim of a round never costs its verdicts anything: they go alone first, and what fails then is theirs; the next
claim goes one by one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import psycopg

from chancy.history.moving import make_partitions
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.claims.sifting import LOCKED, Sieve, claimed_by, end, is_of_a_row, is_unread
from chancy_worker.claims.wanted import Wanted
from chancy_worker.connection.link import Link, one_line
from chancy_worker.demand.demand import Demand
from chancy_worker.held.holdings import Holdings
from chancy_worker.held.leases import Leases
from chancy_worker.held.outbox import Outbox
from chancy_worker.held.unheard import Unheard

from .doubts import Doubts

log = logging.getLogger("chancy.worker")

LONGEST_PAUSE, LONGEST_PAUSE_OF_A_ROW = 5.0, 30.0
"""Seconds, up to which pauses grow after a round that failed, and failed again; and before a row is tried again."""


class Rounds(Protocol):
    """The loop, as far as it is asked here."""

    changed: asyncio.Event
    stopping: bool

    @property
    def is_over(self) -> bool:
        """Whether it stops, and has nothing to write down."""

    def postpone(self, seconds: float, verdict: Completion, /) -> None:
        """Write this after a pause."""

    def wake(self) -> None:
        """There may be work in any queue."""


class Mending:
    """For the rounds of one worker."""

    def __init__(
        self,
        rounds: Rounds,
        link: Link,
        holdings: Holdings,
        leases: Leases,
        outbox: Outbox,
        unheard: Unheard,
        demand: Demand,
    ) -> None:
        self._rounds = rounds
        self._link = link
        self._holdings = holdings
        self._leases = leases
        self._outbox = outbox
        self._unheard = unheard
        self._demand = demand
        self._failures = 0
        """Rounds in a row."""
        self.doubts = Doubts()
        self._sieve = Sieve()

    def over(self) -> None:
        """A round went through."""
        self._link.recovery.over()
        self._failures = 0
        self._outbox.accepted()

    async def failed(self, error: Exception, verdicts: Sequence[Completion], wanted: Wanted, lease: int) -> None:
        """A round raised this, under this lease."""
        reason = one_line(error)
        if isinstance(error, psycopg.Error) and self._link.is_broken(error):
            # The round may have committed: then the verdicts are found in history under their fence.
            self._cut(verdicts, wanted, reason)
            await self.recover(error)
        elif isinstance(error, psycopg.errors.QueryCanceled):
            self._cut(verdicts, wanted, reason)
            await self._pause(f"a round took too long, and is halved: {reason}")
        elif isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name is None:
            self._outbox.put_back(verdicts)
            await self._make_partitions(reason)
        elif wanted.gated and not wanted.free:
            self._demand.gated_ends = False  # their slots are looked for
            self._outbox.put_back(verdicts)
            await self._pause(f"the places of jobs that have ended could not be handed on: {reason}")
        elif wanted.free:
            log.error("a round failed: %s; its verdicts go alone, and then its claim one by one", reason)
            self.doubts.any = True
            self._outbox.alone(verdicts)
            if is_unread(error):
                await self._give_back_unread(lease)
        elif not is_of_a_row(error) and len(verdicts) == 1:
            self._rounds.postpone(LONGEST_PAUSE, verdicts[0])
            await self._pause(f"the verdict of job {verdicts[0].id} could not be written, and is sent again: {reason}")
        elif (beyond := self._outbox.refused(verdicts, reason)) is not None:
            await self._end(beyond, reason)

    def _cut(self, verdicts: Sequence[Completion], wanted: Wanted, reason: str) -> None:
        self._outbox.cut(verdicts, reason)
        self._demand.portion.cut(wanted)

    async def sift(self, wanted: Wanted, lease: int, accept: Callable[[Claimed], None]) -> None:
        """Claim one by one, after a claim that failed: whichever row was to blame ends, and the others begin."""
        self.doubts.any = False
        try:
            ended = await self._sieve.sift(self._link, lease, wanted, accept, lambda: self._rounds.stopping)
        except LOCKED:
            self.doubts.any = True
            self.doubts.rest()
        except psycopg.Error as error:
            if self._link.is_broken(error):
                self.doubts.any = True
                await self.recover(error)
            else:
                log.error("nothing can be claimed, not even one by one: %s", one_line(error))
                self.doubts.rest()
        else:
            if not ended:
                self.doubts.rest()
        self._demand.appetite.look_again()

    async def _give_back_unread(self, lease: int) -> None:
        """A claim has been committed, and what it brought could not be read: not by this worker's heartbeat alone."""
        try:
            for claim in await self._link.send(claimed_by(lease)):
                if claim not in self._holdings.jobs:
                    self._unheard.give_back(claim, lease)
        except psycopg.Error as error:
            await self.recover(error)

    async def _end(self, verdict: Completion, reason: str) -> None:
        """A verdict that is refused even bare: the row cannot be moved as it is."""
        lease = self._leases.of(self._holdings.jobs.get((verdict.id, verdict.fence)))
        try:
            await end(self._link, lease, verdict.id, verdict.fence, reason, claimed=True)
        except psycopg.Error as error:
            self._rounds.postpone(LONGEST_PAUSE_OF_A_ROW, verdict)
            await self.recover(error)
        else:
            self._outbox.add(verdict)  # whose row is found in history by now

    async def _make_partitions(self, reason: str) -> None:
        try:
            await self._link.send(make_partitions(1))
        except psycopg.Error as error:
            await self.recover(error)
        else:
            await self._pause(f"a round found no partition of the history, and is sent again: {reason}")

    async def recover(self, error: psycopg.Error) -> None:
        """After an error that is no verdict's and no row's."""
        await self._unless_over(self._link.reconnect(error))
        self._rounds.wake()

    async def _pause(self, words: str) -> None:
        """Say it, and wait; longer each time until a round succeeds."""
        log.error("%s", words)
        self._failures += 1
        await asyncio.sleep(min(0.05 * 2**self._failures, LONGEST_PAUSE))

    async def _unless_over(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this, but leave it when the worker stops and has nothing to write down."""
        changed = self._rounds.changed
        doing = asyncio.create_task(work)
        doing.add_done_callback(lambda _: changed.set())
        try:
            while not (doing.done() or self._rounds.is_over):
                changed.clear()
                await changed.wait()
        finally:
            doing.cancel()
            await asyncio.wait([doing])
        if not doing.cancelled():
            doing.result()
