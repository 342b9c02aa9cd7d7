"""Child processes: what they have in common, what they answer for, how they start and end, what jobs leave in them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import child_tasks as tasks
import msgspec
import pytest
import worker_tasks
from worker_help import FAST, HERE, eventually, is_alive, probed, process_facts, working

import chancy
from chancy import State
from chancy_worker import Timing, WorkerConfig
from chancy_worker.child.frames import Recall
from chancy_worker.children import forkserver
from chancy_worker.children import pool as children

pytestmark = pytest.mark.any_postgres

ONE = WorkerConfig(timing=FAST, grace=1, children=1)
IGNORED_HERE = [s.name for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(s) == signal.SIG_IGN]
"""As after `nohup`: whoever starts the worker wants it so, of all that it starts."""


async def finished(site, *jobs, within=30.0):
    await eventually(lambda: all(site.row(job).finished_at for job in jobs), within)
    return [site.row(job) for job in jobs]


async def results(site, *jobs):
    rows = await finished(site, *jobs)
    assert {row.state for row in rows} == {State.SUCCEEDED}, [row.errors for row in rows]
    return [json.loads(row.result) for row in rows]


async def result(site, job):
    return (await results(site, *site.submit(job)))[0]


def command(site, module="child_tasks", *more):
    return site.work(module, "--dsn", site.dsn, "--schema", site.schema, "--grace", "1", *more)


def pool_of(worker) -> children.Children:
    return worker._engine.slots._executors["process"]


async def pids_in(file, count=1):
    await eventually(lambda: file.exists() and len(file.read_text().split()) >= count)
    return [int(pid) for pid in file.read_text().split()]


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# What children have in common.


@pytest.mark.long
async def test_what_a_module_opens_and_seeds_at_its_import_each_child_has_for_itself(site, tmp_path):
    gate, pids = tmp_path / "gate", tmp_path / "pids"
    command(site, "child_tasks", "--children", "2")
    jobs = site.submit(*[tasks.of_its_import.bind(str(pids), str(gate)) for _ in range(2)])
    await pids_in(pids, 2)
    gate.touch()
    one, other = await results(site, *jobs)
    assert one[0] == one[1] != other[0] == other[1]  # each has imported it
    assert one[2] != other[2]
    assert one[3] != other[3]


SCRIPT = """
import asyncio, os, sys
from pathlib import Path
from chancy import Chancy, task
from chancy_worker import Worker

with Path({imports!r}).open("a") as file:
    file.write(f"{{os.getpid()}}\\n")

{tasks}

if __name__ == "__main__":
    asyncio.run(Worker(Chancy(dsn={dsn!r}, schema={schema!r})).start())
