"""A worker in a web server's process: the server ends as it would alone, and the worker leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request

import limit_tasks
import pytest
import worker_tasks as tasks
from worker_help import Process, all_finished, eventually

from chancy import State

pytestmark = [pytest.mark.any_postgres, pytest.mark.long]

SERVERS = ["uvicorn", "hypercorn"]
SIGNALS = {"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}


ALONE = """
async def web(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": f"lifespan.startup.%s"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"alone"})
"""


@pytest.fixture
def serve(site, port, tmp_path, monkeypatch):
    """Starts a program under a server; it is told by variables."""
    monkeypatch.setenv("CHANCY_DSN", site.dsn)
    monkeypatch.setenv("CHANCY_SCHEMA", site.schema)

    def start(server: str, *more: str, app: str = "web_program:web", own_group: bool = False, **told: str) -> Process:
        where = ["--port", str(port)] if server == "uvicorn" else ["--bind", f"127.0.0.1:{port}"]
        with monkeypatch.context() as patch:
            for name, value in told.items():
                patch.setenv(name, value)
            return site.run("-m", server, app, *where, *more, own_group=own_group)

    return start


@pytest.fixture
async def alone(serve, port, tmp_path, monkeypatch):
    """How a server with nothing in it ends: after a signal, or because its start has failed."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    async def code(server: str, number: int | None) -> int | None:
        (tmp_path / "alone.py").write_text(ALONE % ("failed" if number is None else "complete"))
        program = serve(server, app="alone:web")
        if number is not None:
            await soon(lambda: answers(port))
            program.signal(number)
        return await ends(program)

    return code


async def soon(condition):
    """Within what a process may take to start on a busy machine."""
    return await eventually(condition, 60)


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
            return response.read().decode()
    except OSError:
        return ""


async def ends(process):
    await soon(lambda: process.code is not None)
    return process.code


async def running(site, *jobs):
    await soon(lambda: all(site.row(job).state is State.RUNNING for job in jobs))


def ended(site, job):
    row = site.row(job)
    return row.state, row.attempt, row.crashes


def left(site):
    """The leases, and the connections of workers."""
    connections = site.rows(
        "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'chancy%%' "
        "AND datname = current_database() AND backend_start >= %s",
        site.since,
    )
    return site.workers(), connections


async def nothing_is_left(site):
    """The end of a session is noticed a moment after its client has ended."""
    await soon(lambda: left(site) == ({}, []))


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_with_a_worker_ends_as_it_does_alone_and_running_jobs_go_back(
    site, serve, alone, port, tmp_path, server, number
):
    code = await alone(server, SIGNALS[number])
    never = str(tmp_path / "never")
    program = serve(server)
    await soon(lambda: answers(port))
    jobs = site.submit(
        tasks.wait_for_file.bind(never), limit_tasks.wait_in_process.bind(never, str(tmp_path / "children"))
    )
    await running(site, *jobs)
    await soon((tmp_path / "children").exists)
    program.signal(SIGNALS[number])
    assert await ends(program) == code
    await nothing_is_left(site)
    assert [ended(site, job) for job in jobs] == [(State.READY, 0, 0)] * 2


@pytest.mark.parametrize("server", SERVERS)
async def test_jobs_that_end_within_the_grace_are_written_before_the_server_ends(site, serve, port, tmp_path, server):
    program = serve(server, GRACE="20")
    await soon(lambda: answers(port))
    (job,) = site.submit(tasks.wait_for_file.bind(str(tmp_path / "gate")))
    await running(site, job)
    program.signal(signal.SIGTERM)
    await soon(lambda: not answers(port))
    (tmp_path / "gate").touch()
    await ends(program)
    assert ended(site, job) == (State.SUCCEEDED, 1, 0)
    await nothing_is_left(site)


async def test_when_a_file_changes_the_job_goes_back_and_runs_again_in_the_new_process(site, serve, port, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "reloaded.py").write_text("from web_program import web")
    program = serve("uvicorn", "--reload", "--reload-dir", str(code), "--app-dir", str(code), app="reloaded:web")
    await soon(lambda: answers(port))
    (before,) = site.workers().values()
    gate, record = tmp_path / "gate", tmp_path / "record"
    (job,) = site.submit(tasks.wait_for_file.bind(str(gate), str(record)))
    await soon(record.exists)
    (code / "reloaded.py").write_text("from web_program import web  # changed")
    await soon(lambda: len(record.read_text().splitlines()) == 2)
    assert record.read_text().splitlines() == [f"{job.id} 1"] * 2  # its attempt was refunded
    (after,) = site.workers().values()
    assert after != before
    gate.touch()
    await all_finished(site, 60)
    assert ended(site, job) == (State.SUCCEEDED, 1, 0)
    program.signal(signal.SIGTERM)
    await ends(program)
    await nothing_is_left(site)


async def test_under_reload_ctrl_c_in_a_terminal_which_all_its_processes_hear_ends_them(site, serve, port, tmp_path):
    program = serve("uvicorn", "--reload", "--reload-dir", str(tmp_path), own_group=True)
    await soon(lambda: answers(port))
    (job,) = site.submit(tasks.wait_for_file.bind(str(tmp_path / "never")))
    await running(site, job)
    os.killpg(program.pid, signal.SIGINT)
    await ends(program)
    await nothing_is_left(site)
    assert ended(site, job) == (State.READY, 0, 0)


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_does_not_start_over_a_database_that_is_not_migrated_and_says_so(site, serve, alone, server):
    code = await alone(server, None)
    program = serve(server, CHANCY_SCHEMA="never_migrated")
    assert await ends(program) == code
    assert "SchemaOutdated" in program.text
    assert "never_migrated" in program.text
    await nothing_is_left(site)


@pytest.mark.parametrize("server", SERVERS)
async def test_what_breaks_the_start_after_the_worker_has_begun_ends_the_worker(site, serve, alone, server):
    code = await alone(server, None)
    program = serve(server, BREAKS="1")
    assert await ends(program) == code
    assert "LookupError: no cache" in program.text
    await nothing_is_left(site)


async def test_a_port_that_is_taken_ends_the_worker_with_the_server(site, serve, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        program = serve("uvicorn")
        assert await ends(program) not in (0, None)
    assert "address already in use" in program.text
    await nothing_is_left(site)


async def test_each_process_of_a_server_has_a_worker_of_its_own(site, serve, port):
    program = serve("uvicorn", "--workers", "2")
    await soon(lambda: len(site.workers()) == 2)
    jobs = site.submit(*[tasks.add.bind(1, n) for n in range(20)])
    await all_finished(site, 60)
    assert {site.row(job).state for job in jobs} == {State.SUCCEEDED}
    program.signal(signal.SIGTERM)
    await ends(program)
    await nothing_is_left(site)
