"""Which parts of arguments and results nobody is shown: what is `Annotated[…, Secret()]`.

A secret is carried as anything else, and stored as it is: whoever may read the schema may read it. It is hidden where
people look: in commands, in pages. Where it is within the JSON is said by places, so that who has no code can hide it.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from .arrival import fields_of, parts
from .flaws import aliases

HIDDEN = "[secret]"
"""What is shown in its place."""
EACH = "*"
"""Of a list each item, of a dict each value. The number of an item is that item alone."""

Place: TypeAlias = tuple[str, ...]
"""The way to it from the JSON's root: names of fields, and `EACH`."""


class Secret:
    """Marks a part of a task's arguments, or of its result, that no command and no page shows.

    `def login(user: str, password: Annotated[str, Secret()])`. To type checkers it is a `str`; it arrives as it was
    given. Fields of Structs, dataclasses, TypedDicts and models are marked in the same way.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret()"


class Secrets(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a task has secrets, within the JSON of each."""

    arguments: tuple[Place, ...] = ()
    result: tuple[Place, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.arguments or self.result)


NO_SECRETS = Secrets()


@functools.lru_cache(4096)
def secrets_in(function: Callable[..., Any]) -> Secrets:
    """Those of a task's function, as its annotations have them."""
    hints = typing.get_type_hints(function, include_extras=True)
    named = [(name, *way) for name in inspect.signature(function).parameters for way in places(hints.get(name, Any))]
    return Secrets(tuple(sorted(set(named))), tuple(sorted(set(places(hints.get("return", Any))))))


def places(annotation: Any) -> Iterator[Place]:
    """Where a value of this type has secrets. Rather more is hidden than less: where items of a list have names in
    Python only, all of it; of a class that holds itself, what it holds.
    """
    return _places(annotation, (), ()) if _has_secret(annotation) else iter(())


def _has_secret(annotation: Any) -> bool:
    return any(part is Secret or isinstance(part, Secret) for part in parts(annotation))


def _places(part: Any, way: Place, around: tuple[Any, ...]) -> Iterator[Place]:
    origin, inner = typing.get_origin(part), typing.get_args(part)
    kind = origin or part
    if origin is typing.Annotated:
        if any(each is Secret or isinstance(each, Secret) for each in inner[1:]):
            yield way
        else:
            yield from _places(inner[0], way, around)
    elif (named := getattr(part, "__value__", None) or getattr(part, "__supertype__", None)) is not None:
        yield from _places(named, way, around)
    elif origin in (typing.Union, types.UnionType):
        for each in inner:
            yield from _places(each, way, around)
    elif not isinstance(kind, type):
        return
    elif issubclass(kind, collections.abc.Mapping) and not _has_fields(kind):
        key, value = inner if len(inner) == 2 else (Any, Any)
        yield from [way] if _has_secret(key) else _places(value, (*way, EACH), around)
    elif kind is tuple and Ellipsis not in inner:
        for number, each in enumerate(inner):
            yield from _places(each, (*way, str(number)), around)
    elif issubclass(kind, collections.abc.Collection) and not _has_fields(kind):
        for each in inner:
            yield from _places(each, (*way, EACH), around)
    elif kind in around or inner:  # a class within itself, or of a type that is given to it
        if _has_secret(part):
            yield way
    else:
        for names, field in _fields(kind):
            for name in names:
                yield from _places(field, (*way, name), (*around, kind))


def _has_fields(kind: Any) -> bool:
    """Whether it is a TypedDict or a NamedTuple."""
    return hasattr(kind, "__total__") or hasattr(kind, "_fields")


def _fields(kind: Any) -> Iterator[tuple[Sequence[str], Any]]:
    """The types of the fields of a class, with the names that they may have in JSON."""
    if hasattr(kind, "__pydantic_validator__"):
        for name, field in fields_of(kind).items():
            said = [name, *aliases(field), *([field.serialization_alias] if field.serialization_alias else [])]
            yield said, typing.Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        return
    hints = typing.get_type_hints(kind, include_extras=True)
    if issubclass(kind, msgspec.Struct) and not kind.__struct_config__.array_like:
        for name, said in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
            yield [said], hints[name]
        return
    for number, (name, field) in enumerate(hints.items()):
        yield [EACH if issubclass(kind, msgspec.Struct) else str(number) if issubclass(kind, tuple) else name], field


def hidden(payload: bytes, where: Sequence[Place]) -> bytes:
    """The JSON with what is at these places hidden. All of it, where it cannot be read; nothing of what is null."""
    if not where:
        return payload
    try:
        said = msgspec.json.decode(payload)
        for place in where:
            said = _without(said, place)
        return msgspec.json.encode(said)
    except (ValueError, RecursionError):
        return msgspec.json.encode(HIDDEN)


def _without(value: Any, way: Place) -> Any:
    if not way:
        return None if value is None else HIDDEN
    below = _below(value, way[0])
    if isinstance(value, dict):
        return value | {name: _without(value[name], way[1:]) for name in below}
    if isinstance(value, list):
        return [_without(each, way[1:]) if n in below else each for n, each in enumerate(value)]
    return value


def _below(value: Any, step: str) -> Collection[Any]:
    """The names, or numbers, of what a step leads to."""
    if isinstance(value, dict):
        return value.keys() if step == EACH else {step} & value.keys()
    if isinstance(value, list):
        return range(len(value)) if step == EACH else {int(step)} if step.isdecimal() else ()
    return ()


def at(value: Any, way: Place) -> Iterator[Any]:
    """What is there of JSON that was read."""
    if way:
        for each in _below(value, way[0]):
            if isinstance(value, dict) or each < len(value):
                yield from at(value[each], way[1:])
    else:
        yield value
