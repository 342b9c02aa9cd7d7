"""`manage.py chancy_worker --reload`, for development."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

import chancy
import chancy_ops

SHOP = Path(__file__).parent / "shop"

EDITION = """

@task
def edition():
    return 1
"""
WAITS = """

@task
def waits():
    import time

    if chancy.current_job().attempt == 1 and edition.call() == 1:
        time.sleep(60)
    return edition.call()
"""

pytestmark = [pytest.mark.timeout(200), pytest.mark.long]


def test_a_worker_takes_what_was_changed_gives_back_what_ran_and_waits_for_a_mistake_to_be_mended(
    here, start, eventually, tmp_path
):
    shop = Path(shutil.copytree(SHOP, tmp_path / "project"))
    source = shop / "shop" / "tasks.py"
    text = source.read_text() + EDITION + WAITS
    source.write_text(text)
    here.run("manage.py", "migrate", "--verbosity", "0", cwd=shop)
    worker = start(here, "chancy_worker", "--reload", "--children", "1", cwd=shop)
    with psycopg.connect(here.dsn, autocommit=True) as conn:

        def submit(task):
            return conn.execute("SELECT chancy.submit(%s::text, '{}')", (f"shop.tasks.{task}",)).fetchone()[0]

        def row_once(job, state):
            return eventually(lambda: (row := chancy.get(conn, job)).state == state and row)

        eventually(lambda: chancy_ops.workers(conn))
        assert row_once(submit("edition"), "succeeded").result == b"1"

        waiting = submit("waits")
        row_once(waiting, "running")
        source.write_text(text.replace("return 1", "return 2"))
        row = row_once(waiting, "succeeded")
        assert (row.result, row.attempt, row.crashes) == (b"2", 1, 0)

        source.write_text(text + "\n)(\n")
        eventually(lambda: "it is started again when a file changes" in worker.log)
        source.write_text(text.replace("return 1", "return 3"))
        assert row_once(submit("edition"), "succeeded").result == b"3"

        assert worker.stop() == 0
        assert chancy_ops.workers(conn) == []
