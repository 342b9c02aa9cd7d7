"""A task's arguments as a person types them: a form of its signature, and what was typed as the job that is meant.

All of it is plain data; a page, or a command, gives it its looks. `chancy submit` reads its arguments in the same way.
"""

from __future__ import annotations

import enum
import inspect
import re
import types as python_types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import inspect as types

from chancy.arguments.codec import encode_json
from chancy.carried.secrets import EACH, HIDDEN, Place, hidden, places, secrets_in
from chancy.errors import InvalidArguments
from chancy.job import NewJob
from chancy.model import HIGHEST_PRIORITY, LOWEST_PRIORITY, MOST_ATTEMPTS
from chancy.task import BaseTask

AnyTask: TypeAlias = BaseTask[..., Any]
Kind: TypeAlias = Literal["text", "number", "flag", "choice", "date", "time", "datetime", "duration", "uuid", "json"]
_KINDS: tuple[tuple[type, Kind], ...] = (
    (bool, "flag"), (int, "number"), (float, "number"), (Decimal, "number"), (str, "text"), (bytes, "text"),
    (datetime, "datetime"), (date, "date"), (time, "time"), (timedelta, "duration"), (UUID, "uuid"),
)  # fmt: skip
"""The first that fits counts: a bool is an int, and a datetime a date."""
_AS_TEXTS = frozenset({"text", "date", "time", "datetime", "duration", "uuid", "choice"})
"""Kinds whose JSON is a text."""
_NO_SECONDS = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d.*|)(.*)")
NOT_SHOWN = "a secret is not shown: type it again"


@dataclass(frozen=True, slots=True)
class FormField:
    """One argument, as a person is asked for it."""

    name: str
    kind: Kind
    """What is typed: `number` is also a Decimal, `duration` is ISO 8601 (PT90S), `json` whatever has no text."""
    required: bool
    default: str | None = None
    """As it would be typed; None of what has none, and empty for None."""
    nullable: bool = False
    """Nothing typed means None."""
    choices: tuple[str, ...] = ()
    """In the order in which they are declared."""
    least: str | None = None
    most: str | None = None
    """Bounds of a number, both inclusive unless it is a fraction."""
    step: str | None = None
    """Of a number: `1` of whole ones, `any`, or what it is a multiple of."""
    shortest: int | None = None
    longest: int | None = None
    """Characters of a text, or items."""
    pattern: str | None = None
    doc: str = ""
    secret: bool = False
    """It is not shown while it is typed, and never again."""


@dataclass(frozen=True, slots=True)
class _Type:
    """An annotation, opened: what it may be beside None, and what is said of it in `Annotated`."""

    members: tuple[Any, ...]
    nullable: bool
    notes: tuple[Any, ...]

    @property
    def kind(self) -> Kind:
        """What is typed for it. Of several kinds it is JSON, which tells them apart."""
        if all(_choices(member) for member in self.members) and self.members:
            return "choice"
        if len(self.members) != 1:
            return "json"
        (member,) = self.members
        found = next((kind for base, kind in _KINDS if isinstance(member, type) and issubclass(member, base)), "json")
        return "choice" if found == "flag" and self.nullable else found

    @property
    def choices(self) -> dict[str, Any]:
        """What may be typed, and what that is."""
        if self.members == (bool,):
            return {"true": True, "false": False}
        return {_text(value): value for member in self.members for value in _choices(member)}

    def said(self, *names: str) -> Any:
        """The first of these attributes that a note has."""
        found = (getattr(note, name, None) for note in self.notes for name in names)
        return next((value for value in found if value is not None), None)


def _opened(annotation: Any) -> _Type:
    members: list[Any] = []
    notes: list[Any] = []
    waiting = [annotation]
    while waiting:
        part = waiting.pop(0)
        origin, inner = typing.get_origin(part), typing.get_args(part)
        if origin is typing.Annotated:
            for note in inner[1:]:
                notes += [note, *(getattr(note, "metadata", None) or ())]  # Pydantic's Field has more in it
            waiting.insert(0, inner[0])
        elif (named := getattr(part, "__value__", None) or getattr(part, "__supertype__", None)) is not None:
            waiting.insert(0, named)
        elif origin in (typing.Union, python_types.UnionType):
            waiting[:0] = inner
        else:
            members.append(part)
    nullable = any(member in (None, type(None)) for member in members)
    return _Type(tuple(member for member in members if member not in (None, type(None))), nullable, tuple(notes))


