"""The fields of a form, made of a task's signature."""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from chancy.arguments.codec import encode_json
from chancy.carried.secrets import places
from chancy.task import BaseTask

AnyTask: TypeAlias = BaseTask[..., Any]
Kind: TypeAlias = Literal["text", "number", "flag", "choice", "date", "time", "datetime", "duration", "uuid", "json"]
_KINDS: tuple[tuple[type, Kind], ...] = (
    (bool, "flag"), (int, "number"), (float, "number"), (Decimal, "number"), (str, "text"), (bytes, "text"),
    (datetime, "datetime"), (date, "date"), (time, "time"), (timedelta, "duration"), (UUID, "uuid"),
)  # fmt: skip
"""The first that fits counts: a bool is an int, and a datetime a date."""


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
class FieldType:
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
        kinds: list[Kind] = [kind for base, kind in _KINDS if isinstance(member, type) and issubclass(member, base)]
        found: Kind = kinds[0] if kinds else "json"
        return "choice" if found == "flag" and self.nullable else found

    @property
    def is_whole(self) -> bool:
        """Whether it is a number without a fraction."""
        return self.kind == "number" and issubclass(self.members[0], int)

    @property
    def choices(self) -> dict[str, Any]:
        """What may be typed, and what that is."""
        if self.members == (bool,):
            return {"true": True, "false": False}
        return {text_of(value): value for member in self.members for value in _choices(member)}

    def said(self, *names: str) -> Any:
        """The first of these attributes that a note has."""
        found = (getattr(note, name, None) for note in self.notes for name in names)
        return next((value for value in found if value is not None), None)


def opened(annotation: Any) -> FieldType:
    """What it is without `Annotated`, aliases and unions around it."""
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
        elif origin in (typing.Union, types.UnionType):
            waiting[:0] = inner
        else:
            members.append(part)
    nullable = any(member in (None, type(None)) for member in members)
    return FieldType(tuple(member for member in members if member not in (None, type(None))), nullable, tuple(notes))


def _choices(member: Any) -> list[Any]:
    """The values of an enumeration or a Literal, in their order, as JSON says them."""
    if typing.get_origin(member) is Literal:
        return list(typing.get_args(member))
    if isinstance(member, type) and issubclass(member, enum.Enum) and not issubclass(member, enum.Flag):
        return [each.value for each in member]
    return []


def text_of(value: Any) -> str:
    """A text as it is, anything else as its JSON."""
    return value if isinstance(value, str) else encode_json(value).decode()


def fields_of(task: AnyTask) -> tuple[FormField, ...]:
    """The arguments of the task, in their order."""
    return tuple(_field(task, parameter, hint) for parameter, hint in _parameters(task))


def type_of(task: AnyTask, name: str) -> FieldType:
    """Of one argument."""
    return next(opened(hint) for parameter, hint in _parameters(task) if parameter.name == name)


def _parameters(task: AnyTask) -> Iterator[tuple[inspect.Parameter, Any]]:
    hints = typing.get_type_hints(task.function, include_extras=True)
    for parameter in inspect.signature(task.function).parameters.values():
        yield parameter, hints[parameter.name]


def _field(task: AnyTask, parameter: inspect.Parameter, annotation: Any) -> FormField:
    given, secret = opened(annotation), () in set(places(annotation))
    kind = given.kind
    required = parameter.default is parameter.empty
    default = None
    if not required and not secret:
        default = typed(task.signature.say(parameter.name, parameter.default), kind)
    least, most = _bounds(given) if kind == "number" else (None, None)
    pattern = given.said("pattern")
    return FormField(
        name=parameter.name,
        kind=kind,
        required=required and not given.nullable,
        default=default,
        nullable=given.nullable,
        choices=tuple(given.choices) if kind == "choice" else (),
        least=least,
        most=most,
        step=text_of(given.said("multiple_of") or (1 if given.is_whole else "any")) if kind == "number" else None,
        shortest=given.said("min_length"),
        longest=given.said("max_length"),
        pattern=pattern if isinstance(pattern, str) else None,
        doc=str(given.said("description", "documentation") or ""),
        secret=secret,
    )


def _bounds(given: FieldType) -> tuple[str | None, str | None]:
    least, most = given.said("ge"), given.said("le")
    if least is None and (above := given.said("gt")) is not None:
        least = above + given.is_whole
    if most is None and (below := given.said("lt")) is not None:
        most = below - given.is_whole
    return None if least is None else text_of(least), None if most is None else text_of(most)


def typed(payload: bytes, kind: Kind) -> str:
    """JSON as it would be typed into a field of this kind."""
    value = msgspec.json.decode(payload)
    if value is None:
        return ""
    if kind == "json":
        return msgspec.json.format(payload, indent=2).decode()
    return text_of(value)
