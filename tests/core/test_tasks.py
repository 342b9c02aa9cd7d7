"""A task has a stable name and is still its function."""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import inspect
import subprocess
import sys

import pytest

import chancy
from chancy import (
    AsyncTask,
    Backoff,
    InvalidArguments,
    InvalidConnection,
    InvalidOption,
    InvalidTask,
    Limit,
    Task,
    task,
)
from chancy.registry import registered
from chancy_testing import eager


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


@pytest.mark.parametrize(
    ("option", "meant"),
    {
        "timeout": r"limits=\[Limit\.time\(",
        "memory_limit": r"limits=\[Limit\.memory\(",
        "max_retries": "max_attempts=, which counts the first",
        "retries": "max_attempts=",
        "rate_limit": r"limits=\[Limit\.rate\(",
        "countdown": r"using\(delay=60\)\.submit",
        "delay": r"using\(delay=60\)\.submit",
        "eta": r"using\(run_at=…\)\.submit",
        "crontab": r"schedule=every\(minutes=5\)",
        "retry_backoff": r"retry=Backoff\(",
        "prioritty": "you may mean priority=$",
        "colour": r"keep_logs, schedule, aliases\)$",
    }.items(),
)
def test_an_option_that_others_have_is_refused_with_what_there_is_and_what_was_meant(option, meant):
    before = dict(registered())
    with pytest.raises(
        InvalidTask, match=rf"double cannot be a task: {option}: is no option .there are: name, queue.*{meant}"
    ):
        task(**{option: 5})(double.function)
    assert dict(registered()) == before


def test_what_using_does_not_know_is_refused_likewise():
    with pytest.raises(InvalidArguments, match=r"is no option .there are: queue, .*using\(delay=60\)"):
        double.using(countdown=5)
    with pytest.raises(InvalidArguments, match=r"limits=\[Limit\.time\("):
        double.using(timeout=5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Backoff(2),
            r"Backoff: say its parts by name, as in Backoff\(base=5, .*max_attempts=, got Backoff\(2\)",
        ),
        (lambda: Backoff(max=60), r"maximum=3600.*got Backoff\(max=60\)"),
        (lambda: Limit(60), r"Limit: say what it limits: Limit\.time\(60\) in seconds"),
        (lambda: Limit(seconds=60), r"Limit\.time\(60\)"),
    ],
)
def test_a_value_that_is_written_otherwise_says_how_it_is_written(make, message):
    with pytest.raises(InvalidOption, match=message):
        make()


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


# What may be decorated, and what may not


def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def bare(function):
    def wrapper(number: int) -> int:
        return function(number)

    return wrapper


@task
@timed
async def wrapped(number: int) -> int:
    return number + 1


@task
@timed
@timed
async def wrapped_twice(number: int) -> int:
    return number + 2


def runs_it(function):
    """A wrapper that awaits by itself."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return asyncio.run(function(*args, **kwargs))

    return wrapper


@task(executor="thread")
@runs_it
async def run_by_its_wrapper(number: int) -> int:
    return number + 3


@task
@functools.lru_cache
def cached(number: int) -> int:
    return number + 4


class Instrument:
    """As tracers have it: an object that stands for the function that it wraps."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)


@task
@Instrument
async def instrumented(number: int) -> int:
    return number + 5


class Holder:
    @task
    @staticmethod
    async def static(number: int) -> int:
        return number + 6

    @staticmethod
    def plain(number: int) -> int:
        return number

    @classmethod
    def of_class(cls, number: int) -> int:
        return number

    def method(self, number: int) -> int:
        return number