"""


async def test_the_program_is_imported_by_its_children_if_tasks_are_in_it_and_not_otherwise(site, tmp_path):
    imports = tmp_path / "imports"
    for name, said in {
        "program_with_tasks": "@task(executor='process')\ndef where() -> list[str]:\n    return [str(os.getpid()), __name__]",
        "program_without": "import child_tasks",
    }.items():
        imports.unlink(missing_ok=True)
        program = tmp_path / f"{name}.py"
        program.write_text(SCRIPT.format(imports=str(imports), dsn=site.dsn, schema=site.schema, tasks=said))
        worker = site.run(str(program))
        if name == "program_with_tasks":
            site.one("SELECT {}.submit('program_with_tasks.where', '{{}}')")
            await eventually(lambda: site.count("succeeded") == 1, 30)
            pid, module = json.loads(site.one("SELECT result::text FROM {}.any_job"))
            assert module == "__mp_main__"
            assert imports.read_text().split() == [str(worker.pid), pid]
        else:
            await result(site, tasks.me.bind())
            assert imports.read_text().split() == [str(worker.pid)]
        worker.end()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes modules that the worker here and its children can import."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return make


@pytest.fixture
def also_imported(module, monkeypatch):
    """Makes modules that only children import."""
    setup_for = children.setup_for

    def make(name, text):
        module(name, text)

        def with_module(*arguments):
            setup = setup_for(*arguments)
            return msgspec.structs.replace(setup, modules=(*setup.modules, name))

        monkeypatch.setattr(children, "setup_for", with_module)

    return make


@pytest.mark.long
@pytest.mark.usefixtures("started_children")
async def test_a_preloaded_module_is_imported_once_for_all_children(site, module):
    name = module("to_preload", "import os\nIMPORTED_BY = os.getpid()\n")
    async with working(site.app(preload=[name]), WorkerConfig(timing=FAST, grace=1, children=1, recycle=1)) as worker:
        found = [await result(site, tasks.is_loaded.bind(name)) for _ in range(2)]
        server = pool_of(worker)._server._process.pid
    assert len({pid for pid, _ in found}) == 2
    assert [by for _, by in found] == [server, server]


@pytest.mark.long
@pytest.mark.usefixtures("started_children")
async def test_children_draw_numbers_of_their_own_where_their_generators_are_preloaded(site, tmp_path):
    pytest.importorskip("numpy")
    async with working(site.app(preload=["numpy.random"]), WorkerConfig(timing=FAST, grace=1, children=1, recycle=1)):
        (tmp_path / "gate").touch()
        one, other = [await result(site, tasks.draw.bind(str(tmp_path / "gate"))) for _ in range(2)]
    assert one != other


@pytest.mark.usefixtures("started_children")
async def test_preloaded_modules_that_open_something_or_fail_are_named_and_children_start(site, module, caplog):
    names = [
        module("opens", "import socket\nPAIR = socket.socketpair()\n"),
        module("fails", "raise RuntimeError('not today')\n"),
    ]
    async with working(site.app(preload=names), ONE):
        await result(site, tasks.me.bind())
    assert "module opens, which is to be preloaded for child processes, opens socket:" in caplog.text
    assert "module fails, which is to be preloaded for child processes, cannot be imported" in caplog.text
    assert "RuntimeError: not today" in caplog.text


@pytest.mark.parametrize("preload", ["numpy", ["numpy", 3], ["a-b"], [""], ["a..b"]])
def test_preload_takes_a_list_of_names_of_modules(preload):
    with pytest.raises(ValueError, match="preload"):
        chancy.Chancy(preload=preload)


async def test_a_worker_refuses_to_preload_a_module_that_is_not_there(site):
    refused = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "chancy_worker", "child_tasks", "--dsn", site.dsn, "--preload", "not_there.at_all"],
        cwd=HERE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "there is no module 'not_there.at_all'" in refused.stderr
    assert site.workers() == {}


# Forks of handlers.


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_process_that_a_job_has_forked_ends_where_it_comes_back_out_of_the_function(site, loop):
    """As the interpreter would end it, and no job is answered for, begun or lost by it."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    worker = command(site, "child_tasks", "--children", "1", "--loop", loop)
    codes = {"return": "0", "exit": "3", "raise": "1"}
    on_a_loop = codes | {"wait": "1", "task": "1"}
    for forking, expected in {
        tasks.fork_in_child: codes,
        tasks.fork_in_thread: codes,
        tasks.fork_in_async_child: on_a_loop,
        tasks.fork_on_loop: on_a_loop,
    }.items():
        jobs = site.submit(*[forking.bind(how) for how in expected], *[tasks.me.bind() for _ in range(3)])
        found = await results(site, *jobs)
        assert found[: len(expected)] == list(expected.values()), forking.name
        assert {site.row(job).attempt for job in jobs} == {1}
    assert site.workers().keys() == {1}
    assert worker.code is None


async def test_a_fork_says_nothing_for_the_job_that_it_is_of(site, tmp_path, capfd):
    async with working(site.app(), ONE) as worker:
        await eventually(site.workers)
        told = []
        worker._engine.slots._told = lambda current, progress: told.append(progress)
        assert await result(site, tasks.speak_in_a_fork.bind()) == 0
        await result(site, tasks.me.bind())
    assert told == []
    assert "said by a fork" in capfd.readouterr().err  # and not lost


