"""Taking turns on a connection: the one loop in which whatever a worker does beside its rounds asks the database, loses
it, and comes back.

Several may share a link. Who fails has a pause of its own (`Recovery`) and holds up no other; a connection that is lost
is made anew by whoever has the next turn.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import NoReturn, Protocol

import psycopg

from .link import Ended, Link
from .recovery import Recovery, Trouble


class NextTurn:
    """When somebody's next turn is, by `time.monotonic`; whoever has news for it brings that forward."""

    def __init__(self, purpose: str, seconds: float = 0.0) -> None:
        """The first turn is in so many seconds. `purpose` is what the log calls whose turns these are."""
        self._at = time.monotonic() + seconds
        self._not_before = -math.inf
        self.recovery = Recovery(purpose)
        self.told = asyncio.Event()
        """Of all that share the link."""

    @property
    def at(self) -> float:
        """When it is: not before the pause after a failure is over."""
        return max(self._at, self._not_before)

    def now(self) -> None:
        """There is something to do."""
        self._at = -math.inf
        self.told.set()

    def by(self, at: float) -> None:
        """At that instant there is something to do, if not before."""
        if at < self._at:
            self._at = at
            self.told.set()

    def begins(self) -> None:
        """The turn that was due is taken: what is told from here on is for the next one."""
        self._at = math.inf

    def failed(self, trouble: Trouble, why: str, since: float | None = None) -> None:
        """It has to be taken again, after a pause."""
        now = time.monotonic()
        self._at = min(self._at, now)
        self._not_before = now + self.recovery.failed(trouble, why, since)


class Duty(Protocol):
    """What a worker does again and again on a link."""

    due: NextTurn

    async def turn(self, link: Link) -> float:
        """Do what there is to do now; in how many seconds there is more, `math.inf` if somebody has to say so.

        Opens the link when it has something to ask. Others that share the link wait meanwhile: who has much to do
        does a part of it, and is due again at once. Raises psycopg's errors; what was done then may be done again.
        """


async def take_turns(link: Link, *duties: Duty, idle: float = math.inf) -> NoReturn:
    """Give each of these its turn when it is due, one at a time, for ever: the one first that has waited longest.

    When the connection is lost while nobody asks anything, all have a turn at once. With `idle`, in seconds, that is no
    loss: a connection of which nobody has asked anything for so long is closed, and whoever asks next opens it.
    """
    told = asyncio.Event()
    for duty in duties:
        duty.due.told = told
        duty.due.recovery.outage = link.recovery.outage
    while True:
        over = math.inf if link.conn is None else max(link.connected_at, link.answered_at) + idle
        try:
            await link.wait(told, min(over, *(duty.due.at for duty in duties)) - time.monotonic())
        except Ended as error:
            trouble, why = await link.part_with(error)
            for duty in duties if idle == math.inf else ():
                duty.due.failed(trouble, why)
        told.clear()
        first = min(duties, key=lambda duty: duty.due.at)
        if first.due.at <= time.monotonic():
            await _give(link, first)
        elif over <= time.monotonic():
            await link.close()


async def _give(link: Link, duty: Duty) -> None:
    """Its turn, and when the next one is."""
    due, began = duty.due, time.monotonic()
    due.begins()
    try:
        rest = await duty.turn(link)
    except psycopg.Error as error:
        trouble, why = await link.part_with(error)
        due.failed(trouble, why, since=began)
    else:
        if link.answered_at >= began or link.conn is None:  # it was of use, or not needed
            due.recovery.over()
        due.by(time.monotonic() + rest)
