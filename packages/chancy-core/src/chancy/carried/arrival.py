"""Whether what arrives is what was given.

Arguments and results travel as JSON, which says less than Python does: a subclass loses what it has more than its base,
`{1: …, "1": …}` one of its keys, an attribute that its class keeps to itself its value. So what was encoded is decoded
once, and compared: by `==` where that cannot lie, and part by part where a class decides what is equal.

Models of Pydantic are known by what their classes have. Pydantic is not imported for the question.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableSequence, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as types

from chancy.options.plain import a_kind, base_of

_LEAVES = frozenset({bool, int, float, str, bytes, type(None), date, timedelta})
"""Two of the same of these kinds that are equal are the same."""
_CLASSES = (types.StructType, types.DataclassType)
_OWN_WORD = (types.RawType, types.ExtType, types.CustomType, types.DecimalType)
"""Kinds that say themselves what is equal: of decimals one is not equal to itself."""
_WRITTEN = ("<string>", "<attrs generated")
"""The files of an `__eq__` that a decorator has written: it compares all fields, of the same class alone."""
_ANY_SEQUENCE = (Sequence, MutableSequence, Collection)
_ORDERED = (list, tuple)
_SETS = (set, frozenset)
_ABSENT = object()


class Trust(Enum):
    """Whether two values of a type that are equal are the same."""

    FULL = auto()
    """They are."""
    OF_WRITTEN = auto()
    """They are if their JSON is the same: a class that is a subclass could have another word about what is equal."""
    NONE = auto()
    """A class of it has a word of its own."""


def trust(annotations: Iterable[Any]) -> Trust:
    """Whether what is equal is the same, of values of these types."""
    nodes = [node for annotation in annotations for node in walked(types.type_info(annotation))]
    if any(isinstance(node, _OWN_WORD) for node in nodes):
        return Trust.NONE
    classes: list[Any] = [node for node in nodes if isinstance(node, _CLASSES)]
    if not classes:
        return Trust.FULL
    kinds = (typing.get_origin(each.cls) or each.cls for each in classes)  # of a generic one the class
    return Trust.OF_WRITTEN if all(map(_compares_all, kinds)) else Trust.NONE


def _compares_all(kind: Any) -> bool:
    equal = kind.__eq__
    if issubclass(kind, msgspec.Struct):
        return equal is msgspec.Struct.__eq__ and bool(kind.__struct_config__.eq)
    code = getattr(equal, "__code__", None)
    if code is None or not code.co_filename.startswith(_WRITTEN):
        return False
    if (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        return all(attribute.eq is True and attribute.eq_key is None for attribute in attributes)
    return all(field.compare for field in dataclasses.fields(kind))


def takes_sequences(annotation: Any) -> bool:
    """Whether it asks for any sequence, so that a tuple may arrive as a list."""
    kinds = [typing.get_origin(part) or part for part in parts(annotation)]
    return any(kind is each for kind in kinds for each in _ANY_SEQUENCE)


def takes_booleans(annotation: Any) -> bool:
    """Whether a boolean is one in it, and no number."""
    return any(isinstance(node, (types.AnyType, types.BoolType)) for node in walked(types.type_info(annotation)))


def walked(node: types.Type) -> Iterator[types.Type]:
    """Every type within a type, each once."""
    seen: set[int] = set()
    waiting: list[Any] = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, types.Field):
            node = node.type
        if not isinstance(node, types.Type) or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        for name in node.__struct_fields__:
            inner = getattr(node, name)
            waiting.extend(inner if isinstance(inner, tuple) else (inner,))


class Difference(msgspec.Struct, frozen=True):
    """What would arrive otherwise than it was given. No value is told, since errors go into logs."""

    how: str
    place: str = ""
    """Within what was given, as `.address[0]`."""
    of_same_kind: bool = False
    """Another value of the same kind would arrive: a class has a hand in it."""

    def __str__(self) -> str:
        return f"{self.how}, at {self.place}" if self.place else self.how


def difference(given: Any, arrived: Any, loosely: bool = False) -> Difference | None:
    """The first of what would arrive otherwise than it was given; None where nothing would.

    `loosely` takes a tuple for a list.
    """
    kind: Any = type(arrived)
    if type(given) is type(arrived):
        if kind in _LEAVES:
            return None if given == arrived else _becomes(given, arrived)
        if isinstance(arrived, _ORDERED):
            return _of_items(given, arrived, loosely)
        if isinstance(arrived, dict):
            return _of_keys(given, arrived, loosely)
        if isinstance(arrived, _SETS):
            return _of_members(given, arrived, loosely)
        if (parts := parts_of(kind)) is not None:
            return _of_parts(given, arrived, parts, loosely)
    elif isinstance(given, _ORDERED) and isinstance(arrived, _ORDERED):
        if loosely or isinstance(given, list) is isinstance(arrived, list):
            return _of_items(given, arrived, loosely)
    elif isinstance(given, Mapping) and isinstance(arrived, dict):
        return _of_keys(given, arrived, loosely)
    elif isinstance(given, _SETS) and isinstance(arrived, _SETS):
        return _of_members(given, arrived, loosely)
    elif is_model(kind) and (generic := _generic(kind)) is not None and type(given) is generic:
        return _of_parts(given, arrived, _parts_of_model(kind), loosely)  # to type checkers `Page(…)` is a `Page[int]`
    return None if parts_of(kind) is None and _equal(given, arrived) else _becomes(given, arrived)


def as_numbers(value: Any) -> Any:
    """The same with 1 for True and 0 for False; the very same where there is none."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [as_numbers(item) for item in value]
        return value if all(one is other for one, other in zip(items, value, strict=True)) else items
    if isinstance(value, dict):
        values = {as_numbers(key): as_numbers(item) for key, item in value.items()}
        return value if all(values.get(key) is item for key, item in value.items()) else values
    return value


