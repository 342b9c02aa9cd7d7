"""The heartbeat: the lease is extended, and with the same question the worker learns what it may have missed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import psycopg

from chancy.states import State
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.connection.link import Link
from chancy_worker.connection.turns import NextTurn
from chancy_worker.doorbell.wakeups import Wakeups
from chancy_worker.memory import measured
from chancy_worker.slots.slots import Slots

from .lease import Extension, Lease, extend
from .rescue import declare_dead

LAST_WORD = 2.0
"""Seconds for giving up the lease, which is over soon in any case."""


class Rounds(Protocol):
    """What this worker holds: the claimer."""

    @property
    def held(self) -> Mapping[tuple[int, int], Claimed]:
        """The jobs that are ours until the database has their verdict."""

    def give_back(self, claims: Collection[tuple[int, int]]) -> None:
        """Those that are in our name, and are not among the held."""


class Hears(Protocol):
    """A part."""

    def heard(self, news: Extension) -> None:
        """What was seen."""


class Heart:
    """Extends the lease; gives back what was claimed in its name and is not among the held, and cancels what somebody
    wants to stop, should its notification have been lost. Tells the parts what was seen, and has the wakeups tested.

    Says how much memory this process has, and the child processes, whose ids `children` gives.
    """

    def __init__(
        self,
        lease: Lease,
        rounds: Rounds,
        slots: Slots,
        wakeups: Wakeups,
        parts: Sequence[Hears],
        children: Callable[[], Collection[int]],
    ) -> None:
        self.due = NextTurn("lease")
        self._lease = lease
        self._rounds = rounds
        self._slots = slots
        self._wakeups = wakeups
        self._parts = parts
        self._children = children

    async def turn(self, link: Link) -> float:
        """One beat."""
        await link.open()
        held = self._rounds.held
        known = set(held)  # its verdict may be written before the answer is read
        news = await self._lease.extend(link, deaf=self._wakeups.problem is not None, memory=measured(self._children()))
        if news.holding:
            if unheard := [claim for claim in news.claims if claim not in known and claim not in held]:
                self._rounds.give_back(unheard)
            self._slots.cancel(news.cancelled)
        for part in self._parts:
            part.heard(news)
        await self._wakeups.test(link)
        return self._lease.timing.extend

    async def stop(self, link: Link) -> None:
        """End the lease. What was claimed in its name by a round whose answer never came has not begun: it goes back.

        Takes two seconds at most, and raises nothing of the database.
        """
        lease = self._lease
        with contextlib.suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await link.open()  # a heartbeat without an answer, cancelled a moment ago, has cost it its connection
                if not lease.id:  # asked to stop between the registration and its answer, it may be registered
                    await link.send(declare_dead(process=lease.known_by))
                    return
                answer = await link.send(extend(lease.id, lease.timing.lease, None, 0.0))
                unheard = [
                    Completion(id_, fence, State.READY, refund=True)
                    for id_, fence in answer.claims
                    if (id_, fence) not in self._rounds.held
                ]
                if unheard:
                    await link.send(play_round(lease.id, unheard, Wanted()))
                await link.send(declare_dead(worker=lease.id))