def _choices(member: Any) -> list[Any]:
    """The values of an enumeration or a Literal, in their order, as JSON says them."""
    if typing.get_origin(member) is Literal:
        return list(typing.get_args(member))
    if isinstance(member, type) and issubclass(member, enum.Enum) and not issubclass(member, enum.Flag):
        return [each.value for each in member]
    return []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else encode_json(value).decode()


def fields_of(task: AnyTask) -> tuple[FormField, ...]:
    """The arguments of the task, in their order."""
    return tuple(_field(task, parameter, hint) for parameter, hint in _parameters(task))


def _parameters(task: AnyTask) -> Iterator[tuple[inspect.Parameter, Any]]:
    hints = typing.get_type_hints(task.function, include_extras=True)
    for parameter in inspect.signature(task.function).parameters.values():
        yield parameter, hints[parameter.name]


def _field(task: AnyTask, parameter: inspect.Parameter, annotation: Any) -> FormField:
    opened, secret = _opened(annotation), () in set(places(annotation))
    kind = opened.kind
    required = parameter.default is parameter.empty
    default = None
    if not required and not secret:
        default = _typed(task.signature.say(parameter.name, parameter.default), kind)
    is_number = kind == "number"
    least, most = _bounds(opened) if is_number else (None, None)
    return FormField(
        name=parameter.name,
        kind=kind,
        required=required and not opened.nullable,
        default=default,
        nullable=opened.nullable,
        choices=tuple(opened.choices) if kind == "choice" else (),
        least=least,
        most=most,
        step=_text(opened.said("multiple_of") or (1 if _is_whole(opened) else "any")) if is_number else None,
        shortest=opened.said("min_length"),
        longest=opened.said("max_length"),
        pattern=opened.said("pattern") if isinstance(opened.said("pattern"), str) else None,
        doc=str(opened.said("description", "documentation") or ""),
        secret=secret,
    )


def _is_whole(opened: _Type) -> bool:
    return opened.kind == "number" and issubclass(opened.members[0], int)


def _bounds(opened: _Type) -> tuple[str | None, str | None]:
    least, most = opened.said("ge"), opened.said("le")
    whole = 1 if _is_whole(opened) else 0
    if least is None and (above := opened.said("gt")) is not None:
        least = above + whole
    if most is None and (below := opened.said("lt")) is not None:
        most = below - whole
    return None if least is None else _text(least), None if most is None else _text(most)


def _typed(payload: bytes, kind: Kind) -> str:
    """JSON as it would be typed into a field of this kind."""
    value = msgspec.json.decode(payload)
    if value is None:
        return ""
    if kind == "json":
        return msgspec.json.format(payload, indent=2).decode()
    return _text(value)


