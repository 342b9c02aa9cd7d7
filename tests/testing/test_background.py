"""A real worker behind a test."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path
from unittest import mock

import psycopg
import pytest

import chancy
from chancy import Chancy, task
from chancy_testing import background
from chancy_testing.background import InThread

SOON = timedelta(seconds=20)
held = []


@pytest.fixture(autouse=True)
def no_tasks_of_others():
    """A worker's own process imports the modules of all tasks that are known here: as in a project with these alone."""
    mine = {name: each for name, each in chancy.registry.tasks.items() if each.function.__module__ == __name__}
    with mock.patch.dict(chancy.registry.tasks, mine, clear=True):
        yield


@task(queue="elsewhere")
def pid() -> int:
    return os.getpid()


@task
async def add(a: int, b: int) -> int:
    return a + b


@task
async def leaves_a_task() -> None:
    held.append(asyncio.create_task(asyncio.sleep(3600), name="forgotten"))


@task(max_attempts=3)
async def killed(folder: str) -> int:
    marks = Path(folder)
    (marks / str(os.getpid())).touch()
    await asyncio.sleep(0 if len(list(marks.iterdir())) > 1 else 3600)
    return len(list(marks.iterdir()))


def test_it_performs_what_is_committed_in_a_thread(chancy_conn, chancy_worker):
    jobs = [add.submit(chancy_conn, 1, 2), pid.submit(chancy_conn)]
    chancy_conn.commit()
    assert [job.result(chancy_conn, timeout=SOON) for job in jobs] == [3, os.getpid()]


@pytest.mark.chancy_worker(process=True)
async def test_it_performs_what_is_committed_in_a_process(chancy_aconn, chancy_worker):
    job = await pid.submit(chancy_aconn)
    await chancy_aconn.commit()
    assert await job.result(chancy_aconn, timeout=SOON) == chancy_worker.pid != os.getpid()


@pytest.mark.chancy_worker(process=True)
def test_a_process_can_be_killed_and_others_take_its_job(
    chancy_conn, chancy_worker, chancy_clock, chancy_schema, chancy_dsn, tmp_path
):
    job = killed.submit(chancy_conn, str(tmp_path))
    chancy_conn.commit()
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    chancy_worker.kill()
    chancy_clock.move(timedelta(minutes=1))
    second = InThread(Chancy(chancy_dsn, schema=chancy_schema), "second")
    second.start()
    chancy_clock.move(timedelta(seconds=1))
    assert job.result(chancy_conn, timeout=timedelta(seconds=40)) == 2
    assert job.refresh(chancy_conn).errors[0].kind == "WorkerDied"
    assert second.stop() == []


def test_a_task_that_a_handler_has_left_is_told(chancy_conn, chancy_dsn, chancy_schema):
    worker = InThread(Chancy(chancy_dsn, schema=chancy_schema), "leaking")
    worker.start()
    job = leaves_a_task.submit(chancy_conn)
    chancy_conn.commit()
    job.result(chancy_conn, timeout=SOON)
    assert worker.stop() == ["task forgotten"]


def test_a_job_that_still_runs_and_a_connection_that_is_open_are_told(chancy_conn, chancy_dsn, chancy_schema):
    worker = InThread(Chancy(chancy_dsn, schema=chancy_schema), "leaking")
    worker.start()
    job = add.submit(chancy_conn, 1, 2)
    chancy_conn.commit()
    job.result(chancy_conn, timeout=SOON)
    stuck = add.using(queue="nobody").submit(chancy_conn, 1, 2)
    chancy_conn.execute(f"UPDATE \"{chancy_schema}\".job SET state = 'running', worker = 77 WHERE id = {stuck.id}")
    chancy_conn.commit()

    async def connect():
        return await psycopg.AsyncConnection.connect(chancy_dsn, application_name="chancy claim")

    forgotten = asyncio.run(connect())
    assert worker.stop() == ["connection 'chancy claim'", f"job {stuck.id} ({add.name}), still running"]
    asyncio.run(forgotten.close())


def test_a_worker_that_cannot_start_says_why(chancy_dsn):
    from chancy import SchemaOutdated

    worker = InThread(Chancy(chancy_dsn, schema="not_there"), "none")
    with pytest.raises((SchemaOutdated, psycopg.errors.UndefinedTable)):
        worker.start()


class Lazy:
    """As Django's settings: to be asked for its class is to be woken."""

    @property
    def __class__(self):
        raise RuntimeError("settings are not configured")


def test_looking_for_what_a_worker_has_left_behind_wakes_nobody():
    sleeper = Lazy()
    assert background._open_connections() == []
    del sleeper
