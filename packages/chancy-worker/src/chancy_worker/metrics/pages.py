"""`/metrics` for Prometheus, and `/counts`, the same numbers as JSON, which a parent asks of its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from chancy_worker.connection.threads import in_own_thread
from chancy_worker.life.health import Page, Pages, fetch
from chancy_worker.tally.tally import Tally

from . import prometheus
from .numbers import Counted, Numbers, counted, decode, encode

TO_BE_COUNTED = 3.0
"""Seconds that a worker gets to answer its parent: it may wait for the database."""
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


def pages_of(numbers: Callable[[], Awaitable[Numbers]]) -> Pages:
    """What one worker answers that has these numbers."""

    async def counts() -> Page:
        return Page("200 OK", JSON, encode(await numbers()))

    async def metrics() -> Page:
        return await _metrics({"": await numbers()})

    return {b"/counts": counts, b"/metrics": metrics}


def pages_for(ports: Sequence[int], tally: Tally) -> Pages:
    """What a parent answers for its workers, which answer on these ports: 1, 2, 3 … are their names. What it has taken
    back from the dead it tells of itself.
    """

    async def metrics() -> Page:
        answers = await asyncio.gather(*(fetch(port, "/counts", TO_BE_COUNTED) for port in ports))
        workers: Mapping[str, Numbers | None] = {
            str(number): None if answer is None else _read(answer) for number, answer in enumerate(answers, 1)
        }
        return await _metrics(workers, counted(tally.totals))

    return {b"/metrics": metrics}


def _read(answer: tuple[bool, bytes]) -> Numbers | None:
    is_there, body = answer
    try:
        return decode(body) if is_there else None
    except msgspec.DecodeError:
        return None


async def _metrics(workers: Mapping[str, Numbers | None], of_parent: Sequence[Counted] = ()) -> Page:
    """In a thread of its own: to import the library, and to write a thousand tasks, would hold up the loop."""
    if not await in_own_thread(prometheus.is_there):
        return Page("501 Not Implemented", TEXT, prometheus.MISSING.encode())
    kind, text = await in_own_thread(prometheus.page, workers, of_parent)
    return Page("200 OK", kind, text)
