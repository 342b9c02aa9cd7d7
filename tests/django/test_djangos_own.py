"""Django's own tests of task backends, with Chancy's backends in the places of `DummyBackend` and `ImmediateBackend`.

They are of Django, and not in here: pip downloads the source distribution of the Django that is installed.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path

import psycopg
import pytest

OWN = Path(__file__).parent / "own"

IN_PLACE_OF = {
    "django.tasks.backends.dummy": "stand_ins",
    "django.tasks.backends.immediate": "stand_ins",
    "SimpleTestCase": "WithDatabase",
    "from django.test import WithDatabase, override_settings": "from django.test import override_settings\nfrom stand_ins import WithDatabase",
    "from django.test import WithDatabase, TransactionTestCase, override_settings": "from django.test import TransactionTestCase, override_settings\nfrom stand_ins import WithDatabase",
    "    available_apps = []\n": "",  # with which a flush does not tell us
}

OTHERWISE = {
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_get_result": "results can be got",
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_refresh_result": "results can be got",
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_pass_run_after": "jobs can be run later",
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result": "writes into the backend's list, and not into the row",
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result_async": "the same",
}
"""Those that do not pass, and why they cannot."""

pytestmark = [pytest.mark.timeout(300), pytest.mark.projects]


@pytest.fixture
def tests_of_django(newest, pytestconfig, tmp_path):
    """A folder with its tests of tasks, as they are in the source distribution of this version."""
    version = newest.django
    kept = pytestconfig.cache.mkdir("django-sources") / version
    if not (kept / "tasks").exists():
        command = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "django", "--no-build-isolation"]
        newest.run(*command, "--dest", tmp_path, f"django=={version}", cwd=tmp_path, within=250)
        (archive,) = tmp_path.glob("*.tar.gz")
        with tarfile.open(archive) as source:
            members = [each for each in source if re.match(r"[^/]+/tests/tasks/\w+\.py$", each.name)]
            for member in members:
                member.name = "tasks/" + Path(member.name).name
            source.extractall(tmp_path / "part", members, filter="data")
        shutil.copytree(tmp_path / "part", kept)
    return Path(shutil.copytree(kept / "tasks", tmp_path / "own" / "tasks"))


def test_every_one_passes_but_those_that_test_what_a_backend_without_a_database_cannot(
    newest, tests_of_django, counted
):
    folder = tests_of_django.parent
    shutil.copytree(OWN, folder, dirs_exist_ok=True)
    for file in tests_of_django.glob("test_*.py"):
        text = file.read_text()
        for old, new in IN_PLACE_OF.items():
            text = text.replace(old, new)
        file.write_text(text)
    name = "test_djangos_own"
    with psycopg.connect(newest.dsn, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} (FORCE)".encode())
    # Some call what asks the database from a coroutine, which Django forbids unless it is told otherwise.
    said = newest.run(
        "-m", "django", "test", "tasks", "--settings", "settings_of_own", "--keepdb", "--verbosity", "2", "--no-input",
        cwd=folder, code=1, PYTHONPATH=str(folder), DJANGO_ALLOW_ASYNC_UNSAFE="true", SHOP_TEST_NAME=name,
    )  # fmt: skip
    ran = int(re.search(r"^Ran (\d+) tests", said, re.MULTILINE)[1])
    wrong = set(re.findall(r"^(?:FAIL|ERROR): \w+ \(tasks\.([\w.]+)\)", said, re.MULTILINE))
    assert ran >= 80, said
    assert wrong == set(OTHERWISE), said
    print(f"Django {newest.django}: {ran - len(wrong)} of its own {ran} tests of task backends pass")
