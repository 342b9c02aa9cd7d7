"""The house: which room may know which, and who may touch what."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[2] / "packages"
CORE = PACKAGES / "chancy-core/src/chancy"
WORKER = PACKAGES / "chancy-worker/src/chancy_worker"

FLOORS = [
    {"states", "errors", "phrases", "findings"},
    {"plain"},
    {"arrival", "dsn", "functions", "limits", "literals", "modules", "recurrence", "retention", "retry", "schema"},
    {"outcomes", "unique"},
    {"model"},
    {"codec", "registry"},
    {"keys"},
    {"gates"},
    {"roles", "statements", "surroundings"},
    {"run"},
    {"client", "current", "fleet_checks", "log", "migrate", "overview", "why"},
    {"batch", "server_checks", "task"},
    {"doctor", "schedules"},
    {"steering"},
    {"bulk"},
    {"app"},
    {"__main__"},
    {"__init__"},
]
PURE = [
    "states",
    "errors",
    "phrases",
    "findings",
    "plain",
    "arrival",
    "functions",
    "limits",
    "literals",
    "recurrence",
    "retention",
    "retry",
    "outcomes",
    "schema",
    "unique",
    "model",
    "registry",
    "codec",
    "keys",
    "gates",
    "statements",
    "surroundings",
]
LOOPS = {"batches", "claimer", "completer", "wakeups", "leases", "schedules"}
SOURCES = sorted(PACKAGES.glob("*/src/**/*.py"))


def imports(file):
    """Full names of what the file imports, anywhere in it."""
    package = [file.parent.name] if file.parent != CORE.parent else []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*(package if node.level else []), *([node.module] if node.module else [])])
            yield from ([f"{base}.{alias.name}" for alias in node.names] if node.level and not node.module else [base])


def rooms(file):
    return {name.split(".")[1] for name in imports(file) if name.startswith(f"{file.parent.name}.")}


def test_every_room_of_core_has_its_floor():
    assert {file.stem for file in CORE.glob("*.py")} - {"__about__"} == set().union(*FLOORS)


@pytest.mark.parametrize("number", range(len(FLOORS)))
def test_a_room_of_core_imports_only_from_the_floors_below_it(number):
    below = set().union(*FLOORS[:number])
    for room in FLOORS[number]:
        assert rooms(CORE / f"{room}.py") <= below, room


@pytest.mark.parametrize("room", PURE)
def test_a_pure_room_imports_neither_asyncio_nor_psycopg(room):
    assert not {name.split(".")[0] for name in imports(CORE / f"{room}.py")} & {"asyncio", "psycopg", "threading"}
    assert rooms(CORE / f"{room}.py") <= set(PURE)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("chancy", {"chancy_worker", "chancy_testing", "chancy_cli"}),
        ("chancy_worker", {"chancy_testing", "chancy_cli"}),
        ("chancy_testing", {"chancy_cli"}),
        ("chancy_cli", {"chancy_worker", "chancy_testing"}),
    ],
)
def test_a_package_never_imports_one_that_stands_on_it(package, forbidden):
    for file in SOURCES:
        if package in file.relative_to(PACKAGES).parts:
            assert not {name.split(".")[0] for name in imports(file)} & forbidden, file


def test_the_workers_loops_do_not_import_each_other():
    for file in WORKER.glob("*.py"):
        if file.stem in LOOPS:
            assert not rooms(file) & LOOPS, file


def test_only_run_touches_a_cursor_in_core():
    touching = {
        "cursor",
        "execute",
        "executemany",
        "fetchone",
        "fetchall",
        "fetchmany",
        "copy",
        "Cursor",
        "AsyncCursor",
    }
    found = {
        file.stem
        for file in CORE.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in touching
    }
    assert found == {"run"}


SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|NOTIFY|LISTEN|SET)\s+\S")


@pytest.mark.parametrize(
    "file", [f for f in SOURCES if "chancy_testing" not in f.relative_to(PACKAGES).parts], ids=lambda f: f.stem
)
def test_no_f_string_holds_sql(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
            assert not SQL.search(text), f"{file}:{node.lineno}: {text}"


def test_every_name_in_all_exists():
    packages = [
        importlib.import_module(name) for name in ("chancy", "chancy_worker", "chancy_testing", "chancy_cli") if name
    ]
    for package in packages:
        names = getattr(package, "__all__", [])
        assert sorted(set(names)) == sorted(names)
        assert [name for name in names if not hasattr(package, name)] == []
    assert packages[0].__all__