@pytest.mark.parametrize(
    ("made", "kind", "result"),
    [
        (wrapped, AsyncTask, 8),
        (wrapped_twice, AsyncTask, 9),
        (run_by_its_wrapper, Task, 10),
        (cached, Task, 11),
        (instrumented, AsyncTask, 12),
        (Holder.static, AsyncTask, 13),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_wrapper_is_seen_as_what_it_wraps_and_its_job_runs(made, kind, result):
    assert type(made) is kind
    assert made.bind(7).task == made.name
    with eager() as backend:
        assert made.submit(backend.conn, 7).result(backend.conn) == result


def test_an_async_task_is_a_coroutine_function_to_whoever_asks():
    assert inspect.iscoroutinefunction(triple.__call__)  # so do Starlette and its kin
    assert sys.version_info < (3, 12) or inspect.iscoroutinefunction(triple)
    assert not inspect.iscoroutinefunction(double)
    assert not inspect.iscoroutinefunction(double.__call__)


def generates(number: int):
    yield number


async def generates_later(number: int):
    yield number


class Call:
    def __call__(self, number: int) -> int:
        return number


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (functools.partial(print, 1), "it is a partial"),
        (functools.partial(double.function, 1), "it is a partial"),
        (Call(), "not a function with code of its own"),
        (Call, "it is a class"),
        (dict, "it is a class"),
        (print, "not a function with code of its own"),
        (max, "not a function with code of its own"),
        (Holder().method, "it is a method"),
        (Holder.of_class, "it is a method"),
        (vars(Holder)["of_class"], "it is a method"),
        (Holder.method, "it is a method"),
        (generates, "it is a generator"),
        (generates_later, "it is a generator"),
        (double, "it is a task already"),
        (triple, "it is a task already"),
        (5, "it is no function"),
        ("billing", r"@task\(name='billing'\)"),
        (lambda: None, "no name by which it could be found: give name="),
    ],
    ids=range(18),
)
def test_what_has_no_code_no_name_or_no_object_is_refused_by_name(given, reason):
    before = dict(registered())
    with pytest.raises(InvalidTask, match=reason) as caught:
        task(given)
    assert "\n" not in str(caught.value)
    assert dict(registered()) == before


NAMED = task(name="a lambda")(lambda: None)


def test_a_lambda_with_a_name_is_a_task():
    assert NAMED.bind().task == "a lambda"


def test_options_without_any_are_as_without_brackets():
    assert task()(double.function).name == double.name
    assert task(None)(double.function).name == double.name


SENDER = "import functools\nfrom chancy import task\nfrom decorators import {0}\n@task(name='send')\n@{0}\ndef run({2}) -> str: return '{1}'\n"


@pytest.mark.parametrize("decorator", ["timed", "timer", "cached", "bare"])
def test_two_functions_behind_one_decorator_never_share_a_name_and_a_reload_is_fine(tmp_path, monkeypatch, decorator):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "decorators.py").write_text(
        "import contextlib, functools\n"
        "def timed(f):\n    @functools.wraps(f)\n    def wrapper(*a, **k): return f(*a, **k)\n    return wrapper\n"
        "def bare(f):\n    def wrapper(number: int) -> str: return f(number)\n    return wrapper\n"
        "@contextlib.contextmanager\ndef clock():\n    yield\ntimer = clock()\ncached = functools.lru_cache\n"
    )
    for name in ("orders", "stocks"):
        (tmp_path / f"{name}_{decorator}.py").write_text(SENDER.format(decorator, name, "number: int"))
    registry = chancy.registry.tasks
    try:
        first = importlib.import_module(f"orders_{decorator}")
        importlib.reload(first)
        with pytest.raises(
            InvalidTask, match=rf"send cannot be a task: another function has this name.*orders_{decorator}"
        ):
            importlib.import_module(f"stocks_{decorator}")
        assert registry["send"].function(1) == "orders"
    finally:
        registry.pop("send", None)
        for name in ("decorators", f"orders_{decorator}", f"stocks_{decorator}"):
            sys.modules.pop(name, None)


def test_a_function_behind_a_decorator_that_does_not_say_so_is_told_what_to_do():
    made = task(name="behind a bare one")(bare(double.function))
    with pytest.raises(InvalidTask, match=r"give its decorator functools\.wraps"):
        made.bind(1)


@pytest.mark.parametrize("forgotten", [7, "ann", None])
def test_a_forgotten_connection_is_told_as_such_whatever_the_arguments_then_miss(forgotten):
    with pytest.raises(InvalidConnection, match="the first argument is your connection"):
        double.submit(forgotten)
    with pytest.raises(InvalidConnection, match="the first argument is your connection"):
        double.submit(forgotten, 1)
    with pytest.raises(InvalidConnection, match="the first argument is your connection"):
        chancy.submit_many([double.bind(1)], [])


def test_a_task_of_a_folder_that_is_run_says_that_no_worker_can_import_it(tmp_path):
    (tmp_path / "__main__.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert "its module is __main__ (an interactive session, or a folder or archive that is run)" in done.stderr
