"""The pool of child processes: for what has to be killed when it goes over its limits.

Started by a fork server, one line (a socket pair) each; its end is the child's death, seen at once, and takes only the
job that ran there. Own code, because concurrent.futures loses the whole pool with one child, and costs three times as
much a job (DESIGN, section 6).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

from chancy.errors import AttemptStopped, MemoryLimitExceeded, ProcessDied
from chancy.limits import LimitType

from . import child, memory
from .attempt import Attempt
from .frames import Done, Logged, Order, Ready, Splitter, Told, decode_answer, framed
from .verdict import Completion, judged, released

log = logging.getLogger("chancy.worker")

WATCH_SECONDS = 0.05
"""How often the memory of children with a limit is looked at."""
PATIENCE_SECONDS = 2.0
"""How long a claimed job waits for a child before it is given back."""
AHEAD_SECONDS = 0.02
"""How much work is claimed ahead for one child; nothing where one job takes longer than half of this."""
ROUND_TRIP_SECONDS = 0.0003
"""What a job costs beside its function."""


class Children:
    """Up to `most` processes, started as they are needed; one that idles for a minute, or has done its share, ends."""

    def __init__(self, most: int, modules: Sequence[str], *, recycle: int, idle: float = 60.0) -> None:
        self._most = most
        self._modules = list(modules)
        self._recycle = recycle
        self._idle = idle
        self._context = multiprocessing.get_context("forkserver")
        self._free: list[Line] = []
        self._crew: set[Line] = set()
        self._leaving: set[Line] = set()
        self._starting = 0
        self._waiting: deque[asyncio.Future[Line | None]] = deque()
        self._mean = AHEAD_SECONDS
        """Seconds that a job took of late."""
        self._watch: asyncio.Task[None] | None = None
        self._helpers: set[asyncio.Task[Any]] = set()
        self._kernel_kills = memory.kills()

    @property
    def size(self) -> int:
        """So many jobs keep the children busy: one each, and some ahead where they are over before a round is."""
        return self._most * max(1, int(AHEAD_SECONDS / (self._mean + ROUND_TRIP_SECONDS)))

    async def run(self, attempt: Attempt) -> Completion:
        """Have a child perform the job. Cancelled, it kills the child."""
        try:
            line = await self._take()
        except OSError as error:
            log.error("no child process can be started for job %d: %s", attempt.job.id, error)
            return released(attempt.job, f"no child process could be started: {error}", timedelta(seconds=5))
        if line is None:
            return released(attempt.job, "no child process was free")
        attempt.began()
        limit = attempt.limits.get(LimitType.MEMORY)
        line.limit = None if limit is None else int(limit)
        if limit is not None and self._watch is None:
            self._watch = asyncio.create_task(self._watch_memory(), name="chancy memory")
        try:
            completion = await line.perform(attempt)
        finally:
            self._mean += 0.1 * (line.seconds - self._mean)
            line.limit = None
            self._give_back(line)
        if completion is not None:
            return completion
        died = line.killed_for or ProcessDied(await self._how_it_ended(line))
        return judged(attempt.job, died, attempt.since, attempt.task.retry_delay)

    async def close(self) -> None:
        """Kill them all, and wait for their ends."""
        if self._watch is not None:
            self._watch.cancel()
        for line in self._crew | self._leaving:
            line.kill()
        await asyncio.gather(*self._helpers, return_exceptions=True)

    async def _take(self) -> Line | None:
        if self._free:
            return self._free.pop().taken()
        if len(self._crew) + self._starting < self._most:
            return await self._start()
        place: asyncio.Future[Line | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, _settle, place, None)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and (line := place.result()) is not None:
                self._give_back(line)
            raise
        finally:
            timer.cancel()

    def _give_back(self, line: Line) -> None:
        if line.is_gone or line.last or line.performed >= self._recycle:
            self._let_go(line)
            self._replace()
            return
        while self._waiting:
            if not (place := self._waiting.popleft()).done():
                place.set_result(line)
                return
        self._free.append(line.freed(self._idle, functools.partial(self._retire, line)))

    def _replace(self) -> None:
        """Who waits for a child that has ended gets a new one."""
        if self._waiting and len(self._crew) + self._starting < self._most:
            self._help(self._start_for_the_line())

    async def _start_for_the_line(self) -> None:
        with contextlib.suppress(OSError):  # then they are given back when their patience ends
            self._give_back(await self._start())

    def _retire(self, line: Line) -> None:
        self._free.remove(line)
        self._let_go(line)

    def _let_go(self, line: Line) -> None:
        self._crew.discard(line)
        if not line.ended.done():
            self._leaving.add(line)
        line.close()

    def _help(self, work: Coroutine[Any, Any, None]) -> None:
        helper = asyncio.create_task(work)
        self._helpers.add(helper)
        helper.add_done_callback(self._helpers.discard)

    async def _start(self) -> Line:
        self._starting += 1
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = self._context.Process(
                    target=child.main, args=(theirs, self._modules, logging.getLogger().level), name="chancy child"
                )
                # In a thread: the first one waits for the fork server, a quarter of a second.
                await asyncio.to_thread(self._launch, process)
        except BaseException:
            ours.close()
            raise
        finally:
            self._starting -= 1
        line = Line(process)
        self._crew.add(line)
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: line, sock=ours)
        self._help(self._await_end(line))
        return line

    def _launch(self, process: Any) -> None:
        self._context.set_forkserver_preload(["__main__", "chancy_worker.forkserver", *self._modules])
        process.start()

    async def _await_end(self, line: Line) -> None:
        await line.gone.wait()
        await asyncio.to_thread(line.process.join)
        _settle(line.ended, line.process.exitcode)
        line.process.close()
        if line in self._free:
            self._retire(line)
        self._leaving.discard(line)

    async def _watch_memory(self) -> None:
        while limited := [(line, line.limit) for line in self._crew if line.limit is not None]:
            for line, limit in limited:
                if (used := memory.used(line.pid)) > limit:
                    line.kill(MemoryLimitExceeded(limit, used))
            await asyncio.sleep(WATCH_SECONDS)
        self._watch = None

    async def _how_it_ended(self, line: Line) -> str:
        code = await asyncio.shield(line.ended)
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        kills, self._kernel_kills = self._kernel_kills, memory.kills()
        name = signal.Signals(-code).name
        if -code != signal.SIGKILL:
            return f"died of {name}"
        if self._kernel_kills > kills:
            return f"was killed by {name}, by the kernel because the machine or container was out of memory"
        return f"was killed by {name} from outside, most likely because the machine was out of memory"


class Line(asyncio.Protocol):
    """The worker's end of the line to one child."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.pid: int = process.pid
        self.performed = 0
        self.seconds = AHEAD_SECONDS
        """That its last job took."""
        self.last = False
        self.limit: int | None = None
        """Bytes of memory that its job may have."""
        self.killed_for: AttemptStopped | None = None
        self.gone = asyncio.Event()
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        """Its exit code, as soon as there is one."""
        self._transport: asyncio.Transport | None = None
        self._splitter = Splitter()
        self._attempt: Attempt | None = None
        self._answer: asyncio.Future[Completion | None] | None = None
        self._idle: asyncio.TimerHandle | None = None

    @property
    def is_gone(self) -> bool:
        """Whether nothing more comes from there."""
        return self.gone.is_set()

    def taken(self) -> Line:
        """It idles no longer."""
        if self._idle is not None:
            self._idle.cancel()
        return self

    def freed(self, idle: float, retire: Callable[[], None]) -> Line:
        """It idles, for so many seconds at most."""
        self._idle = asyncio.get_running_loop().call_later(idle, retire)
        return self

    async def perform(self, attempt: Attempt) -> Completion | None:
        """The child's verdict, or None if it died over the job. Cancelled, it kills the child."""
        self._attempt = attempt
        self._answer = asyncio.get_running_loop().create_future()
        self.performed += 1
        self.seconds = AHEAD_SECONDS  # if it dies over this one
        order = Order(attempt.job, attempt.since, attempt.current.schema, self.limit)
        if self._transport is None or self.is_gone:
            return None
        self._transport.write(framed(order))
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            self._attempt = self._answer = None

    def kill(self, why: AttemptStopped | None = None) -> None:
        """End the child and what it has started, at once."""
        self.killed_for = self.killed_for or why
        self.last = True
        if not self.is_gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let an idle child end by itself."""
        self.taken()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """The child is dead, or was let go."""
        self.gone.set()
        if self._answer is not None:
            _settle(self._answer, None)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        for body in self._splitter.split(data):
            match decode_answer(body):
                case Done(completion, seconds, last):
                    self.seconds, self.last = seconds, last
                    if self._answer is not None:
                        _settle(self._answer, completion)
                case Told(progress):
                    if self._attempt is not None:
                        self._attempt.current.report(progress)
                case Logged() as said:
                    _log_again(said, self.pid)
                case Ready():
                    pass


def _log_again(said: Logged, pid: int) -> None:
    logger = logging.getLogger(said.name)
    if not logger.isEnabledFor(said.level):
        return
    message = said.message if said.traceback is None else f"{said.message}\n{said.traceback}"
    record = logger.makeRecord(said.name, said.level, "", 0, message, (), None)
    record.created, record.process, record.processName = said.created, pid, "chancy child"
    logger.handle(record)


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
