"""Analyse every Python file of a folder, one job each: `python demo.py [FOLDER]`. Needs rich and chancy-testing."""

import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from time import monotonic, sleep

import psycopg
from psycopg import sql
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import chancy
from chancy_testing.server.postgres import DURABLE, Postgres
from tree_report import report
from tree_tasks import analyse

WORKER = [sys.executable, "-m", "chancy_worker", "tree_tasks", "--log-format", "json"]


def main(folder: Path) -> None:
    """Submit, watch, report."""
    found = [path for path in sorted(folder.rglob("*.py")) if "site-packages" not in path.relative_to(folder).parts]
    if not found:
        sys.exit(f"{folder} has no Python files")
    with Postgres(settings=DURABLE) as server, psycopg.connect(server.dsn, autocommit=True) as conn:
        chancy.migrate(conn)
        with tempfile.TemporaryFile("w+") as log:
            worker = subprocess.Popen([*WORKER, "--dsn", server.dsn], cwd=Path(__file__).parent, stderr=log)
            try:
                with conn.transaction():  # all jobs or none, and together with whatever else you write here
                    chancy.submit_many(conn, [analyse.bind(str(path)) for path in found])
                watch(conn, worker, len(found))
            finally:
                worker.terminate()
                worker.wait()
            if worker.returncode:
                log.seek(0)
                sys.exit(f"the worker ended early: {log.read()}")
        report(conn, folder)


def watch(conn: psycopg.Connection, worker: subprocess.Popen, total: int) -> None:
    """Show how many jobs are finished until all are."""
    live = sql.SQL("SELECT count(*) FROM {}.job").format(sql.Identifier(chancy.schema_in_use()))
    with Progress(BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:,.0f} jobs/s")) as progress:
        bar, began = progress.add_task("", total=total, rate=0), monotonic()
        while not progress.finished and worker.poll() is None:
            sleep(0.1)
            finished = total - conn.execute(live).fetchone()[0]
            progress.update(bar, completed=finished, rate=finished / (monotonic() - began))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # tidies up on the way
    main(Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib")).resolve())
