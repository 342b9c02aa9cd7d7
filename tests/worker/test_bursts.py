"""Jobs that share an asyncio task must not be able to tell."""

import asyncio
import sys
import threading
import time
from contextvars import ContextVar

import pytest

from chancy_worker.slots import bursts
from chancy_worker.slots.bursts import Bursts

pytestmark = pytest.mark.any_postgres

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


async def test_a_job_that_cancels_its_own_task_and_takes_that_back_spoils_no_other(site):
    async def changes_its_mind():
        asyncio.current_task().cancel()
        asyncio.current_task().uncancel()
        return "returned"

    async def awaits():
        await asyncio.sleep(0.01)
        return "awaited"

    site.add(changes_its_mind, awaits, changes_its_mind, awaits)
    assert sorted(await site.results(4)) == ["awaited", "awaited", "returned", "returned"]


@pytest.mark.parametrize("how", ["by a timer", "by a thread", "by a list"])
async def test_a_job_that_leaves_its_task_to_be_cancelled_later_spoils_no_other(site, how):
    loop, kept, cancelled, over = asyncio.get_running_loop(), [], asyncio.Event(), asyncio.Event()

    async def leaves_its_task():
        task = asyncio.current_task()

        def cancel():
            task.cancel()
            cancelled.set()

        if how == "by a timer":
            loop.call_later(0.02, cancel)
        elif how == "by a thread":
            threading.Timer(0.02, loop.call_soon_threadsafe, [cancel]).start()
        else:
            kept.append(cancel)
        return "left"

    async def awaits():
        await over.wait()
        return "awaited"

    _, *others = site.add(leaves_its_task, awaits, awaits)
    await site.results(1)
    await asyncio.sleep(0.01)
    for cancel in kept:
        cancel()
    await cancelled.wait()
    await asyncio.sleep(0)
    over.set()
    assert await site.results(3) == ["left", "awaited", "awaited"]
    assert len({job.carrier for job in others}) == 2


async def test_no_factory_of_tasks_is_asked_for_what_carries_jobs(site):
    def refuse(loop, coroutine, **more):
        coroutine.close()
        raise AssertionError

    asyncio.get_running_loop().set_task_factory(refuse)
    try:
        site.add(returning(1), returning(2))
        while len(site.ended) < 2:
            await asyncio.sleep(0)
    finally:
        asyncio.get_running_loop().set_task_factory(None)
    assert [result for _, result in site.ended] == [1, 2]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin eagerly from Python 3.12 on")
async def test_where_all_tasks_begin_eagerly_jobs_begin_as_ever(site):
    async def awaits():
        await asyncio.sleep(0.01)
        return "awaited"

    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    try:
        site.add(returning(1), awaits, returning(2), awaits)
        assert await site.results(4) == [1, 2, "awaited", "awaited"]
        site.add(returning(3))
        assert (await site.results(5))[-1] == 3
    finally:
        asyncio.get_running_loop().set_task_factory(None)


@pytest.mark.parametrize("where", ["before the first step", "in the first step", "after a wait", "at its end"])
async def test_what_is_raised_where_nothing_should_be_is_told_and_the_others_go_on(where):
    class Odd(BaseException):
        pass

    ended, failed = [], []

    def perform(job):
        if job.work is None and where == "before the first step":
            raise Odd
        return odd() if job.work is None else job.work()

    async def odd():
        if where == "after a wait":
            await asyncio.sleep(0)
        if where != "at its end":
            raise Odd

    def end(job, result):
        if job.work is None:
            raise Odd
        ended.append(result)

    bursts = Bursts(perform, end, lambda job, error: failed.append((job, type(error))))
    jobs = [Job(None), Job(returning("next")), Job(None), Job(returning("last"))]
    for job in jobs:
        bursts.add(job)
    async with asyncio.timeout(5):
        while len(ended) + len(failed) < 4:
            await asyncio.sleep(0)
    assert ended == ["next", "last"]
    assert failed == [(jobs[0], Odd), (jobs[2], Odd)]


