"""`chancy dev`: from a folder with one file of tasks to jobs that are done, and nothing left of it afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import psycopg
import pytest

import chancy
from chancy_ops.development.programs import Log, Program

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc"),
]

SHOP = """
import asyncio, time
import chancy

@chancy.task
def edition() -> int:
    return {number}

@chancy.task
async def waits() -> int:
    print("waiting", flush=True)
    if {number} == 1:
        await asyncio.sleep(600)
    return {number}

@chancy.task(executor="process")
def computes() -> None:
    time.sleep(600)

@chancy.task
async def blocks() -> None:
    time.sleep(600)
"""


def eventually(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return value


class Developer:
    """Somebody with an empty folder, in which is one file of tasks."""

    def __init__(self):
        # Not pytest's own: that is private, and Postgres does not run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="chancy-dev-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.mark = uuid.uuid4().hex
        self.started = []
        self.saved = 0

    def save(self, text):
        """As editors do: never half of it. Of another length each time, as Python looks at whole seconds."""
        self.saved += 1
        (self.folder / "next").write_text(text + "\n" * self.saved)
        (self.folder / "next").rename(self.folder / "shop.py")

    def start(self, *arguments, **env):
        log = self.folder / f"log-{len(self.started)}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHANCY_DSN", "CHANCY_SCH"))}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "chancy_ops", *(arguments or ("dev", "shop"))],
                cwd=self.folder, env=kept | {"DEV_MARK": self.mark} | env, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        process.log = log
        self.started.append(process)
        return process

    def connect(self):
        """Once it is there."""
        self.dsn = eventually(lambda: (f := self.folder / ".chancy/dsn").exists() and f.read_text()).strip()
        conn = eventually(self._connected)
        conn.autocommit = True
        return conn

    def _connected(self):
        try:
            conn = psycopg.connect(self.dsn)
            conn.execute("SELECT FROM chancy.job")
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return None
        conn.rollback()
        return conn

    def left(self):
        """Processes that have come of it: by their environment, or, as Postgres overwrites that, by their folder."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                env, cwd = (place / "environ").read_bytes(), (place / "cwd").readlink()
                said = (place / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if self.mark.encode() in env or cwd.is_relative_to(self.folder):
                found.append((place.name, said))
        return found

    def clear(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        eventually(lambda: not self.left())
        shutil.rmtree(self.folder)


@pytest.fixture
def ann():
    developer = Developer()
    developer.save(SHOP.format(number=1))
    yield developer
    developer.clear()


def submit(conn, name):
    return conn.execute("SELECT chancy.submit(%s::text, '{}')", (f"shop.{name}",)).fetchone()[0]


def done(conn, job):
    row = eventually(lambda: (row := chancy.get(conn, job)).finished_at and row)
    assert row.state is chancy.State.SUCCEEDED, row
    return int(row.result)


def running(conn, job):
    return eventually(lambda: chancy.get(conn, job).state is chancy.State.RUNNING)


def test_from_one_file_to_a_job_that_is_done_and_the_next_start_goes_on_with_the_data(ann):
    command = ann.start(CHANCY_DSN="postgresql://elsewhere/shop")
    with ann.connect() as conn:
        first = submit(conn, "edition")
        assert done(conn, first) == 1
    said = command.log.read_text().splitlines()
    assert said[0] == f"postgres   {ann.dsn}"
    assert "CHANCY_DSN names another one, which is left alone" in said[2]
    assert said[3] == "           its data stay in .chancy"
    assert re.fullmatch(r"dashboard  http://127\.0\.0\.1:\d+/\?token=\S+", said[4])
    with urllib.request.urlopen(said[4].split()[1], timeout=20) as answer:
        assert "You are in" in answer.read().decode()
    assert said[5] == "Ctrl-C ends all of it"
    eventually(lambda: re.search(r"^worker    \| .*shop\.edition", command.log.read_text(), re.MULTILINE))
    assert (ann.folder / ".chancy/.gitignore").read_text() == "*\n"
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 0
    assert ann.left() == []
    command = ann.start()
    with ann.connect() as conn:
        assert chancy.get(conn, first).state is chancy.State.SUCCEEDED
        assert done(conn, submit(conn, "edition")) == 1
    command.send_signal(signal.SIGTERM)
    assert command.wait(60) == 0
    assert ann.left() == []


def test_a_change_is_taken_what_ran_goes_back_and_a_mistake_is_told_and_mended(ann):
    command = ann.start()
    with ann.connect() as conn:
        waiting = submit(conn, "waits")
        eventually(lambda: "worker    | waiting" in command.log.read_text())
        ann.save(SHOP.format(number=2))
        assert done(conn, waiting) == 2
        assert (chancy.get(conn, waiting).attempt, chancy.get(conn, waiting).crashes) == (1, 0)
        ann.save(SHOP.format(number=3) + "\n)(\n")
        eventually(lambda: "it is started again when a file changes" in command.log.read_text())
        (told,) = [line for line in command.log.read_text().splitlines() if "SyntaxError" in line]
        assert "shop.py, line " in told
        ann.save(SHOP.format(number=4))
        assert done(conn, submit(conn, "edition")) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_nothing_is_left_and_the_data_are_used_again(ann, number):
    command = ann.start()
    with ann.connect() as conn:
        jobs = [submit(conn, name) for name in ("waits", "computes")]
        for job in jobs:
            running(conn, job)
    command.send_signal(number)
    assert command.wait(60) == (-9 if number == signal.SIGKILL else 0)
    eventually(lambda: not ann.left())
    ann.save(SHOP.format(number=2))
    ann.start()
    with ann.connect() as conn:
        if number == signal.SIGKILL:  # it runs again when the lease of the worker that is gone is over
            assert not chancy.get(conn, jobs[0]).finished_at
            assert done(conn, submit(conn, "edition")) == 2
        else:
            assert done(conn, jobs[0]) == 2
            assert chancy.get(conn, jobs[0]).crashes == 0


def test_a_job_that_blocks_the_event_loop_does_not_outlive_it(ann):
    command = ann.start()
    with ann.connect() as conn:
        running(conn, submit(conn, "blocks"))
    command.send_signal(signal.SIGKILL)
    command.wait()
    eventually(lambda: not ann.left())


def test_two_at_once_in_one_folder_are_told_apart(ann):
    command = ann.start()
    ann.connect().close()
    second = ann.start()
    assert second.wait(60) == 2
    assert second.log.read_text() == (
        f"chancy: another `chancy dev` has .chancy, process {command.pid}: end that, or name another folder with "
        "--folder\n"
    )
    assert command.poll() is None


def test_a_worker_that_cannot_be_told_what_it_was_told_ends_all_of_it(ann):
    command = ann.start("dev", "shop", "--", "--no-such-option")
    assert command.wait(60) == 1
    said = command.log.read_text()
    assert "worker    | chancy-worker: error: unrecognized arguments: --no-such-option" in said
    assert said.endswith("chancy: worker has ended with 2; its last lines say why\n")
    assert ann.left() == []


def test_a_server_that_is_named_is_used_and_no_other_is_started(ann, chancy_dsn, chancy_schema):
    command = ann.start("--dsn", chancy_dsn, "--schema", chancy_schema, "dev", "shop", "--", "--threads", "3")
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        job = conn.execute(f"SELECT {chancy_schema}.submit('shop.edition', '{{}}')").fetchone()[0]
        eventually(lambda: chancy.get(conn, job, schema=chancy_schema).finished_at)
    assert not (ann.folder / ".chancy/postgres").exists()
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 0


def test_a_server_that_cannot_start_says_why(ann):
    (ann.folder / ".chancy/postgres").mkdir(parents=True)
    (ann.folder / ".chancy/postgres/somebodys").touch()
    command = ann.start()
    assert command.wait(60) == 2
    said = command.log.read_text()
    assert "postgres  | " in said
    assert "has other things in it" in said
    assert "chancy: Postgres does not start; the lines above" in said


def test_lines_are_whole_harmless_and_end_it_where_nobody_reads_them(capsys, monkeypatch):
    broken = []
    log = Log(lambda: broken.append(1))
    program = Program("odd", [sys.executable, "-c", r"print('a\x1b[2Jb'); print('ende', end='')"], os.environ, log)
    assert program.first_line() == "a\x1b[2Jb"
    program.follow()
    program.end(30)
    log.say("odd", "a\x1b[2Jb")
    assert capsys.readouterr().out == "odd       | ende\nodd       | a\\x1b[2Jb\n"
    monkeypatch.setattr("click.echo", lambda *_: (_ for _ in ()).throw(BrokenPipeError))
    log.say("odd", "more")
    assert broken == [1]
