"""Where a connection string leads to, found out beside the event loop.

Left to themselves, psycopg looks names of hosts up in the loop's default executor, which handlers may have filled, and
libpq everything that is behind a `service`, on the loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_attempts, make_conninfo

from .threads import in_own_thread

TO_RESOLVE_SECONDS = 10.0
"""That finding the addresses of all hosts may take."""


async def addresses(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """All that may be tried, in psycopg's order, each with what else is wanted. Raises psycopg's error."""
    place = f"service {name!r}" if (name := _service(wanted)) else repr(wanted.get("host"))
    try:
        async with asyncio.timeout(TO_RESOLVE_SECONDS):
            return await in_own_thread(_look_up, wanted)
    except TimeoutError:
        raise psycopg.OperationalError(
            f"the address of {place} was not found within {TO_RESOLVE_SECONDS:.0f} s"
        ) from None
    except (RuntimeError, ValueError) as error:  # no thread is to be had; what is no name of a host
        raise psycopg.OperationalError(f"the address of {place} cannot be looked up: {error}") from error


async def conninfo_of(source: str | Callable[[], str]) -> str:
    """The connection string, of which a function is asked that may take its time. Raises psycopg's error for what the
    function raises: it is asked again like a server that does not answer.
    """
    if isinstance(source, str):
        return source
    try:
        async with asyncio.timeout(TO_RESOLVE_SECONDS):
            return await in_own_thread(source)
    except TimeoutError:
        raise psycopg.OperationalError(
            f"the function given as dsn took longer than {TO_RESOLVE_SECONDS:.0f} s"
        ) from None
    except Exception as error:
        raise psycopg.OperationalError(
            f"the function given as dsn has raised {type(error).__name__}: {error}"
        ) from error


def _service(wanted: dict[str, Any]) -> str | None:
    return wanted.get("service") or os.environ.get("PGSERVICE")


def _look_up(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    return conninfo_attempts(_in_full(wanted) if _service(wanted) else wanted)


def _in_full(wanted: dict[str, Any]) -> dict[str, Any]:
    """With what the service says that nobody has said before. Where its file lies, and what is in it, libpq knows."""
    said = _understood(wanted, "sslmode") | _understood(wanted, "channel_binding")
    return {name: value for name, value in (said | wanted).items() if name not in ("service", "servicefile")}


def _understood(wanted: dict[str, Any], but: str) -> dict[str, Any]:
    """All that libpq takes it for, but for one word: that gets a value which is refused before a host is looked for."""
    conn = pq.PGconn.connect_start(make_conninfo("", **{**wanted, but: "?"}).encode())
    try:
        said = {option.keyword.decode(): option.val.decode() for option in conn.info if option.val is not None}
        if said.pop(but, None) != "?":  # it has not come so far
            raise psycopg.OperationalError(conn.error_message.decode(errors="replace").strip())
        return said
    finally:
        conn.finish()
