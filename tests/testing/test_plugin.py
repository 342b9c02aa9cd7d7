"""The plugin in somebody else's project: what it costs, what it says, and what a killed run leaves behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from chancy_testing.server.schemas import EVERY_SCHEMA

pytestmark = pytest.mark.long

MANY = """
import pytest
from chancy import jobs, task
from chancy_testing import assert_submitted


@task
def add(a: int, b: int) -> int:
    return a + b


@pytest.mark.parametrize("number", range(40))
def test_sees_its_own_job_alone(number, chancy_conn, chancy_schema):
    job = add.submit(chancy_conn, number, 1)
    chancy_conn.commit()
    assert assert_submitted(chancy_conn, add, number, 1) == job
    assert [row.id for row in jobs(chancy_conn)] == [1]
"""
HANGS = """
import time
from pathlib import Path


def test_hangs(chancy_conn, chancy_dsn, chancy_schema, worker_id):
    Path(f"at-{worker_id}").write_text(chancy_dsn)
    time.sleep(100)


def test_hangs_too(chancy_conn, chancy_dsn, chancy_schema, worker_id):
    Path(f"at-{worker_id}").write_text(chancy_dsn)
    time.sleep(100)
"""


def schemas(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        return {name for (name,) in conn.execute(EVERY_SCHEMA)}


def servers(folder):
    """The servers whose data is below the folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            found += [process.name] if str(folder) in (process / "cmdline").read_text() else []
        except OSError:  # no process, or it is gone
            continue
    return found


