"""`otel_help` and `otel_tasks` are found under their plain names, as is what helps the tests of the worker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import chancy

sys.path.insert(0, str(Path(__file__).parents[1] / "worker"))
sys.path.insert(0, str(Path(__file__).parent))

import otel_help
import otel_tasks
from worker_help import Site


@pytest.fixture(autouse=True)
def restored():
    with otel_help.restored():
        yield


@pytest.fixture
def site(chancy_dsn, chancy_schema, tmp_path):
    chancy.configure(schema=chancy_schema)
    chancy.meta(lambda: {"dsn": chancy_dsn})  # beside the jobs, for tasks that submit
    otel_tasks.snoozed.clear()
    site = Site(chancy_dsn, chancy_schema, tmp_path)
    yield site
    site.close()
    chancy.configure(schema=None)


@pytest.fixture
def spans(tmp_path, monkeypatch):
    """What is traced here, and by child processes."""
    monkeypatch.setenv("CHANCY_TEST_SPANS", str(tmp_path / "spans"))
    with otel_help.instrumented() as spans:
        spans.file = tmp_path / "spans"
        monkeypatch.setattr(otel_tasks, "provider", spans.provider)
        yield spans
