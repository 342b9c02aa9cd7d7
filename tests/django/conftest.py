"""A Django project, tests/django/shop, on each Django that it is for: that of this environment, and another one in an
environment of its own. Its tests are run by its own pytest, as its owner would: two projects do not fit into one process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "tests" / "django" / "shop"
NEWEST = ["django>=6.0"]
OLDEST = ["django==5.2.*", "django-tasks>=0.12"]
_OURS = ("CHANCY_", "DJANGO_", "HATCH_", "PYTEST_", "PYTHONHOME", "PYTHONPATH", "SHOP_", "VIRTUAL_ENV")
_KEPT = ("CHANCY_PG_",)


def environment(**settings):
    """What a project of somebody else runs in."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith(_OURS) or name.startswith(_KEPT)}
    return kept | settings


@dataclass
class Site:
    """A Python with Django and what the shop needs, and a Postgres for it."""

    python: str
    dsn: str

    def run(self, *command, cwd=SHOP, code=0, within=240, **settings):
        """What it said. It has its time, and then it is ended with all that it has started."""
        process = self.start(*command, log=subprocess.PIPE, cwd=cwd, **settings)
        try:
            said, _ = process.communicate(timeout=within)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        assert process.returncode == code, said
        return said

    def start(self, *command, log, cwd=SHOP, **settings):
        return subprocess.Popen(
            [self.python, *map(str, command)],
            cwd=cwd,
            env=environment(SHOP_DSN=self.dsn, **settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def pytest(self, *arguments, **settings):
        """In a test database of its own."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        said = self.run("-m", "pytest", "--create-db", *arguments, SHOP_TEST_NAME=name, **settings)
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE IF EXISTS {name} (FORCE)".encode())
        return said

    @property
    def django(self):
        return self.run("-c", "import django; print(django.__version__)").strip()


def newer_python():
    """One that takes the newest Django, if there is one on this machine."""
    if sys.version_info >= (3, 12):
        return sys.executable
    names = [found for minor in (14, 13, 12) if (found := shutil.which(f"python3.{minor}"))]
    beside = Path(sys.base_prefix).parent.glob("3.1[2-9]*/bin/python")  # as pyenv keeps them, wherever it does
    names += map(str, sorted(beside, reverse=True))
    for name in names:
        if subprocess.run([name, "-c", "import ssl"], capture_output=True, check=False).returncode == 0:
            return name
    return None


def _lacking(what):
    pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)


@pytest.fixture(scope="session")
def another(tmp_path_factory, uv, wheels):
    """The interpreter of an environment with the other Django."""
    wanted, python = (OLDEST, sys.executable) if sys.version_info >= (3, 12) else (NEWEST, newer_python())
    if python is None:
        _lacking("there is no Python here that the newest Django would run on")
    place = tmp_path_factory.mktemp("django") / "env"
    made = [uv, "venv", "--quiet", "--no-project", "--python", python, str(place)]
    needed = [
        *wanted,
        "psycopg[pool]",
        "pytest>=8.2",
        "pytest-django>=4.9",
        "pytest-timeout>=2.3",
        "pip",
        "setuptools>=77",
    ]
    ours = map(str, wheels("core", "worker", "ops", "testing", "django"))
    filled = [uv, "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), *needed, *ours]
    for command in (made, filled):
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    yield str(place / "bin" / "python")
    shutil.rmtree(place)


@pytest.fixture(params=["here", pytest.param("elsewhere", marks=pytest.mark.projects)])
def site(request, chancy_dsn):
    """Each of both."""
    python = sys.executable if request.param == "here" else request.getfixturevalue("another")
    return Site(python, chancy_dsn)


@pytest.fixture
def newest(request, chancy_dsn):
    """The one with the newest Django."""
    python = sys.executable if sys.version_info >= (3, 12) else request.getfixturevalue("another")
    return Site(python, chancy_dsn)


@pytest.fixture
def here(chancy_dsn):
    """The one of this environment, with a database of its own."""
    name = f"shop_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
        yield Site(sys.executable, make_conninfo(chancy_dsn, dbname=name))
        conn.execute(f"DROP DATABASE {name} (FORCE)".encode())


class Running:
    """A process that was started, and its log."""

    def __init__(self, process, log):
        self.process, self._log = process, log

    @property
    def log(self):
        return self._log.read_text(errors="replace")

    def stop(self, number=signal.SIGTERM, within=30):
        self.process.send_signal(number)
        return self.process.wait(within)


@pytest.fixture
def start(tmp_path):
    """Start `manage.py …` of a site; what still runs at the end of the test is ended."""
    started = []

    def begin(site, *arguments, cwd=SHOP, **settings):
        log = tmp_path / f"log{len(started)}"
        with log.open("w") as file:
            process = site.start("manage.py", *arguments, log=file, cwd=cwd, **settings)
        started.append(process)
        return Running(process, log)

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def eventually():
    """Poll until the condition holds; what it gave."""

    def wait(condition, within=60):
        deadline = time.monotonic() + within
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {within} s"
            time.sleep(0.02)
        return value

    return wait


@pytest.fixture
def counted():
    """How many tests of a pytest's output have passed, or say themselves why they cannot; none may have failed."""

    def count(said):
        last = said.strip().splitlines()[-1]
        assert re.fullmatch(r"=* ?(\d+) passed in .*", last), said
        return sum(map(int, re.findall(r"(\d+) passed", last)))

    return count


@pytest.fixture
def settings_as():
    """Settings of the shop that a test has otherwise."""
    return lambda **settings: {"SHOP_SETTINGS": json.dumps(settings)}
