"""The pool of child processes: for what has to be killed when it goes over its limits.

Started by a fork server, one line (a socket pair) each; the server sees a child's death at once, and it takes only the
job that ran there. Own code, because concurrent.futures loses the whole pool with one child, and costs three times as
much a job (DESIGN, section 6).

While no child can be started, whatever the reason, the pool has no room (so jobs are left to other workers), says why
once, and goes on trying with growing pauses.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from chancy.errors import MemoryLimitExceeded, ProcessDied
from chancy.logs.records import about
from chancy.task import BaseTask
from chancy_worker.attempts.attempt import Attempt
from chancy_worker.attempts.surround import Surround, place_of
from chancy_worker.attempts.verdict import Completion, judged, released
from chancy_worker.child import memory
from chancy_worker.child.frames import Ended, Forked, Refused, Reported, Setup, Unloaded

from .forkserver import ForkServer
from .line import Line, NoVerdict

log = logging.getLogger("chancy.worker")

WATCH_SECONDS = 0.05
"""How often the children are looked at: at their memory, and at what waits behind a job that takes long."""
PATIENCE_SECONDS = 2.0
"""How long a claimed job waits for a child before it is given back."""
PATIENCE_AT_START_SECONDS = 30.0
"""The same while a child is importing the tasks."""
LONGEST_START_SECONDS = 300.0
"""A child that is not ready by then never will be."""
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
"""After a child that could not even start; twice as long each time."""
ENDING_SECONDS = 5.0
"""That a child has for its end, when it is told to; then it is killed."""
AHEAD_SECONDS = 0.02
"""How much work is claimed ahead for one child; none where one job takes longer than half of this."""
ROUND_TRIP_SECONDS = 0.0003
"""What a job costs beside its function."""

_PROGRAM = {"__main__", "__mp_main__"}


def setup_for(tasks: Iterable[BaseTask[..., Any]], preload: Sequence[str], surround: Surround | None = None) -> Setup:
    """What the children of a worker of these tasks have in common: as it is now, whatever jobs do to this process."""
    try:
        folder = str(Path.cwd())
    except OSError:
        folder = "/"
    around = place_of(surround)
    modules = {task.function.__module__ for task in tasks} | ({around[0]} if around else set())
    return Setup(
        preload=tuple(preload),
        modules=tuple(sorted(modules - _PROGRAM)),
        main=_program(folder) if modules & _PROGRAM else None,
        path=tuple(str(Path(folder, str(entry))) for entry in sys.path),
        argv=tuple(sys.argv),
        folder=folder,
        surround=around,
    )


def _program(folder: str) -> tuple[str, str] | None:
    """The module that was started. Of a package's `__main__` nobody expects that it can be imported."""
    program = sys.modules["__main__"]
    if (spec := getattr(program, "__spec__", None)) is not None:
        return None if spec.name.endswith("__main__") else (spec.name, "")
    file = getattr(program, "__file__", None)
    return None if file is None else ("", str(Path(folder, file)))


