"""The user's code: its modules, the tasks in them, and arguments as people type them for a task."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import inspect as types

from chancy import InvalidArguments, modules
from chancy.arguments.codec import encode_json
from chancy.registry import registered
from chancy.task import BaseTask

from .faults import Refusal

AnyTask = BaseTask[..., Any]


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
    """What to call the task with, from `name=text` and `name:=json`. Raises `InvalidArguments` that names one.

    A text is read as the annotation wants it: as it is where a str fits, a number, a date and the like by msgspec's
    rules for text, and as JSON where it can be nothing else.
    """
    annotations = {field.name: field.type for field in msgspec.structs.fields(task.signature.struct)}
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
            if name in task.signature.carriers:
                values[name] = _model(task, name, text, as_json)
            else:
                values[name] = _value(text, annotations[name], as_json) if name in annotations else text
        except (msgspec.DecodeError, ValueError) as error:
            raise InvalidArguments(task.name, name, f"{error} (got {text!r})") from None
    nameless = [name for name in task.signature.names if name not in task.signature.keywords and name in values]
    return [values.pop(name) for name in nameless], values


def _model(task: AnyTask, name: str, text: str, as_json: bool) -> Any:
    """Of what has models in it: JSON, or a text where it is none."""
    try:
        msgspec.json.decode(text.encode(), type=msgspec.Raw)
        payload = text.encode()
    except msgspec.DecodeError:
        if as_json:
            raise
        payload = encode_json(text)
    return task.signature.read(name, payload)


def _value(text: str, annotation: Any, as_json: bool) -> Any:
    node = types.type_info(annotation)
    members = node.types if isinstance(node, types.UnionType) else (node,)
    plain = any(isinstance(member, _PLAIN) for member in members)
    if not as_json and plain:
        try:
            return msgspec.convert(text, annotation, strict=False)
        except msgspec.ValidationError:
            if all(isinstance(member, _PLAIN) for member in members):
                raise
    try:
        return msgspec.json.decode(text.encode(), type=annotation)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if isinstance(node, types.AnyType) and not as_json:
            return text
        raise


_PLAIN = (
    types.BoolType, types.BytesType, types.ByteArrayType, types.DateTimeType, types.DateType, types.DecimalType,
    types.EnumType, types.FloatType, types.IntType, types.LiteralType, types.NoneType, types.StrType,
    types.TimeDeltaType, types.TimeType, types.UUIDType,
)  # fmt: skip
