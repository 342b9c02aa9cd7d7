"""How many tests run at a time, which of them in which process and which first, and what they may say."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # `kept` and `conformance` are found under their plain names

import kept

ROOT = Path(__file__).parents[1]

TOGETHER = ("tests/django/",)
"""Folders whose files share an environment that takes long to make: one process has them all."""

FIRST = [
    "tests/django/",
    "tests/testing/test_downstream.py",
    "tests/worker/test_children.py",
    "tests/web/test_browser.py",
    "tests/conformance/",
    "tests/worker/test_faults.py",
    "tests/testing/test_plugin.py",
    "tests/ops/test_dev.py",
    "tests/docs/test_tutorial.py",
    "tests/worker/test_connections.py",
    "tests/worker/test_deaths.py",
    "tests/worker/test_ends.py",
    "tests/worker/test_logs.py",
    "tests/web/test_mounts.py",
    "tests/worker/test_line.py",
    "tests/worker/test_web_servers.py",
    "tests/worker/",
    "tests/testing/",
    "tests/web/",
    "tests/ops/",
    "tests/stacks/",
    "tests/core/",
]
"""What takes longest, so that no process is left with it at the end while the others have nothing to do."""


SHARED = "CHANCY_TESTS_SHARE"
"""The variable with the folder of what is made once for all processes of a run, and lasts as long as it does."""
_shared = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Each new Postgres of the tests, in this process and in all that it starts, has a copy of the data of the first.

    And a run in the background of a script, which is started deaf to Ctrl-C, hands that on to nobody: tests send it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _long_ones_too(config)
    if SHARED in os.environ or os.name == "nt":
        return
    from chancy_testing.server.postgres import give, unprivileged

    config.stash[_shared] = shared = tempfile.TemporaryDirectory(prefix="tests-", dir="/tmp")
    (seed := Path(shared.name) / "seed").mkdir()
    give(Path(shared.name), unprivileged())
    give(seed, unprivileged())
    os.environ[SHARED] = shared.name
    os.environ.setdefault("CHANCY_PG_SEED", str(seed))


def pytest_unconfigure(config: pytest.Config) -> None:
    if (shared := config.stash.get(_shared, None)) is not None:
        if os.environ["CHANCY_PG_SEED"].startswith(shared.name):
            del os.environ["CHANCY_PG_SEED"]
        del os.environ[SHARED]
        shared.cleanup()


def _long_ones_too(config: pytest.Config) -> None:
    """What takes long is left out where all tests are run, and not of files that somebody names."""
    if config.args_source is pytest.Config.ArgsSource.ARGS and not hasattr(config, "workerinput"):
        config.option.markexpr = config.option.markexpr.removesuffix(" and not long")


@pytest.fixture(scope="session")
def chancy_dsn(chancy_dsn: str) -> Iterator[str]:
    """That of the plugin, with sessions that are kept."""
    with kept.sessions_of(chancy_dsn):
        yield chancy_dsn


@pytest.fixture(scope="session")
def uv() -> str:
    """The program; the test is skipped where there is none, and fails in CI."""
    known = [os.environ.get("HATCH_UV"), shutil.which("uv"), *map(str, ROOT.glob(".hatch/*/tool/bin/uv"))]
    found = next((path for path in known if path and shutil.which(path)), None)
    if found is None:
        lacking = "there is no uv to build wheels with; `python3 dev.py test` brings one"
        pytest.fail(lacking) if os.environ.get("CI") else pytest.skip(lacking)
    return found


@pytest.fixture(scope="session")
def wheels(uv: str) -> Callable[..., list[Path]]:
    """The wheels of these packages as they are in this checkout: each is built once for all processes of a run.

    (uv's own cache of what it has built from a folder takes notice of pyproject.toml alone.)
    """
    import fcntl

    folder = Path(os.environ[SHARED]) / "wheels"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "VIRTUAL_ENV"))}

    def built(*names: str) -> list[Path]:
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name in names:
                if not (folder / name).exists():
                    source = ROOT / "packages" / f"chancy-{name}"
                    command = [uv, "build", "--quiet", "--wheel", "--out-dir", str(folder / name), str(source)]
                    subprocess.run(command, cwd=folder, env=env, check=True, timeout=240)
        return [wheel for name in names for wheel in (folder / name).glob("*.whl")]

    return built


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What is collected stays to the end: no search for garbage goes through it meanwhile."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each core where all tests are run, because half of their time they wait; files that are named run here."""
    return 0 if config.args_source is pytest.Config.ArgsSource.ARGS else 2 * (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file is run by one process, which makes once what its tests share, and in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((folder for folder in TOGETHER if file.startswith(folder)), file)

    config.option.loadscopereorder = False  # which would put those of many tests first
    return ByFile(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    """What has to do with no server is the same on each version of it. What makes an environment is a whole project."""
    if "chancy_dsn" not in getattr(item, "fixturenames", ()) and not hasattr(getattr(item, "module", None), "Postgres"):
        item.add_marker("any_postgres")
    if "uv" in getattr(item, "fixturenames", ()):
        item.add_marker("projects")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several processes, what takes longest is begun first."""
    if hasattr(config, "workerinput"):
        places = {item: _place(item.nodeid) for item in items}
        items.sort(key=places.__getitem__)


def _place(nodeid: str) -> int:
    return next((place for place, path in enumerate(FIRST) if nodeid.startswith(path)), len(FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """xdist cannot carry a surrogate to the process that prints, and handlers of ours log some."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