async def test_a_fork_keeps_neither_the_sessions_nor_the_port_of_its_dead_worker(site, tmp_path, port):
    own = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'chancy %%' AND datname = current_database()"
    others = site.rows(own)

    def opened():
        return [pid for (pid,) in set(site.rows(own)) - set(others)]

    worker = command(site, "child_tasks", "--health-port", str(port))
    await eventually(lambda: len(opened()) >= 3)
    (job,) = site.submit(tasks.fork_and_leave.bind(str(tmp_path / "pids")))
    await finished(site, job)
    (pid,) = await pids_in(tmp_path / "pids")
    sessions = opened()
    try:
        worker.signal(signal.SIGKILL)
        await eventually(lambda: worker.code is not None)
        with socket.create_server(("0.0.0.0", port)):
            assert is_alive(pid)
        left = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)"
        await eventually(lambda: site.one(left, sessions) == 0)
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_process_that_a_job_terminates_ends_and_its_worker_does_not(site, loop):
    """`Pool` does that to each of its processes."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    worker = command(site, "child_tasks", "--children", "1", "--loop", loop)
    for terminating in (tasks.terminate_in_child, tasks.terminate_in_thread, tasks.terminate_on_loop):
        assert await result(site, terminating.bind()) == -signal.SIGTERM
    await result(site, tasks.me.bind())
    assert worker.code is None
    assert "stopping" not in worker.text


async def test_programs_that_jobs_start_have_default_signals(site):
    command(site)
    for task in (tasks.signals_of_a_program_in_child, tasks.signals_of_a_program_in_thread):
        assert await result(site, task.bind()) == IGNORED_HERE


# The deaths of children.


@pytest.mark.parametrize("how", ["python", "C"])
async def test_the_death_of_a_child_is_seen_whatever_holds_its_line(site, tmp_path, how):
    async with working(site.app(), ONE):
        (job,) = site.submit(tasks.die_before_its_forks.bind(str(tmp_path / "pids"), how))
        (pid,) = await pids_in(tmp_path / "pids")
        try:
            (row,) = await finished(site, job)
            await result(site, tasks.me.bind())
            if how == "python":
                await eventually(lambda: not is_alive(pid))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "ProcessDied")
    assert "SIGKILL from outside" in row.errors[-1].message


async def test_a_child_that_closes_its_line_is_ended(site, tmp_path):
    async with working(site.app(), ONE):
        jobs = site.submit(tasks.close_everything.bind(), tasks.become_a_program.bind(str(tmp_path / "pid")))
        rows = await finished(site, *jobs)
        await result(site, tasks.me.bind())
    assert [row.errors[-1].kind for row in rows] == ["ProcessDied", "ProcessDied"]
    assert "ended with exit code 1" in rows[0].errors[-1].message
    assert "closed its line to the worker" in rows[1].errors[-1].message
    assert not is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("cancelled", "CancelledError", "the function cancelled itself"),
        ("generator", "GeneratorExit", ""),
        ("unspeakable", "Unspeakable", "its message could not be read: SystemExit"),
        ("exit in a task", "SystemExit", "3"),
    ],
)
async def test_whatever_ends_a_coroutine_is_a_failed_attempt_and_its_child_goes_on(site, how, kind, message):
    async with working(site.app(), ONE):
        before = await result(site, tasks.me.bind())
        (job,) = site.submit(tasks.end_oddly.bind(how))
        (row,) = await finished(site, job)
        assert await result(site, tasks.me_async.bind()) == before
    assert (row.state, row.errors[-1].kind, row.errors[-1].message) == (State.FAILED, kind, message)


@pytest.mark.long
@pytest.mark.usefixtures("started_children")
async def test_the_death_of_the_fork_server_is_told_and_another_one_is_started(site, tmp_path, caplog):
    async with working(site.app(), ONE) as worker:
        (job,) = site.submit(tasks.wait.using(max_attempts=1).bind(str(tmp_path / "gate"), str(tmp_path / "pids")))
        (pid,) = await pids_in(tmp_path / "pids")
        os.kill(pool_of(worker)._server._process.pid, signal.SIGKILL)
        (row,) = await finished(site, job)
        await eventually(lambda: not is_alive(pid))
        await result(site, tasks.me.bind())
    assert row.errors[-1].kind == "ProcessDied"
    assert "the fork server died of SIGKILL" in row.errors[-1].message
    assert "the fork server died of SIGKILL" in caplog.text


@pytest.mark.usefixtures("started_children")
async def test_a_worker_whose_fork_server_hangs_stops_all_the_same(site, tmp_path, monkeypatch):
    monkeypatch.setattr(children, "ENDING_SECONDS", 0.5)
    monkeypatch.setattr(forkserver, "_CLOSE_SECONDS", 0.5)
    async with working(site.app(), ONE) as worker:
        site.submit(tasks.wait.bind(str(tmp_path / "gate"), str(tmp_path / "pids")))
        (pid,) = await pids_in(tmp_path / "pids")
        server = pool_of(worker)._server._process.pid
        os.kill(server, signal.SIGSTOP)
        async with asyncio.timeout(30):
            worker.stop()
            worker.stop()
            await eventually(lambda: site.workers() == {}, 25)
    await eventually(lambda: not is_alive(pid) and not is_alive(server))


async def test_children_and_their_server_are_gone_when_their_worker_has_been_killed(site, tmp_path):
    worker = command(site, "child_tasks", "--children", "1")
    site.submit(tasks.wait.bind(str(tmp_path / "gate"), str(tmp_path / "pids")))
    (pid,) = await pids_in(tmp_path / "pids")
    worker.signal(signal.SIGKILL)
    await eventually(lambda: not is_alive(pid))


async def test_the_fork_server_of_a_worker_that_is_killed_before_it_has_heard_all_says_nothing(site, tmp_path):
    worker = command(site, "child_tasks", "--children", "1")
    site.submit(tasks.wait.bind(str(tmp_path / "gate"), str(tmp_path / "pids")))
    (pid,) = await pids_in(tmp_path / "pids")
    _, server = process_facts(pid)
    worker.signal(signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not Path(f"/proc/{pid}").exists())  # buried, and so told to a worker that does not read
    worker.signal(signal.SIGKILL)
    await eventually(lambda: not is_alive(server))
    assert "Traceback" not in worker.text


# While no child can be started.


@pytest.fixture
def starts(monkeypatch):
    """How often a child was to be started; the pauses between are short."""
    monkeypatch.setattr(children, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(children, "LONGEST_PAUSE_SECONDS", 0.2)
    starts, start = [], children.Children._start

    def counted(pool):
        starts.append(pool)
        start(pool)

    monkeypatch.setattr(children.Children, "_start", counted)
    return starts


UNASKED = Timing(extend=0.5, rescue=0.3, look=60, unheard=10)
"""What an idle worker does within a minute of its last job, it does not because it looks."""


def answering(port, **more):
    return WorkerConfig(**{"timing": UNASKED, "grace": 1, "children": 1, "health_port": port} | more)


async def waits_for_a_child(site, starts, port, caplog, words):
    """A job that needs a child, unharmed while others run. It is told in `/ready`, and once in the log."""
    (job,) = site.submit(tasks.me.bind())
    await eventually(lambda: words in caplog.text)
    _, problems = await probed(port)
    (problem,) = problems.splitlines()
    assert problem.startswith("no child process can be started: ")
    assert words in problem
    seen = len(starts)
    for number in range(3):
        assert await result(site, worker_tasks.add.bind(number, 1)) == number + 1
    await eventually(lambda: len(starts) >= seen + 3)  # it goes on trying
    assert (site.row(job).state, site.row(job).attempt) == (State.READY, 0)
    assert site.one("SELECT claims FROM {}.job WHERE id = %s", job.id) <= 2
    assert caplog.text.count("no child process can be started") == 1
    return job


async def is_done_when_there_is_one(site, job, port, caplog):
    await results(site, job)
    assert (await probed(port))[0] == 200
    assert caplog.text.count("child processes can be started again") == 1


@pytest.mark.usefixtures("started_children")
async def test_a_worker_without_a_free_file_works_without_children_until_it_has_some(
    site, port, monkeypatch, caplog, starts
):
    pair, free = socket.socketpair, []

    def scarce(*arguments):
        if not free:
            raise OSError(errno.EMFILE, "Too many open files")
        return pair(*arguments)

    monkeypatch.setattr(socket, "socketpair", scarce)
    async with working(site.app(), answering(port, children=2)):
        job = await waits_for_a_child(site, starts, port, caplog, "Too many open files")
        free.append(True)
        await is_done_when_there_is_one(site, job, port, caplog)


@pytest.mark.long
async def test_a_module_that_children_cannot_import_is_named_until_they_can(
    site, port, tmp_path, also_imported, caplog, starts
):
    broken = tmp_path / "broken"
    broken.touch()
    also_imported(
        "only_here", f"from pathlib import Path\nif Path({str(broken)!r}).exists(): raise ValueError('of the file')\n"
    )
    async with working(site.app(), answering(port)):
        words = "module only_here cannot be imported there: ValueError: of the file"
        job = await waits_for_a_child(site, starts, port, caplog, words)
        broken.unlink()
        await is_done_when_there_is_one(site, job, port, caplog)


async def test_a_child_that_dies_over_its_imports_is_told_of(site, port, also_imported, caplog, starts):
    also_imported("deadly", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    async with working(site.app(), answering(port)):
        await waits_for_a_child(site, starts, port, caplog, "one died of SIGSEGV before it could take a job")


@pytest.mark.long
@pytest.mark.usefixtures("started_children")
async def test_a_fork_server_that_dies_over_its_imports_is_told_of(site, port, module, caplog, starts):
    name = module("deadly_to_preload", "import os\nos._exit(7)\n")
    async with working(site.app(preload=[name]), answering(port)):
        await waits_for_a_child(site, starts, port, caplog, "the fork server ended with exit code 7")


@pytest.mark.parametrize("how", ["removed", "left for one that is removed"])
async def test_children_are_started_where_the_workers_folder_is_gone(site, tmp_path, how):
    folder = tmp_path / "release"
    folder.mkdir()
    script = f"import os, runpy; os.chdir({str(folder)!r}); runpy.run_module('chancy_worker', run_name='__main__')"
    site.run("-c", script, "child_tasks", "--dsn", site.dsn, "--schema", site.schema, "--children", "1")
    await eventually(site.workers)
    if how == "removed":
        folder.rmdir()
    else:
        await result(site, tasks.wander.bind(str(tmp_path / "gone")))
    assert await result(site, tasks.folder.bind()) == str("/" if how == "removed" else folder)


# What jobs leave behind.


@pytest.mark.parametrize("what", ["folder", "umask", "alarm", "handlers", "output", "log"])
async def test_what_a_job_changes_in_its_child_the_next_one_does_not_see(site, tmp_path, what, caplog, capfd):
    async with working(site.app(), ONE):
        pid = await result(site, tasks.leave.bind(what, ""))
        (job,) = site.submit(tasks.look.bind(str(tmp_path / "new")))
        (seen,) = await results(site, job)
    umask = os.umask(0)
    os.umask(umask)
    assert seen == [pid, str(Path.cwd()), 0o666 & ~umask, 1, True, True, 0]
    assert f"seen by {job.id}" in caplog.text
    assert "on standard output" in capfd.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize(
    "what", ["thread", "daemon thread", "process", "process of a shell", "memory", "closed output"]
)
async def test_a_child_in_which_a_job_has_left_something_is_replaced(site, tmp_path, what, caplog):
    note = tmp_path / "note"
    async with working(site.app(), ONE):
        jobs = site.submit(*[tasks.leave.bind(what, str(note)) for _ in range(2)])
        pids = await results(site, *jobs)
        last = await result(site, tasks.me.bind())
        assert len({*pids, last}) == 3
        await eventually(lambda: not any(map(is_alive, pids)))
        if note.exists():  # what a child has left is killed when the child is dead
            await eventually(lambda: not is_alive(int(note.read_text())))
    said = [record for record in caplog.records if "its child process is replaced" in record.getMessage()]
    assert [record.levelno for record in said if record.levelno >= logging.INFO] == [logging.WARNING]  # once
    assert f"job {jobs[0].id} (child_tasks.leave) has left" in said[0].getMessage()


async def test_what_a_child_has_said_before_its_end_counts_where_something_is_said_to_it_too_late(site, tmp_path):
    """Its worker had something else to do, and reads its verdict after it has failed to write to it."""
    gate = tmp_path / "gate"
    async with working(site.app(), ONE) as worker:
        await result(site, tasks.me.bind())
        (line,) = pool_of(worker)._lines.values()
        (job,) = site.submit(tasks.leave_a_thread_at_last.bind(str(gate)))
        await eventually(lambda: line.flight)
        gate.touch()
        while is_alive(line.pid):
            time.sleep(0.01)
        line._say(Recall())  # as when it has taken long
        assert await results(site, job) == [line.pid]


@pytest.mark.parametrize("what", ["thread that ends", "process that ended", "some memory"])
async def test_a_child_in_which_a_job_has_left_next_to_nothing_goes_on(site, what, also_imported, caplog):
    also_imported("patient", "from chancy_worker.child import leftovers\nleftovers.LINGER_SECONDS = 20\n")
    async with working(site.app(), ONE):
        pid = await result(site, tasks.leave.bind(what, ""))
        assert await result(site, tasks.me.bind()) == pid
    assert "is replaced" not in caplog.text


@pytest.mark.long
async def test_a_child_that_has_done_its_share_ends_whatever_its_modules_have_started(site, also_imported):
    """The end of an interpreter waits for threads that are no daemons."""
    also_imported("with_a_thread", "import threading, time\nthreading.Thread(target=time.sleep, args=[600]).start()\n")
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, children=1, recycle=1)):
        pids = [await result(site, tasks.me.bind()) for _ in range(4)]
        assert len(set(pids)) == 4
        await eventually(lambda: not any(map(is_alive, pids)))


async def test_what_a_job_has_left_on_the_loop_of_its_child_does_not_speak_for_the_next_one(site, tmp_path):
    files = [str(tmp_path / name) for name in ("gate", "spoken", "heard")]
    told = []

    def hear(current, progress):
        told.append((current.id, progress.note))
        (tmp_path / "heard").touch()

    async with working(site.app(), ONE) as worker:
        await eventually(site.workers)
        worker._engine.slots._told = hear
        (first,) = site.submit(tasks.leave_a_task.bind(*files[:2]))
        (pid,) = await results(site, first)
        (second,) = site.submit(tasks.open_and_wait.bind(*files))
        assert await results(site, second) == [pid]
    assert told == [(second.id, "its own")]
    logs = [chancy.logs(site.conn, job.id, schema=site.schema) for job in (first, second)]
    assert [[entry.message for entry in entries] for entries in logs] == [["in time"], ["its own"]]


# The first process of a container.


ORPHANS = """
import contextlib, ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from chancy_worker import init

