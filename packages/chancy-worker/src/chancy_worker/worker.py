"""`Worker`: starts the loops in order, hands them to each other, and stops them in stages.

Stages of a stop: claim no more; let running jobs finish within the grace; stop and release, with their attempt
refunded, those that have not; write the last verdicts; leave the lifespan; give up the lease. Each has its time, and a
further signal skips what is left of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib.util
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import psycopg

from chancy.app import AsyncChancy, Chancy
from chancy.errors import InvalidTask, MissingRights
from chancy.history.rules import keep_queues
from chancy.migrations.migrate import check_version
from chancy.migrations.roles import missing_rights
from chancy.options.limits import LimitType, Place
from chancy.registry import registered
from chancy.states import State
from chancy.task import BaseTask

from . import forks
from .attempts.attempt import Executor
from .attempts.executors import Loop, Threads
from .attempts.logs import Keeper, listening
from .attempts.refusals import Refusals, signature_of
from .attempts.verdict import Claimed, Completion
from .claims.plans import plans_of_gates
from .claims.statement import Wanted, play_round
from .config import WorkerConfig
from .connection.link import Link
from .connection.pooler import session_behind
from .connection.sessions import LentSession, OwnSession, Session
from .doorbell.doorbell import Bell, Doorbell
from .doorbell.ear import Ear
from .doorbell.hearing import Hearing
from .doorbell.polling import Poll
from .life import signals
from .life.health import LONGEST_TURN, answering, telling_the_service_manager
from .life.lease import Lease, Offer, extend, keep_alive
from .life.rescue import declare_dead, rescue
from .life.watchdog import Watchdog
from .lifespan import Lifespan
from .log_format import unfailing
from .parts.batches import Batches
from .parts.declarations import declare, declare_schedules, in_turn
from .parts.reports import report
from .parts.retention import care_for_history, drop_alone, drop_briefly, keep
from .parts.schedules import keep_time
from .rounds.claimer import Claimer
from .slots.slots import Slots

T = TypeVar("T")

log = unfailing("chancy.worker")
job_log = unfailing("chancy.job")

_TO_OBEY = 1.0
"""Seconds that stopped jobs, and a stopped lifespan, get for their `finally`."""
_LAST_VERDICTS = 10.0
"""Seconds that the last verdicts get to reach the database."""
_LAST_WORD = 2.0
"""Seconds for giving up the lease, which is over soon in any case."""
_TO_LEAVE = 10.0
"""Seconds that the lifespan gets to be left."""


@dataclass(slots=True)
class _Parts:
    """What has to be there before a worker can serve."""

    link: Link
    lease: Lease
    slots: Slots
    claimer: Claimer
    keeper: Keeper | None
    wakeups: Doorbell | Poll
    background: list[asyncio.Task[Any]] = field(default_factory=list)


class Worker:
    """One worker process: performs the jobs of its app's queues until it is stopped."""

    def __init__(self, app: Chancy | AsyncChancy, config: WorkerConfig | None = None) -> None:
        self.app = app.settings if isinstance(app, AsyncChancy) else app
        self.config = config or WorkerConfig()
        self._tasks: Mapping[str, BaseTask[..., Any]] = registered()
        self._slots: Slots | None = None
        self._parts: _Parts | None = None
        self._session: type[Session] = OwnSession
        self.begun = asyncio.Event()
        """Set when it has its lease, has entered the lifespan, and begins to claim."""
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._main: asyncio.Task[Any] | None = None
        self._cancels_before = 0
        """Of that task, which may have survived some."""
        self._cancelled = False
        self.left_running = 0
        """Functions that were still busy with released jobs when the worker stopped: the process has to be ended."""

    async def start(self) -> None:
        """Work until `stop` is called, or SIGTERM or Ctrl-C arrives; returns when everything is written.

        For a program that is this worker, or several of them. A signal that the program handles itself is left to it;
        what was there before is put back.

        Raises `SchemaOutdated`, `InvalidTask` for a task whose limits cannot be enforced here, `ValueError` for an app
        that wants a module preloaded which is not there, and psycopg's error when the database cannot be reached at
        the start; later outages are waited for.

        Cancelling it is a stop without a grace: running coroutines are cancelled, what has not ended a second later is
        released, the last verdicts are written within ten seconds, and the lease is given up. Cancelled again, it skips
        what is left of a stage.
        """
        heard = signals.asking(asyncio.get_running_loop(), self.stop)
        with signals.shared(heard):
            async with telling_the_service_manager(self.begun, self._stop, self._hangs):
                await self._run()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Work beside the block: for a program that is something else, such as a web server. Takes no signals.

        The block is entered when the worker has its lease and begins to claim; what keeps it from that is raised here.
        At the end of the block the worker stops, with its grace. One that ends by an error before ends the block, too,
        as in a `TaskGroup`: it is cancelled, and the error is raised in its place.
        """
        block = asyncio.current_task()
        assert block is not None
        run = asyncio.create_task(self._run(), name="chancy worker")
        begun = asyncio.create_task(self.begun.wait())
        try:
            await asyncio.wait([run, begun], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            run.cancel()
            await asyncio.wait([run])
            raise
        finally:
            begun.cancel()
        if run.done():
            run.result()
        broken = leaving = False

        def ended(run: asyncio.Task[None]) -> None:
            nonlocal broken
            if leaving or run.cancelled() or (error := run.exception()) is None:
                return
            log.error("the worker beside this program has ended by an error", exc_info=error)
            broken = True
            block.cancel()

        run.add_done_callback(ended)
        try:
            yield self
        except asyncio.CancelledError:
            if not broken or block.uncancel() > 0:
                raise
        finally:
            leaving = True
            self.stop()
            await run

    async def _run(self) -> None:
        """All of its life. Takes no signals, and tells nobody."""
        self._main = asyncio.current_task()
        assert self._main is not None
        self._cancels_before = self._main.cancelling()
        async with contextlib.AsyncExitStack() as stack:
            parts = await self._unless_stopped(self._set_up(stack))
            if parts is not None:
                lifespan = Lifespan(self.app.lifespan)
                stack.push_async_callback(self._leave, lifespan)
                await self._unless_stopped(lifespan.enter())
                if not self._stop.is_set():
                    with listening(parts.keeper):  # after `lifespan`, which may configure logging anew
                        await self._serve(parts, lifespan.context)
        if self._cancelled:
            raise asyncio.CancelledError

    @property
    def busy(self) -> int:
        """How many jobs run here now."""
        return len(self._slots.running) if self._slots else 0

    def stop(self) -> None:
        """Begin to stop; called again, skip what is left of a stage, the grace first of all. From the worker's loop."""
        (self._hurry if self._stop.is_set() else self._stop).set()

    async def _set_up(self, stack: contextlib.AsyncExitStack) -> _Parts:
        """All up to the lifespan; what is there is closed by the stack, in reverse."""
        config, schema = self.config, self.app.schema_name
        self._refuse_what_cannot_be_kept()
        self._session = await session_behind(self.app.conninfo, schema, config.pooler, config.timing.round)
        link = self._link(stack, "claim")
        await link.connect()
        await self._check_version(link)
        await link.send(keep(self.app.keep))
        if wishes := {queue.name: queue.keep for queue in self.app.queues if queue.keep is not None}:
            await link.send(keep_queues(wishes))
        await in_turn(link, declare(self._tasks.values()))
        for name in await in_turn(link, declare_schedules(self._tasks)):
            log.warning("schedule %s was made at run time: what its task declares waits for `chancy.unschedule`", name)

        lives = self._link(stack, "lease", lock_timeout="1s")
        await lives.connect()

        def wake(queues: Collection[str] | None = None) -> None:
            claimer.wake(queues)

        def heard(queues: Collection[str] | None) -> None:
            bell.heard(queues)

        def has_room(queue: str) -> bool:
            return claimer.has_room(queue)

        executors = self._executors(wake)
        stack.push_async_callback(self._close_executors, executors)
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
            is_cancelled=self._is_cancelled,
        )
        names = [queue.name for queue in self.app.queues]
        signatures = {name: signature_of(task) for name, task in self._tasks.items()}
        refusals = self._refusals = Refusals(config.name, names, signatures)
        offer = Offer(names, list(signatures), list(signatures.values()), listens=self._session is not LentSession)
        lease = Lease(config.name, config.timing, slots.lose, offer)
        wakeups: Doorbell | Poll
        if self._session is LentSession:
            wakeups, drop = Poll(wake), drop_briefly
        else:
            ear = Ear(schema, names, heard, lambda: lease.id, slots.cancel)
            own = self._link(stack, "bell", lock_timeout="0")
            bell = Bell(
                own,
                ear,
                names,
                wake,
                alike=sorted(signatures.items()),
                has_room=has_room,
                jobs=lambda: claimer.held,
            )
            ear.stir, ear.began = lambda: wake([]), bell.listening
            wakeups, drop = Doorbell(bell, ear, Hearing(link, own, lambda: ear.channel)), drop_alone
        batches = Batches(self._link(stack, "batches", lock_timeout="1s"), config.timing)
        claimer = Claimer(
            link=link,
            lease=lambda: lease.id,
            queues=self.app.queues,
            timing=config.timing,
            idle=wakeups.idle,
            busy=wakeups.busy,
            room=slots.room,
            knows=self._tasks.__contains__,
            strange=lambda job: self._ended(claimer, job, refusals.unknown(job), 0.0),
            refusals=refusals,
            start=slots.begin,
            settled=self._settled,
            left_batch=batches.left,
            offers=wakeups.offers,
            attend=wakeups.attend,
            leaves_it_to_others=wakeups.leaves_it_to_others,
        )
        wakeups.hear_on(link)
        parts = self._parts = _Parts(link, lease, slots, claimer, keeper, wakeups)
        await link.connect()
        if self._session is OwnSession and any(task.gates for task in self._tasks.values()):
            for statement in plans_of_gates():
                await link.send(statement)
        stack.push_async_callback(_give_up, lives, lease, claimer)
        await lease.take(lives)  # from here on outages are waited for

        async def problems() -> list[str]:
            return _problems(link, lease, claimer)

        async def all_problems() -> list[str]:
            """With those for which it would be no help to start this worker anew."""
            others = [wakeups.problem, *(each.problem for each in executors.values())]
            return [*await problems(), *(problem for problem in others if problem is not None)]

        rescuer, reporter = self._link(stack, "rescue", lock_timeout="1s"), self._link(stack, "reports")
        scheduler, schedules = self._link(stack, "schedules"), asyncio.Event()
        upkeep = functools.partial(self._new_link, "upkeep", lock_timeout="2s")
        stack.push_async_callback(_end_all, parts)
        parts.background += [
            asyncio.create_task(coroutine, name=name)
            for name, coroutine in {
                "chancy wakeups": wakeups.serve(),
                "chancy lease": keep_alive(
                    lives,
                    lease,
                    wakeups,
                    claimer.held.keys(),
                    claimer.give_back,
                    slots.cancel,
                    batches.found,
                    schedules.set,
                ),
                "chancy rescue": rescue(rescuer, config.timing, claimer.rescued),
                "chancy upkeep": care_for_history(upkeep, drop, config.timing),
                "chancy reports": report(reporter, slots.progress, keeper),
                "chancy batches": batches.serve(),
                "chancy schedules": keep_time(scheduler, self._tasks, config.timing, schedules),
            }.items()
        ]
        stack.enter_context(forks.guarding(asyncio.get_running_loop()))
        stack.enter_context(Watchdog(self.app.conninfo, schema, lease))
        await stack.enter_async_context(answering(config.health_host, config.health_port, all_problems))
        return parts

    async def _serve(self, parts: _Parts, context: contextvars.Context) -> None:
        """Claim and perform until somebody asks for a stop; then go through its stages."""
        claimer, slots = parts.claimer, parts.slots

        def begin_rounds() -> asyncio.Task[None]:
            loop = asyncio.get_running_loop()
            task = asyncio.Task(claimer.work(), loop=loop, name="chancy rounds", context=context.copy())
            parts.background.append(task)
            return task

        async def go_on(rounds: asyncio.Task[None], seconds: float) -> asyncio.Task[None]:
            ends_at = time.monotonic() + seconds
            await self._stage(rounds, seconds)
            if rounds.cancelled():  # with all tasks of the loop, as at the end of `asyncio.run`; they are needed still
                rounds = begin_rounds()
                await self._stage(rounds, ends_at - time.monotonic())
            return rounds

        rounds = begin_rounds()
        self.begun.set()
        try:
            await self._until_stop(parts.background)
            grace = self.config.grace
        except asyncio.CancelledError:
            self._cancelled, grace = True, 0.0
        log.info("stopping: %d jobs get %.0f s to finish", len(slots.running), grace)
        claimer.stop()
        parts.wakeups.stop()
        slots.turn_away()
        rounds = await go_on(rounds, grace)
        slots.interrupt()
        rounds = await go_on(rounds, _TO_OBEY)
        self.left_running = slots.give_up()
        # Where the database is away they have had the whole grace.
        rounds = await go_on(rounds, _LAST_VERDICTS if claimer.is_connected else 0.0)
        if claimer.held:
            log.error(
                "%d verdicts could not be written; those jobs run again when this lease is over", len(claimer.held)
            )
        if rounds.done() and not rounds.cancelled():
            rounds.result()

    async def _until_stop(self, loops: Iterable[asyncio.Task[Any]]) -> None:
        """Returns when somebody asks for a stop. A loop never ends by itself: one that does is a bug, told as one."""
        stop = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait([stop, *loops], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        if stop in done:
            return
        for task in done:
            if not task.cancelled():
                task.result()
        raise RuntimeError(f"{done.pop().get_name()} has ended")

    async def _stage(self, work: asyncio.Task[Any], seconds: float) -> None:
        """Wait for the end of `work`, at most so long. What is left of the time is skipped when somebody asks again for
        a stop, or cancels this worker (which is made known at the very end).
        """
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait([work, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._cancelled = True
        finally:
            hurry.cancel()
            self._hurry.clear()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What it returns; None if somebody asks for a stop before, which cancels it. Raises what it raises."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await self._stage(task, _LAST_VERDICTS)

    async def _leave(self, lifespan: Lifespan) -> None:
        """Leave the lifespan, in its time; if it is still being entered, cancel that."""
        if (task := lifespan.task) is None:
            return
        if is_entered := lifespan.is_entered:
            lifespan.leave()
            await self._stage(task, _TO_LEAVE)
        if not task.done():
            log.warning("the app's `lifespan` waits on its way %s, and is cancelled", "out" if is_entered else "in")
            task.cancel()
            await self._stage(task, _TO_OBEY if is_entered else _TO_LEAVE)
        if not task.done():
            log.error("the app's `lifespan` was cancelled and goes on; it is left to itself")
        elif is_entered and not task.cancelled():
            task.result()

    def _is_cancelled(self) -> bool:
        return self._main is not None and self._main.cancelling() > self._cancels_before

    async def _close_executors(self, executors: Mapping[Place, Executor]) -> None:
        for executor in executors.values():
            await executor.close()
        threads = executors[Place.THREAD]
        self.left_running += threads.stranded if isinstance(threads, Threads) else 0

    def _ended(self, claimer: Claimer, job: Claimed, verdict: Completion, seconds: float) -> None:
        if verdict.refusal:
            verdict = self._refusals.decided(job, verdict)
        claimer.complete(job, verdict)
        self._log(job, verdict, seconds)

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
            from .children.pool import Children, setup_for

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

    def _link(self, stack: contextlib.AsyncExitStack, purpose: str, lock_timeout: str = "100ms") -> Link:
        link = self._new_link(purpose, lock_timeout)
        stack.push_async_callback(link.close)
        return link

    def _new_link(self, purpose: str, lock_timeout: str = "100ms") -> Link:
        deadline = self.config.timing.round
        return Link(
            self.app.conninfo, self.app.schema_name, purpose,
            deadline=deadline, lock_timeout=lock_timeout, session=self._session,
        )  # fmt: skip

    async def _check_version(self, link: Link) -> None:
        await link.walk(check_version(self.app.schema_name))
        if lacking := await link.send(missing_rights()):
            raise MissingRights(lacking)

    async def _hangs(self) -> list[str]:
        """Why this worker will not come to itself again, if so. An outage is no reason: its jobs go on running."""
        if (parts := self._parts) is None:
            return []
        stuck = time.monotonic() - max(parts.link.connected_at, parts.claimer.turned_at)
        if parts.link.conn is None or stuck <= LONGEST_TURN:
            return []
        return [f"the claim loop has not turned for {stuck:.0f} s, though it has its connection"]


async def _end_all(parts: _Parts) -> None:
    """End the loops. Where an error has ended this worker, its jobs count as those of a crash, and do not run on."""
    for task in parts.background:
        task.cancel()
    await asyncio.gather(*parts.background, return_exceptions=True)
    if parts.slots.running:
        parts.slots.interrupt()
        await asyncio.sleep(_TO_OBEY)


async def _give_up(link: Link, lease: Lease, claimer: Claimer) -> None:
    """End the lease. What was claimed in its name by a round whose answer never came has not begun: it goes back."""
    if not lease.id:
        return
    with contextlib.suppress(psycopg.Error, TimeoutError):
        async with asyncio.timeout(_LAST_WORD):
            await link.open()  # a heartbeat without an answer, cancelled a moment ago, has cost it its connection
            answer = await link.send(extend(lease.id, lease.timing.lease, None, 0.0))
            unheard = [
                Completion(id_, fence, State.READY, refund=True) for id_, fence in answer.claims
                if (id_, fence) not in claimer.held
            ]  # fmt: skip
            if unheard:
                await link.send(play_round(lease.id, unheard, Wanted()))
            await link.send(declare_dead(worker=lease.id))


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
