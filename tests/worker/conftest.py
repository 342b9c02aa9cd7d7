"""`worker_tasks` and `worker_help` are found under their plain names, here and in worker processes."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import worker_tasks
from worker_help import Site, clean_tasks


@pytest.fixture
def site(chancy_dsn, chancy_schema, tmp_path):
    clean_tasks()
    worker_tasks.dsn = chancy_dsn
    site = Site(chancy_dsn, chancy_schema, tmp_path)
    yield site
    site.close()


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
