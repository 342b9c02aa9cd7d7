"""What an app puts around each function, in the place where that runs."""

from __future__ import annotations

import contextlib
import os
import threading

import msgspec
import psycopg
import pytest
import surround_tasks as tasks
import worker_tasks
from worker_help import FAST, at_work, eventually

import chancy
from chancy import InvalidOption, Queue, State
from chancy_testing import drain, eager
from chancy_worker import Worker, WorkerConfig

pytestmark = pytest.mark.any_postgres

SLOTS = 2


"""A lease that outlives a busy machine: nobody dies here."""


@contextlib.asynccontextmanager
async def working(site, surround, *more):
    app = site.app(queues=[Queue("default", SLOTS)], surround=surround)
    worker = Worker(app, WorkerConfig(timing=FAST, grace=1, threads=SLOTS, children=1))
    known = [value for value in vars(tasks).values() if isinstance(value, (chancy.Task, chancy.AsyncTask))]
    worker._tasks = {each.name: each for each in (*known, worker_tasks.pass_gate, *more)}
    async with at_work(worker):
        yield worker


async def over(site, job):
    return await eventually(lambda: (row := site.row(job)).finished_at and row, within=60)


async def gives_its_slots_back(site, worker):
    await eventually(lambda: worker.busy == 0)
    site.submit(*[worker_tasks.pass_gate.bind("all") for _ in range(SLOTS)])
    await eventually(lambda: worker.busy == SLOTS)
    worker_tasks.gates["all"].set()
    await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0)


def with_file(job, path):
    return msgspec.structs.replace(job, meta=msgspec.json.encode({"file": str(path)}))


@pytest.fixture(autouse=True)
def trail():
    tasks.trail.clear()
    return tasks.trail


async def test_it_is_around_the_function_in_the_thread_on_the_loop_and_in_the_child(site, trail):
    async with working(site, tasks.around):
        jobs = site.submit(*[task.bind() for task in tasks.TELLING])
        said = [msgspec.json.decode((await over(site, job)).result).split() for job in jobs]
    assert [each[:2] for each in said] == [[task.function.__name__, "1"] for task in tasks.TELLING]
    thread, loop, child, async_child = ((int(each[2]), int(each[3])) for each in said)
    assert thread[0] == loop[0] == os.getpid() != child[0] == async_child[0]
    assert loop[1] == threading.get_ident() != thread[1]
    assert trail.count("enter") == trail.count("exit") == 2  # those in this process
    assert tasks.inside.get() == "nothing"


