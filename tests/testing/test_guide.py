"""The snippets of the guide about tests work when they are copied into an empty project."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "testing.md"
FENCES = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
TESTS = [fence for fence in FENCES if re.search(r"^(async )?def test_", fence, re.MULTILINE)]
CONFTESTS = [fence for fence in FENCES if fence.startswith("# conftest.py\n")]


def run_pytest(folder, **settings):
    """With no settings, wherever the folder is."""
    (folder / "pytest.ini").touch()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CHANCY_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run(
        command, cwd=folder, env=env | settings, capture_output=True, text=True, timeout=60, check=False
    )


def test_each_snippet_is_a_test_or_a_conftest():
    assert len(TESTS) + len(CONFTESTS) == len(FENCES)


def test_each_snippet_passes_in_an_empty_project(tmp_path):
    for number, text in enumerate(TESTS, 1):
        if "mark.anyio" not in text or importlib.util.find_spec("anyio"):
            (tmp_path / f"test_{number}.py").write_text(text, encoding="utf-8")
    run = run_pytest(tmp_path)
    assert (run.returncode, " passed" in run.stdout) == (0, True), run.stdout + run.stderr


def test_a_conftest_names_another_database(tmp_path, chancy_dsn):
    (conftest,) = CONFTESTS
    (test,) = [text for text in TESTS if "def test_another_connection" in text]
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    checked = f"{test}        assert conn.info.port == psycopg.connect({chancy_dsn!r}).info.port\n"
    (tmp_path / "test_snippet.py").write_text(checked, encoding="utf-8")
    run = run_pytest(tmp_path, DATABASE_URL=chancy_dsn)
    assert (run.returncode, "1 passed" in run.stdout) == (0, True), run.stdout + run.stderr
