"""`worker_tasks` and `worker_help` are found under their plain names, here and in worker processes."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import worker_tasks
from worker_help import Site, clean_tasks, copied_fork_server

from chancy_worker.children import forkserver
from chancy_worker.connection.link import Link
from chancy_worker.connection.sessions import LentSession, OwnSession
from chancy_worker.parts.retention import drop_briefly, drop_overdue


@pytest.fixture
def site(chancy_dsn, chancy_schema, tmp_path):
    clean_tasks()
    worker_tasks.dsn = chancy_dsn
    site = Site(chancy_dsn, chancy_schema, tmp_path)
    yield site
    site.close()


@pytest.fixture
def started_children():
    """For tests of what a fork server is started with, and of its death: it is no copy, but a start of Python."""


@pytest.fixture(autouse=True)
def copied_children(request):
    """The fork servers of workers in here cost no start of Python: there are hundreds."""
    with pytest.MonkeyPatch.context() as patch:  # and not `monkeypatch`, which is undone before the site is closed
        if "started_children" not in request.fixturenames:
            patch.setattr(forkserver, "_started", copied_fork_server)
        yield


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(params=[OwnSession, LentSession], ids=["own session", "behind a pooler"])
async def upkeep(request, site):
    """Drops what is overdue, as a worker does."""
    link = Link(site.dsn, site.schema, "upkeep", deadline=20, lock_timeout="5s", session=request.param)
    await link.connect()
    yield lambda: (drop_briefly if request.param is LentSession else drop_overdue)(link)
    await link.close()