ctypes.CDLL(None).prctl(36, 1)  # what is orphaned here comes here, as to the first process of a container
if (code := init.stay_behind()) is not None:
    sys.exit(code)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
orphan = subprocess.run(["sh", "-c", "sleep 0.1 >/dev/null & echo $!"], capture_output=True).stdout.strip().decode()
process = subprocess.Popen(["sh", "-c", "exit 5"])
while Path(f"/proc/{orphan}").exists():  # also as a zombie
    time.sleep(0.01)
print(process.wait(), flush=True)  # nobody has taken that
time.sleep(60)
"""


def test_the_first_process_of_a_container_waits_for_orphans_hands_signals_on_and_ends_as_its_worker_does():
    process = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "5\n"
        process.terminate()
        assert process.wait(30) == 9
    finally:
        process.kill()
        process.wait()


CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.mark.long
async def test_a_worker_that_is_the_first_process_of_its_container_leaves_no_zombies(site, tmp_path):
    if subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace can be made here")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    options = ["--dsn", site.dsn, "--schema", site.schema, "--children", "1"]
    with (tmp_path / "log").open("wb") as log:
        outside = subprocess.Popen(
            [*CONTAINER, sys.executable, "-m", "chancy_worker", "child_tasks", *options],
            env=env,
            stdout=log,
            stderr=log,
        )
    try:
        (job,) = site.submit(tasks.overstay.bind())
        await finished(site, job)
        await result(site, tasks.orphan.bind())
        await eventually(lambda: site.count("running") == 0)
        assert await result(site, tasks.zombies.bind()) == []
        first = int(Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()[0])
        os.kill(first, signal.SIGTERM)
        assert await asyncio.to_thread(outside.wait, 30) == 0
    finally:
        outside.kill()
        outside.wait()
        print((tmp_path / "log").read_text())
