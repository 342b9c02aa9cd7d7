"""The tutorial, done as a reader does it: its files are written, its commands are run, and what they show is compared.

With CHANCY_WRITE_SCREENS=1 what they show is written into the page.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from snippets import FENCE, ROOT

PAGE = ROOT / "docs/tutorial/README.md"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")
FILE = re.compile(r"# (\w+\.py)(, continued)?\n")


class Reader:
    """Somebody with a terminal, in an empty folder, with a database of her own."""

    def __init__(self, folder, dsn):
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("CHANCY_", "PYTEST_"))}
        self.env |= {"CHANCY_DSN": dsn, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "xterm"}
        self.worker = None
        (folder / "pytest.ini").write_text(
            "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
        )  # the settings of this checkout are not the reader's

    def save(self, text):
        name, goes_on = FILE.match(text).groups()
        with (self.folder / name).open("a" if goes_on else "w", encoding="utf-8") as file:
            file.write("\n\n" + text if goes_on else text)

    def type(self, command):
        """What the terminal shows."""
        if command.endswith("&"):
            log = (self.folder / "worker.log").open("a+")
            self.worker = subprocess.Popen(command.split()[:-1], cwd=self.folder, env=self.env, stderr=log)
            return ""
        if command == "kill %1":
            return self.stop()
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            command, shell=True, cwd=self.folder, env=self.env, stdin=theirs, stdout=theirs, stderr=theirs
        ) as run:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # at the end of a terminal
                while part := os.read(ours, 65536):
                    shown += part
            run.wait(timeout=60)
        os.close(ours)
        text = ESCAPES.sub("", shown.decode()).replace(str(self.folder), "/home/ann/shop")
        return text.replace(f"{socket.gethostname()}:", "laptop:")

    def stop(self):
        if self.worker is not None:
            self.worker.send_signal(signal.SIGTERM)
            assert self.worker.wait(timeout=60) == 0, (self.folder / "worker.log").read_text()
            self.worker = None
        return ""


def shape(text):
    """What stays the same from one run to the next."""
    text = re.sub(r"\d+(\.\d+)? (ms|s|min)\b", "0 s", text)
    text = re.sub(r"[─━╸╺=]+", "─", re.sub(r"\d+", "0", text))
    return re.sub(r"\s+", " ", text).strip()


def commands(block):
    """Each command of a console, and what it shows."""
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in re.split(r"(?m)^\$ ", block)[1:]]


def test_the_tutorial_does_what_it_shows(chancy_dsn, tmp_path):
    name = f"tutorial_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    reader = Reader(tmp_path, make_conninfo(chancy_dsn, dbname=name))
    seen = []

    def done(fence):
        _, language, text = fence.groups()
        if language == "python":
            reader.save(text)
        if language != "console":
            return fence[0]
        shown = ""
        for command, before in commands(text):
            now = reader.type(command).rstrip("\n")
            seen.append((command, shape(before), shape(now)))
            lines = before.splitlines() if command in MOVES else now.splitlines()
            shown += f"$ {command}\n" + "".join(f"{line.rstrip()}\n" for line in lines)
        return f"```console\n{shown}```"

    try:
        page = PAGE.read_text(encoding="utf-8")
        written = FENCE.sub(done, page)
    finally:
        reader.stop()
        with psycopg.connect(chancy_dsn, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
    if os.environ.get("CHANCY_WRITE_SCREENS"):
        PAGE.write_text(written, encoding="utf-8")
        return
    assert len(seen) > 10
    for command, before, now in seen:
        if command not in MOVES:
            assert now == before, command


MOVES = {"chancy doctor"}
"""What shows the state of the machine; that there is an answer to each check is another test's matter."""
