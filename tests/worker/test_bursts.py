"""Jobs that share an asyncio task must not be able to tell."""

import asyncio
import time
from contextvars import ContextVar

import pytest

from chancy_worker import bursts
from chancy_worker.bursts import Bursts

note = ContextVar("note", default="clean")


class Job:
    def __init__(self, work):
        self.work, self.carrier, self.over = work, None, False


class Site:
    """Bursts with a list of what has ended."""

    def __init__(self):
        self.ended = []
        self.bursts = Bursts(lambda job: job.work(), lambda job, result: self.ended.append((job, result)))

    def add(self, *works):
        jobs = [Job(work) for work in works]
        for job in jobs:
            self.bursts.add(job)
        return jobs

    async def results(self, count):
        async with asyncio.timeout(5):
            while len(self.ended) < count:
                await asyncio.sleep(0)
        return [result for _, result in self.ended]


@pytest.fixture
def site():
    return Site()


def returning(value):
    async def work():
        return value

    return work


async def test_a_hundred_jobs_that_never_wait_share_one_task(site):
    jobs = site.add(*[returning(number) for number in range(100)])
    assert await site.results(100) == list(range(100))
    assert len({job.carrier for job in jobs}) == 1


async def test_a_job_that_waits_holds_up_none_behind_it(site):
    gate = asyncio.Event()

    async def waits():
        await gate.wait()
        return "waited"

    slow, *quick = site.add(waits, returning(1), returning(2))
    assert await site.results(2) == [1, 2]
    assert slow.carrier is not quick[0].carrier
    gate.set()
    assert await site.results(3) == [1, 2, "waited"]


async def test_what_a_job_sets_in_its_context_is_not_there_for_the_next(site):
    async def soils(wait):
        seen = note.get()
        note.set("soiled")
        if wait:
            await asyncio.sleep(0.01)
        return seen, note.get()

    site.add(lambda: soils(False), lambda: soils(True), lambda: soils(True), lambda: soils(False))
    assert await site.results(4) == [("clean", "soiled")] * 4
    assert note.get() == "clean"


async def test_a_timeout_inside_a_job_ends_that_job_alone(site):
    async def overdue():
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(10)
        except TimeoutError:
            return "timed out"

    site.add(overdue, returning("quick"), overdue)
    assert sorted(await site.results(3)) == ["quick", "timed out", "timed out"]


async def test_a_job_that_cancels_its_own_task_and_returns_spoils_no_other(site):
    async def cancels_itself():
        asyncio.current_task().cancel()
        return "returned"

    async def awaits():
        await asyncio.sleep(0.01)
        return "awaited"

    site.add(cancels_itself, awaits, awaits, returning("quick"))
    assert sorted(await site.results(4)) == ["awaited", "awaited", "quick", "returned"]


async def test_a_cancelled_job_ends_without_a_result_and_the_others_go_on(site):
    async def forever():
        await asyncio.Event().wait()

    first, second = site.add(forever, forever)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.carrier.cancel()
    assert await site.results(1) == [None]
    assert [job for job, _ in site.ended] == [first]
    second.carrier.cancel()
    await site.results(2)


async def test_a_job_may_swallow_its_cancellation_and_what_it_returns_counts(site):
    async def stubborn():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "all the same"

    (job,) = site.add(stubborn)
    await asyncio.sleep(0)
    job.carrier.cancel()
    assert await site.results(1) == ["all the same"]


async def test_a_job_that_is_over_before_it_began_never_begins(site):
    first, second = site.add(returning(1), returning(2))
    first.over = True
    assert await site.results(1) == [2]
    assert first.carrier is None
    assert second.carrier is not None


async def test_the_loop_gets_a_turn_within_a_burst(site, monkeypatch):
    monkeypatch.setattr(bursts, "TURN_SECONDS", 10)
    site.add(*[returning(number) for number in range(3 * bursts.TURN_JOBS)])
    seen = []
    while len(site.ended) < 3 * bursts.TURN_JOBS:
        await asyncio.sleep(0)
        seen.append(len(site.ended))
    assert bursts.TURN_JOBS in seen


async def test_jobs_that_hold_the_loop_for_long_give_it_up_between_them(site):
    async def holds():
        time.sleep(bursts.TURN_SECONDS * 1.2)

    site.add(holds, holds, holds)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(site.ended) < 3
    await site.results(3)


async def test_an_error_that_nobody_foresaw_does_not_strand_the_others(site):
    class Odd(BaseException):
        pass

    async def odd():
        raise Odd

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    site.add(odd, returning("next"))
    assert await site.results(1) == ["next"]
