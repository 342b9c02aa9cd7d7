"""A PgBouncer of the test's own before the test's Postgres, on a unix socket in a folder that goes with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chancy_testing.server.postgres import give, unprivileged

# Ends with this process, however that ends: the shell sees the end of its input.
GUARD = '"$@" </dev/null & server=$!; read -r word; kill -TERM $server; wait $server'


def program() -> str:
    """Where pgbouncer is; else the test is skipped, or fails where the machine has promised to have it."""
    found = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if found is None:
        missing = "pgbouncer not installed: apt-get install pgbouncer"
        if os.environ.get("CHANCY_REQUIRE_PGBOUNCER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


class Bouncer:
    """From `with` to the end of the block. `size` is how many server connections it keeps for all clients."""

    def __init__(self, dsn: str, *, size: int = 3, mode: str = "transaction") -> None:
        self._program = program()
        self.size = size
        place = conninfo_to_dict(dsn)
        upstream = " ".join(f"{key}={place[key]}" for key in ("host", "port", "password") if place.get(key))
        user = place.get("user", "postgres")
        self._home = Path(tempfile.mkdtemp(prefix="chancy-pgb-", dir="/tmp"))
        self.dsn = make_conninfo("", host=str(self._home), port=6432, user=user, dbname=place.get("dbname", "postgres"))
        files = {
            "users": f'"{user}" ""\n',
            "ini": f"""
                [databases]
                * = {upstream} user={user}
                [pgbouncer]
                unix_socket_dir = {self._home}
                listen_port = 6432
                listen_addr =
                auth_type = any
                auth_file = {self._home}/users
                pool_mode = {mode}
                default_pool_size = {size}
                server_login_retry = 0.2
                logfile = {self._home}/log
            """,
        }
        for name, text in files.items():
            (self._home / name).write_text("\n".join(line.strip() for line in text.splitlines()))

    def __enter__(self):
        user = unprivileged()
        for path in (self._home, *self._home.iterdir()):
            give(path, user)
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "bouncer", self._program, str(self._home / "ini")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            **user,
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                psycopg.connect(self.dsn).close()
                return self
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    pytest.fail(f"pgbouncer did not start: {error}\n{self.log}")
                time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._guard.stdin.close()
        self._guard.wait(10)
        print(f"--- pgbouncer\n{self.log[-3000:]}")  # shown by pytest when the test has failed
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def log(self) -> str:
        file = self._home / "log"
        return file.read_text(errors="replace") if file.exists() else ""
