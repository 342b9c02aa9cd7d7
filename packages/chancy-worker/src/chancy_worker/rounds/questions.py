"""What is asked between two rounds, on their connection: seldom, and only where somebody has to know it."""

from __future__ import annotations

from typing import TypeVar

import psycopg

from chancy.model import Statement
from chancy_worker.attempts.refusals import Refusals
from chancy_worker.claims.sifting import LOCKED
from chancy_worker.claims.wanted import Wanted
from chancy_worker.connection.link import Link
from chancy_worker.demand.demand import Demand
from chancy_worker.demand.reaching import Reaching

from .mending import Mending

T = TypeVar("T")


class Questions:
    """Of one worker's rounds. What could not be answered is asked again, before the next."""

    def __init__(self, link: Link, mending: Mending, demand: Demand, refusals: Refusals, reaching: Reaching) -> None:
        self._link = link
        self._mending = mending
        self._demand = demand
        self._refusals = refusals
        self._reaching = reaching

    async def ask(self) -> None:
        """Which suspects the next round claims, when some wait and may begin; and of what was refused, whether there is
        another worker that might take it.
        """
        if (suspects := self._demand.wish_for_suspects()) is not None:
            if (chosen := await self._answered(suspects)) is not None:
                self._demand.suspects.learn(chosen)
        if (others := self._refusals.wish()) is not None:
            if (found := await self._answered(others)) is not None:
                self._refusals.learn(found)

    async def reach(self, wanted: Wanted, lease: int) -> Wanted:
        """Get larger shares of limits, where those were too small; what is left to claim."""
        if (statement := self._reaching.wish(wanted, lease)) is None:
            return wanted
        try:
            return self._reaching.learn(await self._link.send(statement), wanted)
        except LOCKED:
            return wanted
        except psycopg.Error as error:
            if self._link.is_broken(error):
                await self._mending.recover(error)
            return wanted

    async def _answered(self, statement: Statement[T]) -> T | None:
        """None where it has to be asked again."""
        try:
            return await self._link.send(statement)
        except psycopg.Error as error:
            await self._mending.recover(error)
            return None
