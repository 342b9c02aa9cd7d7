"""What one worker is made of, and who knows whom: rounds, life and parts. Nothing here asks the database anything."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from chancy.app import Chancy
from chancy.options.limits import Place
from chancy.task import BaseTask

from . import places
from .attempts.attempt import Executor
from .attempts.logs import Keeper
from .attempts.refusals import Refusals
from .config import WorkerConfig
from .connection.link import Link
from .connection.links import Links
from .connection.turns import Duty, take_turns
from .doorbell.doorbell import Doorbell
from .doorbell.polling import Poll
from .doorbell.wakeups import Wakeups
from .life.health import Health
from .life.heart import Heart
from .life.lease import Lease, Offer
from .life.rescue import Rescuer
from .life.stopping import TO_OBEY
from .metrics.looks import Looks
from .metrics.numbers import Numbers, counted
from .parts.batches import Batches
from .parts.declarations import Declarations
from .parts.flows import Flows
from .parts.part import Part
from .parts.reports import Reports
from .parts.retention import Retention
from .parts.schedules import Schedules
from .parts.tally import Telling
from .rounds.claimer import Claimer
from .slots.ends import Ends
from .slots.slots import Slots
from .tally.tally import Tally
from .versions import signature_of

IDLE_SECONDS = 10.0
"""A connection of parts of which nobody has asked anything for so long is closed. Longer than between two looks."""


class Engine:
    """The pieces of one worker. Each knows only those that are made before it, but for the rounds: who has to be there
    before them is told of them once, when they are made.

    Five connections at most: of the rounds, of the bell, of life, of the schedules, whose ticks wait for nobody, and of
    the other parts. The last two are there while anybody has something to ask.
    """

    def __init__(
        self,
        app: Chancy,
        config: WorkerConfig,
        tasks: Mapping[str, BaseTask[..., Any]],
        links: Links,
        is_cancelled: Callable[[], bool],
    ) -> None:
        """`is_cancelled` is whether the worker itself is being cancelled."""
        timing = config.timing
        self._concurrency = {queue.name: queue.concurrency for queue in app.queues}
        names = list(self._concurrency)
        signatures = {name: signature_of(task) for name, task in tasks.items()}
        refusals = Refusals(config.name, names, signatures)
        self.looks = Looks(names, sampled=app.tally)
        self.tally = Tally()
        ends = self._ends = Ends(refusals, self.tally)

        self.keeper = Keeper() if any(task.keep_logs for task in tasks.values()) else None
        self.executors: Mapping[Place, Executor] = places.executors(
            tasks, app.preload, app.surround, config, self._recovered
        )
        self.slots = Slots(
            tasks=tasks,
            executors=self.executors,
            concurrency=self._concurrency,
            memory=config.memory_budget,
            worker=config.name,
            schema=links.schema,
            middleware=tuple(app.middleware),
            keeper=self.keeper,
            ends=ends,
            is_cancelled=is_cancelled,
        )

        self.link = links.new("claim")
        self.life = links.new("life", lock_timeout="1s")
        offer = Offer(names, list(signatures), list(signatures.values()), listens=not links.is_lent)
        self.lease = Lease(config.name, timing, self.slots.lose, offer)
        self.wakeups: Wakeups
        if links.is_lent:
            self.wakeups = Poll()
        else:
            own, alike = links.new("bell", lock_timeout="0"), sorted(signatures.items())
            self.wakeups = Doorbell(self.link, own, names, alike=alike, lease=self.lease, slots=self.slots)

        batches, schedules, flows = Batches(timing), Schedules(tasks, timing), Flows(timing, self.tally)
        reports, retention = Reports(self.slots.progress, self.keeper), Retention(app, timing, is_lent=links.is_lent)
        self._telling = Telling(self.tally, self.lease, timing, is_told=app.tally)
        self.parts: Sequence[Part] = (
            retention, Declarations(tasks), schedules, batches, flows, reports, self._telling,
        )  # fmt: skip

        self.claimer = ends.rounds = flows.rounds = Claimer(
            link=self.link,
            lease=self.lease,
            queues=app.queues,
            timing=timing,
            wakeups=self.wakeups,
            slots=self.slots,
            refusals=refusals,
            ends=ends,
            batches=batches,
            flows=flows,
        )
        self.wakeups.wakes(self.claimer)

        self.heart = Heart(self.lease, self.claimer, self.slots, self.wakeups, self.parts, self._processes)
        self.health = Health(self.link, self.lease, self.claimer, [self.wakeups, *self.executors.values()])
        rescuer = Rescuer(timing, self.claimer.rescued, self.tally, tallies=app.tally)
        self._living: list[Duty] = [self.heart, rescuer, self.looks]
        if app.tally:
            self._living.append(self._telling)
        self._shared = links.new("parts", lock_timeout="1s")
        self.loops: list[asyncio.Task[Any]] = []
        """None of them ever ends by itself, but for rounds that were stopped."""
        self._turns: Mapping[str, tuple[Link, Collection[Duty]]] = {
            "chancy schedules": (links.new("schedules"), [schedules]),
            "chancy parts": (self._shared, [batches, flows, reports, retention]),
        }

    def begin(self) -> None:
        """Wakeups, life and parts."""
        self.loops += [
            asyncio.create_task(self.wakeups.serve(), name="chancy wakeups"),
            asyncio.create_task(take_turns(self.life, *self._living), name="chancy life"),
        ]
        for name, (link, duties) in self._turns.items():
            self.loops.append(asyncio.create_task(take_turns(link, *duties, idle=IDLE_SECONDS), name=name))

    def begin_rounds(self, context: contextvars.Context) -> asyncio.Task[None]:
        """They end when the claimer is stopped and nothing is left to write; what they start sees a copy of this."""
        loop = asyncio.get_running_loop()
        rounds = asyncio.Task(self.claimer.work(), loop=loop, name="chancy rounds", context=context.copy())
        self.loops.append(rounds)
        return rounds

    async def numbers(self) -> Numbers:
        """Of now; waits for what the database says of it, for two seconds at most."""
        seen = await self.looks.ask()
        running = Counter(running.job.queue for running in self.slots.running.values())
        return Numbers(
            counted=counted(self.tally.totals),
            slots=self._concurrency,
            running=dict.fromkeys(self._concurrency, 0) | running,
            ready=not await self.health.problems(),
            verdicts=len(self.claimer.outbox),
            seen=seen,
        )

    def _processes(self) -> Sequence[int]:
        return places.processes(self.executors)

    def _recovered(self) -> None:
        """There is room again in a place where there was none."""
        self.claimer.wake()

    async def end(self) -> None:
        """End them. Where an error has ended this worker, its jobs count as those of a crash, and do not run on."""
        for loop in self.loops:
            loop.cancel()
        await asyncio.gather(*self.loops, return_exceptions=True)
        self._ends.flush()
        for part in self.parts:
            await part.close(self.life if part is self._telling else self._shared)
        if self.slots.running:
            self.slots.interrupt()
            await asyncio.sleep(TO_OBEY)
