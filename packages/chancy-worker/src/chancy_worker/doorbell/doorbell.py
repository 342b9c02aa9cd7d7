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
import hashlib
import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import psycopg
from psycopg import Notify

from chancy_worker.attempts.verdict import Claimed
from chancy_worker.connection.link import Link

from .ear import Ear
from .hearing import Hearing
from .locks import (
    bell_hand_on,
    bell_keys,
    bell_left,
    bell_try,
    bell_unlock,
    bell_unlock_all,
    bell_wait,
)

KEEP_SECONDS = 0.05
"""A queue that has work keeps its key for so long: by then it may be idle again, as it is after a lone job. A worker
that still has jobs then leaves what comes next to one that has none.
"""
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.25, 1.8
"""How soon a worker that has work in other queues tries again for the keys of idle ones that somebody else holds; twice
as long each time."""
LATE_SECONDS = 0.25
"""How long the second in line leaves a job to the first."""
DOUBTS, MOST_DOUBTS = 2, 4
"""A look of the second that finds what the first should have taken is one more, and one that finds nothing is one less.
With so many it looks at once when it hears of work."""
CANCELS_SECONDS, CALM_SECONDS = 0.5, 1.0
"""After so long a worker listens for the cancels of its jobs, so that short ones do not cost that; and how soon it
stops when it has none any more.
"""


