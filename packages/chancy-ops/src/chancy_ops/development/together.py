"""Postgres, worker and page of a project that is being written: begun in this order, and ended the other way round.

This starts programs and imports none of them: whoever is on call has neither the worker nor an embedded Postgres.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from chancy_ops.terminal.faults import DONE, NOT_DONE, Refusal

from .folder import Folder
from .programs import Log, Program

LOOK_SECONDS = 0.1
GRACE_SECONDS = 1.0
"""That running jobs get at the end."""
TO_END_SECONDS = 20.0
"""That the worker gets at the end, in all; a second Ctrl-C does not wait for that."""
TO_STOP_SECONDS = 30.0
"""That Postgres gets for its last checkpoint, and for that of a start before."""
PORT = 8610
"""Of the pages, unless somebody has it."""
ENDS_WITH = "CHANCY_WORKER_ENDS_WITH"
"""The variable that tells a worker with which process it ends."""


@contextlib.contextmanager
def ending() -> Iterator[threading.Event]:
    """What is set by Ctrl-C, SIGTERM, or the end of the terminal."""
    asked = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, lambda *_: asked.set())) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextlib.contextmanager
def postgres(place: Folder, log: Log) -> Iterator[tuple[str, Program]]:
    """The server of this project while the block lasts, and where it is. Raises `Refusal` where it does not start."""
    command = [sys.executable, "-m", "chancy_testing.server", str(place.postgres), "--for-libpq"]
    command += ["--wait", str(TO_STOP_SECONDS)]
    server = Program("postgres", command, os.environ, log)
    try:
        if not (dsn := server.first_line()):
            server.end(TO_STOP_SECONDS)
            raise Refusal(f"Postgres does not start; the lines above, or {place.postgres / 'log'}, say why")
        server.follow()
        yield dsn, server
    finally:
        server.let_go()
        server.end(TO_STOP_SECONDS)


@contextlib.contextmanager
def worker(
    target: str, more: Sequence[str], dsn: str, schema: str, log: Log, asked: threading.Event
) -> Iterator[Program]:
    """A worker that watches the code while the block lasts. At the end running jobs get their grace; a second Ctrl-C
    ends them.
    """
    command = [sys.executable, "-m", "chancy_worker", target, "--reload", "--dsn", dsn, "--schema", schema]
    env = {"CHANCY_DSN": dsn, "CHANCY_SCHEMA": schema, "PYTHONUNBUFFERED": "1", ENDS_WITH: str(os.getpid())}
    program = Program("worker", [*command, "--grace", str(GRACE_SECONDS), *more], os.environ | env, log)
    program.follow()
    try:
        yield program
    finally:
        asked.clear()
        program.tell()
        waiting = threading.Thread(target=program.end, args=[TO_END_SECONDS])
        waiting.start()
        while waiting.is_alive():
            waiting.join(LOOK_SECONDS)
            if asked.is_set():
                asked.clear()
                program.tell()


@contextlib.contextmanager
def dashboard(target: str, dsn: str, schema: str, log: Log) -> Iterator[str]:
    """The pages while the block lasts: the link to them, or in its place what they need."""
    if not all(map(importlib.util.find_spec, ("jinja2", "starlette", "uvicorn"))):
        yield "comes with chancy-ops[web]"
        return
    site = ["--dsn", dsn, "--schema", schema, "--json", "--until-input-ends", "--port", str(PORT), "--or-another"]
    command = [sys.executable, "-m", "chancy_ops", "dashboard", *site]
    for modules in [target.partition(":")[0]], []:  # without them, where they cannot be imported yet
        pages = Program("dashboard", [*command, *modules], os.environ, log)
        try:
            if said := pages.first_line():
                yield _link(said, pages)
                return
        finally:
            pages.let_go()
            pages.end(TO_END_SECONDS)
    yield "does not start; the lines above say why"


def _link(said: str, pages: Program) -> str:
    lines = [said]
    while not (ended := lines[-1]).startswith("}") and ended:
        lines.append(pages.first_line())
    pages.follow()
    return str(json.loads("".join(lines))["url"])


def until_ended(programs: Sequence[Program], asked: threading.Event) -> int:
    """The code, when somebody asks for the end. Raises `Refusal` when one of them has ended, without which the others
    are no use.
    """
    while not asked.wait(LOOK_SECONDS):
        for program in programs:
            if program.code is not None:
                raise Refusal(f"{program.name} has ended with {program.code}; its last lines say why", NOT_DONE)
    return DONE


def in_short(dsn: str) -> str:
    """As other programs understand it, too."""
    from psycopg.conninfo import conninfo_to_dict

    at = conninfo_to_dict(dsn)
    return f"postgresql://{at['user']}@/{at['dbname']}?host={quote(str(at['host']))}&port={at['port']}"
