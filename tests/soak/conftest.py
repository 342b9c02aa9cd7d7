"""`hatch run patience`: the worker's tests of breakage with the clockwork as shipped. Minutes, so not in CI."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "worker"))

import psycopg
from worker_help import Site

import chancy
from chancy_testing.server.postgres import DURABLE, Postgres


@pytest.fixture
def server():
    with Postgres(settings=DURABLE) as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        yield server


@pytest.fixture
def site(server, tmp_path):
    site = Site(server.dsn, "chancy", tmp_path)
    yield site
    site.close()


@pytest.fixture
def say(capsys):
    """Print a figure past pytest's capture."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", end="", flush=True)

    return say
