"""The types that users get, by three checkers: right calls pass, and each wrong call is an error to those it names.

mypy and ty are in the environment of the tests. Pyright, which editors ask, brings a Node of 200 MB along, and has an
environment of its own: `python3 dev.py types`, and CI.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HAS_STUBS = importlib.util.find_spec("sqlalchemy") is not None
RIGHT = ["api.py", "flows.py", *(["stacks.py", "stacks_with_stubs.py"] if HAS_STUBS else ["stacks_without_stubs.py"])]
WRONG = ["wrong.py", "flows_wrong.py", *(["stacks_wrong.py"] if HAS_STUBS else [])]


def errors(checker, file, cache):
    """The lines at which the checker reports an error in the file, and all that it said."""
    run = {
        "mypy": ["mypy", "--strict", "--config-file=", "--no-error-summary", f"--cache-dir={cache}"],
        "ty": ["ty", "check", "--output-format=concise", f"--python={sys.prefix}"],
        "pyright": ["basedpyright", f"--project={cache}", "--level=error", f"--pythonpath={sys.executable}"],
    }[checker]
    settings = {"typeCheckingMode": "standard", "reportUnusedCoroutine": "error", "include": [str(HERE / file)]}
    (cache / "pyrightconfig.json").write_text(json.dumps(settings))
    files = [] if checker == "pyright" else [str(HERE / file)]  # it takes them from its settings alone
    # ty is started from where nobody has settings for it.
    done = subprocess.run(
        [sys.executable, "-m", *run, *files],
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said = done.stdout + done.stderr
    found = re.findall(rf"{re.escape(file)}:(\d+):.*?\berror\b", done.stdout)
    assert done.returncode == (1 if found else 0), said
    return {int(line) for line in found}, said


@pytest.fixture(params=["mypy", "ty", "pyright"])
def check(request, pytestconfig):
    if request.param == "pyright" and importlib.util.find_spec("basedpyright") is None:
        pytest.skip("`python3 dev.py types` has it")
    cache = pytestconfig.cache.mkdir(f"types-{request.param}")
    return lambda file: (request.param, *errors(request.param, file, cache))


@pytest.mark.parametrize("file", RIGHT)
def test_what_users_write_has_the_types_that_they_expect(check, file):
    _, found, said = check(file)
    assert not found, said


@pytest.mark.parametrize("file", WRONG)
def test_what_users_must_not_write_is_an_error_on_exactly_those_lines(check, file):
    checker, found, said = check(file)
    lines = (HERE / file).read_text().splitlines()
    expected = {n for n, line in enumerate(lines, 1) if checker in line.partition("# E")[2].split()}
    assert found == expected, said