class Children:
    """Up to `most` processes, started as they are needed; one that idles for a minute, or has done its share, ends."""

    def __init__(
        self,
        most: int,
        setup: Setup,
        *,
        recycle: int,
        idle: float = 60.0,
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        self._most = most
        self._setup = setup
        self._recycle = recycle
        self._idle = idle
        self._recovered = recovered
        """Told when there is room again after there was none."""
        self.problem: str | None = None
        """Why no child can be started now."""
        self._pause = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._server: ForkServer | None = None
        self._numbers = itertools.count(1)
        self._lines: dict[int, Line] = {}
        """All whose process has not ended, by number."""
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._seconds = AHEAD_SECONDS
        """That a job took of late."""
        self._families = memory.Families()
        self._watch: asyncio.Task[None] | None = None
        self._helpers: set[asyncio.Task[Any]] = set()
        self._complained: set[str] = set()
        self._closed = False
        self._kernel_kills = memory.kills()

    @property
    def size(self) -> int:
        """So many jobs keep the children busy: one each, and some ahead where they are over before a round is."""
        most = self._most if self.problem is None else sum(line.is_open for line in self._lines.values())
        return most * self._depth

    @property
    def processes(self) -> list[int]:
        """The children, and the fork server."""
        children = [line.pid for line in self._lines.values() if line.pid]
        return children if self._server is None else [self._server.pid, *children]

    @property
    def _depth(self) -> int:
        return max(1, int(AHEAD_SECONDS / (self._seconds + ROUND_TRIP_SECONDS)))

    async def run(self, attempt: Attempt) -> Completion:
        """Have a child perform the job. Cancelled, it kills the child."""
        since = time.monotonic()
        while True:
            if (line := self._choose()) is None:
                if not await self._room(since):
                    return released(attempt.job, self.problem or "no child process was free")
                continue
            outcome = await line.perform(attempt)
            if isinstance(outcome, Completion):
                return outcome
            if outcome is NoVerdict.DIED:
                died = line.killed_for or ProcessDied(await self._how_it_ended(line))
                return judged(attempt.job, died, attempt.since, attempt.task.retry_delay)

    async def close(self) -> None:
        """Kill them all, and wait for their ends; not for ever."""
        self._closed = True
        for pending in (self._watch, self._retry):
            if pending is not None:
                pending.cancel()
        for line in self._lines.values():
            line.kill()
        if self._helpers:
            await asyncio.wait(self._helpers, timeout=ENDING_SECONDS)
        for line in self._lines.values():
            log.error("child process %d has not ended %.0f s after it was killed", line.pid, ENDING_SECONDS)
            line.kill_group()  # the fork server may hang
        for helper in self._helpers:
            helper.cancel()
        if self._server is not None:
            await self._server.close()

    def _choose(self) -> Line | None:
        """The child with the least to do, if it has room. A new one is started rather than that a job waits."""
        best = min(
            (line for line in self._lines.values() if line.is_open), key=lambda line: len(line.flight), default=None
        )
        if best is not None and not best.flight:
            return best
        self._start_if_missing()
        if best is None or len(best.flight) >= self._depth or best.busy_for > WATCH_SECONDS:
            return None
        return best

    async def _room(self, since: float) -> bool:
        """Wait until a child may have room; False if that takes too long, or is in vain."""
        if self.problem is not None and not any(line.is_open for line in self._lines.values()):
            return False
        starting = any(line.starting_for for line in self._lines.values())
        patience = PATIENCE_AT_START_SECONDS if starting else PATIENCE_SECONDS
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(place)
        timer = loop.call_later(since + patience - time.monotonic(), _give_up, place)
        try:
            return await place
        finally:
            timer.cancel()

    def _start_if_missing(self) -> None:
        """Those that are leaving are replaced already while they still work."""
        if self.problem is None and sum(not line.leaving for line in self._lines.values()) < self._most:
            self._start()

    def _start(self) -> None:
        """One more child. Never raises."""
        if self._closed:
            return
        number = next(self._numbers)
        try:
            if self._server is None:
                self._server = ForkServer(self._setup, self._heard, self._lost)
            server = self._server
            ours = server.fork(number, logging.getLogger().level)
        except Exception as error:
            self._cannot_start(str(error))
            return
        self._lines[number] = line = Line(lambda: server.kill(number), self._changed)
        self._help(self._live(number, line, ours))
        if self._watch is None:
            self._watch = asyncio.create_task(self._look_after(), name="chancy children")

    def _help(self, work: Coroutine[Any, Any, None]) -> None:
        helper = asyncio.create_task(work)
        self._helpers.add(helper)
        helper.add_done_callback(self._helpers.discard)

    async def _live(self, number: int, line: Line, ours: socket.socket) -> None:
        """The life of one child, seen from here."""
        try:
            await asyncio.get_running_loop().create_connection(lambda: line, sock=ours)
        except OSError as error:
            ours.close()
            line.unready = str(error)
            line.gone.set()
            line.kill()
        if self._closed:
            line.kill()
        await line.started
        if line.is_ready:
            self._can_start()
        how = await line.ended
        await line.gone.wait()
        del self._lines[number]
        if not line.is_ready:
            self._cannot_start(line.unready or _why_it_never_began(how))

    def _can_start(self) -> None:
        if self.problem is not None:
            log.warning("child processes can be started again")
            self.problem, self._pause = None, 0.0
            self._recovered()

    def _cannot_start(self, why: str) -> None:
        """Say so, once; let nobody wait for it; try again after a pause."""
        if self._closed:
            return
        problem = f"no child process can be started: {why}"
        if problem != self.problem:
            log.error("%s; until that is mended, jobs that need one are left to other workers", problem)
        self.problem = problem
        if self._retry is None:
            self._pause = min(max(PAUSE_SECONDS, 2 * self._pause), LONGEST_PAUSE_SECONDS)
            self._retry = asyncio.get_running_loop().call_later(self._pause, self._try_again)
        self._wake(len(self._waiting))

    def _try_again(self) -> None:
        self._retry = None
        if self.problem is not None and sum(not line.leaving for line in self._lines.values()) < self._most:
            self._start()

    def _heard(self, said: Reported) -> None:
        match said:
            case Forked(number, pid):
                self._lines[number].pid = pid
            case Refused(number, why):
                self._lines[number].end(why)
            case Ended(number):
                self._lines[number].end(said)
            case Unloaded(module, why):
                log.error("module %s, which is to be preloaded for child processes, %s", module, why)

    def _lost(self, why: str) -> None:
        """The fork server is dead, and nobody sees the deaths of these children any more."""
        self._server = None
        if not self._closed:
            log.error("%s, and its child processes with it; another one will be started", why)
        for line in self._lines.values():
            line.kill_group()
            line.end(why)

    def _changed(self, line: Line) -> None:
        """A line has answered, is ready, or is gone."""
        if line.performed:
            self._seconds += 0.1 * (line.seconds - self._seconds)
        if line.left is not None:
            self._complain(*line.left)
            line.left = None
        if not line.leaving and line.performed >= self._recycle:
            line.leaving = True
            self._start_if_missing()
        if line.leaving and not line.flight and line.is_ready:
            line.dismiss(ENDING_SECONDS)
        self._wake(max(1, self._depth - len(line.flight)))

    def _wake(self, places: int) -> None:
        while self._waiting and places:
            if not (place := self._waiting.popleft()).done():
                place.set_result(True)
                places -= 1

    def _complain(self, attempt: Attempt, left: str) -> None:
        """Once of each task: it is a matter of its code."""
        level = logging.DEBUG if attempt.task.name in self._complained else logging.WARNING
        self._complained.add(attempt.task.name)
        log.log(
            level,
            "job %d (%s) has left %s; its child process is replaced, as after every job that does: what is to stay "
            "from one job to the next (a pool, a client with threads, a large library) is made when its module is "
            "imported",
            attempt.job.id, attempt.job.task, left, extra=about(attempt.job),
        )  # fmt: skip

    async def _look_after(self) -> None:
        """Memory over a limit, jobs that wait behind one that takes long, children without work."""
        self._families.look(())  # the first look reads of all processes of the machine, later ones of new ones
        while self._lines:
            if any(line.running is not None and line.running.limit is not None for line in self._lines.values()):
                self._families.look({line.pid for line in self._lines.values() if line.pid})
            for line in list(self._lines.values()):
                self._look_at(line)
            await asyncio.sleep(WATCH_SECONDS)
        self._watch = None

    def _look_at(self, line: Line) -> None:
        if (sent := line.running) is not None and sent.limit is not None and sent.grown is not None:
            limit = sent.limit + sent.grown
            if (used := self._families.used(line.pid, limit)) > limit:
                line.kill(MemoryLimitExceeded(sent.limit, used - sent.grown))
        if line.busy_for > WATCH_SECONDS:
            line.recall()
        if line.idle_for > self._idle and not line.leaving:
            line.dismiss(ENDING_SECONDS)
        if line.starting_for > LONGEST_START_SECONDS and not line.unready:
            line.unready = f"a child was not ready within {LONGEST_START_SECONDS:.0f} s: it imports the tasks' modules"
            line.kill()
        line.insist()

    async def _how_it_ended(self, line: Line) -> str:
        how = await asyncio.shield(line.ended)
        if isinstance(how, str):
            return f"was ended, because {how}"
        if how.code >= 0:
            return f"ended with exit code {how.code}"
        if how.killed:
            return "closed its line to the worker, and was killed for that"
        kills, self._kernel_kills = self._kernel_kills, memory.kills()
        name = signal.Signals(-how.code).name
        if -how.code != signal.SIGKILL:
            return f"died of {name}"
        if self._kernel_kills > kills:
            return f"was killed by {name}, by the kernel because the machine or container was out of memory"
        return f"was killed by {name} from outside, most likely because the machine was out of memory"


def _give_up(place: asyncio.Future[bool]) -> None:
    if not place.done():
        place.set_result(False)


def _why_it_never_began(how: Ended | str) -> str:
    if isinstance(how, str):
        return how
    fate = f"died of {signal.Signals(-how.code).name}" if how.code < 0 else f"ended with exit code {how.code}"
    return f"one {fate} before it could take a job; what it has written to standard error may say why"
