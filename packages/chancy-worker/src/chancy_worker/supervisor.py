"""`Worker`: starts the loops in order, hands them to each other, and stops them in stages.

Stages of a stop: claim no more; let running jobs finish within the grace; stop and release, with their attempt
refunded, those that have not; write the last verdicts; give up the lease. A second signal skips the grace.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from chancy.app import AsyncChancy, Chancy
from chancy.errors import InvalidTask, SchemaOutdated
from chancy.limits import LimitType, Place
from chancy.migrate import newest, version
from chancy.states import State
from chancy.steering import keep_queues
from chancy.task import BaseTask, registered

from . import forks
from .attempt import Executor
from .batches import Batches
from .claimer import Claimer
from .config import WorkerConfig
from .declarations import declare
from .executors import Loop, Threads
from .health import LONGEST_TURN, answering, pet_service_watchdog, tell_service_manager
from .leases import Lease, Offer, declare_dead, keep_alive, rescue
from .link import Link
from .polling import Poll
from .pooler import session_behind
from .records import Keeper, listening
from .reports import report
from .schedules import declare_schedules, keep_time
from .sessions import LentSession, OwnSession, Session
from .slots import Slots
from .upkeep import care_for_history, drop_alone, drop_briefly, keep
from .verdict import Claimed, Completion
from .wakeups import Bell, Doorbell, Ear
from .watchdog import Watchdog

log = logging.getLogger("chancy.worker")
job_log = logging.getLogger("chancy.job")

_TO_OBEY = 1.0
"""Seconds that stopped jobs get for their `finally`, at the end."""
_LAST_VERDICTS = 10.0
"""Seconds that the last verdicts get to reach the database at the end."""


class Worker:
    """One worker process: performs the jobs of its app's queues until it is stopped."""

    def __init__(self, app: Chancy | AsyncChancy, config: WorkerConfig | None = None) -> None:
        self.app = app.settings if isinstance(app, AsyncChancy) else app
        self.config = config or WorkerConfig()
        self._tasks: Mapping[str, BaseTask[..., Any]] = registered()
        self._slots: Slots | None = None
        self._session: type[Session] = OwnSession
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self.left_running = 0
        """Functions that were still busy with released jobs when the worker stopped: the process has to be ended."""

    async def start(self) -> None:
        """Work until `stop` is called, or SIGTERM or Ctrl-C arrives; returns when everything is written.

        Raises `SchemaOutdated`, `InvalidTask` for a task whose limits cannot be enforced here, `ValueError` for an app
        that wants a module preloaded which is not there, and psycopg's error when the database cannot be reached at
        the start; later outages are waited for. Cancelling it is a stop without a grace.
        """
        config, schema = self.config, self.app.schema_name
        self._refuse_what_cannot_be_kept()
        self._session = await session_behind(self.app.conninfo, schema, config.pooler, config.timing.round)
        link = self._link("claim")
        await link.connect()
        await self._check_version(link)
        await link.send(keep(self.app.keep))
        if wishes := {queue.name: queue.keep for queue in self.app.queues if queue.keep is not None}:
            await link.send(keep_queues(wishes))
        await link.send(declare(self._tasks.values()))
        for name in await link.send(declare_schedules(self._tasks)):
            log.warning("schedule %s was made at run time: what its task declares waits for `chancy.unschedule`", name)

        lives = self._link("lease", lock_timeout="1s")
        await lives.connect()

        def wake() -> None:
            claimer.wake()

        executors = self._executors(wake)
        keeper = Keeper() if any(task.keep_logs for task in self._tasks.values()) else None
        slots = self._slots = Slots(
            tasks=self._tasks,
            executors=executors,
            concurrency={queue.name: queue.concurrency for queue in self.app.queues},
            memory=config.memory_budget,
            worker=config.name,
            schema=schema,
            middleware=tuple(self.app.middleware),
            keeper=keeper,
            ended=lambda job, verdict, seconds: self._ended(claimer, job, verdict, seconds),
        )
        names = [queue.name for queue in self.app.queues]
        offer = Offer(names, list(self._tasks), listens=self._session is not LentSession)
        lease = Lease(config.name, config.timing, slots.lose, offer)
        await lease.take(lives)
        wakeups: Doorbell | Poll
        if self._session is LentSession:
            wakeups, drop = Poll(wake), drop_briefly
        else:
            bell = Bell(self._link("bell", lock_timeout="0"), names, wake)
            wakeups, drop = Doorbell(bell, Ear(schema, names, wake, lambda: lease.id, slots.cancel)), drop_alone
        batches = Batches(self._link("batches", lock_timeout="1s"), config.timing)
        claimer = Claimer(
            link=link,
            lease=lambda: lease.id,
            queues=self.app.queues,
            timing=config.timing,
            idle=wakeups.idle,
            busy=wakeups.busy,
            hearing=wakeups.hearing,
            room=slots.room,
            knows=self._tasks.__contains__,
            start=slots.begin,
            settled=self._settled,
            left_batch=batches.left,
        )
        link.on_connect = wakeups.listen
        await link.connect()

        async def problems() -> list[str]:
            return _problems(link, lease, claimer)

        async def all_problems() -> list[str]:
            """With those for which it would be no help to start this worker anew."""
            return [*await problems(), *(each.problem for each in executors.values() if each.problem is not None)]

        rescuer, reporter = self._link("rescue", lock_timeout="1s"), self._link("reports")
        scheduler, schedules = self._link("schedules"), asyncio.Event()
        background: list[asyncio.Task[Any]] = [
            asyncio.create_task(coroutine, name=name)
            for name, coroutine in {
                "chancy wakeups": wakeups.serve(),
                "chancy lease": keep_alive(
                    lives, lease, claimer.held.keys(), claimer.give_back, slots.cancel, batches.found, schedules.set
                ),
                "chancy rescue": rescue(rescuer, config.timing, claimer.wake),
                "chancy upkeep": care_for_history(lambda: self._link("upkeep", lock_timeout="2s"), drop, config.timing),
                "chancy reports": report(reporter, slots.progress, keeper),
                "chancy batches": batches.serve(),
                "chancy schedules": keep_time(scheduler, self._tasks, config.timing, schedules),
                "chancy health": pet_service_watchdog(problems),
            }.items()
        ]
        watchdog = Watchdog(self.app.conninfo, schema, lease)
        # To the end: a second signal must not cut the last words short.
        with forks.guarding(asyncio.get_running_loop()), self._signals():
            try:
                with watchdog:
                    async with answering(config.health_host, config.health_port, all_problems), self._lifespan():
                        tell_service_manager("READY=1")
                        with listening(keeper):  # after `lifespan`, which may configure logging anew
                            await self._serve(background, claimer, slots)
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
                with contextlib.suppress(Exception):
                    await lives.send(declare_dead(worker=lease.id))
                for executor in executors.values():
                    await executor.close()
                threads = executors[Place.THREAD]
                self.left_running += threads.stranded if isinstance(threads, Threads) else 0
                for each in (link, lives, rescuer, reporter, scheduler, batches.link, wakeups):
                    await each.close()

    @property
    def running(self) -> int:
        """How many jobs run here now."""
        return len(self._slots.running) if self._slots else 0

    def stop(self) -> None:
        """Begin to stop; called again, do not wait for the grace. From the worker's own event loop."""
        (self._hurry if self._stop.is_set() else self._stop).set()

    async def _serve(self, background: list[asyncio.Task[Any]], claimer: Claimer, slots: Slots) -> None:
        rounds = asyncio.create_task(claimer.work(), name="chancy rounds")
        background.append(rounds)
        stop = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait([stop, *background], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if stop not in done:
            for task in done:  # a loop never ends by itself: this is a bug, and is told as one
                task.result()
            raise RuntimeError(f"{done.pop().get_name()} has ended")
        tell_service_manager("STOPPING=1")
        log.info("stopping: %d jobs get %.0f s to finish", len(slots.running), self.config.grace)
        claimer.stop()
        slots.turn_away()
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([rounds, hurry], timeout=self.config.grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        slots.interrupt()
        await asyncio.wait([rounds], timeout=_TO_OBEY)
        self.left_running = slots.give_up()
        await asyncio.wait([rounds], timeout=_LAST_VERDICTS)
        if claimer.held:
            log.error(
                "%d verdicts could not be written; those jobs run again when this lease is over", len(claimer.held)
            )

    def _ended(self, claimer: Claimer, job: Claimed, verdict: Completion, seconds: float) -> None:
        self._log(job, verdict, seconds)
        claimer.complete(job, verdict)

    def _log(self, job: Claimed, verdict: Completion, seconds: float) -> None:
        level = logging.INFO if verdict.state is State.SUCCEEDED or verdict.refund else logging.WARNING
        if not job_log.isEnabledFor(level):
            return
        note = " ".join(verdict.note.replace("\0", "\\0").split())[:500]
        state = verdict.state if verdict.state is not State.READY else "released" if verdict.refund else "retried"
        job_log.log(
            level,
            "job %d %s %s attempt %d/%d %.3fs%s",
            job.id, job.task, state, job.attempt, job.max_attempts, seconds, f" {note}" if note else "",
            extra={"chancy": {
                "job": job.id, "task": job.task, "queue": job.queue, "state": str(state), "attempt": job.attempt,
                "max_attempts": job.max_attempts, "seconds": round(seconds, 6), "note": note,
            }},
        )  # fmt: skip

    def _settled(self, verdict: Completion, fate: str) -> None:
        if fate == "lost":
            job_log.warning(
                "job %d: the verdict of this attempt (%s) came too late and changed nothing: another claim has the job",
                verdict.id,
                verdict.state,
            )
        elif fate == "completed":
            job_log.warning(
                "job %d: succeeded in its handler's own transaction; what came after that changes nothing (%s)",
                verdict.id,
                verdict.note or verdict.state,
            )

    def _executors(self, recovered: Callable[[], None]) -> dict[Place, Executor]:
        config = self.config
        executors: dict[Place, Executor] = {Place.LOOP: Loop(), Place.THREAD: Threads(config.threads)}
        if sys.platform != "win32":
            from .children import Children, setup_for  # needs what only POSIX has

            setup = setup_for(self._tasks.values(), self.app.preload)
            executors[Place.PROCESS] = Children(config.children, setup, recycle=config.recycle, recovered=recovered)
        return executors

    def _refuse_what_cannot_be_kept(self) -> None:
        for module in self.app.preload:
            if not _exists(module):
                raise ValueError(f"preload: there is no module {module!r} here; install it, or leave it out")
        budget = self.config.memory_budget
        for name, task in self._tasks.items():
            place = task.place()
            for limit in task.options.limits or ():
                if limit.type is not LimitType.MEMORY:
                    continue
                if sys.platform != "linux":
                    raise InvalidTask(name, "it has a memory limit, which can be enforced on Linux only")
                if budget is not None and limit.value > budget:
                    raise InvalidTask(
                        name,
                        f"its memory limit of {limit.value:,.0f} bytes is above this worker's budget of {budget:,}; "
                        f"lower the limit, raise --memory-budget, or let another worker have its queue",
                    )
            if place is Place.PROCESS and sys.platform == "win32":
                raise InvalidTask(name, "it runs in a child process, which Windows has no fork server for")

    def _link(self, purpose: str, lock_timeout: str = "100ms") -> Link:
        deadline = self.config.timing.round
        return Link(
            self.app.conninfo, self.app.schema_name, purpose,
            deadline=deadline, lock_timeout=lock_timeout, session=self._session,
        )  # fmt: skip

    async def _check_version(self, link: Link) -> None:
        found = await link.walk(version())
        if found < newest():
            raise SchemaOutdated(self.app.schema_name, found, newest())

    @contextlib.contextmanager
    def _signals(self) -> Any:
        loop = asyncio.get_running_loop()
        mine = []
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows; not the main thread
                loop.add_signal_handler(number, self.stop)
                mine.append(number)
        try:
            yield
        finally:
            for number in mine:
                loop.remove_signal_handler(number)

    @contextlib.asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        if self.app.lifespan is None:
            yield
        else:
            async with self.app.lifespan():
                yield


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _problems(link: Link, lease: Lease, claimer: Claimer) -> list[str]:
    """Why this worker is not ready, if so."""
    now = time.monotonic()
    found = []
    if link.conn is None:
        found.append("the database cannot be reached")
    if (silent := now - lease.extended_at) > lease.timing.lease:
        found.append(f"the lease is over: it was extended {silent:.0f} s ago")
    if (stuck := now - claimer.turned_at) > LONGEST_TURN:
        found.append(f"the claim loop has not turned for {stuck:.0f} s")
    return found
