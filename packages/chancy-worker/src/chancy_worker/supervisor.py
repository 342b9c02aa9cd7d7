"""`Worker`: starts the loops in order, hands them to each other, and stops them in stages.

Stages of a stop: claim no more; let running jobs finish within the grace; cancel and release, with their attempt
refunded, what has not; write the last verdicts; give up the lease. A second signal skips the grace.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from chancy.app import AsyncChancy, Chancy
from chancy.current import CurrentJob
from chancy.errors import InvalidTask, SchemaOutdated
from chancy.migrate import newest, version
from chancy.run import walk_async
from chancy.states import State
from chancy.task import AsyncTask, BaseTask, registered

from .attempt import Setting, perform
from .claimer import Claimer
from .config import WorkerConfig
from .executors import Loop, Threads, executor_of
from .leases import Lease, declare_dead, keep_alive, rescue
from .link import Link
from .upkeep import care_for_history, keep
from .verdict import Claimed, Completion, released
from .wakeups import Bell, Ear

log = logging.getLogger("chancy.worker")
job_log = logging.getLogger("chancy.job")

_LAST_VERDICTS = 10.0
"""Seconds that the last verdicts get to reach the database at the end."""


class Worker:
    """One worker process: performs the jobs of its app's queues until it is stopped."""

    def __init__(self, app: Chancy | AsyncChancy, config: WorkerConfig | None = None) -> None:
        self.app = app.settings if isinstance(app, AsyncChancy) else app
        self.config = config or WorkerConfig()
        self._tasks: Mapping[str, BaseTask[..., Any]] = registered()
        self._loop = Loop()
        self._threads = Threads(self.config.threads)
        self._attempts: dict[asyncio.Task[Completion], tuple[Claimed, CurrentJob]] = {}
        self._in_threads = 0
        """Attempts that have or are about to have a thread: counted at the claim, not when the thread begins."""
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self.left_running = 0
        """Threads that were still busy with released jobs when the worker stopped."""

    async def start(self) -> None:
        """Work until `stop` is called, or SIGTERM or Ctrl-C arrives; returns when everything is written.

        Raises `SchemaOutdated`, `InvalidTask` for a task whose limits cannot be enforced here, and psycopg's error
        when the database cannot be reached at the start; later outages are waited for. Cancelling it is a stop
        without a grace.
        """
        self._refuse_limits()
        config, schema = self.config, self.app.schema_name
        link = self._link("claim")
        await link.connect()
        await self._check_version(link)
        await link.send(keep(self.app.keep))

        lives = self._link("lease", lock_timeout="1s")
        await lives.connect()
        lease = Lease(config.name, config.timing, self._lease_lost)
        await lease.take(lives)

        names = [queue.name for queue in self.app.queues]

        def wake() -> None:
            claimer.wake()

        bell = Bell(self._link("bell", lock_timeout="0"), names, wake)
        ear = Ear(schema, names, wake)
        claimer = Claimer(
            link=link,
            lease=lambda: lease.id,
            queues=self.app.queues,
            timing=config.timing,
            idle=bell.idle,
            busy=bell.busy,
            hearing=ear.open,
            room=self._room,
            knows=self._tasks.__contains__,
            start=lambda job: self._begin(job, claimer),
            settled=self._settled,
        )
        link.on_connect = ear.listen
        await link.connect()
        self._setting = Setting(schema, config.name, tuple(self.app.middleware))

        rescuer = self._link("rescue", lock_timeout="1s")
        background: list[asyncio.Task[Any]] = [
            asyncio.create_task(coroutine, name=name)
            for name, coroutine in {
                "chancy bell": bell.serve(),
                "chancy lease": keep_alive(lives, lease, claimer.held.keys(), claimer.give_back),
                "chancy rescue": rescue(rescuer, config.timing, claimer.wake),
                "chancy upkeep": care_for_history(lambda: self._link("upkeep", lock_timeout="2s"), config.timing),
            }.items()
        ]
        try:
            with self._signals():
                async with self._lifespan():
                    await self._serve(background, claimer)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            with contextlib.suppress(Exception):
                await lives.send(declare_dead(worker=lease.id))
            self.left_running = self._threads.running
            self._threads.close()
            for each in (link, lives, rescuer, bell.link):
                await each.close()

    def stop(self) -> None:
        """Begin to stop; called again, do not wait for the grace. From the worker's own event loop."""
        (self._hurry if self._stop.is_set() else self._stop).set()

    async def _serve(self, background: list[asyncio.Task[Any]], claimer: Claimer) -> None:
        rounds = asyncio.create_task(claimer.work(), name="chancy rounds")
        background.append(rounds)
        stop = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait([stop, *background], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if stop not in done:
            for task in done:  # a loop never ends by itself: this is a bug, and is told as one
                task.result()
            raise RuntimeError(f"{done.pop().get_name()} has ended")
        log.info("stopping: %d jobs get %.0f s to finish", len(self._attempts), self.config.grace)
        claimer.stop()
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([rounds, hurry], timeout=self.config.grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for attempt in list(self._attempts):
            attempt.cancel()
        await asyncio.wait([rounds], timeout=_LAST_VERDICTS)
        if claimer.held:
            log.error(
                "%d verdicts could not be written; those jobs run again when this lease is over", len(claimer.held)
            )

    def _begin(self, job: Claimed, claimer: Claimer) -> None:
        task = self._tasks[job.task]
        current = CurrentJob(job.id, job.task, job.queue, job.attempt, job.max_attempts)
        executor = executor_of(task, self._loop, self._threads)
        self._in_threads += executor is self._threads
        began = time.perf_counter()
        attempt = asyncio.get_running_loop().create_task(perform(job, current, task, executor, self._setting))
        self._attempts[attempt] = job, current

        # A callback, and not the coroutine's own end: one that is cancelled before its first step has none.
        def ended(attempt: asyncio.Task[Completion]) -> None:
            del self._attempts[attempt]
            self._in_threads -= executor is self._threads
            if attempt.cancelled():
                verdict = released(job, "interrupted by the shutdown of its worker")
            else:
                verdict = attempt.result()
            self._log(job, verdict, time.perf_counter() - began)
            claimer.complete(job, verdict)

        attempt.add_done_callback(ended)

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

    def _lease_lost(self) -> None:
        for _, current in self._attempts.values():
            current.lease_lost = True

    def _room(self) -> tuple[int | None, tuple[str, ...]]:
        """How many jobs may be claimed at most, and which tasks must be left out because their executor is full."""
        threaded = tuple(name for name, task in self._tasks.items() if not isinstance(task, AsyncTask))
        if not threaded:
            return None, ()
        free = self._threads.size - self._in_threads
        return (free, ()) if free > 0 else (None, threaded)

    def _refuse_limits(self) -> None:
        for name, task in self._tasks.items():
            missing = {limit.type for limit in task.options.limits} - executor_of(
                task, self._loop, self._threads
            ).enforces
            if missing:
                raise InvalidTask(
                    name,
                    f"it asks for a limit of {' and '.join(sorted(missing))}, which this worker cannot enforce yet; "
                    f"a limit is never ignored, so remove it",
                )

    def _link(self, purpose: str, lock_timeout: str = "100ms") -> Link:
        deadline = self.config.timing.round
        return Link(self.app.conninfo, self.app.schema_name, purpose, deadline=deadline, lock_timeout=lock_timeout)

    async def _check_version(self, link: Link) -> None:
        assert link.conn is not None
        found = await walk_async(link.conn, version(), self.app.schema_name)
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
