"""A database that is down, not migrated, or newer: each command says so in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from cli_help import Shell
from psycopg import sql

from chancy.migrations.migrate import newest
from chancy_ops.cli import COMMANDS

COMMAND_LINES = {
    "batch": ["7"],
    "cancel": ["7"],
    "check": ["shop_tasks"],
    "dashboard": ["--port", "0"],
    "delete": ["--queue", "mail", "--yes"],
    "doctor": [],
    "audit": [],
    "failures": [],
    "stop": ["1"],
    "forget-steps": ["7"],
    "graph": ["7"],
    "edit": ["7", "--priority", "1"],
    "job": ["7"],
    "jobs": [],
    "limit": ["mail", "5"],
    "migrate": [],
    "pause": ["mail"],
    "queues": [],
    "requeue": ["--state", "failed"],
    "resume": ["mail"],
    "run-now": ["nightly"],
    "schedules": [],
    "signal": ["7", "approval"],
    "steps": ["7"],
    "submit": ["shop_tasks:welcome", "user_id=7"],
    "throughput": [],
    "top": ["--once"],
    "why": ["7"],
    "workers": [],
}
WITHOUT_DATABASE = {"completion", "dev", "grants"}

every_command = pytest.mark.parametrize("line", [[name, *rest] for name, rest in COMMAND_LINES.items()], ids=" ".join)


def test_no_command_is_forgotten():
    assert COMMAND_LINES.keys() | WITHOUT_DATABASE == COMMANDS.keys()


def one_line(answer, code=2):
    assert (answer.code, answer.out, answer.err.count("\n")) == (code, "", 1), answer
    assert answer.err.startswith("chancy: ")
    return answer.err


@every_command
def test_a_database_that_is_down(shell, line):
    said = one_line(shell(*line, dsn="host=127.0.0.1 port=1 password=secret"))
    assert "refused" in said
    assert said.endswith("say where Postgres is with --dsn, CHANCY_DSN or PGHOST and the like\n")
    assert "secret" not in said


@every_command
def test_a_schema_that_is_newer_than_the_command(shell, schema_at, line):
    schema = schema_at(newest() + 1)
    said = one_line(shell(*line, schema=schema))
    assert f"schema {schema!r} is at migration {newest() + 1}, which is newer than this chancy" in said
    assert "install the chancy-ops of the version that migrated it" in said


@every_command
def test_a_schema_that_is_not_migrated(shell, schema_at, line):
    if line == ["migrate"]:
        pytest.skip("migrates it")
    schema = schema_at(0)
    said = one_line(shell(*line, schema=schema))
    assert "has not been migrated" in said
    assert f"run `chancy migrate --schema {schema}`" in said


@every_command
def test_a_schema_of_a_development_version(shell, schema_at, line):
    said = one_line(shell(*line, schema=schema_at(11, "0001_first")))
    assert "was made by a development version of Chancy" in said


def test_a_dsn_that_is_none(shell):
    assert "it is postgresql://USER:PASSWORD@HOST/DATABASE" in one_line(shell("jobs", dsn="nonsense"))


SECRET = "s3cr3t"
BROKEN = [
    "postgresql//app:s3cr3t@db/shop",
    "postgresql:/app:s3cr3t@db/shop",
    "postgres+psycopg:app:s3cr3t@db/shop",
    "postgresql://app:%zzs3cr3t@db/shop",
    "postgresql://app:s3cr3t%@db/shop",
    "postgresql://app:pa@s3cr3t@127.0.0.1:1/shop",
    "postgresql://app:pa/s3cr3t@127.0.0.1:1/shop",
    "postgresql://app:pa:s3cr3t@127.0.0.1:1/shop",
    "postgresql://app:pa#s3cr3t@127.0.0.1:1/shop",
    "postgresql://app:pa?s3cr3t@127.0.0.1:1/shop",
    "postgresql://app:pa s3cr3t@127.0.0.1:1/shop",
    "postgresql://app:[s3cr3t@127.0.0.1:1/shop",
    "postgresql://app:s3cr3t@127.0.0.1:port/shop",
    "postgresql+asyncpg://app:pa@s3cr3t@127.0.0.1:1/shop",
    "host=127.0.0.1 port=1 password=pa s3cr3t",
    "host=127.0.0.1 port=1 password='s3cr3t",
    "host=127.0.0.1 port=1 pasword=s3cr3t",
    "host=127.0.0.1 port=1 password=s3cr3t\\",
    "host=127.0.0.1 port=s3cr3t",
    "mysql://app:s3cr3t@db/shop",
    "app:s3cr3t@db/shop",
]


@pytest.mark.parametrize("dsn", BROKEN)
def test_a_broken_connection_string_is_never_repeated_by_any_command(capsys, dsn):
    said = {name: one_line(Shell(capsys, dsn, "chancy")(name, *rest)) for name, rest in COMMAND_LINES.items()}
    assert {name: line for name, line in said.items() if SECRET in line} == {}


@pytest.mark.long
@pytest.mark.parametrize("command", ["chancy_worker shop_tasks", "chancy migrate"])
def test_neither_by_the_worker_nor_by_the_migration(shell, command):
    module, *rest = command.split()
    for dsn in BROKEN[::5]:
        done = subprocess.run(
            [sys.executable, "-m", module, *rest, "--dsn", dsn],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parent, timeout=60,
        )  # fmt: skip
        assert (done.returncode, SECRET in done.stdout + done.stderr) == (2, False), done


def test_a_url_of_sqlalchemy_is_understood(shell):
    parts = psycopg.conninfo.conninfo_to_dict(shell.dsn)
    url = f"postgresql+psycopg://{parts['user']}@/{parts['dbname']}?host={quote(parts['host'], safe='')}"
    assert shell("jobs", dsn=url).code == 0


def test_a_role_that_may_not(shell):
    shell.conn.execute("DROP ROLE IF EXISTS nobody_cli")
    shell.conn.execute("CREATE ROLE nobody_cli LOGIN")
    try:
        dsn = psycopg.conninfo.make_conninfo(shell.dsn, user="nobody_cli")
        said = one_line(shell("jobs", dsn=dsn))
        assert f"role nobody_cli may not look at this (permission denied for schema {shell.schema})" in said
        assert f"`chancy grants --schema {shell.schema} --viewer nobody_cli`" in said
        assert "--operator nobody_cli`" in one_line(shell("cancel", "1", dsn=dsn))
    finally:
        shell.conn.execute("DROP ROLE nobody_cli")


def test_a_migration_that_has_to_wait_gives_up(shell):
    with psycopg.connect(shell.dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtext('chancy migrate'), hashtext(%s))", [shell.schema])
        assert "nothing was changed, try again" in one_line(shell("migrate"))


@pytest.fixture
def schema_at(shell):
    """A schema whose ledger says so; of nothing else is there anything."""
    name = f"{shell.schema}_at"

    def make(number, made_by="x"):
        if number:
            shell.conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            shell.conn.execute(
                sql.SQL("CREATE TABLE {} AS SELECT {} AS number, {} AS name").format(
                    sql.Identifier(name, "migration"), number, made_by
                )
            )
        return name

    yield make
    shell.conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))