@pytest.mark.parametrize(
    ("surround", "kind", "words"),
    [
        (tasks.raises_first, "ArithmeticError", "on enter"),
        (tasks.raises_last, "ArithmeticError", "on exit"),
        (tasks.never_yields, "RuntimeError", "didn't yield"),
        (tasks.yields_twice, "RuntimeError", "didn't stop"),
        (tasks.gives_nothing, "InvalidSurround", "surround_tasks.gives_nothing returned NoneType, which is no context"),
        (tasks.takes_nothing, "TypeError", "takes_nothing"),
        (tasks.is_async, "InvalidSurround", "surround_tasks.is_async returned coroutine, which is no context manager"),
        (tasks.is_async_manager, "InvalidSurround", "returned _AsyncGeneratorContextManager, which is no context"),
        (tasks.half, "InvalidSurround", "returned HalfManager, which is no context manager"),
        (tasks.leaves_the_program, "SystemExit", "3"),
        (tasks.leaves_the_program_last, "KeyboardInterrupt", ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_one_that_goes_wrong_is_one_failed_attempt_of_each_job_and_their_slots_are_free(
    site, surround, kind, words
):
    async with working(site, surround) as worker:
        jobs = site.submit(*[task.using(max_attempts=1).bind() for task in tasks.TELLING])
        for job in jobs:
            row = await over(site, job)
            (error,) = row.errors
            assert (row.state, row.attempt, error.kind) == (State.FAILED, 1, kind), job.task
            assert words in error.message
        assert worker.busy == 0


async def test_the_slots_of_jobs_whose_surround_goes_wrong_go_to_others(site, monkeypatch):
    wrong = iter([tasks.raises_first, tasks.raises_last, tasks.gives_nothing] * 2)

    def surround(job):
        return next(wrong)(job) if job.task.startswith("surround_tasks.") else contextlib.nullcontext()

    monkeypatch.setattr(tasks, "around", surround)
    surround.__module__, surround.__qualname__ = "surround_tasks", "around"
    async with working(site, surround) as worker:
        for job in site.submit(*[task.using(max_attempts=1).bind() for task in [tasks.tell, tasks.tell_async] * 3]):
            assert (await over(site, job)).state is State.FAILED
        await gives_its_slots_back(site, worker)


@pytest.mark.parametrize(
    ("surround", "how", "state", "kind"),
    [
        (tasks.around, "LookupError", State.FAILED, "LookupError"),
        (tasks.swallows, "LookupError", State.FAILED, "LookupError"),
        (tasks.swallows, "SystemExit", State.FAILED, "SystemExit"),
        (tasks.swallows, "Discard", State.DISCARDED, "Discard"),
        (tasks.translates, "LookupError", State.DISCARDED, "Discard"),
        (tasks.raises_last, "LookupError", State.FAILED, "ArithmeticError"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_what_the_function_raises_counts_unless_the_surround_raises_something_else(
    site, surround, how, state, kind
):
    async with working(site, surround):
        for job in site.submit(*[task.bind(how) for task in tasks.FAILING]):
            row = await over(site, job)
            assert (row.state, row.errors[-1].kind) == (state, kind), job.task


async def test_a_snooze_goes_through_it(site, trail):
    async with working(site, tasks.swallows):
        (job,) = site.submit(tasks.fail.bind("Snooze"))
        await eventually(lambda: site.row(job).state is State.SCHEDULED)
    assert site.row(job).attempt == 0


async def test_arguments_that_do_not_fit_are_found_before_it_is_entered(site, trail):
    async with working(site, tasks.around):
        (job,) = site.submit(
            msgspec.structs.replace(tasks.takes_a_number.bind(1), arguments=b'{"number":"x"}'),
        )
        await eventually(lambda: site.one("SELECT refused_at IS NOT NULL FROM {}.job WHERE id = %s", job.id))
    assert trail == []


# Stopped.


@pytest.mark.parametrize("surround", [tasks.around, tasks.raises_last, tasks.swallows], ids=lambda each: each.__name__)
async def test_an_attempt_that_is_stopped_is_whatever_its_surround_says_to_that(site, surround):
    async with working(site, surround):
        limited, cancelled = site.submit(tasks.wait_a_moment.bind(), tasks.wait.bind())
        row = await over(site, limited)
        assert (row.state, row.errors[-1].kind) == (State.FAILED, "TimeLimitExceeded")
        await eventually(lambda: "function" in tasks.trail)
        chancy.cancel(site.conn, cancelled.id, schema=site.schema)
        assert (await over(site, cancelled)).state is State.CANCELLED


@pytest.mark.parametrize("surround", [tasks.around, tasks.raises_last], ids=lambda each: each.__name__)
async def test_what_is_interrupted_by_the_end_of_its_worker_goes_back_unharmed(site, surround):
    async with working(site, surround):
        (job,) = site.submit(tasks.wait.bind())
        await eventually(lambda: "function" in tasks.trail)
    row = site.row(job)
    assert (row.state, row.attempt, row.errors) == (State.READY, 0, ())


async def test_one_that_hangs_in_a_child_is_killed_by_the_jobs_time_limit(site, tmp_path):
    async with working(site, tasks.hangs):
        (job,) = site.submit(with_file(tasks.hold.bind(), tmp_path / "trail"))
        row = await over(site, job)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "TimeLimitExceeded")
    assert (tmp_path / "trail").read_text() == "enter\n"


# Forks.


@pytest.mark.parametrize("task", [tasks.fork, tasks.fork_in_a_child], ids=lambda each: each.function.__name__)
async def test_a_process_that_the_function_forks_does_not_leave_it_a_second_time(site, tmp_path, task):
    async with working(site, tasks.in_a_file):
        (job,) = site.submit(with_file(task.bind(), tmp_path / "trail"))
        assert (await over(site, job)).result == b"0"
    assert (tmp_path / "trail").read_text() == "enter\nexit well\n"


@pytest.mark.parametrize("surround", [tasks.forks_first, tasks.forks_last], ids=lambda each: each.__name__)
@pytest.mark.parametrize("task", [tasks.tell, tasks.tell_in_a_child], ids=lambda each: each.function.__name__)
async def test_a_process_that_the_surround_forks_runs_no_function_and_says_nothing(site, tmp_path, surround, task):
    async with working(site, surround) as worker:
        (job,) = site.submit(with_file(task.bind(), tmp_path / "trail"))
        assert (await over(site, job)).state is State.SUCCEEDED
        if surround is tasks.forks_first:
            await eventually((tmp_path / "trail.fork").exists)
        assert worker.busy == 0
    entered = (tmp_path / "trail").read_text().splitlines()
    assert entered.count("exit well") == 1


# Who may be one.


@pytest.mark.parametrize("given", [7, "shop.around", contextlib.nullcontext()])
def test_what_is_no_function_is_refused_by_the_app(given):
    with pytest.raises(InvalidOption, match="surround: expected a function"):
        chancy.Chancy(surround=given)


def local_surround():
    def around(job):
        return contextlib.nullcontext()

    return around


@pytest.mark.parametrize(
    "surround", [local_surround(), lambda job: contextlib.nullcontext(), tasks.AroundClass(None).__init__]
)
async def test_one_that_child_processes_could_not_import_is_refused_at_the_start(site, surround):
    worker = Worker(site.app(surround=surround), WorkerConfig(timing=FAST))
    with pytest.raises(ValueError, match="surround: child processes import it by its name"):
        await worker.start()


@pytest.mark.parametrize("surround", [tasks.AroundClass, tasks.Holder.around], ids=lambda each: each.__qualname__)
async def test_a_class_and_what_belongs_to_one_may_be_one(site, surround):
    async with working(site, surround):
        for job in site.submit(*[task.bind() for task in tasks.TELLING]):
            assert (await over(site, job)).state is State.SUCCEEDED
    assert sorted(tasks.trail) == ["enter"] * 2 + ["exit"] * 2  # those in this process


# In tests.


def test_in_memory_it_is_around_each_function(trail):
    with eager(surround=tasks.around) as backend:
        assert tasks.tell.submit(backend.conn).result(backend.conn).split()[0] == "tell"
        assert trail == ["enter", "exit"]
        backend.surround = tasks.raises_last
        with pytest.raises(ArithmeticError, match="on exit"):
            tasks.tell.using(max_attempts=1).submit(backend.conn)


async def test_in_memory_it_is_around_each_coroutine(trail):
    with eager(surround=tasks.around) as backend:
        job = await tasks.tell_async.submit(backend.aconn)
        assert (await job.result(backend.aconn)).split()[0] == "tell_async"
    assert trail == ["enter", "exit"]


def test_a_drain_has_it_around_each_function(site, trail):
    site.submit(tasks.tell.bind(), tasks.tell_async.bind(), tasks.fail.bind())
    with psycopg.connect(site.dsn, autocommit=True) as conn:
        drained = drain(conn, surround=tasks.around, schema=site.schema)
    assert (drained.succeeded, drained.failed) == (2, 1)
    assert trail == ["enter", "exit", "enter", "exit", "enter", "function", "exit LookupError"]
