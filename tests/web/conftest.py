"""`web_help` is found under its plain name, as is what helps the tests of the commands, of workers and of every verb."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
sys.path.insert(0, str(Path(__file__).parents[1] / "worker"))
sys.path.insert(0, str(Path(__file__).parent))

import every_verb
import web_help
from cli_help import Shell

from chancy_ops.web import connections
from chancy_ops.web.pages import doctor, jobs


@pytest.fixture
def shell(capsys, chancy_dsn, chancy_schema):
    shell = Shell(capsys, chancy_dsn, chancy_schema)
    yield shell
    shell.close()


@pytest.fixture
def things(shell):
    """Something of everything that a page may show."""
    return every_verb.fill(shell.conn, shell.schema)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Counts are whole, the doctor is done, and who waits for a row gets it, however busy the machine is."""
    monkeypatch.setattr(jobs, "GLANCE", 20.0)
    monkeypatch.setattr(doctor, "PATIENCE", 20.0)
    for name in ("LOOKING", "ACTING"):
        monkeypatch.setattr(connections, name, re.sub(r"'\d+s'", "'60s'", getattr(connections, name)))


@pytest.fixture
async def open_dashboard(chancy_dsn, chancy_schema):
    """Makes dashboards, and closes their connections when the test is over."""
    made = []

    def make(*, dsn=chancy_dsn, schema=chancy_schema, **more):
        made.append(web_help.dashboard(dsn, schema, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def sessions(shell):
    """How many Postgres has of the dashboards of this test: those of the one before it may be about to end."""
    ((since,),) = shell.rows("SELECT clock_timestamp()")
    count = """
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'chancy dashboard' AND datname = current_database() AND backend_start > %s
    """
    return lambda: shell.rows(count, since)[0][0]


@pytest.fixture
async def pages(open_dashboard):
    """A browser without a window, in which the pages of one dashboard are opened by somebody who may do everything."""
    async with web_help.Pages(open_dashboard()) as pages:
        yield pages