def typed_again(task: AnyTask, payload: bytes) -> dict[str, str]:
    """What would have been typed for a job with these arguments; of secrets nothing. Raises `InvalidArguments` where
    they are no JSON.
    """
    try:
        said: dict[str, msgspec.Raw] = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        secrets = secrets_in(task.function).arguments
        texts = {}
        for field in fields_of(task):
            if field.name in said and not field.secret:
                within = [way[1:] for way in secrets if way[0] == field.name]
                texts[field.name] = _typed(hidden(bytes(said[field.name]), within), field.kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidArguments(task.name, None, f"they cannot be read: {error}") from None
    return texts


OPTIONS: tuple[FormField, ...] = (
    FormField("queue", "text", required=False),
    FormField("priority", "number", False, least=str(LOWEST_PRIORITY), most=str(HIGHEST_PRIORITY), step="1"),
    FormField("max_attempts", "number", required=False, least="1", most=str(MOST_ATTEMPTS), step="1"),
    FormField("delay", "number", required=False, least="0", step="any", doc="Seconds from now."),
    FormField("run_at", "datetime", required=False, doc="With a time zone: 2026-11-25T18:00Z."),
)
"""What may be said besides of one submit. Nothing typed leaves it to the task."""
_OPTION_TYPES: Mapping[str, Any] = {
    "queue": str,
    "priority": int,
    "max_attempts": int,
    "delay": float,
    "run_at": datetime,
}


def read(
    task: AnyTask, texts: Mapping[str, str], options: Mapping[str, str] | None = None
) -> NewJob[Any] | dict[str, str]:
    """The job that is meant by what was typed for each argument, and for each option; or what is wrong, by the names
    of the fields. What is wrong with none of them alone is under the empty name. Never raises for what was typed.
    """
    values, wrong = _arguments(task, texts)
    given, wrong_options = _options(options or {})
    if wrong or wrong_options:
        return wrong | wrong_options
    try:
        by_position, by_name = as_called(task, values)
        new = task.using(**given).bind(*by_position, **by_name)
    except InvalidArguments as error:
        return {error.argument or "": error.reason}
    return {
        way[0]: NOT_SHOWN for way in secrets_in(task.function).arguments if _holds_hidden(new.arguments, way)
    } or new


def _arguments(task: AnyTask, texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values, and what is wrong."""
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for field in fields_of(task):
        text = texts.get(field.name)
        try:
            if text is None or (text == "" and (field.kind != "text" or field.nullable or field.secret)):
                if text is not None and field.nullable:
                    values[field.name] = None
                elif field.required:
                    wrong[field.name] = "is missing"
            else:
                values[field.name] = _as_typed(task, field, text)
        except (msgspec.DecodeError, ValueError) as error:
            wrong[field.name] = _words(field, error)
    return values, wrong


def _options(texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The same of options. Others than there are raise `KeyError`."""
    given: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    fields = {field.name: field for field in OPTIONS}
    for option, text in texts.items():
        kind = _OPTION_TYPES[option]
        try:
            if text.strip():
                given[option] = _plain_value(text.strip(), kind)
        except (msgspec.DecodeError, ValueError) as error:
            wrong[option] = _words(fields[option], error)
    return given, wrong


def _holds_hidden(payload: bytes, way: Place) -> bool:
    found = [msgspec.json.decode(payload)]
    for step in way:
        below: list[Any] = []
        for value in found:
            if isinstance(value, dict):
                below += value.values() if step == EACH else [value[step]] if step in value else []
            elif isinstance(value, list) and step == EACH:
                below += value
        found = below
    return HIDDEN in found


def as_called(task: AnyTask, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """What to call the task with: those by position that Python takes in no other way."""
    by_name = dict(values)
    nameless = [name for name in task.signature.names if name not in task.signature.keywords and name in by_name]
    return [by_name.pop(name) for name in nameless], by_name


def _as_typed(task: AnyTask, field: FormField, text: str) -> Any:
    text = text.replace("\r\n", "\n")  # as browsers send it
    if field.kind == "choice" and field.name not in task.signature.carriers:
        opened = _opened(_hint(task, field.name))
        if text not in opened.choices:
            raise ValueError(f"expected one of {', '.join(field.choices)}")
        return task.signature.read(field.name, encode_json(opened.choices[text]))
    if field.kind == "flag" and text == "on":
        text = "true"
    return value_of(task, field.name, text if field.kind == "text" else text.strip(), field.kind == "json")


def _hint(task: AnyTask, name: str) -> Any:
    return next(hint for parameter, hint in _parameters(task) if parameter.name == name)


def _words(field: FormField, error: Exception) -> str:
    """In the words of who has typed it."""
    said = str(error)
    if "got `str`" in said and field.kind == "number":
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
        return task.signature.read(name, text.encode() if as_json else _json_of_model(task, name, text))
    annotation = next(field.type for field in msgspec.structs.fields(task.signature.struct) if field.name == name)
    return _value(text, annotation, as_json)


def _json_of_model(task: AnyTask, name: str, text: str) -> bytes:
    """Of what Pydantic reads: a text where texts are meant, else JSON, and a text where it is none."""
    if _opened(_hint(task, name)).kind in _AS_TEXTS:
        return encode_json(_with_seconds(text))
    try:
        msgspec.json.decode(text.encode(), type=msgspec.Raw)
    except msgspec.DecodeError:
        return encode_json(text)
    return text.encode()


def _value(text: str, annotation: Any, as_json: bool) -> Any:
    node = types.type_info(annotation)
    members = node.types if isinstance(node, types.UnionType) else (node,)
    plain = any(isinstance(member, _PLAIN) for member in members)
    if not as_json and plain:
        try:
            return _plain_value(text, annotation)
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


def _plain_value(text: str, annotation: Any) -> Any:
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


_PLAIN = (
    types.BoolType, types.BytesType, types.ByteArrayType, types.DateTimeType, types.DateType, types.DecimalType,
    types.EnumType, types.FloatType, types.IntType, types.LiteralType, types.NoneType, types.StrType,
    types.TimeDeltaType, types.TimeType, types.UUIDType,
)  # fmt: skip
