"""A worker in somebody's program: how it is started there, how it is stopped, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import socket
import subprocess
import sys
import threading

import limit_tasks
import psycopg
import pytest
import worker_tasks as tasks
from worker_help import FAST, SOON_MISSED, eventually, states, worker_with

from chancy import Queue, SchemaOutdated, State, task
from chancy_testing.background import _open_connections
from chancy_worker import WorkerConfig
from chancy_worker.connection.link import Link
from chancy_worker.life.lease import REGISTER, Lease
from chancy_worker.life.watchdog import Watchdog
from chancy_worker.rounds.claimer import Claimer

pytestmark = pytest.mark.any_postgres

PATIENT = WorkerConfig(timing=FAST, grace=20, children=2)


@pytest.fixture(autouse=True)
def _nothing_is_left(site):
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before
    assert _open_connections() == []
    assert site.workers() == {}
    assert "chancy watchdog" not in {thread.name for thread in threading.enumerate()}


async def tasks_of_workers():
    """The asyncio tasks that a worker has made and not ended."""
    await asyncio.sleep(0.01)
    places = [(task.get_name(), task.get_coro()) for task in asyncio.all_tasks()]
    return [name for name, work in places if "chancy_worker" in work.cr_code.co_filename]


async def running(site, *jobs):
    await eventually(lambda: all(site.row(job).state is State.RUNNING for job in jobs))


async def test_the_block_begins_with_the_lease_and_ends_when_running_jobs_have_finished(site):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    worker = worker_with(site.app(), PATIENT)
    async with worker.running() as given:
        assert given is worker
        assert len(site.workers()) == 1
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
        (job,) = site.submit(tasks.pass_gate.bind("go"))
        await running(site, job)
        asyncio.get_running_loop().call_later(0.3, tasks.gates["go"].set)
    assert (site.row(job).state, site.row(job).attempt) == (State.SUCCEEDED, 1)


async def test_what_does_not_finish_within_the_grace_goes_back(site):
    async with worker_with(site.app(), WorkerConfig(timing=FAST, grace=0.1)).running():
        (job,) = site.submit(tasks.pass_gate.bind("never"))
        await running(site, job)
    assert (site.row(job).state, site.row(job).attempt) == (State.READY, 0)


async def test_what_keeps_a_worker_from_beginning_is_raised_at_the_entry(site):
    @contextlib.asynccontextmanager
    async def broken():
        raise LookupError("no pool")
        yield

    for app, error in (
        (site.app(schema="never_migrated"), SchemaOutdated),
        (site.app(dsn="host=127.0.0.1 port=1"), psycopg.OperationalError),
        (site.app(lifespan=broken), LookupError),
    ):
        with pytest.raises(error):
            async with worker_with(app, PATIENT).running():
                pytest.fail("it was entered")


async def test_an_error_of_the_block_is_what_is_raised(site):
    with pytest.raises(ZeroDivisionError):
        async with worker_with(site.app(), PATIENT).running():
            raise ZeroDivisionError


async def test_a_worker_that_ends_by_an_error_ends_the_block_with_it(site, monkeypatch, caplog):
    async def broken(self, wanted):
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        async with worker_with(site.app(), PATIENT).running() as worker:
            monkeypatch.setattr(Claimer, "_turn", broken)
            site.submit(tasks.add.bind(1, 2))
            await asyncio.sleep(60)
    assert asyncio.current_task().cancelling() == 0
    assert "has ended by an error" in caplog.text
    assert not worker.busy


async def test_jobs_do_not_run_on_beside_a_program_whose_worker_has_ended_by_an_error(site, monkeypatch):
    """And they count as those of a crash: nobody knows who is to blame."""

    async def broken(self, wanted):
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        async with worker_with(site.app(), SOON_MISSED).running():
            (job,) = site.submit(tasks.pass_gate.bind("never"))
            await running(site, job)
            monkeypatch.setattr(Claimer, "_turn", broken)
            site.submit(tasks.add.bind(1, 2))
            await asyncio.sleep(60)
    assert await tasks_of_workers() == []
    assert (site.row(job).state, site.row(job).attempt) == (State.RUNNING, 1)
    monkeypatch.undo()
    tasks.gates["never"].set()
    async with worker_with(site.app(), SOON_MISSED).running():
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)
    assert (site.row(job).attempt, site.row(job).crashes) == (2, 1)


async def test_a_worker_may_be_stopped_within_the_block_which_goes_on(site):
    async with worker_with(site.app(), PATIENT).running() as worker:
        worker.stop()
        await eventually(lambda: site.workers() == {})


async def test_a_block_that_is_cancelled_gives_running_jobs_their_grace_and_cancelled_again_none(site):
    async def program(config):
        async with worker_with(site.app(), config).running():
            await asyncio.Event().wait()

    for again in (False, True):
        run = asyncio.create_task(program(PATIENT))
        (job,) = site.submit(tasks.pass_gate.bind(f"go {again}"))
        await running(site, job)
        run.cancel()
        await asyncio.sleep(0.3)
        assert (run.done(), site.row(job).state) == (False, State.RUNNING)
        if again:
            run.cancel()
        else:
            tasks.gates[f"go {again}"].set()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert (site.row(job).state, site.row(job).attempt) == ((State.READY, 0) if again else (State.SUCCEEDED, 1))
        site.rows("DELETE FROM {}.job RETURNING id")


async def test_two_workers_on_one_loop_stop_each_by_itself(site):
    apps = [site.app(), site.app(queues=[Queue("other")])]
    async with worker_with(apps[0], WorkerConfig(timing=FAST, name="first")).running():
        async with worker_with(apps[1], WorkerConfig(timing=FAST, name="second")).running():
            jobs = site.submit(tasks.add.bind(1, 2), tasks.add.using(queue="other").bind(3, 4))
            await eventually(lambda: states(site) == {"succeeded": 2})
        assert site.rows("SELECT name FROM {}.worker") == [("first",)]
        (last,) = site.submit(tasks.add.bind(5, 6))
        await eventually(lambda: site.row(last).state is State.SUCCEEDED)
    assert len(jobs) == 2


async def test_a_worker_works_on_the_loop_of_a_thread(site):
    async def program():
        async with worker_with(site.app(), PATIENT).running():
            (job,) = site.submit(tasks.add_in_thread.bind(1, 2))
            await eventually(lambda: site.row(job).state is State.SUCCEEDED)

    await asyncio.to_thread(asyncio.run, program())


@pytest.mark.parametrize("how", ["cancel", "timeout", "group"])
async def test_to_cancel_start_is_a_stop_without_a_grace_and_no_crash(site, tmp_path, how):
    worker = worker_with(site.app(), PATIENT)
    seen = []

    async def program():
        if how == "cancel":
            await worker.start()
        elif how == "timeout":
            async with asyncio.timeout(None) as limit:
                worker.limit = limit
                await worker.start()
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.start())
                await eventually((tmp_path / "pids").exists)
                raise ZeroDivisionError

    never = str(tmp_path / "never")
    jobs = site.submit(
        tasks.pass_gate.using(max_attempts=1).bind("never"),
        tasks.wait_for_file.using(max_attempts=1).bind(never),
        limit_tasks.wait_in_process.using(max_attempts=1).bind(never, str(tmp_path / "pids")),
        limit_tasks.cooperative.bind(never),
        tasks.swallow_cancellation.using(max_attempts=1).bind(never),
    )
    run = asyncio.create_task(program())
    await eventually((tmp_path / "pids").exists)  # and the others have begun before
    if how == "cancel":
        run.cancel()
    elif how == "timeout":
        worker.limit.reschedule(0)
    try:
        await run
    except BaseException as error:
        seen.append(type(error))
    assert seen == [{"cancel": asyncio.CancelledError, "timeout": TimeoutError, "group": ExceptionGroup}[how]]
    assert {(site.row(job).state, site.row(job).attempt, site.row(job).crashes) for job in jobs} == {
        (State.READY, 0, 0)
    }
    assert worker.left_running == 2  # the thread, and the coroutine that swallows its cancellation
    (tmp_path / "never").touch()
    async with asyncio.timeout(10):
        while await tasks_of_workers():
            pass


async def test_verdicts_of_jobs_that_have_ended_before_the_cancel_are_written(site):
    run = asyncio.create_task(worker_with(site.app(), PATIENT).start())
    jobs = site.submit(*[tasks.pass_gate.bind("all") for _ in range(20)])
    await running(site, *jobs)
    tasks.gates["all"].set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    rows = [site.row(job) for job in jobs]
    assert {(row.state, row.attempt) for row in rows} <= {(State.SUCCEEDED, 1), (State.READY, 0)}
    assert State.SUCCEEDED in {row.state for row in rows}


@pytest.mark.parametrize("delay", [0, 0.02, 0.1])
def test_when_a_whole_loop_ends_its_jobs_go_back_as_at_a_stop(site, tmp_path, delay):
    """As at the end of `asyncio.run`, which cancels all tasks at once."""
    never = str(tmp_path / "never")
    jobs = site.submit(
        *[tasks.wait_for_file.using(max_attempts=1).bind(never) for _ in range(10)],
        limit_tasks.wait_in_process.using(max_attempts=1).bind(never, str(tmp_path / "pids")),
    )
    workers = []

    async def program():
        workers.append(asyncio.create_task(worker_with(site.app(), PATIENT).start()))
        await running(site, *jobs)
        site.submit(*[tasks.add.bind(1, 2) for _ in range(200)])
        await asyncio.sleep(delay)  # in the middle of a round, or not
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(program())
    assert {(site.row(job).state, site.row(job).attempt, site.row(job).errors) for job in jobs} == {
        (State.READY, 0, ())
    }
    assert states(site).keys() <= {"ready", "succeeded"}
    assert site.one("SELECT max(attempt) FROM {}.job") == 0


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_lifespan_that_waits_on_its_way_out_is_left_in_its_time(site, monkeypatch, caplog, stubborn):
    monkeypatch.setattr("chancy_worker.lifespan.TO_LEAVE", 0.2)
    monkeypatch.setattr("chancy_worker.lifespan.TO_OBEY", 0.2)
    over, seen = asyncio.Event(), []

    @contextlib.asynccontextmanager
    async def lifespan():
        yield
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                if not stubborn:
                    raise

    async with worker_with(site.app(lifespan=lifespan), PATIENT).running():
        pass
    assert seen == ["cancelled"]
    assert "waits on its way out, and is cancelled" in caplog.text
    assert ("left to itself" in caplog.text) is stubborn
    over.set()


note = contextvars.ContextVar("note")


async def look() -> str:
    return note.get("nothing")


async def test_what_a_lifespan_sets_in_its_context_is_seen_by_handlers_and_it_is_left_in_the_task_that_entered(site):
    seen = []

    @contextlib.asynccontextmanager
    async def lifespan():
        note.set("set by the lifespan")
        async with asyncio.TaskGroup():  # which wants to be left where it was entered
            yield
        seen.append(note.get())

    looking = task(name="embedded.look")(look)
    worker = worker_with(site.app(lifespan=lifespan), PATIENT)
    worker._tasks = {looking.name: looking}
    async with worker.running():
        (job,) = site.submit(looking.bind())
        await eventually(lambda: site.row(job).finished_at)
    assert (site.row(job).result, seen) == (b'"set by the lifespan"', ["set by the lifespan"])
    assert note.get("nothing") == "nothing"


async def fails(*arguments, **more):
    raise OSError("no more")


@pytest.mark.parametrize(
    ("place", "name"),
    [(Link, "send"), (Link, "walk"), (Lease, "take"), (Watchdog, "__enter__"), (asyncio, "start_server")],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_start_that_fails_leaves_neither_connections_nor_a_lease(site, monkeypatch, place, name):
    def enter(self):
        raise OSError("no more")

    monkeypatch.setattr(place, name, enter if name == "__enter__" else fails)
    worker = worker_with(site.app(), WorkerConfig(timing=FAST, health_port=1, health_host="127.0.0.1"))
    with pytest.raises((OSError, ValueError)):
        await worker.start()
    monkeypatch.undo()


async def test_a_port_that_is_taken_leaves_neither_connections_nor_a_lease(site):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = WorkerConfig(timing=FAST, health_port=taken.getsockname()[1], health_host="127.0.0.1")
        with pytest.raises(ValueError, match="cannot be had"):
            async with worker_with(site.app(), config).running():
                pass


@pytest.mark.long
@pytest.mark.parametrize("answered", [False, True], ids=["before Postgres has it", "before its answer is read"])
@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "cancelled"])
async def test_a_start_that_is_broken_off_in_any_statement_leaves_nothing(site, monkeypatch, stops, answered):
    sent, step, there, send = [], 0, asyncio.Event(), Link.send

    async def counted(self, statement):
        sent.append(statement.sql)
        here = len(sent) == step
        answer = await send(self, statement) if answered else None
        if here:
            there.set()
            await asyncio.sleep(0.05)
        return answer if answered else await send(self, statement)

    monkeypatch.setattr(Link, "send", counted)
    seen = []
    while REGISTER not in seen:
        step += 1
        sent.clear()
        there.clear()
        worker = worker_with(site.app(), WorkerConfig(timing=FAST, grace=1))
        run = asyncio.create_task(worker.start())
        await there.wait()
        seen = sent[:step]
        worker.stop() if stops else run.cancel()
        with contextlib.nullcontext() if stops else pytest.raises(asyncio.CancelledError):
            await run
        assert (_open_connections(), site.workers()) == ([], {}), seen[-1]


PROGRAM = """
import asyncio, signal, sys
import chancy
from chancy_worker import Worker, WorkerConfig

