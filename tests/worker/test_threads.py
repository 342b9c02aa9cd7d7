"""Where no thread can be had, as in a container with too few processes, jobs go back unharmed."""

from __future__ import annotations

import threading

from worker_help import FAST, all_finished, eventually, until_answered, working
from worker_tasks import add, add_in_thread, record_in_thread

from chancy import State
from chancy_worker import WorkerConfig
from chancy_worker.attempts import executors


async def test_where_no_thread_can_be_started_jobs_go_back_unharmed_and_run_once_when_one_can(
    site, port, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(executors, "PAUSE_SECONDS", 0.3, raising=False)
    start, refused = threading.Thread.start, threading.Event()

    def begins(thread):
        if refused.is_set() and thread.name.startswith("chancy_"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", begins)
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, threads=5, health_port=port)) as worker:
        (first,) = site.submit(add_in_thread.bind(1, 2))
        await eventually(lambda: site.row(first).finished_at)  # there is one
        refused.set()
        jobs = site.submit(*[record_in_thread.bind(str(tmp_path / "ran"), str(tmp_path / "gate")) for _ in range(4)])
        said = await until_answered(port, 503)
        assert said == "no thread can be started: can't start new thread\n"
        assert worker.busy <= 2
        (beside,) = site.submit(add.bind(1, 2))
        await eventually(lambda: site.row(beside).finished_at)
        refused.clear()
        (tmp_path / "gate").touch()
        await all_finished(site)
        await until_answered(port, 200)
    assert {(site.row(job).state, site.row(job).attempt) for job in jobs} == {(State.SUCCEEDED, 1)}
    assert sorted((tmp_path / "ran").read_text().split()) == sorted(str(job.id) for job in jobs)
    assert "no thread can be started: can't start new thread; until that is mended, jobs that" in caplog.text
