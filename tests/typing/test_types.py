"""The types that users get, by three checkers: right calls pass, and each wrong call is an error to those it names.

ty is quick and runs with all tests. mypy takes half a minute, and pyright, which editors ask, brings a Node of 200 MB
along: they are in an environment of their own, `python3 dev.py types`, and in CI.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)  # pyright has its Node to fetch the first time
HERE = Path(__file__).parent
HAS_STUBS = importlib.util.find_spec("sqlalchemy") is not None
RIGHT = ["api.py", "flows.py", *(["stacks.py", "stacks_with_stubs.py"] if HAS_STUBS else ["stacks_without_stubs.py"])]
WRONG = ["wrong.py", "flows_wrong.py", *(["stacks_wrong.py"] if HAS_STUBS else [])]


@functools.cache
def errors(checker, cache):
    """The lines at which the checker reports an error, by file, and all that it said: it is started once for all files."""
    run = {
        "mypy": ["mypy", "--strict", "--config-file=", "--no-error-summary", f"--cache-dir={cache}"],
        "ty": ["ty", "check", "--output-format=concise", f"--python={sys.prefix}"],
        "pyright": ["basedpyright", f"--project={cache}", "--level=error", f"--pythonpath={sys.executable}"],
    }[checker]
    files = [str(HERE / file) for file in (*RIGHT, *WRONG)]
    settings = {"typeCheckingMode": "standard", "reportUnusedCoroutine": "error", "include": files}
    (cache / "pyrightconfig.json").write_text(json.dumps(settings))
    # Pyright takes the files from its settings alone; ty is started from where nobody has settings for it.
    done = subprocess.run(
        [sys.executable, "-m", *run, *([] if checker == "pyright" else files)],
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    said = done.stdout + done.stderr
    found = {file: set() for file in (*RIGHT, *WRONG)}
    for file, line in re.findall(r"(?:^|[/\s])(\w+\.py):(\d+):.*?\berror\b", done.stdout, re.MULTILINE):
        assert file in found, said
        found[file].add(int(line))
    assert done.returncode == (1 if any(found.values()) else 0), said
    return found, said


@pytest.fixture(params=["mypy", "ty", "pyright"])
def check(request, pytestconfig):
    if request.param != "ty" and importlib.util.find_spec("basedpyright") is None:
        pytest.skip("`python3 dev.py types` has it")
    cache = pytestconfig.cache.mkdir(f"types-{request.param}")
    found, said = errors(request.param, cache)
    return request.param, found, "\n".join(line for line in said.splitlines() if ".py" in line)


@pytest.mark.parametrize("file", RIGHT)
def test_what_users_write_has_the_types_that_they_expect(check, file):
    _, found, said = check
    assert not found[file], said


@pytest.mark.parametrize("file", WRONG)
def test_what_users_must_not_write_is_an_error_on_exactly_those_lines(check, file):
    checker, found, said = check
    lines = (HERE / file).read_text().splitlines()
    expected = {n for n, line in enumerate(lines, 1) if checker in line.partition("# E")[2].split()}
    assert found[file] == expected, said