def is_lost(given: Any, arrived: Any) -> bool:
    """Whether a part of it would not arrive at all: what kinds its parts have does not count here."""
    seen: list[Any] = []

    def said(value: Any) -> Any:
        try:
            return plainly(value)
        except TypeError:  # of a kind that Pydantic knows: equal ones are the same
            found = [number for number, each in enumerate(seen) if type(each) is type(value) and each == value]
            seen.append(value)
            return {"equal to": min(found, default=len(seen) - 1)}

    try:
        one, other = (msgspec.to_builtins(each, enc_hook=said) for each in (given, arrived))
    except Exception:  # it was encoded, so nobody knows why not
        return False
    return not _says_the_same(one, other)


def is_model(kind: Any) -> bool:
    """Whether it is a class of Pydantic's models. (Its dataclasses are dataclasses.)"""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__") and not dataclasses.is_dataclass(kind)


def fields_of(model: Any) -> Mapping[str, Any]:
    """The fields of a model, or of one of Pydantic's dataclasses: its own descriptions by their names."""
    fields: Mapping[str, Any] | None = getattr(model, "__pydantic_fields__", None)
    return model.model_fields if fields is None else fields


def plainly(value: Any) -> Any:
    """What something is made of that has no JSON of its own: a model of its fields or its root, a subclass of what is
    its base's.

    Of anything else it raises `TypeError`.
    """
    if is_model(type(value)):
        if value.__pydantic_root_model__:
            return value.root
        return {name: value.__dict__[name] for name in fields_of(type(value)) if name in value.__dict__} | (
            value.__pydantic_extra__ or {}
        )
    return base_of(value)


class Parts(NamedTuple):
    """What an object of several parts has in it."""

    names: tuple[str, ...]
    get: Callable[[Any], tuple[Any, ...]]


