"""`--processes N`: one command keeps N workers running, each a process of its own.

A child that dies is declared dead at once, so that its jobs run again within a second or two and not when its lease
is over, and is started anew. The children stop when this process does, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import signal
import sys
from collections.abc import Sequence

import psycopg

from .config import KNOWN_BY, Pooler, Timing
from .health import answering, ask, tell_service_manager
from .leases import declare_dead, take_back
from .link import Link, one_line
from .pooler import session_behind
from .sessions import OwnSession, Session

log = logging.getLogger("chancy.worker")

PARENT = "CHANCY_WORKER_PARENT"
"""The environment variable that tells a child whose child it is."""


_LAST_WORDS = 5.0
"""Seconds that those which died at the end have for being declared dead."""


class Processes:
    """N children with the same command line."""

    def __init__(
        self,
        arguments: Sequence[str],
        count: int,
        conninfo: str,
        schema: str,
        *,
        pooler: Pooler = "auto",
        health_port: int | None = None,
    ) -> None:
        self._command = [sys.executable, "-m", "chancy_worker", *arguments]
        self._count = count
        self._conninfo = conninfo
        self._schema = schema
        self._pooler = pooler
        self._session: type[Session] = OwnSession
        self._health_port = health_port
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._helpers: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._refused = 0

    async def run(self) -> int:
        """Keep the children running until a signal; returns the exit code.

        Finds out for all of them whether there is a pooler, and warns once. Raises psycopg's error when the database
        cannot be reached.
        """
        self._session = await session_behind(self._conninfo, self._schema, self._pooler, Timing().round)
        self._command += ["--pooler", self._session.pooler]
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._forward)
        async with answering("0.0.0.0", self._health_port, self._problems):  # noqa: S104 - see `WorkerConfig`
            keepers = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
            tell_service_manager("READY=1")
            await asyncio.gather(*keepers)
        if self._helpers:
            await asyncio.wait(self._helpers, timeout=_LAST_WORDS)
        return self._refused

    async def _problems(self) -> list[str]:
        assert self._health_port is not None
        ports = range(self._health_port + 1, self._health_port + 1 + self._count)
        return [
            f"worker {number}: {problem}"
            for number, found in enumerate(await asyncio.gather(*map(ask, ports)), 1)
            for problem in found
        ]

    def _forward(self) -> None:
        self._stopping.set()
        tell_service_manager("STOPPING=1")
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)

    async def _keep(self, number: int) -> None:
        command = list(self._command)
        if self._health_port is not None:
            command += ["--health-port", str(self._health_port + 1 + number)]
        env = {name: value for name, value in os.environ.items() if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
        while not self._stopping.is_set() and not self._refused:
            known_by = secrets.token_hex(8)
            # A session of its own: Ctrl-C reaches the children through us, once.
            child = await asyncio.create_subprocess_exec(
                *command, env={**env, PARENT: str(os.getpid()), KNOWN_BY: known_by}, start_new_session=True
            )
            self._children[child.pid] = child
            if self._stopping.is_set():
                child.send_signal(signal.SIGTERM)
            code = await child.wait()
            del self._children[child.pid]
            if code == 2:  # it has said itself what is wrong, and would say it again
                self._refused = 2
                self._forward()
            elif code != 0:
                log.error("worker process %d died with code %d", child.pid, code)
                helper = asyncio.create_task(self._declare_dead(child.pid, known_by))
                self._helpers.add(helper)
                helper.add_done_callback(self._helpers.discard)
                if not self._stopping.is_set():
                    await asyncio.sleep(random.uniform(0.2, 0.6))

    async def _declare_dead(self, pid: int, known_by: str) -> None:
        link = Link(
            self._conninfo, self._schema, "supervisor",
            deadline=Timing().round, lock_timeout="1s", session=self._session,
        )  # fmt: skip
        while True:
            try:
                await link.reconnect()
                await link.send(declare_dead(process=known_by))
                await link.send(take_back())
                break
            except psycopg.Error as error:
                log.warning("worker process %d is not yet declared dead: %s", pid, one_line(error))
                await asyncio.sleep(1)
        await link.close()


async def watch_parent(stop: asyncio.Event) -> None:
    """In a child: set `stop` when the parent is gone."""
    parent = os.environ.get(PARENT)
    while parent and os.getppid() == int(parent):  # noqa: ASYNC110 - nothing tells a process of this
        await asyncio.sleep(1)
    if parent:
        stop.set()
