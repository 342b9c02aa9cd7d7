"""The embedded server: what it keeps, what it leaves behind, and how it says that it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from chancy_testing.postgres import Postgres

OWNER = """
import sys, time
from chancy_testing.postgres import Postgres
with Postgres() as server:
    print(server.dsn, flush=True)
    time.sleep(60)
"""


def eventually(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def reachable(dsn):
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("immediate", [False, True])
def test_stop_and_start_keep_every_committed_row(immediate):
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 7 AS number")
        server.stop(immediate=immediate)
        assert not reachable(server.dsn)
        server.start()
        with psycopg.connect(server.dsn) as conn:
            assert conn.execute("SELECT number FROM kept").fetchall() == [(7,)]


def test_the_server_and_its_files_are_gone_after_the_block():
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            (folder,) = conn.execute("SHOW data_directory").fetchone()
        assert Path(folder).exists()
    assert not reachable(server.dsn)
    assert not Path(folder).exists()


def test_the_server_and_its_files_are_gone_after_its_owner_was_killed():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    dsn = owner.stdout.readline().strip()
    with psycopg.connect(dsn) as conn:
        (folder,) = conn.execute("SHOW data_directory").fetchone()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    eventually(lambda: not reachable(dsn))
    eventually(lambda: not Path(folder).exists())


def test_two_servers_start_at_the_same_time():
    def use(_):
        with Postgres() as server, psycopg.connect(server.dsn) as conn:
            return conn.execute("SHOW data_directory").fetchone()[0]

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(use, range(2)))) == 2


def test_a_kept_directory_is_found_again_and_refused_while_it_is_in_use(tmp_path):
    # Under the system's own temporary folder: pytest's is private, and Postgres does not run as root.
    folder = Path(f"/tmp/chancy-kept-{os.getpid()}-{time.monotonic_ns()}")
    try:
        with Postgres(folder) as server:
            with psycopg.connect(server.dsn) as conn:
                conn.execute("CREATE TABLE kept AS SELECT 7 AS number")
            with pytest.raises(RuntimeError, match="in use by another process"):
                Postgres(folder).start()
        with Postgres(folder) as server, psycopg.connect(server.dsn) as conn:
            assert conn.execute("SELECT number FROM kept").fetchall() == [(7,)]
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_binaries_that_do_not_exist_are_named_in_the_error(monkeypatch, tmp_path):
    monkeypatch.setenv("CHANCY_PG_BIN", str(tmp_path))
    with pytest.raises(RuntimeError, match="CHANCY_PG_BIN"):
        Postgres().start()
