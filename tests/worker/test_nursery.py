"""A copy of a nursery is like a start of Python, and nothing outlives the process that has asked for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from nursery import nursery
from worker_help import HERE, environment, eventually, is_alive

TESTS = HERE.parent

FACTS = """
import gc, json, multiprocessing.process, os, signal, sys, threading
os.write(3 if len(sys.argv) > 2 else 1, json.dumps({
    "path": sys.path, "arguments": sys.argv[1:], "name": __name__,
    "main": [sys.modules["__main__"].__name__, getattr(sys.modules["__main__"].__spec__, "name", None)],
    "folder": [os.getcwd(), multiprocessing.process.ORIGINAL_DIR], "environment": dict(os.environ),
    "files": sorted(int(each) for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")),
    "stdin": os.readlink("/proc/self/fd/0"), "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "signals": {n: str(signal.getsignal(n)) for n in signal.valid_signals()},
    "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    "garbage": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()], "threads": len(threading.enumerate()),
    "streams": [[s.encoding, s.errors, s.line_buffering, s.isatty()] for s in (sys.stdin, sys.stdout, sys.stderr)],
    "umask": os.umask(0o22), "flags": str(sys.flags), "warnings": sys.warnoptions,
}).encode())
"""

FILES = (
    "import sys; print(*[module.__file__ for module in sys.modules.values() if hasattr(module, '__file__')], sep='\\n')"
)
KINDS = ["chancy_worker.cli", "chancy_worker.children.forkserver"]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What each of two was asked for: a module that says all it knows of its process, in a place of these tests."""
    (tmp_path / "facts.py").write_text(FACTS)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["..", str(tmp_path / "no"), ""]), prepend=os.pathsep)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    return environment()


@pytest.mark.parametrize("command", [["-m", "facts", "--option"], ["-c", FACTS, "--option"]], ids=["module", "code"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_like_a_start(asked, command, kind, tmp_path):
    started, copied = tmp_path / "started", tmp_path / "copied"
    with started.open("wb") as out:
        subprocess.run(
            [sys.executable, *command], env=asked, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True,
            start_new_session=True,
        )  # fmt: skip
    with copied.open("wb") as out:
        copy = nursery(kind).start(*command, env=asked, files=[out.fileno()] * 2)
    assert copy.wait() == 0
    assert json.loads(copied.read_text()) == json.loads(started.read_text())


def test_a_copy_has_no_module_of_a_user(tmp_path):
    for kind in KINDS:
        with (tmp_path / "files").open("wb") as out:
            copy = nursery(kind).start("-c", FILES, env=environment(), files=[out.fileno(), 2])
        assert copy.wait() == 0
        found = (tmp_path / "files").read_text().splitlines()
        assert len(found) > 100
        assert [path for path in found if path.startswith(str(TESTS))] == [str(HERE / "nursery.py")]


def test_what_only_a_start_hears_of_takes_one(asked):
    with pytest.raises(AssertionError, match="takes a start"):
        nursery("chancy_worker.cli").start("-c", "", env=asked | {"PYTHONDEVMODE": "1"}, files=[1, 2])


ASKING = """
import os, sys, time
from nursery import nursery
one, other = nursery("json"), nursery("chancy_worker.children.forkserver")
if os.fork() == 0:  # holds the other end of the line to both
    time.sleep(60)
    os._exit(0)
sleeps = one.start("-c", "import time; time.sleep(600)", env=os.environ, files=[1, 2])
forks = other.start("-c", "import time; time.sleep(600)", env=os.environ, files=[1, 2])
print(one._process.pid, other._process.pid, sleeps.pid, forks.pid, flush=True)
if sys.argv[1:]:
    time.sleep(600)
"""


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "ended"])
async def test_nothing_outlives_who_has_asked_for_it(killed):
    more = ["to be killed"] * killed
    asking = subprocess.Popen(
        [sys.executable, "-c", ASKING, *more], env=environment(), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        pids = [int(word) for word in asking.stdout.readline().split()]
        assert len(pids) == 4
        if killed:
            asking.kill()
        asking.wait(10)
        await eventually(lambda: not any(map(is_alive, pids)))
    finally:
        os.killpg(asking.pid, signal.SIGKILL)