@functools.cache
def parts_of(kind: Any) -> Parts | None:
    """Of a Struct, a dataclass, a class of attrs or a model; None of any other."""
    if is_model(kind):
        return _parts_of_model(kind)
    if issubclass(kind, msgspec.Struct):
        names = tuple(kind.__struct_fields__)
    elif dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
    elif (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        names = tuple(attribute.name for attribute in attributes)
    else:
        return None
    if len(names) > 1:
        return Parts(names, operator.attrgetter(*names))
    return Parts(names, lambda value: tuple(getattr(value, name) for name in names))


def _parts_of_model(kind: Any) -> Parts:
    """Its fields, what it keeps to itself, and what it has beside its fields. Not by its attributes, where a deprecated
    field would warn.
    """
    fields, private = tuple(fields_of(kind)), tuple(kind.__private_attributes__)

    def get(value: Any) -> tuple[Any, ...]:
        own, hidden = value.__dict__, value.__pydantic_private__ or {}
        seen = [own.get(name, _ABSENT) for name in fields]
        return (*seen, *[hidden.get(name, _ABSENT) for name in private], value.__pydantic_extra__ or {})

    return Parts((*fields, *private, "model_extra"), get)


def _generic(model: Any) -> Any:
    """`Page` of `Page[int]`."""
    return model.__pydantic_generic_metadata__["origin"]


def _of_parts(given: Any, arrived: Any, parts: Parts, loosely: bool) -> Difference | None:
    try:
        found = _first(parts.get(given), parts.get(arrived), loosely)
    except AttributeError:  # one that has no value
        names = [name for name in parts.names if hasattr(given, name) or hasattr(arrived, name)]
        pairs = [[getattr(each, name, _ABSENT) for name in names] for each in (given, arrived)]
        parts, found = Parts(tuple(names), parts.get), _first(pairs[0], pairs[1], loosely)
    return None if found is None else _within(f".{parts.names[found[0]]}", found[1])


def _of_items(given: Sequence[Any], arrived: Sequence[Any], loosely: bool) -> Difference | None:
    if len(given) != len(arrived):
        return Difference(f"{len(given)} items would arrive as {len(arrived)}")
    found = _first(given, arrived, loosely)
    return None if found is None else _within(f"[{found[0]}]", found[1])


def _of_keys(given: Mapping[Any, Any], arrived: dict[Any, Any], loosely: bool) -> Difference | None:
    if len(given) != len(arrived):
        return Difference(f"{len(given)} keys would arrive as {len(arrived)}")
    if any(key not in given for key in arrived):
        return Difference("its keys would arrive as others")
    found = _first([given[key] for key in arrived], list(arrived.values()), loosely)
    return None if found is None else _within("[…]", found[1])


def _of_members(given: Any, arrived: Any, loosely: bool) -> Difference | None:
    """Of two sets: which of the members is which is their own word, whether they are the same is not."""
    if given != arrived:
        return _becomes(given, arrived)
    of_classes = [member for member in given if type(member) not in _LEAVES]
    same = {member: member for member in arrived} if of_classes else {}
    found = _first(of_classes, [same[member] for member in of_classes], loosely)
    return None if found is None else _within("[…]", found[1])


def _first(given: Sequence[Any], arrived: Sequence[Any], loosely: bool) -> tuple[int, Difference] | None:
    """The first of equally many that would arrive otherwise: its number, and how."""
    number = 0
    for one, other in zip(given, arrived, strict=True):
        kind = type(one)
        alike = kind is type(other) and kind in _LEAVES and one == other
        if not alike and (found := difference(one, other, loosely)) is not None:
            return number, found
        number += 1  # noqa: SIM113 (a third of the time is `enumerate`'s)
    return None


def _equal(given: Any, arrived: Any) -> bool:
    if isinstance(arrived, Decimal) and isinstance(given, Decimal):  # also one that is not equal to itself
        return given.as_tuple() == arrived.as_tuple()
    if isinstance(arrived, msgspec.Raw):
        return isinstance(given, msgspec.Raw) and bytes(given) == bytes(arrived)
    if arrived is None or isinstance(arrived, bool):
        return given is arrived
    if bool(given == arrived):
        return True
    if isinstance(arrived, (datetime, time)) and isinstance(given, type(arrived)):
        # In the hour that a clock in Prague shows twice, an instant of Prague equals none of any other zone.
        walls = given.replace(tzinfo=None) == arrived.replace(tzinfo=None)
        return walls and given.utcoffset() == arrived.utcoffset()
    return False


def _says_the_same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        named = {str(key): value for key, value in other.items()}
        return len(one) == len({str(key) for key in one}) and all(
            _says_the_same(value, named.get(str(key), _ABSENT)) for key, value in one.items()
        )
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        # What was a set has no order.
        return len(one) == len(other) and (
            all(map(_says_the_same, one, other)) or sorted(map(repr, one)) == sorted(map(repr, other))
        )
    return bool(one == other)


def _within(step: str, found: Difference) -> Difference:
    return Difference(found.how, step + found.place, found.of_same_kind)


def _becomes(given: Any, arrived: Any) -> Difference:
    one, other = _named(given), _named(arrived)
    return Difference(f"{one} would arrive as {'another one' if one == other else other}", of_same_kind=one == other)


def _named(value: Any) -> str:
    return "None" if value is None else a_kind(value)


def parts(annotation: Any) -> Iterator[Any]:
    """A type and all that it is made of, through the fields of classes."""
    return reached(annotation, lambda part: (*within(part), *fields_within(part)))


def reached(first: Any, step: Callable[[Any], Iterable[Any]]) -> Iterator[Any]:
    """What is reached from here, each once."""
    seen: dict[int, Any] = {}  # which keeps them, so that no two have one id
    waiting = [first]
    while waiting:
        part = waiting.pop()
        if id(part) not in seen:
            seen[id(part)] = part
            yield part
            waiting += step(part)


def within(annotation: Any) -> Iterator[Any]:
    """What a type names itself: of `list[X] | None` these are `list[X]` and `None`."""
    yield from typing.get_args(annotation)
    for alias in ("__value__", "__supertype__"):  # of a `type` statement, of a `NewType`
        if (named := getattr(annotation, alias, None)) is not None:
            yield named


def fields_within(annotation: Any) -> Iterator[Any]:
    """The types of the fields of a class."""
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return
    if hasattr(kind, "__pydantic_validator__"):
        for field in fields_of(kind).values():
            yield from (field.annotation, *field.metadata)
    elif parts_of(kind) is not None or hasattr(kind, "__total__") or hasattr(kind, "_fields"):
        with contextlib.suppress(Exception):  # msgspec has read it, and Python's own reader cannot: no more is known
            yield from typing.get_type_hints(kind, include_extras=True).values()