@chancy.task
async def ok() -> str:
    return "done"

def state():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

async def main(dsn, schema, how, count):
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    if how == "loop":
        loop.add_signal_handler(signal.SIGTERM, over.set)
        loop.add_signal_handler(signal.SIGINT, over.set)
    elif how == "signal":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(over.set))
    before = state()
    workers = [Worker(chancy.Chancy(dsn=dsn, schema=schema), WorkerConfig(name=f"w{n}", grace=1)) for n in range(count)]
    runs = [asyncio.create_task(worker.start()) for worker in workers]
    await asyncio.gather(*[worker.begun.wait() for worker in workers])
    print("works", flush=True)
    if how != "nobody":
        await over.wait()
        assert not any(run.done() for run in runs)
        for worker in workers:
            worker.stop()
    await asyncio.gather(*runs)
    assert state() == before, (state(), before)
    print("over", flush=True)

asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
@pytest.mark.parametrize(("how", "count"), [("nobody", 1), ("nobody", 2), ("loop", 1), ("loop", 2), ("signal", 1)])
def test_a_program_gets_the_signals_that_it_handles_and_its_workers_the_others(site, tmp_path, how, count, number):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), site.dsn, site.schema, how, str(count)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout.readline() == "works\n"
        program.send_signal(number)
        assert program.communicate(timeout=30)[0] == "over\n"
        assert program.returncode == 0
    finally:
        program.kill()
        program.wait()
