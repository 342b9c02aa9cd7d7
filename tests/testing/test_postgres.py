"""The embedded server: what it keeps, what it leaves behind, and how it says that it cannot."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from chancy_testing.server.postgres import Postgres, give, unprivileged

OWNER = """
import sys, time
from chancy_testing.server.postgres import Postgres
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


@pytest.mark.long
def test_a_server_begins_with_the_new_data_of_the_first_where_a_folder_for_them_is_named(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        give(Path(folder), unprivileged())
        monkeypatch.setenv("CHANCY_PG_SEED", folder)
        with ThreadPoolExecutor(3) as pool:  # whichever of them is the first
            assert len(list(pool.map(lambda _: made_in_a_server("first"), range(3)))) == 3
        assert len(list(Path(folder).glob("*/PG_VERSION"))) == 1
        assert made_in_a_server("second") == made_in_a_server("third")


def made_in_a_server(name):
    """Which data it has; what others have made in theirs is not there."""
    with Postgres() as server, psycopg.connect(server.dsn) as conn:
        conn.execute(f"CREATE TABLE {name} AS SELECT 7 AS number")
        assert conn.execute("SELECT relname FROM pg_stat_user_tables").fetchall() == [(name,)]
        return conn.execute("SELECT system_identifier FROM pg_control_system()").fetchone()


@pytest.mark.long
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


ENVIRONMENTS = {
    "PGHOSTADDR": "127.0.0.2",
    "PGHOST": "127.0.0.2",
    "PGPORT": "1",
    "PGOPTIONS": "-c no_such_setting=1",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCHANNELBINDING": "require",
    "PGUSER": "somebody",
    "PGDATABASE": "elsewhere",
    "PGSSLMODE": "verify-full",
}


@pytest.mark.parametrize("variable", ENVIRONMENTS)
def test_no_variable_of_libpq_leads_to_another_server(chancy_dsn, monkeypatch, variable):
    with psycopg.connect(chancy_dsn) as conn:
        here = conn.execute("SELECT pg_postmaster_start_time(), current_user, current_database()").fetchone()
    monkeypatch.setenv(variable, ENVIRONMENTS[variable])
    with psycopg.connect(chancy_dsn) as conn:
        assert conn.execute("SELECT pg_postmaster_start_time(), current_user, current_database()").fetchone() == here


REQUIREMENTS = {
    "PGGSSENCMODE": "require",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "somebody",
    "PGSSLCERTMODE": "require",
    "PGSSLNEGOTIATION": "direct",
}


def test_what_variables_of_libpq_require_of_other_servers_is_not_required_of_this_one(monkeypatch):
    for variable, value in REQUIREMENTS.items():
        monkeypatch.setenv(variable, value)
    with Postgres() as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_nobody_else_on_the_machine_gets_to_the_socket_of_a_directory_that_is_open_to_all():
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        directory.chmod(0o755)
        with Postgres(directory) as server:
            parts = psycopg.conninfo.conninfo_to_dict(server.dsn)
            socket = Path(parts["host"]) / ".s.PGSQL.5432"
            assert stat.S_IMODE(socket.stat().st_mode) == 0o700
            if os.geteuid() == 0:
                stranger = pwd.getpwnam("games")
                program = f"import socket; socket.socket(socket.AF_UNIX).connect({str(socket)!r})"
                tried = subprocess.run(
                    ["/usr/bin/python3", "-c", program], capture_output=True, text=True, check=False, cwd="/",
                    user=stranger.pw_uid, group=stranger.pw_gid, extra_groups=[],
                )  # fmt: skip
                assert "PermissionError" in tried.stderr
    finally:
        shutil.rmtree(directory)


def test_a_temporary_folder_with_a_comma_in_its_name(monkeypatch):
    folder = tempfile.mkdtemp(prefix="a,b", dir="/tmp")
    Path(folder).chmod(0o777)
    try:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with Postgres() as server, psycopg.connect(server.dsn) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(("options", "extra"), [([], False), (["--for-libpq"], True)])
def test_the_address_that_the_command_prints_is_in_words_of_every_driver(options, extra):
    folder = Path(f"/tmp/chancy-told-{os.getpid()}-{time.monotonic_ns()}")  # as above
    command = [sys.executable, "-m", "chancy_testing.server", str(folder), *options]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            address = server.stdout.readline().strip()
            with psycopg.connect(address) as conn:
                assert conn.execute("SELECT 1").fetchone() == (1,)
            server.stdin.close()
            assert server.wait(60) == 0
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    assert (address.partition("?")[2].count("&") > 1) is extra
    assert ("channel_binding" in address) is extra
