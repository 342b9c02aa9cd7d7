"""The event loop that a worker runs on."""

import sys

import pytest
from worker_help import eventually

from chancy_worker.cli import Refusal, runner

pytestmark = pytest.mark.any_postgres


def loop_of(wish):
    with runner(wish) as running:
        return type(running.get_loop()).__module__.partition(".")[0]


def test_uvloop_is_used_where_it_is_installed_and_asyncio_for_whoever_asks():
    pytest.importorskip("uvloop")
    assert [loop_of(wish) for wish in ("auto", "uvloop", "asyncio")] == ["uvloop", "uvloop", "asyncio"]


def test_without_uvloop_the_worker_runs_on_asyncio_and_who_insists_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_of("auto") == "asyncio"
    with pytest.raises(Refusal, match=r"install chancy-worker\[fast\]"):
        runner("uvloop")


@pytest.mark.parametrize("wish", ["asyncio", "uvloop"])
async def test_the_worker_says_which_loop_it_runs_on(site, wish):
    if wish == "uvloop":
        pytest.importorskip("uvloop")
    worker = site.work("worker_tasks", "--loop", wish, "--dsn", site.dsn, "--schema", site.schema)
    await eventually(lambda: f"event loop {wish}" in worker.text)
