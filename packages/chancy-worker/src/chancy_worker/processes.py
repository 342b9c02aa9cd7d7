"""`--processes N`: one command keeps N workers running, each a process of its own.

A child that dies is declared dead at once, so that its jobs run again within a second or two and not when its lease
is over, and is started anew. One that hangs, or that does not come to an end when it is told to, is killed, where a
service manager would do that to a single worker. The children stop when this process does, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence

from .config import KNOWN_BY, Pooler, Timing
from .connection.link import Link
from .connection.pooler import session_behind
from .connection.sessions import OwnSession, Session
from .life import signals
from .life.health import answering, ask, pet_service_watchdog, seconds_of_watchdog, tell_service_manager
from .life.rescue import declare_dead, take_back_some
from .metrics.pages import pages_for
from .supervision.parent import TO_END_SECONDS, ended_with_this, ending_with_parent
from .supervision.silence import Ear
from .tally.tally import Tally

log = logging.getLogger("chancy.worker")

PARENT = "CHANCY_WORKER_PARENT"
"""The environment variable that tells a child that it is one."""

TOLD_IN = "CHANCY_WORKER_TELLS"
"""The environment variable that tells a child in which descriptor it says how it has begun."""
_REFUSED, _BEGUN = b"r", b"b"

_LAST_WORDS = 5.0
"""Seconds that those which died at the end have for being declared dead."""
_LONGEST_PAUSE = 30.0
"""Seconds before a child is started again that was refused at its last start."""


class Processes:
    """N children of the same command, which is told what it was told, and by its environment whose child it is."""

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        conninfo: str | Callable[[], str],
        schema: str,
        *,
        pooler: Pooler = "auto",
        health_port: int | None = None,
        tallies: bool = True,
        grace: float = 0.0,
    ) -> None:
        self._command = list(command)
        self._count = count
        self._conninfo = conninfo
        self._schema = schema
        self._pooler = pooler
        self._session: type[Session] = OwnSession
        self._health_port = health_port
        self._tally = Tally()
        """Of what children that died were running."""
        self._tallies = tallies
        self._grace = grace
        self._watchdog = seconds_of_watchdog()
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._helpers: set[asyncio.Task[None]] = set()
        self._burying = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._refused = 0

    async def run(self) -> int:
        """Keep the children running until a signal; returns the exit code.

        Finds out for all of them whether there is a pooler, and warns once. Raises psycopg's error when the database
        cannot be reached.
        """
        self._session = await session_behind(self._conninfo, self._schema, self._pooler, Timing().round)
        self._command += ["--pooler", self._session.pooler]
        forward = signals.asking(asyncio.get_running_loop(), self._forward)
        with signals.taken(forward), ending_with_parent(forward, self._grace + _LAST_WORDS):
            return await self._keep_all()

    async def _keep_all(self) -> int:
        pages = pages_for(self._ports, self._tally)
        async with answering("0.0.0.0", self._health_port, self._problems, pages):  # noqa: S104 - see `WorkerConfig`
            keepers = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
            tell_service_manager("READY=1")
            beside = [
                asyncio.create_task(pet_service_watchdog(_no_problems)),
                asyncio.create_task(self._kill_who_stays()),
            ]
            try:
                await asyncio.gather(*keepers)
            finally:
                for task in beside:
                    task.cancel()
        if self._helpers:
            await asyncio.wait(self._helpers, timeout=_LAST_WORDS)
        return self._refused

    @property
    def _ports(self) -> Sequence[int]:
        """Of the children, on this machine."""
        first = (self._health_port or 0) + 1
        return range(first, first + self._count)

    async def _problems(self) -> list[str]:
        return [
            f"worker {number}: {problem}"
            for number, found in enumerate(await asyncio.gather(*map(ask, self._ports)), 1)
            for problem in found
        ]

    def _forward(self) -> None:
        self._stopping.set()
        tell_service_manager("STOPPING=1")
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)

    async def _kill_who_stays(self) -> None:
        """A job that blocks the event loop keeps its worker from hearing that it is to stop."""
        await self._stopping.wait()
        await asyncio.sleep(self._grace + TO_END_SECONDS)
        for child in self._children.values():
            log.error(
                "worker process %d has not come to an end in its grace of %.0f s and %.0f s more, and is killed: "
                "a job may block its event loop",
                child.pid, self._grace, TO_END_SECONDS,
            )  # fmt: skip
            child.kill()

    async def _keep(self, number: int) -> None:
        command = list(self._command)
        if self._health_port is not None:
            command += ["--health-port", str(self._health_port + 1 + number)]
        env = {name: value for name, value in os.environ.items() if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
        could_start, pause = False, 1.0
        while not self._stopping.is_set():
            known_by = secrets.token_hex(8)
            try:
                pid, code, said = await self._one_life(command, env | {KNOWN_BY: known_by})
            except OSError as error:
                log.error("no worker process can be started: %s", error)
                await asyncio.sleep(random.uniform(0.75, 1.25))
                continue
            could_start = could_start or said != _REFUSED  # one that was killed may not have said yet that it has begun
            if said == _REFUSED and not could_start:  # it has said itself what is wrong, and would say it again
                self._refused = 2
                self._forward()
            elif said == _REFUSED:  # in the middle of a deploy, or a configuration that somebody is changing
                log.error("worker process %d cannot start any more; trying again in %.0f s", pid, pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            elif code != 0 or not self._stopping.is_set():  # a job may end its process with any code
                log.error("worker process %d died with code %d", pid, code)
                helper = asyncio.create_task(self._declare_dead(known_by))
                self._helpers.add(helper)
                helper.add_done_callback(self._helpers.discard)
                if not self._stopping.is_set():
                    await asyncio.sleep(random.uniform(0.2, 0.6))
            if _BEGUN in said:
                pause = 1.0

    async def _one_life(self, command: Sequence[str], env: Mapping[str, str]) -> tuple[int, int, bytes]:
        """Its process, its exit code, and what it has said of how it began."""
        hears, tells = os.pipe()
        try:
            with contextlib.ExitStack() as stack:
                ear = stack.enter_context(Ear(self._watchdog)) if self._watchdog else None
                # A session of its own: Ctrl-C reaches the children through us, once.
                child = await asyncio.create_subprocess_exec(
                    *command,
                    env=ended_with_this({**env, **(ear.env if ear else {}), PARENT: "1", TOLD_IN: str(tells)}),
                    pass_fds=[tells],
                    start_new_session=True,
                )
                self._children[child.pid] = child
                if self._stopping.is_set():
                    child.send_signal(signal.SIGTERM)
                hearing = asyncio.create_task(_kill_if_silent(child, ear)) if ear else None
                code = await child.wait()
                if hearing:
                    hearing.cancel()
            del self._children[child.pid]
            os.set_blocking(hears, False)
            with contextlib.suppress(BlockingIOError):
                return child.pid, code, os.read(hears, 2)
            return child.pid, code, b""
        finally:
            os.close(hears)
            os.close(tells)

    async def _declare_dead(self, known_by: str) -> None:
        link = Link(
            self._conninfo, self._schema, "supervisor",
            deadline=Timing().round, lock_timeout="1s", session=self._session,
        )  # fmt: skip

        async def turn() -> None:
            await link.open()
            await link.send(declare_dead(process=known_by))
            while await take_back_some(link, lambda: None, self._tally, tallies=self._tallies):
                pass

        async with self._burying:  # one connection, and one that tries to get it, however many have died
            await link.persist(turn)
            await link.close()


async def _no_problems() -> Sequence[str]:
    """As long as it can be asked, its event loop turns; what its children are like is found out for each."""
    return ()


async def _kill_if_silent(child: asyncio.subprocess.Process, ear: Ear) -> None:
    await ear.silence()
    log.error("worker process %d hangs: it has not said WATCHDOG=1 for WATCHDOG_USEC, and is killed", child.pid)
    child.kill()


def say_refused() -> None:
    """In a child that has not begun: it would be refused again, because of what it was told to do."""
    _say(_REFUSED)


def say_begun() -> None:
    """In a child, before it claims anything. Nothing more can be said, so that a job cannot say anything either: an
    exit code of 2 may be a job's.
    """
    _say(_BEGUN)


def _say(word: bytes) -> None:
    if (told_in := os.environ.pop(TOLD_IN, None)) is not None:
        with contextlib.suppress(OSError):
            os.write(int(told_in), word)
            os.close(int(told_in))
