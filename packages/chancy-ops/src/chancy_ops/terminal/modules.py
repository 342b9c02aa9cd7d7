"""The user's code: its modules, the tasks in them, and the arguments that a command line gives to one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from chancy import InvalidArguments, modules
from chancy.registry import registered
from chancy.task import BaseTask
from chancy_ops.forms.fields import AnyTask, fields_of
from chancy_ops.forms.values import as_called, value_of

from .faults import Refusal


def load(name: str) -> Any:
    """The module. What it prints at its import goes to standard error. Raises `InvalidModule`."""
    with contextlib.redirect_stdout(sys.stderr):
        return modules.load(name)


def find_task(name: str, where: Sequence[str]) -> AnyTask:
    """The task of `module:function`, or of a name that is registered once the modules of `where` are imported."""
    module_name, colon, path = name.partition(":")
    loaded = [load(module) for module in where]
    if colon:
        found: Any = load(module_name)
        for part in path.split("."):
            found = getattr(found, part, None)
        if isinstance(found, BaseTask):
            return found
        what = "nothing there" if found is None else f"a {type(found).__name__} there"
        raise Refusal(f"{name!r} is no task ({what}); {_known()}")
    if not loaded:
        raise Refusal(f"where is task {name!r}? Say MODULE:FUNCTION, or its module with --module")
    if name not in registered():
        raise Refusal(f"{', '.join(where)} has no task {name!r}; {_known()}")
    return registered()[name]


def _known() -> str:
    names = sorted(registered())
    return f"there are: {', '.join(names[:10])}" + (", …" if names[10:] else "") if names else "there are none"


def parsed(task: AnyTask, pairs: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """What to call the task with, from `name=text` and `name:=json`. Raises `InvalidArguments` that names one."""
    known = {field.name: field for field in fields_of(task)}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        as_json, name = name.endswith(":"), name.removesuffix(":")
        if not equals or not name:
            raise Refusal(f"{pair!r} is no argument: give NAME=VALUE, or NAME:=JSON")
        if name in values:
            raise InvalidArguments(task.name, name, "given twice")
        try:
            # `bind` tells of an unknown name, and which names there are.
            values[name] = value_of(task, name, text, as_json) if name in known else text
        except (msgspec.DecodeError, ValueError) as error:
            got = "" if known[name].secret else f" (got {text!r})"
            raise InvalidArguments(task.name, name, f"{error}{got}") from None
    return as_called(task, values)
