"""The tests of a Django project that uses Chancy pass, with each Django."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

import chancy
from chancy.states import FINISHED

SHOP = Path(__file__).parent / "shop"
EXAMPLE = Path(__file__).parents[2] / "examples" / "django"
TESTS = {
    file.stem: len(
        re.findall(r"^    (?:async )?def test_|^    test_\w+ = ", file.read_text(encoding="utf-8"), re.MULTILINE)
    )
    for file in sorted(SHOP.glob("tests/test_*.py"))
}
"""How many there are in each file: none may go missing."""

pytestmark = [pytest.mark.timeout(300), pytest.mark.long]


RUNS: dict[str, str] = {}
"""What was said by the one run of all of them with each Python: to begin one takes as long as most files."""


@pytest.fixture
def whole_run(site, counted):
    """What it said, one line a test; all have passed."""
    if site.python not in RUNS:
        said = site.pytest("--verbose", "tests")
        assert counted(said) == sum(TESTS.values())
        RUNS[site.python] = said
    return RUNS[site.python]


@pytest.mark.parametrize("name", TESTS)
def test_the_tests_of_a_shop_pass(whole_run, name):
    assert len(re.findall(rf"^tests/{name}\.py::\S+ PASSED", whole_run, re.MULTILINE)) == TESTS[name]


def test_they_pass_without_time_zones_and_with_parameters_bound_by_the_server(here, counted):
    files = ("test_enqueue", "test_tasks", "test_admin")
    settings = {"SHOP_SETTINGS": '{"USE_TZ": false}', "SHOP_OPTIONS": '{"server_side_binding": true}'}
    assert counted(here.pytest(*(f"tests/{name}.py" for name in files), **settings)) == sum(map(TESTS.get, files))


def test_django_has_a_runner_of_its_own(here):
    said = here.run("manage.py", "test", "tests.test_tasks", "tests.test_enqueue", SHOP_TEST_NAME="test_by_runner")
    assert f"Ran {TESTS['test_tasks'] + TESTS['test_enqueue']} tests" in said
    assert said.rstrip().endswith("OK") or "\nOK\n" in said


def test_the_example_has_tests_that_pass_and_its_pages_and_worker_do_what_it_says(here, start, eventually):
    here.run("manage.py", "migrate", "--verbosity", "0", cwd=EXAMPLE, DATABASE_URL=here.dsn)
    here.run("manage.py", "check", "--database", "default", cwd=EXAMPLE, DATABASE_URL=here.dsn)
    said = here.run("manage.py", "test", cwd=EXAMPLE, DATABASE_URL=here.dsn)
    assert re.search(r"^Ran 4 tests in .*\n\nOK$", said, re.MULTILINE), said
    order = (
        "from django.test import Client; print(Client().post('/orders/', {'customer': 'a@b.cz', 'total': '1'}).json())"
    )
    assert "'receipt': '1'" in here.run("manage.py", "shell", "-c", order, cwd=EXAMPLE, DATABASE_URL=here.dsn)
    worker = start(here, "chancy_worker", cwd=EXAMPLE, DATABASE_URL=here.dsn)
    with psycopg.connect(here.dsn, autocommit=True) as conn:
        row = eventually(lambda: (row := chancy.get(conn, 1)).state in FINISHED and row)
        assert row.state == "succeeded", row
        assert "1 received, thank you." in worker.log or "1.00 received, thank you." in worker.log
        assert worker.stop() == 0, worker.log
