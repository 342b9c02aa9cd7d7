"""The tutorial, done as a reader does it: in an environment with nothing but the packages its files are written, its
commands are run, and what they show is compared.

With CHANCY_WRITE_SCREENS=1 what they show is written into the page.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
from snippets import FENCE, ROOT

PAGE = ROOT / "docs/tutorial/README.md"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")
pytestmark = [
    pytest.mark.timeout(400),  # the first time everything is downloaded
    pytest.mark.skipif(sys.platform == "win32", reason="the embedded Postgres needs Linux or macOS"),
]
FILE = re.compile(r"# (\w+\.py)(, continued)?\n")


@pytest.fixture(scope="module")
def programs(tmp_path_factory, uv, wheels):
    """The folder of the programs of a fresh environment: what `pip install 'chancy-ops[dev,web]'` brings."""
    place = tmp_path_factory.mktemp("tutorial") / "env"
    *roots, ops = map(str, wheels("core", "worker", "testing", "ops"))
    for command in (
        ["venv", "--quiet", "--no-project", "--python", sys.executable, str(place)],
        ["pip", "install", "--quiet", "--python", str(place / "bin/python"), *roots, f"{ops}[dev,web]"],
    ):
        subprocess.run([uv, *command], check=True, timeout=240)
    return place / "bin"


class Reader:
    """Somebody with two terminals, in an empty folder."""

    def __init__(self, programs):
        # Not pytest's own folder: that is private, and Postgres does not run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="shop-", dir="/tmp"))
        self.folder.chmod(0o755)
        kept = ("CHANCY_", "PYTEST_", "PYTHONPATH", "VIRTUAL_ENV")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
        self.env |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        self.env |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "xterm"}
        self.first = None
        self.log = self.folder / "first-terminal.log"
        (self.folder / "pytest.ini").write_text("[pytest]\n")  # the settings of this checkout are not the reader's

    def save(self, text):
        name, goes_on = FILE.match(text).groups()
        with (self.folder / name).open("a" if goes_on else "w", encoding="utf-8") as file:
            file.write("\n\n" + text if goes_on else text)

    def type(self, command, shown):
        """What the terminal shows; of what goes on, as much as is `shown` on the page."""
        if command.startswith("chancy dev"):
            with self.log.open("w") as log:
                self.first = subprocess.Popen(
                    command.split(), cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True
                )
            deadline = time.monotonic() + 60
            while "worker    |" not in self.log.read_text():
                assert time.monotonic() < deadline, self.log.read_text()
                assert self.first.poll() is None, self.log.read_text()
                time.sleep(0.1)
            return self.told("".join(self.log.read_text().splitlines(keepends=True)[: shown.count("\n")]))
        if found := re.fullmatch(r'export (\w+)="\$\(cat (\S+)\)"', command):
            self.env[found[1]] = (self.folder / found[2]).read_text().strip()
            return ""
        if command == ". .venv/bin/activate":
            return ""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            command, shell=True, cwd=self.folder, env=self.env, stdin=theirs, stdout=theirs, stderr=theirs
        ) as run:
            os.close(theirs)
            seen = b""
            with contextlib.suppress(OSError):  # at the end of a terminal
                while part := os.read(ours, 65536):
                    seen += part
            run.wait(timeout=60)
        os.close(ours)
        return self.told(ESCAPES.sub("", seen.decode()))

    def told(self, text):
        text = re.sub(r"\?token=\S+", "?token=…", text.replace(str(self.folder), "/home/ann/shop"))
        return text.replace(f"{socket.gethostname()}:", "laptop:")

    def stop(self):
        try:
            if self.first is not None:
                self.first.send_signal(signal.SIGINT)
                assert self.first.wait(timeout=60) == 0, self.log.read_text()
        finally:
            shutil.rmtree(self.folder)


def shape(text):
    """What stays the same from one run to the next."""
    text = re.sub(r"\d+(\.\d+)? (ms|s|min)\b", "0 s", text)
    text = re.sub(r"[─━╸╺=]+", "─", re.sub(r"\d+", "0", text))
    return re.sub(r"\s+", " ", text).strip()


def commands(block):
    """Each command of a console, and what it shows."""
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in re.split(r"(?m)^\$ ", block)[1:]]


def test_the_tutorial_does_what_it_shows(programs):
    reader = Reader(programs)
    seen = []

    def done(fence):
        _, language, text = fence.groups()
        if language == "python":
            reader.save(text)
        if language != "console":
            return fence[0]
        shown = ""
        for command, before in commands(text):
            now = reader.type(command, before).rstrip("\n")
            seen.append((command, shape(before), shape(now)))
            lines = before.splitlines() if command in MOVES else now.splitlines()
            shown += f"$ {command}\n" + "".join(f"{line.rstrip()}\n" for line in lines)
        return f"```console\n{shown}```"

    try:
        page = PAGE.read_text(encoding="utf-8")
        written = FENCE.sub(done, page)
        (link,) = re.findall(r"(?m)^dashboard  (http://\S+)$", reader.log.read_text())
        with urllib.request.urlopen(link, timeout=30) as answer:
            assert answer.status == 200
    finally:
        reader.stop()
    if os.environ.get("CHANCY_WRITE_SCREENS"):
        PAGE.write_text(written, encoding="utf-8")
        return
    assert len(seen) > 10
    for command, before, now in seen:
        if command not in MOVES:
            assert now == before, command


MOVES = {"chancy doctor"}
"""What shows the state of the machine; that there is an answer to each check is another test's matter."""