async def test_a_carrier_that_is_closed_with_its_loop_ends_no_job():
    ended, closed = [], []

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    bursts = Bursts(lambda job: job.work(), lambda job, result: ended.append(result))
    job = Job(waits)
    bursts.add(job)
    await asyncio.sleep(0.01)
    job.carrier.get_coro().close()
    assert (ended, closed) == ([], [True])
    job.carrier.cancel()


class Elsewhere(Site):
    """The same for jobs whose functions run in a thread or a process: all that they do here is to wait."""

    def __init__(self):
        super().__init__()
        self.failed = []
        self.bursts = Bursts(
            lambda job: job.work(),
            lambda job, result: self.ended.append((job, result)),
            lambda job, error: self.failed.append((job, error)),
            lambda job: True,
        )


def waiting(*futures, then=lambda: None):
    async def work():
        given = [await future for future in futures]
        return then() or given

    return work


async def test_all_that_run_elsewhere_are_ordered_in_one_turn_of_the_loop(monkeypatch):
    monkeypatch.setattr(bursts, "TURN_SECONDS", 10)
    site, loop = Elsewhere(), asyncio.get_running_loop()
    begun, answers = [], [loop.create_future() for _ in range(50)]

    def ordered(number):
        async def work():
            begun.append(number)
            return await answers[number]

        return work

    before = len(asyncio.all_tasks())
    site.add(*[ordered(number) for number in range(50)])
    await asyncio.sleep(0)
    assert begun == list(range(50))
    assert len(asyncio.all_tasks()) == before
    for number, answer in enumerate(answers):
        answer.set_result(number)
    assert await site.results(50) == list(range(50))


async def test_what_runs_elsewhere_may_wait_again_and_keeps_its_context():
    site, loop = Elsewhere(), asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    seen = []

    async def work():
        note.set("its own")
        await first
        seen.append(note.get())
        await second
        seen.append(note.get())

    site.add(work)
    await asyncio.sleep(0)
    first.set_result(None)
    await asyncio.sleep(0.01)
    assert site.ended == []
    second.set_result(None)
    await site.results(1)
    assert (seen, note.get()) == (["its own", "its own"], "clean")


async def test_one_that_is_cancelled_elsewhere_ends_alone_also_in_the_turn_in_which_it_began():
    site, loop = Elsewhere(), asyncio.get_running_loop()
    tidied = []

    async def work():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            tidied.append(1)
            raise

    answer = loop.create_future()
    first, second, third = site.add(work, work, waiting(answer))
    loop.call_soon(lambda: first.carrier.cancel())  # behind the burst's own step
    await asyncio.sleep(0.01)
    second.carrier.cancel()
    assert await site.results(2) == [None, None]
    assert tidied == [1, 1]
    answer.set_result(3)
    assert [job for job, _ in site.ended] == [first, second]
    await site.results(3)
    assert site.ended[-1] == (third, [3])


async def test_a_verdict_that_is_there_counts_although_it_is_cancelled_then():
    site, loop = Elsewhere(), asyncio.get_running_loop()
    answer = loop.create_future()
    (job,) = site.add(waiting(answer))
    await asyncio.sleep(0)
    answer.set_result("done")
    job.carrier.cancel()
    assert await site.results(1) == [["done"]]


async def test_what_is_raised_elsewhere_where_nothing_should_be_is_told_and_costs_no_other():
    site, loop = Elsewhere(), asyncio.get_running_loop()
    answers = [loop.create_future() for _ in range(3)]

    def breaks():
        raise ValueError("of our own")

    broken, *_ = site.add(waiting(answers[0], then=breaks), waiting(answers[1]), waiting(answers[2]))
    await asyncio.sleep(0)
    for answer in answers:
        answer.set_result(1)
    assert await site.results(2) == [[1], [1]]
    assert [(job, str(error)) for job, error in site.failed] == [(broken, "of our own")]
