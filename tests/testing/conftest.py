"""A project of somebody else, with nothing in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

FOREIGN = ("hypothesispytest", "django", "chancy_django", "anyio")
"""Plugins that are installed here and are none of a small project's: to import them takes half of each start. What is
named on the command line is there all the same."""


class Project:
    """An empty folder, where pytest runs without a setting."""

    def __init__(self, folder):
        self.folder = folder
        self.write("pytest.ini", "")  # without it pytest would find ours, wherever the folder is

    def write(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")

    def start(self, *arguments, **settings):
        """pytest, in a process group of its own."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("CHANCY_", "PYTEST_"))}
        postgres = {name: value for name, value in os.environ.items() if name.startswith("CHANCY_PG_")}
        without = [word for plugin in FOREIGN if plugin not in arguments for word in ("-p", f"no:{plugin}")]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", self.folder]
        return subprocess.Popen(
            [*command, *without, *arguments],
            cwd=self.folder,
            env=env | postgres | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments, **settings):
        """Its exit code, and what it said."""
        with self.start(*arguments, **settings) as pytest_process:
            said, _ = pytest_process.communicate(timeout=100)
        return pytest_process.returncode, said

    def passes(self, number, *arguments, **settings):
        """What it said; so many tests pass."""
        code, said = self.run(*arguments, **settings)
        assert code == 0, said
        assert re.search(rf"^{number} passed", said, re.MULTILINE), said
        return said


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def eventually():
    """Poll until the condition holds: within what two starts of Python and one of Postgres take on a busy machine."""

    def wait(condition, within=60):
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within} s")
            time.sleep(0.02)

    return wait
