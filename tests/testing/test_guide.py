"""The snippets of the guide about tests work when they are copied into an empty project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "testing.md"
FENCES = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
TESTS = [fence for fence in FENCES if re.search(r"^(async )?def test_", fence, re.MULTILINE)]
CONFTESTS = [fence for fence in FENCES if fence.startswith("# conftest.py\n")]


def test_each_snippet_is_a_test_or_a_conftest():
    assert len(TESTS) + len(CONFTESTS) == len(FENCES)


@pytest.mark.long
def test_each_snippet_passes_in_an_empty_project(project):
    for number, text in enumerate(TESTS, 1):
        project.write(f"test_{number}.py", text)
    project.passes(len(TESTS), "-p", "anyio")


def test_a_conftest_names_another_database(project, chancy_dsn):
    (conftest,) = CONFTESTS
    (test,) = [text for text in TESTS if "def test_another_connection" in text]
    project.write("conftest.py", conftest)
    checked = f"{test}        assert conn.info.port == psycopg.connect({chancy_dsn!r}).info.port\n"
    project.write("test_snippet.py", checked)
    project.passes(1, DATABASE_URL=chancy_dsn)
