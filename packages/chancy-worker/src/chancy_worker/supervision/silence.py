"""What systemd does for one worker, the parent of several does for each: it hears whether the worker is alive, and
takes one that says nothing any more for one that hangs.

A worker does not know to whom it tells its life (`life.health`): to a service manager, or to its parent.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from types import TracebackType
from typing import Self


class Ear:
    """Hears what one worker says. Linux alone: where there is systemd."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._name = f"chancy-{secrets.token_hex(16)}"

    def __enter__(self) -> Self:
        self._socket.bind(f"\0{self._name}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def env(self) -> dict[str, str]:
        """What the worker is told of it."""
        return {"NOTIFY_SOCKET": f"@{self._name}", "WATCHDOG_USEC": f"{self._seconds * 1e6:.0f}"}

    async def silence(self) -> None:
        """Returns when a worker that has begun, and does not stop, has been silent for so long."""
        while await self._word() != b"READY=1":
            pass
        try:
            while True:
                async with asyncio.timeout(self._seconds):
                    word = await self._word()
                if word == b"STOPPING=1":  # from here on its stages have their times
                    await asyncio.Event().wait()
        except TimeoutError:
            return

    async def _word(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._socket, 64)
