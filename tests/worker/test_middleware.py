"""What a middleware may do, and what it is told when it has done something else."""

from __future__ import annotations

import asyncio
import contextlib
import inspect

import pytest
import surround_tasks
import worker_tasks
from worker_help import FAST, at_work, eventually

import chancy
from chancy import Limit, Queue, State, task
from chancy_worker import Completion, Worker, WorkerConfig

pytestmark = pytest.mark.any_postgres

SLOTS = 3
calls = []


@contextlib.asynccontextmanager
async def working(site, *known, middleware):
    app = site.app(queues=[Queue("default", SLOTS)], middleware=middleware)
    worker = Worker(app, WorkerConfig(timing=FAST, grace=1))
    worker._tasks = {each.name: each for each in (*known, worker_tasks.pass_gate)}
    async with at_work(worker):
        yield worker


async def all_finished(site):
    await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0)


async def pay() -> str:
    calls.append("paid")
    return "receipt"


def pay_in_thread() -> str:
    calls.append("paid")
    return "receipt"


async def pay_slowly() -> None:
    await asyncio.sleep(60)


def verdict(**fields):
    async def middleware(job, proceed):
        await proceed()
        made = {"id": job.id, "fence": job.fence, "state": State.SUCCEEDED, "result": b'"made up"'}
        return Completion(**made | {name: value(job) if callable(value) else value for name, value in fields.items()})

    return middleware


class OfAnotherKind(Completion, frozen=True):
    pass


async def forgets(job, proceed):
    await proceed()


async def returns_the_result(job, proceed):
    return (await proceed()).result


async def does_not_wait(job, proceed):
    return proceed()


def raises(error, *, first=False):
    async def middleware(job, proceed):
        if not first:
            await proceed()
        raise error

    return middleware


async def never(job, proceed):
    return Completion(job.id, job.fence, State.SUCCEEDED, b'"made up"')


async def twice(job, proceed):
    await proceed()
    return await proceed()


async def in_a_task(job, proceed):
    return await asyncio.create_task(proceed())


async def leaves_it_alone(job, proceed):
    await asyncio.create_task(proceed())
    return Completion(job.id, job.fence, State.DISCARDED)


async def has_a_time_of_its_own(job, proceed):
    async with asyncio.timeout(0.05):
        return await proceed()


async def tries_it_again_later(job, proceed):
    verdict = await proceed()
    return Completion(job.id, job.fence, State.READY, refund=True) if len(calls) == 1 else verdict


WAYS = {
    "forgets": (forgets, "failed InvalidVerdict", 1),
    "returns the result": (returns_the_result, "failed InvalidVerdict", 1),
    "does not wait": (does_not_wait, "failed InvalidVerdict", 0),
    "of another job": (verdict(id=lambda job: job.id + 1), "failed InvalidVerdict", 1),
    "of another claim": (verdict(fence=lambda job: job.fence - 1), "failed InvalidVerdict", 1),
    "no state": (verdict(state="done"), "failed InvalidVerdict", 1),
    "text for a state": (verdict(state="succeeded"), "failed InvalidVerdict", 1),
    "still running": (verdict(state=State.RUNNING), "failed InvalidVerdict", 1),
    "text for a result": (verdict(result="text"), "failed InvalidVerdict", 1),
    "number for a delay": (verdict(state=State.READY, refund=True, delay=5), "failed InvalidVerdict", 1),
    "no attempt left": (verdict(state=State.READY), "failed InvalidVerdict", 1),
    "a kind of its own": (
        lambda job, proceed: OfAnotherKind(job.id, job.fence, State.SUCCEEDED), "failed InvalidVerdict", 0,
    ),
    "no JSON": (verdict(result=b"\xff{"), "failed InvalidResult", 1),
    "raises first": (raises(ValueError(), first=True), "failed ValueError", 0),
    "raises": (raises(ValueError()), "failed ValueError", 1),
    "exits first": (raises(SystemExit(2), first=True), "failed SystemExit", 0),
    "exits": (raises(SystemExit(2)), "failed SystemExit", 1),
    "interrupts": (raises(KeyboardInterrupt()), "failed KeyboardInterrupt", 1),
    "is cancelled": (raises(asyncio.CancelledError()), "failed CancelledError", 1),
    "is closed": (raises(GeneratorExit()), "failed GeneratorExit", 1),
    "stops": (raises(StopIteration()), "failed RuntimeError", 1),
    "never": (never, "succeeded", 0),
    "twice": (twice, "succeeded", 2),
    "in a task": (in_a_task, "succeeded", 1),
    "leaves it alone": (leaves_it_alone, "discarded", 1),
    "tries it again later": (tries_it_again_later, "succeeded", 2),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("function", [pay, pay_in_thread])
async def test_whatever_a_middleware_does_is_one_attempt_and_costs_no_slot(site, function):
    known = {how: task(name=f"ways.{function.__name__}.{how}", max_attempts=1)(function) for how in WAYS}

    async def around(job, proceed):
        how = job.task.rpartition(".")[2]
        given = WAYS[how][0](job, proceed) if how in WAYS else proceed()
        return await given if inspect.isawaitable(given) else given

    wrong = []
    async with working(site, *known.values(), middleware=[around]) as worker:
        for how, (_, expected, times) in WAYS.items():
            calls.clear()
            (job,) = site.submit(known[how].bind())
            row = await eventually(lambda job=job: (row := site.row(job)).finished_at and row)
            ended = f"{row.state} {row.errors[-1].kind if row.errors else ''}".strip()
            if (ended, len(calls), row.attempt) != (expected, times, 1):
                wrong.append(f"{how}: {ended}, called {len(calls)} times, attempt {row.attempt}, {row.errors}")
        assert wrong == []
        assert worker.busy == 0
        site.submit(*[worker_tasks.pass_gate.bind("all") for _ in range(SLOTS)])
        await eventually(lambda: worker.busy == SLOTS)
        worker_tasks.gates["all"].set()
        await all_finished(site)


async def test_a_middleware_that_forgets_its_return_is_named_and_what_has_succeeded_does_not_run_again(site):
    calls.clear()
    paying, slow = task(name="named.pay", max_attempts=3)(pay), task(name="named.slow", max_attempts=1)(pay_slowly)
    async with working(site, paying, middleware=[in_a_task, forgets, in_a_task]):
        (job,) = site.submit(paying.bind())
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.attempt, len(calls)) == (State.FAILED, 1, 1)
    assert "test_middleware.forgets returned no verdict" in row.errors[0].message
    assert "`return` missing" in row.errors[0].message
    async with working(site, slow, middleware=[has_a_time_of_its_own]):
        (job,) = site.submit(slow.bind())
        row = await eventually(lambda: (row := site.row(job)).finished_at and row)
    assert (row.state, row.errors[0].kind) == (State.FAILED, "TimeoutError")


