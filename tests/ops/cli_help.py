"""The command as users call it: in a pipe, within this process; on a terminal, in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kept
import psycopg
import pytest
from psycopg import sql

import chancy
from chancy.__about__ import __version__
from chancy_ops.cli import main

HERE = Path(__file__).parent
WORKER = "web-1:77"
"""There is none: tests write its rows."""
CTRL_C = "\x03"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


@dataclass
class Answer:
    code: int
    out: str
    err: str = ""

    @property
    def lines(self) -> list[list[str]]:
        """The table's lines, as words."""
        return [line.split() for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Shell:
    def __init__(self, capsys: Any, dsn: str, schema: str) -> None:
        self._capsys = capsys
        self.dsn = dsn
        self.schema = schema

    @functools.cached_property
    def conn(self) -> psycopg.Connection[Any]:
        return kept.connect(self.dsn)

    def close(self) -> None:
        if "conn" not in self.__dict__:
            return
        with contextlib.suppress(psycopg.Error):  # a schema without a lease is used by the next test as well
            self.conn.execute("SET lock_timeout = '500ms'")
            self.rows("DELETE FROM {}.worker WHERE name = %s RETURNING id", WORKER)
        self.conn.close()

    def __call__(self, *arguments: object, dsn: str | None = None, schema: str | None = None) -> Answer:
        """In a pipe."""
        self._capsys.readouterr()
        site = ["--dsn", self.dsn if dsn is None else dsn, "--schema", schema or self.schema]
        code = main([*site, *map(str, arguments)])
        out, err = self._capsys.readouterr()
        return Answer(code, out, err)

    def terminal(self, *arguments: object, keys: str = "", **more: Any) -> Answer:
        """On a terminal, where `keys` answer its question."""
        terminal = Terminal(self, *arguments, **more)
        if keys:
            terminal.see("[y/N]")
            terminal.type(keys)
            # Python hears of a Ctrl-C between its question and its read only with the next key; so people press again.
            for _ in range(20 if keys == CTRL_C else 0):
                if terminal.ends(within=1):
                    break
                terminal.type(keys)
        return terminal.end()

    def submit(self, *jobs: Any) -> list[int]:
        return [job.id for job in chancy.submit_many(self.conn, jobs, schema=self.schema)]

    def rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """`{}` in the query is the schema."""
        return self.conn.execute(sql.SQL(query).format(sql.Identifier(self.schema)), params).fetchall()

    def row(self, job_id: int) -> chancy.JobRow:
        return chancy.get(self.conn, job_id, schema=self.schema)

    def finish(
        self,
        *ids: int,
        state: str = "failed",
        kind: str = "ValueError",
        message: str = "no",
        fingerprint: str = "5ade1fb7c0d3",
    ) -> None:
        """What a worker does at the end of jobs."""
        traceback = f"Traceback (most recent call last):\n  …\n{kind}: {message}"
        error = {"attempt": 1, "kind": kind, "message": message, "traceback": traceback, "worker": WORKER}
        error["fingerprint"] = fingerprint
        self.rows(
            """WITH done AS (DELETE FROM {0}.job WHERE id = ANY (%s) RETURNING *, %s::text::json AS said)
            INSERT INTO {0}.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, run_at,
                submitted_at, started_at, finished_at, arguments, result, errors, unique_key, unique_until,
                error_kind, fingerprint)
            SELECT id, task, queue, priority, %s::text::{0}.state, 1, max_attempts, 1, crashes, run_at, submitted_at,
                {0}.clock(), {0}.clock(), arguments, CASE WHEN %s = 'succeeded' THEN 'null'::json END, said,
                unique_key, unique_until, {0}.of_last_error(said, 'kind'), {0}.of_last_error(said, 'fingerprint')
            FROM done RETURNING id""",
            list(ids), None if state == "succeeded" else json.dumps([error]), state, state,
        )  # fmt: skip

    def run(
        self,
        job_id: int,
        progress: str | None = None,
        queues: Sequence[str] = ("mail",),
        tasks: Sequence[str] = ("shop_tasks.welcome",),
    ) -> int:
        """A live worker has claimed it; the worker's id."""
        ((worker,),) = self.rows(
            """INSERT INTO {0}.worker (name, started_at, expires_at, clock_ahead, memory, memory_of_children, memory_at)
            VALUES (%s, {0}.clock(), {0}.clock() + interval '1 h', 0.004, 100663296, 251658240,
                {0}.clock() - interval '3 s')
            RETURNING id""",
            WORKER,
        )
        self.rows(
            """INSERT INTO {0}.offer (worker, queues, tasks, signatures, version, listens)
            VALUES (%s, %s, %s, array_fill(''::text, ARRAY[%s]), %s, true) RETURNING worker""",
            worker,
            list(queues),
            list(tasks),
            len(tasks),
            __version__,
        )
        self.rows(
            """UPDATE {0}.job SET state = 'running', attempt = 1, claims = 1, worker = %s, started_at = {0}.clock(),
            progress = %s::json WHERE id = %s RETURNING id""",
            worker, progress, job_id,
        )  # fmt: skip
        return int(worker)


class Terminal:
    """A pseudo-terminal with the command in it."""

    def __init__(self, shell: Shell, *arguments: object, columns: int = 120, folder: Path = HERE) -> None:
        self.master, self._slave = pty.openpty()
        self.before = self.modes()
        env = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "50"}
        env |= {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        env |= {"CHANCY_DSN": shell.dsn, "CHANCY_SCHEMA": shell.schema}
        env = {name: value for name, value in env.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "chancy_ops", *map(str, arguments)],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=env,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        self.raw = ""

    def modes(self) -> list[Any]:
        import termios

        return termios.tcgetattr(self._slave)

    def see(self, text: str, within: float = 20) -> None:
        """Wait until this is on the screen."""
        deadline = time.monotonic() + within
        while text not in self.raw:
            if time.monotonic() > deadline or not self._read(0.2):
                if time.monotonic() > deadline or self.popen.poll() is not None:
                    pytest.fail(f"{text!r} is not on the screen:\n{self.raw}")

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            self.raw += os.read(self.master, 65536).decode(errors="replace")
        return bool(ready)

    def ends(self, within: float) -> bool:
        deadline = time.monotonic() + within
        while self.popen.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        return self.popen.poll() is not None

    def end(self, within: float = 20) -> Answer:
        self.ends(within)
        while self._read(0.05):
            pass
        if self.popen.poll() is None:
            self.popen.kill()
            pytest.fail(f"it does not end:\n{self.raw}")
        self.after = self.modes()
        os.close(self.master)
        os.close(self._slave)
        return Answer(self.popen.returncode, ESCAPES.sub("", self.raw).replace("\r\n", "\n"))


def _take_terminal() -> None:
    """Ctrl-C reaches a process whose terminal it is."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
