"""A project that has nothing of this checkout but the wheels: the tests of tests/downstream/shop pass there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "tests" / "downstream" / "shop"
TESTS = {
    file.stem: len(re.findall(r"^(?:async )?def test_", file.read_text(encoding="utf-8"), re.MULTILINE))
    for file in SHOP.glob("tests/test_*.py")
}
"""How many there are in each file: none may go missing."""

OURS = ("CHANCY_", "HATCH_", "PYTEST_", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")
THE_MACHINES = ("CHANCY_PG_", "CHANCY_TEST_DSN")
"""Where Postgres is."""

pytestmark = pytest.mark.timeout(300)  # the first time everything is downloaded


def run(*command, cwd, **settings):
    """What it said; it must succeed."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(OURS) or name.startswith(THE_MACHINES)
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Site:
    """The wheels, and environments that are made when they are first asked for."""

    uv: str
    folder: Path
    wheels: list[Path]
    made: dict[tuple[str, tuple[str, ...]], Path] = field(default_factory=dict)

    def python(self, pytest_version, *without):
        """The interpreter of an environment with what the shop needs, but for these packages.

        From the second on it is a copy with other versions in it: most is compiled there already.
        """
        if (pytest_version, without) not in self.made:
            place = self.folder / f"env{len(self.made)}"
            if self.made:
                shutil.copytree(self.folder / "env0", place, symlinks=True)
            else:
                run(self.uv, "venv", "--quiet", "--no-project", "--python", sys.executable, place, cwd=self.folder)
            python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
            needed = ["--requirements", "pyproject.toml", "--group", "test", f"pytest{pytest_version}", *self.wheels]
            run(self.uv, "pip", "install", "--quiet", "--python", python, *needed, cwd=SHOP)
            if without:
                run(self.uv, "pip", "uninstall", "--quiet", "--python", python, *without, cwd=SHOP)
            self.made[pytest_version, without] = python
        return self.made[pytest_version, without]


@pytest.fixture(scope="module")
def site(tmp_path_factory, uv, wheels):
    site = Site(uv, tmp_path_factory.mktemp("downstream"), wheels("core", "worker", "testing"))
    yield site
    shutil.rmtree(site.folder)  # pytest would keep those of three runs, and they are large


@pytest.fixture
def shop(tmp_path):
    """A copy of the project, away from our settings."""
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    return Path(shutil.copytree(SHOP, tmp_path / "shop", ignore=unwanted))


def run_pytest(python, shop, *arguments, **settings):
    """With a place for temporary files that is not ours."""
    basetemp = f"--basetemp={shop.parent / 'temporary'}"
    return run(python, "-m", "pytest", basetemp, *arguments, cwd=shop, **settings)


@pytest.mark.parametrize(("version", "mode", "processes"), [("==8.*", "strict", 2), ("==9.*", "auto", 0)])
def test_the_tests_of_a_shop_pass_with_pytest_asyncio_in_each_mode(site, shop, version, mode, processes):
    said = run_pytest(site.python(version), shop, "-o", f"asyncio_mode={mode}", "-n", processes)
    assert f"pytest-{version[2]}." in said
    assert f"asyncio: mode=Mode.{mode.upper()}" in said
    assert f"= {sum(TESTS.values())} passed in " in said


def test_the_tests_of_a_shop_pass_with_the_plugin_of_anyio_alone(site, shop, chancy_dsn):
    # The only file that is marked for the other one skips itself.
    said = run_pytest(site.python("==9.*", "pytest-asyncio"), shop, CHANCY_TEST_DSN=chancy_dsn)
    assert f"= {sum(TESTS.values()) - TESTS['test_delivery']} passed, 1 skipped in " in said


def test_the_tests_in_memory_need_no_database(site, shop):
    said = run_pytest(site.python("==9.*"), shop, "tests/test_tasks.py", CHANCY_TEST_DSN="host=/there/is/none")
    assert f"= {TESTS['test_tasks']} passed in " in said


def test_the_shop_and_its_tests_have_the_right_types(site, shop, pytestconfig):
    cache = pytestconfig.cache.mkdir("types-shop")
    installed = f"--python-executable={site.python('==9.*')}"
    run(sys.executable, "-m", "mypy", installed, f"--cache-dir={cache}", "shop", "tests", cwd=shop)
