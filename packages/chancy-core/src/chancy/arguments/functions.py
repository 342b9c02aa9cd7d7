"""What may be decorated: a function with a name and with code of its own, and where it is written."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

from chancy.errors import InvalidOption, InvalidTask
from chancy.options.plain import name as name_of
from chancy.options.plain import shown


def checked_function(given: Any) -> Callable[..., Any]:
    """The function, or `InvalidTask` for what has no name, no code and no arguments of its own."""
    if isinstance(given, staticmethod):
        given = given.__func__
    called = getattr(given, "__qualname__", None) or shown(given)
    wrong = None
    if isinstance(given, functools.partial):
        wrong = "it is a partial, which has no name of its own: write a function that makes the call"
    elif isinstance(given, type):
        wrong = "it is a class: write a function that makes one"
    elif inspect.ismethod(given) or isinstance(given, classmethod):
        wrong = "it is a method, and its object cannot be carried: a task is a module-level function"
    elif not callable(given):
        wrong = "it is no function: @task stands above one, and takes its options by name"
    elif not isinstance(_innermost(given), FunctionType):
        wrong = f"it is {shown(given)}, and not a function with code of its own: write one that calls it"
    elif inspect.isgeneratorfunction(given) or inspect.isasyncgenfunction(given):
        wrong = "it is a generator, and a job has one result: return a list, or submit a job for each item"
    if wrong is not None:
        raise InvalidTask(str(called), wrong)
    function: Callable[..., Any] = given
    return function


def _innermost(function: Any) -> Any:
    """What decorators that say what they wrap have been put around."""
    try:
        return inspect.unwrap(function)
    except ValueError:  # they wrap each other
        return function


def is_async(function: Callable[..., Any], in_a_thread: bool) -> bool:
    """Whether what it returns has to be awaited, as far as decorators say what they wrap. A plain wrapper around a
    coroutine that is wanted `in_a_thread` awaits by itself.
    """
    if inspect.iscoroutinefunction(function):
        return True
    return not in_a_thread and inspect.iscoroutinefunction(_innermost(function))


def task_name(function: Callable[..., Any], name: str | None) -> str:
    """The name that was given, or where a worker finds the function. Raises `InvalidTask`."""
    called, module = getattr(function, "__qualname__", None), getattr(function, "__module__", None)
    if name is None:
        if not called or not module or called.endswith("<lambda>"):
            raise InvalidTask(called or shown(function), "it has no name by which it could be found: give name=")
        name = f"{_module_of(function)}.{called}"
    try:
        return name_of("name", name)
    except InvalidOption as error:
        raise InvalidTask(called or shown(name), str(error)) from None


_Origin = tuple[str | None, str | None, tuple[Any, ...]]


def _origin(function: Any, within: frozenset[int] = frozenset()) -> _Origin:
    """Where a function is written; of one that a decorator has made and not said so, also where what it wraps is."""
    function = _innermost(function)
    code, within = getattr(function, "__code__", None), within | {id(function)}
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if _is_filled(cell)]
    inner = [_origin(each, within) for each in cells if isinstance(each, FunctionType) and id(each) not in within]
    return getattr(function, "__qualname__", None), code and code.co_filename, tuple(inner)


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether the two are one function of one file: reloaded, or defined again by the next run of a test."""
    return _origin(one) == _origin(other)


def put(function: Callable[..., Any], among: list[Any]) -> None:
    """Add it as the last one. Where the same function is there already, as after a reload, it takes its own place."""
    for position, known in enumerate(among):
        if is_same(known, function):
            among[position] = function
            return
    among.append(function)


def place_of_code(function: Callable[..., Any]) -> str:
    """What it is called there, and the file."""
    name, file, inner = _origin(function)
    while inner:
        name, file, inner = inner[0]
    return f"{name} in {file}"


def _module_of(function: Callable[..., Any]) -> str:
    """The name by which a worker can import the function's module; `__main__` is looked through."""
    module: str = getattr(function, "__module__", None) or "__main__"
    if module not in ("__main__", "__mp_main__"):
        return module
    main = sys.modules[module]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    if file and not file.startswith("<"):  # <stdin>
        return Path(file).stem
    return "__main__"


def refusal(function: Callable[..., Any]) -> str | None:
    """Why no worker could import it, if so."""
    if "<locals>" in getattr(function, "__qualname__", ""):
        return (
            "it is defined inside a function, where no worker can import it: move it to module level; and if it is "
            "there, give its decorator functools.wraps"
        )
    if _module_of(function) == "__main__":
        return (
            "its module is __main__ (an interactive session, or a folder or archive that is run), which no worker can "
            "import: write it into a module"
        )
    return None