async def test_a_middleware_need_not_be_a_coroutine_function(site):
    def passes_on(job, proceed):
        return proceed()

    def returns_nothing(job, proceed):
        return None

    calls.clear()
    paying = task(name="plain.pay", max_attempts=1)(pay)
    for middleware, state in ((passes_on, State.SUCCEEDED), (returns_nothing, State.FAILED)):
        async with working(site, paying, middleware=[middleware]):
            (job,) = site.submit(paying.bind())
            row = await eventually(lambda job=job: (row := site.row(job)).finished_at and row)
        assert row.state is state
    assert "returns_nothing returned no verdict" in row.errors[0].message


async def test_the_time_limit_of_an_attempt_that_proceeds_twice_hits_nobody_else(site):
    limited = task(name="limited.pay", max_attempts=1, limits=[Limit.time(0.3)])(pay)

    async def around(job, proceed):
        return await (twice if job.task == limited.name else in_a_task)(job, proceed)

    async with working(site, limited, middleware=[around]):
        # They begin one after another, in one asyncio task, and the second stays there.
        first, second = site.submit(limited.bind(), worker_tasks.pass_gate.bind("later"))
        await eventually(lambda: site.row(first).state is State.SUCCEEDED)
        await asyncio.sleep(0.6)  # beyond the limit
        worker_tasks.gates["later"].set()
        row = await eventually(lambda: (row := site.row(second)).finished_at and row)
    assert (row.state, row.attempt) == (State.SUCCEEDED, 1)


# What a middleware says of a trace, and what it is told of the end.

TRACE = "00-cc7590a49c4de73998e69f59d8b52640-9abdde883dce378c-01"


async def traces(job, proceed):
    job.trace = f"{TRACE}/{job.attempt}"
    return await proceed()


FAILING = [*surround_tasks.FAILING_TWICE, surround_tasks.late_twice]


async def test_what_a_middleware_says_of_a_trace_stays_with_the_error_and_is_there_where_the_function_runs(site):
    async with working(site, *FAILING, middleware=[traces]):
        jobs = site.submit(*[each.bind() for each in FAILING])
        await all_finished(site)
    for job in jobs:
        row = site.row(job)
        assert [error.trace for error in row.errors] == [f"{TRACE}/1", f"{TRACE}/2"], job.task
    for job in jobs[:3]:
        first, second = site.row(job).errors
        assert (first.message, second.message) == (f"{TRACE}/1 after nothing", f"{TRACE}/2 after {TRACE}/1")


async def test_without_a_word_of_it_there_is_no_trace_and_what_is_no_text_is_one_failed_attempt(site):
    async def wrong(job, proceed):
        job.trace = 7

    async with working(site, surround_tasks.fail_twice, middleware=[]):
        (job,) = site.submit(surround_tasks.fail_twice.bind())
        await all_finished(site)
    assert [error.trace for error in site.row(job).errors] == ["", ""]
    async with working(site, surround_tasks.fail_twice, middleware=[wrong]):
        (job,) = site.submit(surround_tasks.fail_twice.using(max_attempts=1).bind())
        await all_finished(site)
    assert site.row(job).errors[0].kind == "InvalidOption"


async def test_a_middleware_is_told_why_an_attempt_is_stopped(site):
    seen = {}

    async def told(job, proceed):
        try:
            return await proceed()
        except asyncio.CancelledError:
            seen[job.task] = job.stopped, job.cancelled
            raise

    waiting, forever = task(name="middleware.wait")(pay_slowly), task(name="middleware.forever")(pay_slowly)
    async with working(site, surround_tasks.late_twice, waiting, forever, middleware=[told]):
        late, cancelled, interrupted = site.submit(
            surround_tasks.late_twice.using(max_attempts=1).bind(), waiting.bind(), forever.bind()
        )
        await eventually(lambda: site.row(late).finished_at)
        await eventually(lambda: site.count("running") == 2)
        chancy.cancel(site.conn, cancelled.id, schema=site.schema)
        await eventually(lambda: site.row(cancelled).finished_at)
    assert seen == {
        "surround_tasks.late_twice": ("its time limit is over", False),
        "middleware.wait": ("it was cancelled", True),
        "middleware.forever": ("its worker stops", False),
    }
    assert site.row(interrupted).state is State.READY
