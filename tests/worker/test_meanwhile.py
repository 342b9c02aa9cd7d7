"""What the rounds put off is done as soon as they wait, before anybody else has a turn."""

from __future__ import annotations

import asyncio

import pytest

from chancy_worker.rounds.meanwhile import before_each_wait

pytestmark = pytest.mark.any_postgres


async def test_nobody_has_a_turn_between_the_last_step_and_what_is_put_off():
    seen = []

    async def work():
        seen.append("first")
        asyncio.get_running_loop().call_soon(seen.append, "somebody else")
        await asyncio.sleep(0)
        seen.append("second")
        await asyncio.sleep(0.001)
        return 7

    assert await before_each_wait(work(), lambda: seen.append("put off")) == 7
    assert seen == ["first", "put off", "somebody else", "second", "put off", "put off"]


async def test_an_error_comes_after_what_is_put_off():
    seen = []

    async def work():
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        await before_each_wait(work(), lambda: seen.append("put off"))
    assert seen == ["put off"]


async def test_who_is_cancelled_while_it_waits_hears_of_it_and_may_go_on():
    seen, waits = [], asyncio.Event()

    async def work():
        try:
            waits.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
        await asyncio.sleep(0)
        return "and goes on"

    async def attended():
        return await before_each_wait(work(), lambda: seen.append("put off"))

    task = asyncio.create_task(attended())
    await waits.wait()
    task.cancel()
    assert await task == "and goes on"
    assert seen == ["put off", "cancelled", "put off", "put off"]


async def test_an_error_of_what_is_put_off_ends_the_work():
    seen = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")

    def fails():
        raise ValueError("it cannot begin")

    with pytest.raises(ValueError, match="it cannot begin"):
        await before_each_wait(work(), fails)
    assert seen == ["ended"]
