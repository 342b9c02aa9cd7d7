"""The pytest plugin: what a suite gets by having chancy-testing installed.

Everything is imported inside the fixtures, so that a suite which uses none of them pays nothing: neither Chancy nor
psycopg is loaded before a fixture asks. No fixture is async, so they work with each plugin that runs async tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    import psycopg

    from chancy import Chancy

    from .background import Background
    from .clock import Clock
    from .draining import Drain
    from .faults import Faults
    from .in_memory.backend import Eager
    from .server.schemas import Schemas

_NOT_ENFORCED = "chancy_not_enforced"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `pytest --help`."""
    group = parser.getgroup("chancy")
    group.addoption(
        "--chancy-run-twice",
        action="store_true",
        help="call the function of each job twice, as after a lost verdict: shows which handlers are not idempotent",
    )
    parser.addini(
        "chancy_schema_scope", "how long a temporary schema lasts: function (default), class, module or session",
        default="function",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Marks and options."""
    config.addinivalue_line(
        "markers",
        "chancy_worker(process=False): where the worker of the fixture chancy_worker runs, in a thread or a process",
    )
    config.addinivalue_line(
        "markers", 'chancy_eager(mode="run", raise_errors=True): how the fixture chancy_eager behaves in this test'
    )
    if config.getoption("--chancy-run-twice"):
        from . import attempts

        attempts.twice = True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which limits the jobs of eager tests ran without."""
    found = {
        tuple(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == _NOT_ENFORCED
    }
    if found:
        terminalreporter.section("chancy: recorded and not enforced by eager tests")
        for task, *what in sorted(found):
            terminalreporter.line(f"{task}: {', '.join(what)}")


def _scope(fixture_name: str, config: pytest.Config) -> Any:
    return config.getini("chancy_schema_scope")


@pytest.fixture(scope="session")
def chancy_dsn() -> Iterator[str]:
    """Where Postgres is, as libpq takes it: `CHANCY_TEST_DSN`, or an embedded server for the session (one a process
    under xdist).

    Override this one to use a database that your suite has already, and all other fixtures follow.
    """
    if dsn := os.environ.get("CHANCY_TEST_DSN"):
        from chancy.wires.dsn import understood

        yield understood(dsn)
        return
    from .server.postgres import QUICK, Postgres

    with Postgres(settings={**QUICK, "max_connections": "200"}) as server:
        yield server.dsn


@pytest.fixture(scope="session")
def _chancy_schemas(chancy_dsn: str) -> Iterator[Schemas]:
    """What makes and drops the temporary schemas of this process."""
    from .server.schemas import Schemas

    with Schemas(chancy_dsn) as schemas:
        yield schemas


@pytest.fixture(scope=cast(Any, _scope))
def chancy_schema(_chancy_schemas: Schemas) -> Iterator[str]:
    """A schema of its own, migrated, and this process's default while it lasts; dropped afterwards.

    For each test, or for as long as `chancy_schema_scope` in pytest's settings says.
    """
    import chancy

    schema = _chancy_schemas.take()
    chancy.configure(schema=schema)
    try:
        yield schema
    finally:
        chancy.configure(schema=None)
        _chancy_schemas.give_back(schema)


@pytest.fixture
def chancy_conn(chancy_dsn: str, chancy_schema: str) -> Iterator[psycopg.Connection[Any]]:
    """A `psycopg.Connection` to the test's schema; what it has not committed is rolled back."""
    import psycopg

    conn: psycopg.Connection[Any] = psycopg.connect(chancy_dsn)
    try:
        yield conn
    finally:
        conn.close()


@pytest.fixture
def chancy_aconn(chancy_dsn: str, chancy_schema: str) -> Iterator[psycopg.AsyncConnection[Any]]:
    """A `psycopg.AsyncConnection` to the test's schema, for the loop of the test, whichever plugin runs it."""
    import psycopg

    from .attempts import on_a_loop_of_its_own

    # It belongs to a loop for as long as it waits on it, and no longer.
    conn: psycopg.AsyncConnection[Any] = on_a_loop_of_its_own(psycopg.AsyncConnection.connect(chancy_dsn))
    try:
        yield conn
    finally:
        on_a_loop_of_its_own(conn.close())


@pytest.fixture
def chancy_eager(request: pytest.FixtureRequest) -> Iterator[Eager]:
    """Jobs without a database: whatever this process submits during the test is performed at once; see `eager`.

    `conn` and `aconn` stand in for connections, `jobs` says what was submitted and what became of it.
    """
    from .in_memory.backend import eager

    mark = request.node.get_closest_marker("chancy_eager")
    with eager(**(mark.kwargs if mark else {})) as backend:
        yield backend
    for task, what in backend.not_enforced.items():
        request.node.user_properties.append((_NOT_ENFORCED, [task, *what]))


@pytest.fixture
def chancy_drain() -> Drain:
    """`chancy_testing.drain`: claim and perform on a connection of the test what is due."""
    from .draining import drain

    return drain


@pytest.fixture
def chancy_clock(chancy_dsn: str, chancy_schema: str) -> Iterator[Clock]:
    """The time of the test's schema: `move(timedelta)` and `set(datetime)`. At the end it is the time of day again."""
    from .clock import Clock

    clock = Clock(chancy_dsn, chancy_schema)
    try:
        yield clock
    finally:
        clock.reset()
        clock.close()


@pytest.fixture
def chancy_faults(chancy_dsn: str, chancy_schema: str) -> Iterator[Faults]:
    """What may go wrong, on order: dead workers, late verdicts, lost wakeups, broken statements and connections."""
    from .faults import Faults

    with Faults(chancy_dsn, chancy_schema).active() as faults:
        yield faults


@pytest.fixture
def chancy_app() -> Chancy:
    """What the worker of `chancy_worker` does: the queues of all tasks that are known in this process.

    Override it to give your own `Chancy(…)`, with its `lifespan` and `middleware`; where the database is does not
    matter.
    """
    from .background import app_of_every_task

    return app_of_every_task()


@pytest.fixture
def chancy_worker(
    request: pytest.FixtureRequest, chancy_dsn: str, chancy_schema: str, chancy_app: Chancy
) -> Iterator[Background]:
    """A real worker on the test's schema, from before the test to its end, in a thread of this process.

    `@pytest.mark.chancy_worker(process=True)` gives it a process of its own, which can be killed. The test fails if it
    leaves behind a running job, a connection or an asyncio task.
    """
    from dataclasses import replace

    from .background import InProcess, InThread

    mark = request.node.get_closest_marker("chancy_worker")
    kind = InProcess if mark and mark.kwargs.get("process") else InThread
    worker = kind(replace(chancy_app, dsn=chancy_dsn, schema=chancy_schema), f"{request.node.name}:{os.getpid()}")
    left: list[str] = []
    try:
        worker.start()
        yield worker
    finally:
        left = worker.stop()
    if left:
        pytest.fail("the worker of this test has left behind: " + "; ".join(left), pytrace=False)
