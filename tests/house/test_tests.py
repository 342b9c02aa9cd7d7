"""The tests are one run: what a file of one folder imports by its plain name is found whichever folders run with it."""

from __future__ import annotations

import ast
import functools
import tomllib
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
FOLDERS = [
    TESTS / name
    for name in (
        "conformance",
        "core",
        "django",
        "docs",
        "house",
        "ops",
        "otel",
        "soak",
        "stacks",
        "testing",
        "web",
        "worker",
    )
]


@functools.cache
def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_no_test_imports_a_conftest_since_each_folder_has_one():
    paths = [path for folder in FOLDERS for path in folder.glob("*.py")]
    assert len(paths) > 80
    assert [str(path.relative_to(TESTS)) for path in paths if "conftest" in imports(path)] == []


def test_what_tests_import_by_its_plain_name_is_there_once():
    helpers = Counter(path.stem for folder in FOLDERS for path in folder.glob("*.py") if path.stem != "conftest")
    imported = {name for folder in FOLDERS for path in folder.glob("*.py") for name in imports(path)}
    assert {name: number for name, number in helpers.items() if name in imported and number > 1} == {}
    assert {"worker_help", "cli_help", "shop_tasks"} <= imported


def test_what_is_begun_first_is_there():
    tree = ast.parse((TESTS / "conftest.py").read_text(encoding="utf-8"))
    said = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Tuple)
    }
    paths = [*said["FIRST"], *said["TOGETHER"]]
    assert [path for path in paths if not (TESTS.parent / path).exists()] == []


def test_who_names_nothing_gets_all_tests_in_several_processes():
    """hatch names the folder itself where nobody does, unless it is told not to; what is named is run in one process."""
    tests = tomllib.loads((TESTS.parent / "hatch.toml").read_text(encoding="utf-8"))["envs"]["hatch-test"]
    assert (tests["extra-args"], tests["default-args"]) == (["-n", "auto"], [])
