"""The doorbell: how an idle worker hears of new work within a millisecond, and a busy one costs submitters nothing.

Of each queue that somebody is idle in, an idle worker holds the exclusive lock on its key; who submits tries the key
shared, and notifies where that fails. Postgres wakes every session of the database that listens, so whoever need not
hear does not listen: idle workers that could take the same jobs stand in one line. The first in it holds the keys and
listens. The second listens, too, and looks a moment later, should the first be dead to the world. All others wait,
deaf, for the second's place. Whom a ring finds full, or at something that takes its time, goes to the end of the line,
and the one behind looks at once: so as many workers are woken as there is work for, one by the other, and no more. A
job that comes alone moves nobody.

LISTEN is on the claim connection, the waiting on one of its own, because a blocked session gets no notifications. A
wakeup may be lost: the truth is the claimer's fallback look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

import psycopg

from chancy_worker.connection.link import Link
from chancy_worker.connection.turns import NextTurn, take_turns

from .ear import Ear
from .line import Standing
from .locks import bell_hand_on, bell_keys, bell_left, bell_try, bell_unlock, bell_unlock_all, bell_wait
from .second import Second
from .wakeups import Rounds

KEEP_SECONDS = 0.05
"""A queue that has work keeps its key for so long: by then it may be idle again, as it is after a lone job. A worker
that still has jobs then leaves what comes next to one that has none.
"""
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.25, 1.8
"""How soon a worker that has work in other queues tries again for the keys of idle ones that somebody else holds; twice
as long each time."""
CANCELS_SECONDS, CALM_SECONDS = 0.5, 1.0
"""After so long a worker listens for the cancels of its jobs, so that short ones do not cost that; and how soon it
stops when it has none any more.
"""


class Bell:
    """Its worker's place in the line of those that are idle, and the keys of their queues, which the first there holds.

    The rounds are woken when there may be work: at a notification, and at a grant, since somebody may have submitted
    before it. Where the first of another line holds the key, submits are heard of all the same, but that one may give
    it up. A worker that is idle altogether waits for it; one that has work in other queues could take no other key
    meanwhile.
    """

    def __init__(self, link: Link, ear: Ear, queues: Sequence[str], alike: object) -> None:
        """`alike` is equal for workers that know the same tasks."""
        self.link = link
        """Its own: a session that waits for a lock."""
        self.due = NextTurn("bell")
        self.rounds: Rounds
        """Who is woken: see `Wakeups.wakes`."""
        self._ear = ear
        self._queues = queues
        self._standing = Standing(alike, len(queues))
        self._second = Second(self._wake)
        self._keys: Mapping[str, int] = {}
        self._stopped = False
        self._in_vain: list[int] = []
        """The keys that it has tried for."""
        self._retry, self._retry_at = RETRY_SECONDS, 0.0
        self._newest: tuple[int, int] | None = None
        """The last job of a claim, of which it is seen in a moment whether it has taken longer."""
        self._occupied_by: frozenset[tuple[int, int]] = frozenset()
        """Jobs of which one has taken longer than a moment."""
        self._has_had_its_turn = False
        self._waits = False
        """For a lock: it can say nothing meanwhile."""
        self._calm_timer: asyncio.TimerHandle | None = None

    def idle(self, queues: Iterable[str]) -> None:
        """From now on, be heard of there."""
        if not self._stopped:
            self._standing.falls_idle(queues)
            self.due.now()

    def busy(self, queues: Iterable[str]) -> None:
        """There is work in these queues: soon, cost nobody anything there. Where there is no more room, leave the place
        to somebody who has; but with a lone job the first in line waits for that until there is more.
        """
        self._second.found()
        if self._newest is None:
            self._see_in_a_moment()
        standing = self._standing
        stays = standing.is_first and not self._waits and len(self.rounds.held) == 1
        has_no_room = standing.stays_full if stays else standing.leaves_at_once
        for queue in queues:
            if self.rounds.has_room(queue):
                if standing.leaves(queue, time.monotonic() + KEEP_SECONDS):
                    self.due.now()
            else:
                has_no_room(queue)
                self.due.now()

    def offers(self, without: frozenset[str]) -> None:
        """Which tasks it cannot take for now: those that can stand in another line."""
        if self._standing.offers(without):
            self.due.now()

    def heard(self, queues: Collection[str]) -> None:
        """Somebody has rung."""
        standing = self._standing
        self._leave_the_full(queues)
        if standing.is_first and not self._waits and not self._occupied_by.isdisjoint(self.rounds.held):
            self._has_had_its_turn = True
            self.due.now()
            self._second.look_late(queues)  # should nobody else
        elif standing.is_second:
            self._second.heard(queues)
        else:
            self._wake(queues)

    def stop(self) -> None:
        """Take no place in any line from now on."""
        self._stopped = True
        self._standing.leaves_all()
        self.due.now()

    async def serve(self) -> None:
        """Take turns for ever."""
        self._see_whether_calm()
        try:
            await take_turns(self.link, self)
        finally:
            if self._calm_timer is not None:
                self._calm_timer.cancel()

    def listening(self) -> None:
        """It listens from now on: what was rung before may not have been heard."""
        if self._standing.is_first:
            self._wake(list(self._standing.idle))
            for queue in list(self._standing.full):
                self._standing.leaves_at_once(queue)
                self.due.now()
        elif self._standing.is_second:
            self._second.listens(self._standing.idle)

    def is_behind(self, queue: str) -> bool:
        """Whether others hear of work in this queue, and keep the time, for this worker, too."""
        standing = self._standing
        return queue in standing.idle and self.link.conn is not None and not (standing.is_first or standing.is_second)

    async def turn(self, link: Link) -> float:
        """One step towards holding the keys of all idle queues, and no others; seconds until the next one."""
        if link.conn is None:
            self._keys, self._in_vain = {}, []
            self._standing.held.clear()
            await link.connect()
        if not self._keys:
            self._keys = await link.send(bell_keys(self._queues))
        try:
            return await self._step(self._keys)
        except psycopg.Error:
            await link.close()  # nobody knows what a statement that has failed has left locked
            raise

    async def _step(self, keys: Mapping[str, int]) -> float:
        standing = self._standing
        if unsure := standing.unsure():  # where there is more than it could claim, others have to hear of it
            self._leave_the_full(await self.link.send(bell_left(unsure)))
        now = time.monotonic()
        pause = standing.at(now) - now
        if self._has_had_its_turn:
            await self._leave_it_to_others()
        self._follow(bell=standing.is_first or standing.is_second)
        step = standing.step(keys)
        missing, given_up = step.missing, step.given_up
        if given_up and not step.keeps:
            await self.link.send(bell_unlock_all())
            given_up = []
        if missing and (not standing.is_first or standing.is_idle_everywhere):
            self._got(await self._wait(missing, given_up, step.others))
            return 0.0
        if given_up:
            await self.link.send(bell_unlock(given_up))
        if not missing:
            return pause
        if missing != self._in_vain:
            self._retry, self._retry_at = RETRY_SECONDS, 0.0
        if now < self._retry_at:
            return min(pause, self._retry_at - now)
        self._got(await self.link.send(bell_try(missing)))
        self._in_vain = [key for key in missing if key not in standing.held]
        self._retry_at, self._retry = now + self._retry, min(2 * self._retry, LONGEST_RETRY_SECONDS)
        return min(pause, self._retry_at - now) if self._in_vain else pause

    def _leave_the_full(self, queues: Iterable[str]) -> None:
        """Those of these in which it stays though it has no room: there is more."""
        for queue in self._standing.full & set(queues):
            if not self.rounds.has_room(queue):
                self._standing.leaves_at_once(queue)
                self.due.now()

    async def _leave_it_to_others(self) -> None:
        """To the end of the line, if anybody stands in it."""
        self._has_had_its_turn = False
        line, held = self._standing.line, self._standing.held
        for place in [] if line is None else [line, line - 1]:
            if place not in held:
                continue
            if not await self.link.send(bell_hand_on(place)):
                held.remove(place)
            elif self._standing.is_first and self._second.late:
                self._second.look_now()

    async def _wait(self, missing: Sequence[int], given_up: Sequence[int], others: Sequence[int]) -> list[int]:
        """Wait in line for a while. Who listens and belongs elsewhere meanwhile lets go of everything."""
        changed, standing = self.due.told, self._standing
        waiting = asyncio.create_task(self.link.send(bell_wait(missing, given_up, others)))
        waiting.add_done_callback(lambda _: changed.set())
        self._waits = True
        try:
            while not waiting.done() and (not self._ear.follows_bell or standing.belongs_to() == standing.line):
                changed.clear()
                await changed.wait()
        finally:
            self._waits = False
            waiting.cancel()
            await asyncio.wait([waiting])
        if not waiting.cancelled():
            return waiting.result()
        standing.held.clear()
        if self.link.conn is not None:
            await self.link.send(bell_unlock_all())
        return []

    def _got(self, locks: Collection[int]) -> None:
        standing = self._standing
        standing.held.update(locks)
        if standing.line in locks:
            self._follow(bell=True)
            if self._second.late:
                self._second.look_now()
            self._wake_those_of(locks)
        elif locks and standing.is_second:
            self._follow(bell=True)
            self._second.begins(standing.idle)
        else:
            self._wake_those_of(locks)

    def _wake_those_of(self, keys: Collection[int]) -> None:
        """Of what was submitted before these were held nobody may have heard."""
        if rung := [queue for queue in self._standing.idle if self._keys[queue] in keys]:
            self._wake(rung)

    def _wake(self, queues: Collection[str]) -> None:
        self.rounds.wake(queues)

    def _follow(self, *, bell: bool | None = None, cancels: bool | None = None) -> None:
        if self._ear.follow(bell=bell, cancels=cancels):
            self.rounds.wake([])  # between two of them it attends to that

    def _see_in_a_moment(self) -> None:
        self._newest = next(reversed(self.rounds.held), None)
        if self._newest is not None:
            asyncio.get_running_loop().call_later(KEEP_SECONDS, self._see_whether_occupied)

    def _see_whether_occupied(self) -> None:
        """A moment after a claim: who still has something to do leaves the next job to others, the second in line at
        once, and the first when it hears of one.
        """
        newest, self._newest = self._newest, None
        if newest not in self.rounds.held:
            return self._see_in_a_moment()
        self._occupied_by = frozenset(self.rounds.held)
        if not self._standing.is_first:
            self._has_had_its_turn = True
            self.due.now()
        if self._calm_timer is None:
            self._calm_timer = asyncio.get_running_loop().call_later(CANCELS_SECONDS, self._see_whether_calm)
        return None

    def _see_whether_calm(self) -> None:
        """Now and then, for as long as there are jobs."""
        self._calm_timer = None
        is_calm = not self.rounds.held
        self._follow(cancels=not is_calm)
        if not is_calm:
            self._calm_timer = asyncio.get_running_loop().call_later(CALM_SECONDS, self._see_whether_calm)
