"""The tests of a Django project that uses Chancy pass, with each Django."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SHOP = Path(__file__).parent / "shop"
TESTS = {
    file.stem: len(
        re.findall(r"^    (?:async )?def test_|^    test_\w+ = ", file.read_text(encoding="utf-8"), re.MULTILINE)
    )
    for file in sorted(SHOP.glob("tests/test_*.py"))
}
"""How many there are in each file: none may go missing."""

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", TESTS)
def test_the_tests_of_a_shop_pass(site, name, counted):
    assert counted(site.pytest(f"tests/{name}.py")) == TESTS[name]


def test_django_has_a_runner_of_its_own(here):
    said = here.run("manage.py", "test", "tests.test_tasks", "tests.test_enqueue", SHOP_TEST_NAME="test_by_runner")
    assert f"Ran {TESTS['test_tasks'] + TESTS['test_enqueue']} tests" in said
    assert said.rstrip().endswith("OK") or "\nOK\n" in said
