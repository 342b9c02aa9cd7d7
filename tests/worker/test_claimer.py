"""When the claimer plays a round, with no database behind it."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

from chancy import Queue
from chancy_worker import Timing, claimer
from chancy_worker.claims import Answer
from chancy_worker.refusals import Refusals
from chancy_worker.slots import Room


async def test_a_rest_that_ends_between_the_decision_and_the_sleep_is_not_slept_through(monkeypatch):
    played = asyncio.Event()

    async def send(statement):
        played.set()
        return Answer(0, True, None, [], [], {})

    mine = claimer.Claimer(
        link=SimpleNamespace(conn=object(), send=send),
        lease=lambda: 1,
        queues=[Queue()],
        timing=Timing(look=60),
        idle=lambda: None,
        busy=lambda: None,
        hearing=lambda conn: contextlib.nullcontext(),
        room=lambda: Room(None, (), {}),
        knows=lambda task: True,
        strange=lambda job: None,
        refusals=Refusals("w:1", ["default"], {}),
        start=lambda job: None,
        settled=lambda verdict, fate: None,
        left_batch=lambda batch: None,
    )
    clock = iter(
        range(1, 1000)
    )  # each look at it takes a second: one before the end of the rest decides, and the next is after it
    monkeypatch.setattr(claimer, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(mine, "_rests_until", 2.5)
    work = asyncio.create_task(mine.work())
    try:
        await asyncio.wait_for(played.wait(), 10)
    finally:
        work.cancel()