@pytest.fixture
def temporary():
    """Where a run makes its temporary files: to be reached by the user who Postgres runs as, with a short path."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_many_tests_in_two_processes_share_a_database_and_leave_nothing_in_it(project, chancy_dsn):
    project.write("test_many.py", MANY)
    before = schemas(chancy_dsn)
    project.passes(40, "-n", "2", CHANCY_TEST_DSN=chancy_dsn)
    assert schemas(chancy_dsn) == before


def test_many_tests_with_a_server_for_each_process_leave_nothing_on_the_disk(project, temporary):
    project.write("test_many.py", MANY.replace("40", "20"))
    project.passes(20, "-n", "2", TMPDIR=str(temporary))
    assert [path.name for path in temporary.iterdir() if not path.name.startswith("pytest-of-")] == []


def test_a_killed_run_leaves_no_server_and_the_next_one_is_clean(project, temporary, eventually):
    project.write("test_hangs.py", HANGS)
    with project.start("-n", "2", TMPDIR=str(temporary)) as killed:
        eventually(lambda: len(list(project.folder.glob("at-*"))) == 2)
        assert servers(temporary)
        os.killpg(killed.pid, signal.SIGKILL)
    eventually(lambda: not servers(temporary))
    project.write("test_hangs.py", HANGS.replace("100", "0"))
    project.passes(2, "-n", "2", TMPDIR=str(temporary))
    assert [path.name for path in temporary.glob("chancy-*")] == []


def test_what_a_killed_run_leaves_in_a_database_is_gone_after_the_next(project, chancy_dsn, eventually):
    project.write("test_hangs.py", HANGS)
    before = schemas(chancy_dsn)
    with project.start("-n", "2", CHANCY_TEST_DSN=chancy_dsn) as killed:
        eventually(lambda: len(list(project.folder.glob("at-*"))) == 2)
        os.killpg(killed.pid, signal.SIGKILL)
    assert len(schemas(chancy_dsn) - before) == 2
    project.write("test_hangs.py", HANGS.replace("100", "0"))
    project.passes(2, "-n", "2", CHANCY_TEST_DSN=chancy_dsn)
    assert schemas(chancy_dsn) == before


def test_who_uses_no_fixture_imports_nothing(project):
    ours = {"chancy", "chancy_worker", "psycopg", "msgspec"}
    if sys.version_info < (3, 14):  # from there on pdb, which pytest imports, brings it
        ours.add("asyncio")
    project.write(
        "test_none.py",
        f"import sys\n\ndef test_nothing():\n    assert {ours} & set(sys.modules) == set()\n",
    )
    project.passes(1, "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:hypothesispytest", "-p", "no:xdist")


def test_the_database_tests_do_not_import_the_worker(project, chancy_dsn):
    project.write(
        "test_conn.py",
        "import sys\n\ndef test_conn(chancy_conn):\n    assert 'chancy_worker.worker' not in sys.modules\n",
    )
    project.passes(1, CHANCY_TEST_DSN=chancy_dsn)


def test_fixtures_and_options_are_documented(project):
    _, said = project.run("--fixtures")
    found = set(re.findall(r"^(chancy_\w+)(?: \[session scope\])? -- .*\n    \S", said, re.MULTILINE))
    names = "dsn schema conn aconn eager drain clock faults app worker"
    assert found == {f"chancy_{name}" for name in names.split()}
    _, said = project.run("--help")
    assert "--chancy-run-twice" in said
    assert "chancy_schema_scope (string)" in said
    _, said = project.run("--markers")
    assert re.findall(r"^@pytest.mark.(chancy_\w+)", said, re.MULTILINE) == ["chancy_worker", "chancy_eager"]


@pytest.mark.parametrize("kind", ["memory", "postgres"])
def test_a_handler_that_is_not_idempotent_fails_when_each_job_runs_twice(project, kind, chancy_dsn):
    fixtures, conn, perform = {
        "memory": ("chancy_eager", "chancy_eager.conn", "None"),
        "postgres": ("chancy_conn, chancy_drain", "chancy_conn", "chancy_drain(chancy_conn)"),
    }[kind]
    project.write(
        "test_twice.py",
        "from chancy import task\n\ndone = []\n\n@task\ndef once(n: int) -> None:\n    done.append(n)\n\n"
        f"def test_once({fixtures}):\n    once.submit({conn}, 1)\n    {perform}\n    assert done == [1]\n",
    )
    project.passes(1, CHANCY_TEST_DSN=chancy_dsn)
    code, said = project.run("--chancy-run-twice", CHANCY_TEST_DSN=chancy_dsn)
    assert (code, "assert [1, 1] == [1]" in said) == (1, True), said


@pytest.mark.parametrize("kind", ["memory", "postgres"])
def test_a_step_is_done_once_where_each_job_runs_twice(project, kind, chancy_dsn):
    fixtures, conn, perform = {
        "memory": ("chancy_eager", "chancy_eager.conn", "None"),
        "postgres": ("chancy_conn, chancy_drain", "chancy_conn", "chancy_drain(chancy_conn)"),
    }[kind]
    project.write(
        "test_steps.py",
        "from chancy import current_job, task\n\ndone, conns = [], []\n\n"
        "def pay(n: int) -> int:\n    done.append(n)\n    return n + 1\n\n"
        "@task\ndef order(n: int) -> int:\n    done.append('outside')\n"
        "    return current_job().step(conns[0], 'pay', pay, n)\n\n"
        f"def test_order({fixtures}):\n    conns[:] = [{conn}]\n    job = order.submit({conn}, 1)\n    {perform}\n"
        "    assert done.count(1) == 1\n    assert job.refresh(conns[0]).result == b'2'\n    print(done)\n",
    )
    project.passes(1, CHANCY_TEST_DSN=chancy_dsn)
    code, said = project.run("--chancy-run-twice", "-s", CHANCY_TEST_DSN=chancy_dsn)
    assert (code, "['outside', 1, 'outside']" in said) == (0, True), said


def test_a_schema_can_last_as_long_as_a_module(project, chancy_dsn):
    project.write(
        "test_scope.py",
        "seen = []\n\ndef test_one(chancy_schema):\n    seen.append(chancy_schema)\n\n"
        "def test_two(chancy_schema):\n    assert seen == [chancy_schema]\n",
    )
    project.passes(2, "-o", "chancy_schema_scope=module", CHANCY_TEST_DSN=chancy_dsn)


TRIO = """
import pytest
from chancy import InvalidConnection, task

@task
async def pay(number: int) -> int:
    return number

@pytest.fixture
def anyio_backend():
    return "trio"

@pytest.mark.anyio
async def test_postgres(chancy_aconn):
    with pytest.raises(InvalidConnection, match="trio is not supported"):
        await pay.submit(chancy_aconn, 1)

@pytest.mark.anyio
async def test_eager(chancy_eager):
    with pytest.raises(InvalidConnection, match="trio is not supported"):
        await pay.submit(chancy_eager.aconn, 1)
"""


def test_under_trio_it_is_said_that_asyncio_is_needed(project, chancy_dsn):
    project.write("test_trio.py", TRIO)
    project.passes(2, "-p", "anyio", CHANCY_TEST_DSN=chancy_dsn)


LATE = """
import pytest
import psycopg
from chancy import task

@task
def pay(number: int) -> int:
    return number

@pytest.fixture
def db(chancy_dsn):
    with psycopg.connect(chancy_dsn) as conn:
        yield conn

@pytest.mark.parametrize("number", range(3))
def test_a_transaction_that_ends_after_the_schema(number, db, chancy_schema):
    assert pay.submit(db, number).id == 1
"""


def test_a_fixture_whose_transaction_ends_after_the_schemas_is_no_error(project, chancy_dsn):
    project.write("test_late.py", LATE)
    before = schemas(chancy_dsn)
    project.passes(3, CHANCY_TEST_DSN=chancy_dsn)
    assert schemas(chancy_dsn) == before
