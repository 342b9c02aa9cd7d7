"""`--reload`: which files are watched, what a change does, and that nothing outlives the process that has started it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from worker_help import eventually, process_facts

from chancy.model import State
from chancy_worker import reloading

pytestmark = pytest.mark.any_postgres

WATCHED = ["shop.py", "shop/tasks.py", "shop/deep/er.py"]
LEFT_OUT = [
    ".venv/lib/x.py", ".git/hook.py", "env/pyvenv.cfg", "env/lib/y.py", "node_modules/z.py", "shop/__pycache__/a.py",
    "shop/notes.txt", "lib/site-packages/b.py",
]  # fmt: skip


def test_the_modules_of_a_program_are_watched_and_those_of_others_are_not(tmp_path):
    for name in WATCHED + LEFT_OUT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "shop/round").symlink_to(tmp_path)
    found = reloading.modules_in([tmp_path, tmp_path / "nowhere"])
    assert sorted(path.relative_to(tmp_path).as_posix() for path in found) == sorted(WATCHED)


def test_what_is_new_written_or_gone_has_changed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(reloading, "SHARE", math.inf)  # it is never too early for another look, however long one took
    for name in "ab":
        (tmp_path / f"{name}.py").write_text("1")
    watched = reloading.Watched(lambda: reloading.modules_in([tmp_path]))

    def changed():
        return [path.name for path in watched.changed()]

    assert changed() == []
    (tmp_path / "a.py").write_text("22")
    (tmp_path / "c.py").touch()
    (tmp_path / "b.py").unlink()
    assert changed() == ["a.py", "b.py", "c.py"]
    assert changed() == []


def test_looking_takes_no_more_than_its_share(monkeypatch):
    now, looks = 100.0, []

    def slowly():
        nonlocal now
        looks.append(now)
        now += 0.5
        return {}

    monkeypatch.setattr(reloading, "time", SimpleNamespace(monotonic=lambda: now))
    watched = reloading.Watched(slowly)
    while now < 112:
        watched.changed()
        now += 0.25
    assert looks == [100, 100.5, 111]  # the first, and one; the next ten seconds after the end of that


def test_the_package_of_the_module_is_watched_where_it_is_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there/wares").mkdir(parents=True)
    (tmp_path / "there/wares/__init__.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "there")
    assert reloading.folders_of("wares.tasks:app") == [tmp_path / "here", tmp_path / "there/wares"]
    assert reloading.folders_of("nothing_of_this_name") == [tmp_path / "here"]
    monkeypatch.chdir(tmp_path / "there")
    assert reloading.folders_of("wares") == [tmp_path / "there"]


@pytest.mark.parametrize("word", ["--reload", "--relo", "--re"])
def test_the_worker_itself_is_not_told_to_reload(word):
    words = ["python", "-m", "chancy_worker", "shop", word, "--queue", "mail"]
    assert reloading.without_reload(words) == ["python", "-m", "chancy_worker", "shop", "--queue", "mail"]


EDITION = """
import asyncio, os, time
import chancy

@chancy.task
async def edition() -> int:
    return {number}

@chancy.task(max_attempts=1)
async def waits() -> int:
    if {number} == 1:
        await asyncio.sleep(60)
    return {number}

@chancy.task
async def kills() -> int:
    if chancy.current_job().attempt == 1:
        os.kill(os.getpid(), 9)
    return {number}

@chancy.task
async def blocks() -> int:
    if {number} == 1:
        time.sleep(600)
    return {number}
"""


@pytest.fixture
def edition(tmp_path, monkeypatch, site):
    """Writes the tasks in an edition of this number, and starts a worker that watches them."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        # In place at once, and never half of it; all in the same second, and those of one length are alike to Python.
        write.at += 1
        (tmp_path / "next").write_text(text)
        os.utime(tmp_path / "next", ns=(write.at, write.at))
        (tmp_path / "next").rename(tmp_path / "editions.py")

    write.at = int(time.time()) * 10**9
    return write