def line_of(alike: object, queues: Collection[str], without: Collection[str]) -> int:
    """The lock for the first place in the line of those that are alike, idle in these queues, and without room for
    these tasks; that for the second place is the number below it. Others of this schema are -16 and above.
    """
    said = repr((alike, sorted(queues), sorted(without))).encode("utf-8", "backslashreplace")
    return -17 - 2 * (int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big") % 2**29)


class Bell:
    """Its worker's place in the line of those that are idle, and the keys of their queues, which the first there holds.

    `wake` is called when there may be work: at a notification, and at a grant, since somebody may have submitted before
    it. Where the first of another line holds the key, submits are heard of all the same, but that one may give it up. A
    worker that is idle altogether waits for it; one that has work in other queues could take no other key meanwhile.
    """

    def __init__(
        self,
        link: Link,
        ear: Ear,
        queues: Sequence[str],
        wake: Callable[[Collection[str]], None],
        *,
        alike: object,
        has_room: Callable[[str], bool],
        jobs: Callable[[], dict[tuple[int, int], Claimed]],
    ) -> None:
        """`alike` is equal for workers that know the same tasks; `jobs` are those that this one has."""
        self.link = link
        self._ear = ear
        self._queues = queues
        self._wake = wake
        self._alike = alike
        self._has_room = has_room
        self._jobs = jobs
        self._keys: Mapping[str, int] = {}
        self._held: set[int] = set()
        """Keys, and places in lines."""
        self._idle: set[str] = set()
        self._leaving: dict[str, float] = {}
        """Queues that have work again, and until when their keys are kept."""
        self._full: set[str] = set()
        """Of the first in line: queues that have no room since a job came. It stays for as long as nobody rings."""
        self._unsure: set[str] = set()
        """Of those: queues in which there may be more than it could claim."""
        self._without: frozenset[str] = frozenset()
        self._stopped = False
        self._line: int | None = None
        self._known: tuple[frozenset[str], frozenset[str], int] = frozenset(), frozenset(), 0
        """Of which queues and without which tasks a line was worked out last."""
        self._in_vain: list[int] = []
        """The keys that it has tried for."""
        self._retry, self._retry_at = RETRY_SECONDS, 0.0
        self._late: set[str] = set()
        """The queues that it looks at as the second, a moment later."""
        self._late_timer: asyncio.TimerHandle | None = None
        self._doubts, self._has_found = 0, False
        """Of the second, in the first; and whether there was anything to claim since its last look."""
        self._newest: tuple[int, int] | None = None
        """The last job of a claim, of which it is seen in a moment whether it has taken longer."""
        self._occupied_by: frozenset[tuple[int, int]] = frozenset()
        """Jobs of which one has taken longer than a moment."""
        self._has_had_its_turn = False
        self._waits = False
        """For a lock: it can say nothing meanwhile."""
        self._calm_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    def idle(self, queues: Iterable[str]) -> None:
        """From now on, be heard of there."""
        if self._stopped:
            return
        for queue in queues:
            self._idle.add(queue)
            self._leaving.pop(queue, None)
            self._full.discard(queue)
        self._changed.set()

    def busy(self, queues: Iterable[str]) -> None:
        """There is work in these queues: soon, cost nobody anything there. Where there is no more room, leave the place
        to somebody who has; but with a lone job the first in line waits for that until there is more.
        """
        self._has_found = True
        if self._newest is None:
            self._see_in_a_moment()
        for queue in queues:
            if not self._has_room(queue):
                was_near = queue in self._idle or queue in self._leaving
                self._leave(queue)
                if was_near and self._is_first and not self._waits and len(self._jobs()) == 1:
                    self._full.add(queue)
                    self._unsure.add(queue)
            elif queue in self._idle:
                self._idle.remove(queue)
                self._leaving[queue] = time.monotonic() + KEEP_SECONDS
                self._changed.set()

    def offers(self, without: frozenset[str]) -> None:
        """Which tasks it cannot take for now: those that can stand in another line."""
        if without != self._without:
            self._without = without
            self._changed.set()

    def heard(self, queues: Collection[str] | None) -> None:
        """Somebody has rung."""
        woken = self._queues if queues is None else queues
        for queue in self._full.intersection(woken):
            if not self._has_room(queue):
                self._leave(queue)
        if self._is_first and not self._waits and not self._occupied_by.isdisjoint(self._jobs()):
            self._has_had_its_turn = True
            self._changed.set()
            self._look_late(woken)  # should nobody else
        elif not self._is_second:
            self._wake(woken)
        elif self._doubts < DOUBTS:
            self._look_late(woken)
        else:
            self._late.update(woken)
            self._look_now()

    def stop(self) -> None:
        """Take no place in any line from now on."""
        self._stopped = True
        for queue in self._queues:
            self._leave(queue)
        self._changed.set()

    async def serve(self) -> None:
        """Take the keys and give them back, for ever."""
        self._see_whether_calm()
        try:
            await self.link.forever(self._turn, self._changed)
        finally:
            if self._calm_timer is not None:
                self._calm_timer.cancel()

    def listening(self) -> None:
        """It listens from now on: what was rung before may not have been heard."""
        if self._is_first:
            self._wake(list(self._idle))
            for queue in list(self._full):
                self._leave(queue)
        elif self._is_second:
            self._late.update(self._idle)
            if self._late:
                self._look_now()

    def is_behind(self, queue: str) -> bool:
        """Whether others hear of work in this queue, and keep the time, for this worker, too."""
        return queue in self._idle and self.link.conn is not None and not (self._is_first or self._is_second)

    @property
    def _is_first(self) -> bool:
        return self._line in self._held

    @property
    def _is_second(self) -> bool:
        return self._line is not None and self._line - 1 in self._held and not self._is_first

    def _leave(self, queue: str) -> None:
        """Be heard of there no more."""
        self._idle.discard(queue)
        self._leaving.pop(queue, None)
        self._full.discard(queue)
        self._unsure.discard(queue)
        self._changed.set()

    async def _turn(self) -> float:
        """One step towards holding the keys of all idle queues, and no others; seconds until the next one."""
        if self.link.conn is None:
            self._keys, self._held, self._in_vain = {}, set(), []
            await self.link.connect()
        if not self._keys:
            self._keys = await self.link.send(bell_keys(self._queues))
        try:
            return await self._step(self._keys)
        except psycopg.Error:
            await self.link.close()  # nobody knows what a statement that has failed has left locked
            raise

    async def _step(self, keys: Mapping[str, int]) -> float:
        now = time.monotonic()
        self._leaving = {queue: until for queue, until in self._leaving.items() if until > now}
        if self._unsure:
            await self._see_what_is_left()
        self._line = self._line_now()
        if self._full and not self._is_first:
            self._full.clear()
            self._line = self._line_now()
        if self._has_had_its_turn:
            await self._leave_it_to_others()
        self._ear.follow(bell=self._is_first or self._is_second)
        if self._line is None:
            kept, missing = set[int](), list[int]()
        elif self._is_first:
            wanted = {keys[queue] for queue in self._idle}
            kept = {self._line, *wanted, *(keys[queue] for queue in (*self._leaving, *self._full))}
            missing = sorted(wanted - self._held)
        elif self._is_second:
            kept, missing = {self._line - 1}, [self._line]
        else:
            kept, missing = set(), [self._line - 1]
        given_up = sorted(self._held - kept)
        self._held &= kept
        if given_up and not kept:
            await self.link.send(bell_unlock_all())
            given_up = []
        pause = min(self._leaving.values(), default=math.inf) - now
        if missing and (not self._is_first or len(self._idle) == len(self._queues)):
            others = sorted({keys[queue] for queue in self._idle} - self._held) if missing == [self._line] else []
            self._got(await self._wait(missing, given_up, others))
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
        self._in_vain = [key for key in missing if key not in self._held]
        self._retry_at, self._retry = now + self._retry, min(2 * self._retry, LONGEST_RETRY_SECONDS)
        return min(pause, self._retry_at - now) if self._in_vain else pause

    def _line_now(self) -> int | None:
        """The line in which it belongs, if it is idle in any queue."""
        near = self._idle.union(self._leaving, self._full)
        if not near:
            return None
        queues, without, line = self._known
        if queues != near or without != self._without:
            line = line_of(self._alike, near, self._without)
            self._known = frozenset(near), self._without, line
        return line

    async def _see_what_is_left(self) -> None:
        """Where there is more than it could claim, others have to hear of it."""
        unsure, self._unsure = self._unsure, set()
        for queue in await self.link.send(bell_left(unsure)):
            if queue in self._full and not self._has_room(queue):
                self._leave(queue)

    async def _leave_it_to_others(self) -> None:
        """To the end of the line, if anybody stands in it."""
        self._has_had_its_turn = False
        for place in [] if self._line is None else [self._line, self._line - 1]:
            if place not in self._held:
                continue
            if not await self.link.send(bell_hand_on(place)):
                self._held.remove(place)
            elif self._is_first and self._late:
                self._look_now()

    async def _wait(self, missing: Sequence[int], given_up: Sequence[int], others: Sequence[int]) -> list[int]:
        """Wait in line for a while. Who listens and belongs elsewhere meanwhile lets go of everything."""
        waiting = asyncio.create_task(self.link.send(bell_wait(missing, given_up, others)))
        waiting.add_done_callback(lambda _: self._changed.set())
        self._waits = True
        try:
            while not waiting.done() and (not self._ear.follows_bell or self._line_now() == self._line):
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._waits = False
            waiting.cancel()
            await asyncio.wait([waiting])
        if not waiting.cancelled():
            return waiting.result()
        self._held.clear()
        if self.link.conn is not None:
            await self.link.send(bell_unlock_all())
        return []

    def _got(self, locks: Collection[int]) -> None:
        self._held.update(locks)
        if self._line in locks:
            self._ear.follow(bell=True)
            if self._late:
                self._look_now()
            self._wake_those_of(locks)
        elif locks and self._is_second:
            self._ear.follow(bell=True)
            self._doubts = 0
            self._look_late(self._idle)
        else:
            self._wake_those_of(locks)

    def _wake_those_of(self, keys: Collection[int]) -> None:
        """Of what was submitted before these were held nobody may have heard."""
        if rung := [queue for queue in self._idle if self._keys[queue] in keys]:
            self._wake(rung)

    def _look_late(self, queues: Iterable[str]) -> None:
        self._late.update(queues)
        if self._late and self._late_timer is None:
            pause = LATE_SECONDS * random.uniform(0.75, 1.25)
            self._late_timer = asyncio.get_running_loop().call_later(pause, self._look_now)

    def _look_now(self) -> None:
        if self._late_timer is not None:
            self._late_timer.cancel()
        self._doubts = min(self._doubts + 1, MOST_DOUBTS) if self._has_found else max(self._doubts - 1, 0)
        self._has_found = False
        late, self._late, self._late_timer = self._late, set(), None
        self._wake(late)

    def _see_in_a_moment(self) -> None:
        self._newest = next(reversed(self._jobs()), None)
        if self._newest is not None:
            asyncio.get_running_loop().call_later(KEEP_SECONDS, self._see_whether_occupied)

    def _see_whether_occupied(self) -> None:
        """A moment after a claim: who still has something to do leaves the next job to others, the second in line at
        once, and the first when it hears of one.
        """
        newest, self._newest = self._newest, None
        if newest not in self._jobs():
            return self._see_in_a_moment()
        self._occupied_by = frozenset(self._jobs())
        if not self._is_first:
            self._has_had_its_turn = True
            self._changed.set()
        if self._calm_timer is None:
            self._calm_timer = asyncio.get_running_loop().call_later(CANCELS_SECONDS, self._see_whether_calm)
        return None

    def _see_whether_calm(self) -> None:
        """Now and then, for as long as there are jobs."""
        self._calm_timer = None
        is_calm = not self._jobs()
        self._ear.follow(cancels=not is_calm)
        if not is_calm:
            self._calm_timer = asyncio.get_running_loop().call_later(CALM_SECONDS, self._see_whether_calm)


class Doorbell:
    """Both sides of it, as one way of hearing of work; `polling.Poll` is the other."""

    def __init__(self, bell: Bell, ear: Ear, hearing: Hearing) -> None:
        self._bell = bell
        self._ear = ear
        self._hearing = hearing
        self._link: Link | None = None

    def idle(self, queues: Iterable[str]) -> None:
        """From now on, be heard of there."""
        self._bell.idle(queues)

    def busy(self, queues: Iterable[str]) -> None:
        """There is work in these queues: soon, cost nobody anything there."""
        self._bell.busy(queues)

    def offers(self, without: frozenset[str]) -> None:
        """Which tasks this worker cannot take for now."""
        self._bell.offers(without)

    def leaves_it_to_others(self, queue: str) -> bool:
        """Whether others look there for this worker, too, when a job falls due."""
        return self._bell.is_behind(queue)

    def stop(self) -> None:
        """Nothing is claimed from now on: leave what is to be heard to others."""
        self._bell.stop()

    async def serve(self) -> None:
        """Take the keys and give them back, for ever."""
        await self._bell.serve()

    def hear_on(self, link: Link) -> None:
        """Listen on the claimer's link, from its next connection on."""
        self._link = link
        link.on_connect, link.on_notify = self._ear.listen, self._heard

    async def test(self, link: Link) -> None:
        """See whether it is heard: see `Hearing`."""
        await self._hearing.test(link)

    @property
    def problem(self) -> str | None:
        """Why jobs begin late, if so."""
        return self._hearing.problem

    def _heard(self, notify: Notify) -> None:
        if not self._hearing.heard(notify):
            self._ear.heard(notify)

    async def attend(self) -> None:
        """Listen there to what is to be heard now, between two rounds. Raises psycopg's errors."""
        if self._link is not None:
            await self._ear.attend(self._link)

    async def close(self) -> None:
        """Close the bell's own connection, and with that give up its keys."""
        await self._bell.link.close()
