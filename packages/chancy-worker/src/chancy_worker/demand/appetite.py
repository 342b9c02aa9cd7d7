"""Which queues may have something to claim, and when each of the others is asked again. No loop and no database.

A look, a wakeup, a due instant and all that is found out belong to one queue. Each is in one of three states:

    hungry    it may have jobs: a round asks it as soon as it has room
    later     it is asked at an instant: a job falls due, a rest or the pause at a limit is over
    sated     a look has found nothing: somebody has to wake it, or the fallback look is due

A hungry queue without room stays hungry, and so is asked as soon as a slot of it is free, whatever was found elsewhere.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Mapping

from chancy_worker.claims.answer import Answer
from chancy_worker.claims.wanted import Wanted
from chancy_worker.demand.marks import Marks

from .pace import MEMORY_SECONDS, REST_SECONDS, Pace

FIRST_LIMIT_SECONDS, LIMIT_SECONDS = 0.015, 0.25
"""How soon a worker looks again at a queue whose limit other workers have used up: nobody tells it. It doubles."""


class Appetite:
    """The queues of one worker. Instants are of `time.monotonic`; `look` is the fallback look's interval in seconds."""

    def __init__(
        self,
        queues: Collection[str],
        marks: Marks,
        look: float,
        leaves_it_to_others: Callable[[str], bool] = lambda queue: False,
    ) -> None:
        self._queues = tuple(queues)
        self._marks = marks
        self._look = look
        self._leaves_it_to_others = leaves_it_to_others
        self._hungry: dict[str, None] = dict.fromkeys(queues)
        self._later: dict[str, float] = {}
        self._next = math.inf
        """The earliest of those, or something earlier."""
        self._due: dict[str, float] = {}
        """When the next scheduled job of a queue falls due, as far as its last look and later verdicts say."""
        self._fallback_at = 0.0
        self._woken: set[str] = set()
        """Since the last round was sent."""
        self._without: frozenset[str] = frozenset()
        self._passed_over: dict[str, frozenset[str]] = {}
        """The tasks that were left out of a queue's claims since its last look began, that look included."""
        self._barren: dict[str, frozenset[str]] = {}
        """With these tasks left out nothing was found, by a look or from the marks on, and nothing heard of since."""
        self._quiet: list[str] = []
        self.at_limit: set[str] = set()
        """Queues whose limit let less be claimed than was wanted, when they were asked last."""
        self.thirsty: set[str] = set()
        """Of those: queues of which nothing was claimed for that."""
        self._limit_pauses: dict[str, float] = {}
        """Of those: how long they wait, in seconds, since anything was claimed of them."""
        self._pace = Pace()
        self._came_at: dict[str, float] = {}
        self.rests_until = 0.0
        """Until then jobs and verdicts gather for one round, while they come briskly but leave no backlog."""

    def wake(self, queues: Iterable[str] | None = None) -> None:
        """Somebody says that there may be work in these queues, or in any."""
        woken = list(self._queues if queues is None else queues)
        for queue in woken:
            self._barren.pop(queue, None)
        self._woken.update(woken)
        self.look_again(woken)

    def look_again(self, queues: Iterable[str] | None = None) -> None:
        """The next round looks at these queues, or at all: there is room again, or something that was passed over."""
        again = list(self._queues if queues is None else queues)
        for queue in again:
            self._hungry[queue] = None
            self._later.pop(queue, None)
        self._marks.forget(again)

    def put_off(self, queue: str, at: float) -> None:
        """A job of this queue falls due at that instant."""
        self._due[queue] = min(at, self._due.get(queue, math.inf))
        if queue not in self._hungry:
            self._ask_at(queue, min(at, self._later.get(queue, math.inf)))

    def ask(self, now: float, without: frozenset[str]) -> Collection[str]:
        """The hungry queues, if these tasks are left out now because they are unknown or have no room."""
        if now >= self._fallback_at:
            self._fall_back(now)
            self.wake([queue for queue in self._queues if queue not in self._hungry])
        elif now >= self._next:
            due = [queue for queue, at in self._later.items() if at <= now]
            self.wake([queue for queue in due if not self._is_seen_to(queue, now)])
            self._next = min(self._later.values(), default=math.inf)
        if without != self._without:
            if self._without - without:
                self._find_room(without)
            self._without = without
        if self._barren:
            self._spare_the_barren(now)
        return self._hungry.keys()

    def is_hungry(self, queue: str) -> bool:
        """Whether a round asks it as soon as it has room."""
        return queue in self._hungry

    def rest(self, queues: Iterable[str], until: float) -> None:
        """Jobs of these queues gather until then."""
        self.rests_until = until
        for queue in queues:
            self._ask_at(queue, until)

    def rests(self, now: float) -> bool:
        """Whether some queues gather jobs for a moment, and nothing is known of the others."""
        return now < self.rests_until and not self._hungry

    def asked(self) -> None:
        """A round is sent: who is woken from here on may have been woken by what that round does not see."""
        self._woken.clear()

    def learn(self, wanted: Wanted, answer: Answer, got: Mapping[str, int], now: float) -> bool:
        """Take over what a round has brought: `got` so many jobs of each queue. Whether there is a backlog anywhere."""
        looked, without = frozenset(wanted.looking), frozenset(wanted.without).union(wanted.full)
        self._remember(looked, answer, got, now)
        self.at_limit.difference_update(wanted.free)
        self.thirsty.difference_update(wanted.free)
        self.at_limit.update(answer.at_limit)
        rests, backlog = not without and self._pace.is_brisk, False
        for queue, n in wanted.free.items():
            count = got.get(queue, 0)
            if count and queue not in self._hungry:  # it was asked for what waits for limits, or for suspects
                self._hungry[queue] = None
                self._later.pop(queue, None)
            self._pass_over(queue, without, found=count > 0, anew=queue in looked)
            if count == n:
                backlog = True
            elif queue in self.at_limit and (queue not in looked or queue in answer.next_in):
                self.thirsty.update(() if count else (queue,))
                if queue in self._woken:  # the limit may be another one by now
                    self._marks.forget([queue])
                else:
                    self.at_limit_still(queue, now)
            elif rests and now - self._came_at.get(queue, -math.inf) < MEMORY_SECONDS:
                self.rest([queue], now + REST_SECONDS)
            elif queue in looked and not count and queue not in self._woken:
                self._sate(queue, without)
            elif without and not count and queue not in self._woken:
                self._barren[queue] = without  # behind its marks: a look is due soon enough
            else:
                self._marks.forget([queue])
        return backlog

    def lost_lease(self, queues: Iterable[str]) -> None:
        """Nothing was claimed because the lease is gone: by the next fallback look there is a new one."""
        for queue in queues:
            self._hungry.pop(queue, None)

    def quiet(self) -> list[str]:
        """The queues that have fallen quiet since this was asked last: of their next job somebody has to tell."""
        quiet, self._quiet = self._quiet, []
        return quiet

    def sleeps_until(self) -> float:
        """When the next queue is asked, if nothing happens before and no hungry queue gets room."""
        return min(self._next, self._fallback_at)

    def at_limit_still(self, queue: str, now: float) -> None:
        """Nothing can be had of its limit."""
        self._ask_at(queue, now + self._limit_pause(queue) * random.uniform(0.75, 1.25))

    def _limit_pause(self, queue: str) -> float:
        pause = self._limit_pauses.get(queue, FIRST_LIMIT_SECONDS)
        self._limit_pauses[queue] = min(2 * pause, LIMIT_SECONDS)
        return pause

    def _is_seen_to(self, queue: str, now: float) -> bool:
        """Whether nothing but a job falls due there, and others see to that."""
        if queue in self.at_limit or self._due.get(queue, math.inf) > now or not self._leaves_it_to_others(queue):
            return False
        del self._later[queue]
        return True

    def _ask_at(self, queue: str, at: float) -> None:
        self._hungry.pop(queue, None)
        self._later[queue] = at
        self._next = min(self._next, at)

    def _sate(self, queue: str, without: frozenset[str]) -> None:
        self._hungry.pop(queue, None)
        self._quiet.append(queue)
        self._barren.pop(queue, None)
        if without:
            self._barren[queue] = without
        if queue in self._due:
            self._ask_at(queue, self._due[queue])

    def _find_room(self, without: frozenset[str]) -> None:
        """Some of what was left out is not any more."""
        self.look_again([queue for queue, passed in self._passed_over.items() if not passed <= without])
        for queue, barren in self._barren.items():
            if not barren <= without:
                self._hungry[queue] = None
                self._later.pop(queue, None)

    def _spare_the_barren(self, now: float) -> None:
        """Where all that waits, as far as is known, is left out, only a look that is due reads past it: it is dear."""
        for queue in self._hungry.keys() & self._barren.keys():
            if self._barren[queue] <= self._without and (look_at := self._marks.look_at(queue)) > now:
                self._ask_at(queue, min(look_at, self._due.get(queue, math.inf)))
                self._quiet.append(queue)

    def _remember(self, looked: Collection[str], answer: Answer, got: Mapping[str, int], now: float) -> None:
        if got:
            self._pace.came(sum(got.values()))
            self._came_at.update(dict.fromkeys(got, now))
            if self._limit_pauses:
                for queue in got:
                    self._limit_pauses.pop(queue, None)
        for queue in looked:
            self._due.pop(queue, None)
        for queue, next_in in answer.next_in.items():
            if next_in is not None:
                self._due[queue] = now + next_in
        if len(looked) == len(self._queues):
            self._fall_back(now)

    def _pass_over(self, queue: str, without: frozenset[str], *, found: bool, anew: bool) -> None:
        if found and queue in self._barren and self._barren[queue] <= without:
            del self._barren[queue]
        if without:
            before = frozenset() if anew else self._passed_over.get(queue, frozenset())
            self._passed_over[queue] = before | without
        elif anew:
            self._passed_over.pop(queue, None)

    def _fall_back(self, now: float) -> None:
        self._fallback_at = now + self._look * random.uniform(0.75, 1.25)