def started(site, *options):
    place = ["--dsn", site.dsn, "--schema", site.schema]
    return site.work("editions", "--reload", "--grace", "20", *options, *place)


def submit(site, name):
    ((job,),) = site.rows(f"SELECT {{}}.submit('editions.{name}', '{{{{}}}}')")
    return job


def is_gone(pid):
    try:
        return process_facts(pid)[0] == "Z"
    except FileNotFoundError:
        return True


async def result_of(site, job):
    row = await eventually(lambda: (row := site.row(job)).finished_at and row, 60)
    assert row.state is State.SUCCEEDED, row
    return int(row.result)


@pytest.mark.long
async def test_a_change_is_taken_what_ran_goes_back_and_a_mistake_waits_to_be_mended(site, edition):
    edition(EDITION.format(number=1))
    worker = started(site)
    waiting = submit(site, "waits")
    await eventually(lambda: site.row(waiting).state is State.RUNNING, 60)
    edition(EDITION.format(number=2))
    assert await result_of(site, waiting) == 2
    assert (site.row(waiting).attempt, site.row(waiting).crashes) == (1, 0)
    edition(EDITION.format(number=3) + "\n)(\n")
    await eventually(lambda: "it is started again when a file changes" in worker.text, 60)
    assert worker.text.count("SyntaxError: unmatched ')'") == 1
    edition(EDITION.format(number=4))
    assert await result_of(site, submit(site, "edition")) == 4
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.code == 0, 60)
    assert site.workers() == {}


async def test_a_worker_that_a_job_kills_is_started_again(site, edition):
    edition(EDITION.format(number=1))
    worker = started(site)
    await eventually(site.workers, 60)
    submit(site, "kills")
    await eventually(lambda: "the worker was killed by signal 9; it is started again" in worker.text, 60)
    assert await result_of(site, submit(site, "edition")) == 1
    worker.signal(signal.SIGINT)
    await eventually(lambda: worker.code == 0, 60)


async def test_a_job_that_blocks_the_event_loop_holds_up_neither_a_change_nor_the_end(site, edition, monkeypatch):
    edition(EDITION.format(number=1))
    worker = started(site)
    blocking = submit(site, "blocks")
    await eventually(lambda: site.row(blocking).state is State.RUNNING, 60)
    edition(EDITION.format(number=2))
    assert await result_of(site, submit(site, "edition")) == 2
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.code == 0, 60)


async def test_with_the_one_that_watches_ends_the_worker_whatever_its_loop_does(site, edition):
    edition(EDITION.format(number=1))
    watching = started(site)
    await eventually(site.workers, 60)
    (worker,) = site.workers().values()
    watching.signal(signal.SIGKILL)
    await eventually(lambda: is_gone(worker), 60)
    assert site.workers() == {}  # in good order


OUTLIVED = """
import subprocess, sys, time
from chancy_worker.supervision.parent import ended_with_this
import os
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=ended_with_this(os.environ))
print(child.pid, flush=True)
time.sleep(600)
"""
BUSY = """
import os, time
from chancy_worker.supervision import parent
parent.TO_END_SECONDS = 0.2
with parent.ending_with_parent(lambda: print("told", flush=True), 0.2):
    assert parent.ENDS_WITH not in os.environ
    print("begun", flush=True)
    while True:
        time.sleep(600)
"""


def test_a_process_that_does_not_heed_it_ends_with_its_parent_all_the_same():
    parent = subprocess.Popen([sys.executable, "-c", OUTLIVED, BUSY], stdout=subprocess.PIPE, text=True)
    said = {parent.stdout.readline().strip() for _ in range(2)}
    assert "begun" in said
    parent.kill()
    parent.wait()
    assert parent.stdout.read() == "told\n"  # to the end of all who hold it
    parent.stdout.close()
