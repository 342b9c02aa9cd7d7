"""How many tests run at a time, which of them in which process and which first, and what they may say."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

TOGETHER = ("tests/django/",)
"""Folders whose files share an environment that takes long to make: one process has them all."""

FIRST = [
    "tests/django/",
    "tests/worker/test_children.py",
    "tests/conformance/",
    "tests/worker/test_faults.py",
    "tests/web/test_browser.py",
    "tests/testing/test_plugin.py",
    "tests/testing/test_downstream.py",
    "tests/worker/test_connections.py",
    "tests/docs/test_tutorial.py",
    "tests/worker/test_line.py",
    "tests/worker/test_ends.py",
    "tests/worker/test_logs.py",
    "tests/worker/test_surround.py",
    "tests/ops/test_dev.py",
    "tests/worker/test_deaths.py",
    "tests/worker/",
    "tests/testing/",
    "tests/typing/",
    "tests/web/",
    "tests/stacks/",
    "tests/core/",
]
"""What takes longest, so that no process is left with it at the end while the others have nothing to do."""


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
