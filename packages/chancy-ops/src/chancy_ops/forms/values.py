"""One argument, or option, of the text that somebody has typed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect as types

from chancy.arguments.codec import encode_json

from .fields import AnyTask, FormField, type_of

_AS_TEXTS = frozenset({"text", "date", "time", "datetime", "duration", "uuid", "choice"})
"""Kinds whose JSON is a text."""
_NO_SECONDS = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d.*|)(.*)")
_PLAIN = (
    types.BoolType, types.BytesType, types.ByteArrayType, types.DateTimeType, types.DateType, types.DecimalType,
    types.EnumType, types.FloatType, types.IntType, types.LiteralType, types.NoneType, types.StrType,
    types.TimeDeltaType, types.TimeType, types.UUIDType,
)  # fmt: skip


def value_typed(task: AnyTask, field: FormField, text: str) -> Any:
    """What was typed into this field. Raises `ValueError`, as msgspec's errors are."""
    text = text.replace("\r\n", "\n")  # as browsers send it
    if field.kind == "choice" and field.name not in task.signature.carriers:
        choices = type_of(task, field.name).choices
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(field.choices)}")
        return task.signature.read(field.name, encode_json(choices[text]))
    if field.kind == "flag" and text == "on":  # as a checkbox without a value says it
        text = "true"
    return value_of(task, field.name, text if field.kind == "text" else text.strip(), field.kind == "json")


def words(field: FormField, error: Exception) -> str:
    """What is wrong, for whoever has typed it."""
    said = str(error)
    if field.kind == "number" and ("got `str`" in said or "Invalid decimal" in said):
        return f"expected a {'whole ' if field.step == '1' else ''}number"
    if field.kind == "flag":
        return "expected true or false"
    if field.kind == "json" and ("malformed" in said or "truncated" in said):
        return f"expected JSON, in which a text has quotes: {said}"
    return said


def value_of(task: AnyTask, name: str, text: str, as_json: bool = False) -> Any:
    """One argument of its text. Raises `ValueError`, as msgspec's errors are.

    A text is read as the annotation wants it: as it is where a str fits, a number, a date and the like by msgspec's
    rules for text, and as JSON where it can be nothing else.
    """
    if name in task.signature.carriers:
        return task.signature.read(name, _json_of_model(task, name, text, as_json))
    annotation = next(field.type for field in msgspec.structs.fields(task.signature.struct) if field.name == name)
    return _value(text, annotation, as_json)


def as_called(task: AnyTask, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """What to call the task with: those by position that Python takes in no other way."""
    by_name = dict(values)
    nameless = [name for name in task.signature.names if name not in task.signature.keywords and name in by_name]
    return [by_name.pop(name) for name in nameless], by_name


def _json_of_model(task: AnyTask, name: str, text: str, as_json: bool) -> bytes:
    """Of what Pydantic reads: a text where texts are meant, else JSON, and a text where it is none."""
    if not as_json and type_of(task, name).kind in _AS_TEXTS:
        return encode_json(_with_seconds(text))
    try:
        msgspec.json.decode(text.encode(), type=msgspec.Raw)
    except msgspec.DecodeError:
        if as_json:
            raise
        return encode_json(text)
    return text.encode()


def _value(text: str, annotation: Any, as_json: bool) -> Any:
    node = _bare(types.type_info(annotation))
    members = [_bare(member) for member in node.types] if isinstance(node, types.UnionType) else [node]
    plain = any(isinstance(member, _PLAIN) for member in members)
    if not as_json and plain:
        try:
            return plain_value(text, annotation)
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


def _bare(node: types.Type) -> types.Type:
    """Without what is only said about it, as a description."""
    while isinstance(node, types.Metadata):
        node = node.type
    return node


def plain_value(text: str, annotation: Any) -> Any:
    """Of a type whose values are written as texts. Raises `ValueError`."""
    try:
        return msgspec.convert(text, annotation, strict=False)
    except msgspec.ValidationError:
        if (longer := _with_seconds(text)) == text:
            raise
        return msgspec.convert(longer, annotation, strict=False)


def _with_seconds(text: str) -> str:
    """An instant as forms and people write it, `2026-11-25 18:00Z`, as RFC 3339 has it."""
    found = _NO_SECONDS.fullmatch(text)
    return text if found is None else f"{found[1]}T{found[2]}{found[3] or ':00'}{found[4]}"
