"""When the claimer plays a round, with no database behind it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from chancy import Queue
from chancy_worker import Timing, claimer
from chancy_worker.claims import Answer
from chancy_worker.recovery import Recovery
from chancy_worker.refusals import Refusals
from chancy_worker.room import Room


async def wait(told):
    await told.wait()


def claimer_with(send, **more):
    """One that has nothing but this way to the database."""
    return claimer.Claimer(
        **{
            "link": SimpleNamespace(conn=object(), send=send, wait=wait, recovery=Recovery("claim")),
            "lease": lambda: 1,
            "queues": [Queue()],
            "timing": Timing(look=60),
            "idle": lambda queues: None,
            "busy": lambda queues: None,
            "room": lambda: Room(),
            "knows": lambda task: True,
            "strange": lambda job: None,
            "refusals": Refusals("w:1", ["default"], {}),
            "start": lambda job: None,
            "settled": lambda verdict, fate: None,
            "left_batch": lambda batch: None,
        }
        | more
    )


async def test_a_rest_that_ends_between_the_decision_and_the_sleep_is_not_slept_through(monkeypatch):
    played = asyncio.Event()

    async def send(statement):
        played.set()
        return Answer(0, True, [], {}, [], {})

    mine = claimer_with(send)
    # Each look at the clock takes a second: the third one decides, and the next is after the rest.
    clock = iter(range(1, 1000))
    monkeypatch.setattr(claimer, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    mine._appetite.ask(0.0, frozenset())
    mine._appetite.rest(["default"], until=3.5)
    work = asyncio.create_task(mine.work())
    try:
        await asyncio.wait_for(played.wait(), 10)
    finally:
        work.cancel()
