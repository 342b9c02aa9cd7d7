"""A task has a stable name and is still its function."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys

import pytest

from chancy import AsyncTask, InvalidTask, Task, task
from chancy.task import registered


@task
def double(number: int) -> int:
    return number * 2


@task(name="billing.triple", aliases=["old.triple"], queue="math")
async def triple(number: int) -> int:
    return number * 3


def test_a_task_is_still_its_function():
    assert isinstance(double, Task)
    assert double(4) == 8
    assert isinstance(triple, AsyncTask)
    assert asyncio.run(triple(4)) == 12


def test_a_task_is_named_after_its_module_unless_it_was_given_a_name():
    assert double.name == f"{__name__}.double"
    assert triple.name == "billing.triple"
    assert registered()[double.name] is double


def test_an_alias_leads_to_the_same_task():
    assert registered()["old.triple"] is registered()["billing.triple"] is triple


def test_another_function_cannot_take_a_name_or_an_alias():
    for name in ("billing.triple", "old.triple"):
        with pytest.raises(InvalidTask, match="another function has this name"):

            @task(name=name)
            def thief(number: int) -> int: ...

        assert registered()[name] is triple


def test_a_refused_alias_leaves_nothing_registered():
    with pytest.raises(InvalidTask):

        @task(name="fresh", aliases=["old.triple"])
        def thief(number: int) -> int: ...

    assert "fresh" not in registered()


def test_a_reloaded_module_replaces_its_tasks(tmp_path):
    file = tmp_path / "reloaded.py"
    versions = []
    for text in ("def job(a: int) -> int: return a", "def job(a: int, b: int = 2) -> int: return b"):
        file.write_text(f"from chancy import task\n@task(name='reloaded.job')\n{text}\n# {len(text)}")
        spec = importlib.util.spec_from_file_location("reloaded", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        versions.append(module.job)
    assert registered()["reloaded.job"] is versions[1]
    assert registered()["reloaded.job"](1) == 2


def test_a_task_of_a_function_can_be_called_but_not_submitted():
    @task
    def inner(number: int) -> int:
        return number

    assert inner(3) == 3
    with pytest.raises(InvalidTask, match="inside a function"):
        inner.bind(3)


def test_using_gives_another_task_and_leaves_the_first_alone():
    urgent = double.using(priority=50, queue="urgent")
    assert (urgent.options.priority, urgent.options.queue) == (50, "urgent")
    assert (double.options.priority, double.options.queue) == (0, "default")
    assert urgent(2) == 4
    assert urgent.bind(2).task == double.name


def test_options_that_no_row_can_hold_are_refused_at_decoration():
    with pytest.raises(InvalidTask, match="priority"):
        task(priority=1000)(double.function)


SCRIPT = """
from chancy import task

@task
def work(number: int) -> int:
    return number

if __name__ == "__main__":
    print(work.name, work.bind(1).task)
"""


def test_a_task_of_a_script_has_the_name_by_which_a_worker_imports_it(tmp_path):
    (tmp_path / "jobs.py").write_text(SCRIPT)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(SCRIPT)
    for arguments, name in [
        (["jobs.py"], "jobs.work"),
        (["-m", "jobs"], "jobs.work"),
        (["-m", "package"], "package.work"),
    ]:
        run = [sys.executable, *arguments]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout.split(), done.stderr) == ([name, name], "")


def test_a_task_typed_into_a_session_is_refused_at_submit():
    done = subprocess.run(
        [sys.executable, "-"], input=SCRIPT.replace("    print", "    print(work(1)); print"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "interactive session" in done.stderr
