"""Whether this worker lives and is ready: over HTTP for whoever asks, and told to systemd.

GET /live     200 as long as the event loop turns
GET /ready    200, or 503 with a line for each reason why not
GET /metrics  and whatever other pages somebody has (the wing `metrics`)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

from chancy_worker import forks
from chancy_worker.connection.link import Link

from .lease import Lease

log = logging.getLogger("chancy.worker")

LONGEST_TURN = 30.0
"""Seconds after which a claim loop that has not turned is taken for stuck."""
_TO_ANSWER, _TO_BE_ANSWERED = 5.0, 2.0
_TO_BE_READ = 0.5
"""Seconds that the loop waits for a service manager that has much to read."""

Problems = Callable[[], Awaitable[Sequence[str]]]


class Page(NamedTuple):
    """An answer."""

    status: str
    kind: str
    """Its content type."""
    body: bytes


Pages: TypeAlias = Mapping[bytes, Callable[[], Awaitable[Page]]]
"""By path."""


class Rounds(Protocol):
    """The claimer."""

    @property
    def turned_at(self) -> float:
        """When its loop turned last, by `time.monotonic`."""


class Troubled(Protocol):
    """What may have a problem that it would be no help to start this worker anew for: wakeups, executors."""

    @property
    def problem(self) -> str | None:
        """What it is, if it has one."""


class Health:
    """What is wrong with a worker, in sentences."""

    def __init__(self, link: Link, lease: Lease, rounds: Rounds, others: Iterable[Troubled]) -> None:
        """`link` is that of the rounds."""
        self._link = link
        self._lease = lease
        self._rounds = rounds
        self._others = list(others)

    async def problems(self) -> list[str]:
        """Why it is not ready, if so."""
        now = time.monotonic()
        found = []
        if self._link.conn is None:
            found.append("the database cannot be reached")
        if (silent := now - self._lease.extended_at) > self._lease.timing.lease:
            found.append(f"the lease is over: it was extended {silent:.0f} s ago")
        if (stuck := now - self._rounds.turned_at) > LONGEST_TURN:
            found.append(f"the claim loop has not turned for {stuck:.0f} s")
        return found + [problem for each in self._others if (problem := each.problem) is not None]

    def hangs(self) -> list[str]:
        """Why it will not come to itself again, if so. An outage is no reason: its jobs go on running."""
        stuck = time.monotonic() - max(self._link.connected_at, self._rounds.turned_at)
        if self._link.conn is None or stuck <= LONGEST_TURN:
            return []
        return [f"the claim loop has not turned for {stuck:.0f} s, though it has its connection"]


@contextlib.asynccontextmanager
async def answering(
    host: str, port: int | None, problems: Problems, pages: Pages = MappingProxyType({})
) -> AsyncIterator[None]:
    """Answer on this port while the block lasts; None answers nobody. Raises `ValueError` where the port is taken."""
    if port is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TO_ANSWER):
                _, wish, *_ = (await reader.readline()).split(b" ")
                path = wish.partition(b"?")[0]
                if (page := pages.get(path)) is not None:
                    writer.write(_response(await page()))
                else:
                    writer.write(_response(_health(path, await problems() if path == b"/ready" else ())))
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass  # one that connects and says nothing, or nothing of HTTP, has seen that somebody listens
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, host, port)
    except OSError as error:
        raise ValueError(f"--health-port {port} cannot be had: {error.strerror}; choose another") from None
    async with server:
        with forks.keeping(server.sockets):  # the port would be taken for as long as a fork of a job lives
            yield


def _health(path: bytes, found: Sequence[str]) -> Page:
    status = "404 Not Found" if path not in (b"/live", b"/ready") else "503 Service Unavailable" if found else "200 OK"
    return Page(status, "text/plain; charset=utf-8", "".join(f"{line}\n" for line in found or [status]).encode())


def _response(page: Page) -> bytes:
    head = f"HTTP/1.1 {page.status}\r\nContent-Type: {page.kind}\r\nContent-Length: {len(page.body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + page.body


async def ask(port: int) -> Sequence[str]:
    """The problems of the worker that answers on this port of this machine."""
    if (answer := await fetch(port, "/ready", _TO_BE_ANSWERED)) is None:
        return ["does not answer"]
    is_ready, body = answer
    return [] if is_ready else body.decode().splitlines()


async def fetch(port: int, path: str, seconds: float) -> tuple[bool, bytes] | None:
    """Whether the answer of this port of this machine is 200, and its body; None if none comes in so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
    except (OSError, TimeoutError):
        return None
    return b" 200 " in head.partition(b"\r\n")[0], body


def tell_service_manager(state: str) -> None:
    """Say `READY=1` and the like to systemd, where NOTIFY_SOCKET is set (sd_notify's protocol)."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.settimeout(_TO_BE_READ)
            line.connect("\0" + address[1:] if address.startswith("@") else address)
            line.sendall(state.encode())


@contextlib.asynccontextmanager
async def telling_the_service_manager(
    begun: asyncio.Event, stopping: asyncio.Event, problems: Problems
) -> AsyncIterator[None]:
    """Tell systemd of the worker's life while the block lasts, as soon as each of the two is set."""
    words = _tell_after(begun, "READY=1"), _tell_after(stopping, "STOPPING=1"), _pet_after(begun, problems)
    telling = [asyncio.create_task(word) for word in words]
    try:
        yield
    finally:
        for task in telling:
            task.cancel()


async def _tell_after(event: asyncio.Event, state: str) -> None:
    await event.wait()
    tell_service_manager(state)


async def _pet_after(begun: asyncio.Event, problems: Problems) -> None:
    await begun.wait()
    await pet_service_watchdog(problems)


def seconds_of_watchdog() -> float:
    """How often whoever watches over this process wants to hear of it; 0 where nobody does."""
    return int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6


async def pet_service_watchdog(problems: Problems) -> None:
    """Say `WATCHDOG=1` for ever, twice as often as WATCHDOG_USEC asks for, as long as nothing is wrong."""
    every = seconds_of_watchdog() / 2
    while True:
        if every and not await problems():
            tell_service_manager("WATCHDOG=1")
        await asyncio.sleep(every or 3600)
