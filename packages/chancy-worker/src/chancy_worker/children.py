"""The pool of child processes: for what has to be killed when it goes over its limits.

Started by a fork server, one line (a socket pair) each; its end is the child's death, seen at once, and takes only the
job that ran there. Own code, because concurrent.futures loses the whole pool with one child, and costs three times as
much a job (DESIGN, section 6).
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import socket
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from chancy.errors import MemoryLimitExceeded, ProcessDied

from . import child, memory
from .attempt import Attempt
from .line import Line, NoVerdict
from .threads import in_own_thread
from .verdict import Completion, judged, released

log = logging.getLogger("chancy.worker")

WATCH_SECONDS = 0.05
"""How often the children are looked at: at their memory, and at what waits behind a job that takes long."""
PATIENCE_SECONDS = 2.0
"""How long a claimed job waits for a child before it is given back."""
PAUSE_SECONDS = 1.0
"""After a child that could not even start."""
AHEAD_SECONDS = 0.02
"""How much work is claimed ahead for one child; none where one job takes longer than half of this."""
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
        self._lines: list[Line] = []
        self._leaving: set[Line] = set()
        self._starting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = AHEAD_SECONDS
        """That a job took of late."""
        self._watch: asyncio.Task[None] | None = None
        self._helpers: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._kernel_kills = memory.kills()

    @property
    def size(self) -> int:
        """So many jobs keep the children busy: one each, and some ahead where they are over before a round is."""
        return self._most * self._depth

    @property
    def _depth(self) -> int:
        return max(1, int(AHEAD_SECONDS / (self._seconds + ROUND_TRIP_SECONDS)))

    async def run(self, attempt: Attempt) -> Completion:
        """Have a child perform the job. Cancelled, it kills the child."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            if (line := self._choose()) is None:
                if not await self._room(deadline):
                    return released(attempt.job, "no child process was free")
                continue
            if self._watch is None:
                self._watch = asyncio.create_task(self._look_after(), name="chancy children")
            outcome = await line.perform(attempt)
            if isinstance(outcome, Completion):
                return outcome
            if outcome is NoVerdict.DIED:
                died = line.killed_for or ProcessDied(await self._how_it_ended(line))
                return judged(attempt.job, died, attempt.since, attempt.task.retry_delay)

    async def close(self) -> None:
        """Kill them all, and wait for their ends."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        for line in [*self._lines, *self._leaving]:
            line.kill()
        await asyncio.gather(*self._helpers, return_exceptions=True)

    def _choose(self) -> Line | None:
        """The child with the least to do, if it has room. A new one is started rather than that a job waits."""
        best = min((line for line in self._lines if line.is_open), key=lambda line: len(line.flight), default=None)
        if best is not None and not best.flight:
            return best
        self._start_if_missing()
        if best is None or len(best.flight) >= self._depth or best.busy_for > WATCH_SECONDS:
            return None
        return best

    def _start_if_missing(self) -> None:
        """Those that are leaving are replaced already while they still work."""
        if sum(not line.leaving for line in self._lines) + self._starting < self._most:
            self._starting += 1
            self._help(self._start())

    async def _room(self, deadline: float) -> bool:
        """Wait until a child may have room; False at the deadline."""
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout_at(deadline - time.monotonic() + asyncio.get_running_loop().time()):
                await place
        except TimeoutError:
            return False
        return True

    def _changed(self, line: Line) -> None:
        """A line has answered, is ready, or is gone."""
        if line.performed:
            self._seconds += 0.1 * (line.seconds - self._seconds)
        if not line.leaving and line.performed >= self._recycle:
            line.leaving = True
            self._start_if_missing()
        if line.leaving and not line.flight and line in self._lines:
            self._let_go(line)
        places = max(1, self._depth - len(line.flight))
        while self._waiting and places:
            if not (place := self._waiting.popleft()).done():
                place.set_result(None)
                places -= 1

    def _let_go(self, line: Line) -> None:
        self._lines.remove(line)
        self._leaving.add(line)
        line.close()

    def _help(self, work: Coroutine[Any, Any, None]) -> None:
        helper = asyncio.create_task(work)
        self._helpers.add(helper)
        helper.add_done_callback(self._helpers.discard)

    async def _start(self) -> None:
        """The life of one child, seen from here."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                arguments = theirs, self._modules, logging.getLogger().level
                process = self._context.Process(target=child.main, args=arguments, name="chancy child")
                # In a thread: the first one waits for the fork server, a quarter of a second.
                await in_own_thread(self._launch, process)
        except OSError as error:
            ours.close()
            log.error("no child process can be started: %s", error)
            return
        finally:
            self._starting -= 1
        line = Line(process, self._changed)
        self._lines.append(line)
        await asyncio.get_running_loop().create_connection(lambda: line, sock=ours)
        if self._closed:
            line.kill()
        await line.gone.wait()
        await in_own_thread(process.join)
        line.ended.set_result(process.exitcode)
        if not line.is_ready and not self._closed:
            log.error(
                "child process %d ended with exit code %s before it could take a job; what it has written to standard "
                "error says why (it imports the modules of the tasks)",
                line.pid, process.exitcode,
            )  # fmt: skip
            self._starting += 1  # the next one would do the same
            await asyncio.sleep(PAUSE_SECONDS)
            self._starting -= 1
        process.close()
        self._leaving.discard(line)

    def _launch(self, process: Any) -> None:
        self._context.set_forkserver_preload(["__main__", "chancy_worker.forkserver", *self._modules])
        process.start()

    async def _look_after(self) -> None:
        """Memory over a limit, jobs that wait behind one that takes long, children without work."""
        while self._lines:
            for line in list(self._lines):
                if (limit := line.limit) is not None and (used := memory.used(line.pid)) > limit:
                    line.kill(MemoryLimitExceeded(limit, used))
                if line.busy_for > WATCH_SECONDS:
                    line.recall()
                if line.idle_for > self._idle:
                    self._let_go(line)
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
