"""Models of Pydantic among arguments and results, and in what holds them.

Pydantic makes their JSON and reads it, msgspec carries it through unread. Not by way of Python objects, where a strict
model would refuse what its own JSON says. A model is found by what its class has, so nothing imports Pydantic before
the application has.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import inspect as types

from chancy.options.phrases import one_line
from chancy.options.plain import base_of

from .arrival import difference, fields_of, fields_within, is_model, parts, parts_of, reached, walked, within
from .flaws import aliases, flaws, kept_back

_LEAVES = frozenset({bool, int, float, str, bytes, type(None), datetime})
_EMPTY = (list, dict, set, frozenset, tuple)
"""Factories of defaults that make the same again."""
_MADE_OF_WHAT_IS_GIVEN = ("pydantic", "sqlmodel")
"""Whose `__init__` takes nothing from elsewhere, as one that reads the environment does."""
_LONGEST = 300


class Unread(ValueError):
    """JSON that a type does not take. Its words tell no value."""

    def __init__(self, words: str, place: str = "") -> None:
        self.words = words
        self.place = place
        """`.address.zip`, within the JSON."""
        super().__init__(f"{words} - at `${place}`" if place else words)


class Carrier(Protocol):
    """How the JSON of one type is made and read."""

    def encode(self, value: Any, /) -> bytes:
        """Whether it would come back from that is not asked."""

    def decode(self, payload: bytes, /) -> Any:
        """Raises `Unread`."""

    def schema(self) -> Any:
        """What tells it from other versions of itself, as JSON."""


def holds_models(annotation: Any) -> bool:
    """Whether Pydantic has a word in it: a model, a dataclass or a type of its own, or a `Field` in `Annotated`."""
    return any(_is_pydantics(part) for part in parts(annotation))


def carrier_of(annotation: Any) -> Carrier:
    """Of a type that `holds_models`. Raises `ValueError` or `TypeError` where it cannot be carried at all."""
    for found in flaws(annotation):
        raise ValueError(found)
    if any(_is_msgspecs(kind) for kind in _classes(annotation)):
        return _Mixed(annotation)
    try:
        return _OfPydantic(annotation)
    except Exception as error:
        try:
            return _Mixed(annotation)  # a TypedDict of `typing`, which Pydantic refuses before Python 3.12
        except Exception:
            raise error from None


def _is_pydantics(part: Any) -> bool:
    if isinstance(part, type):
        return hasattr(part, "__pydantic_validator__") or (
            hasattr(part, "__get_pydantic_core_schema__") and isinstance(types.type_info(part), types.CustomType)
        )
    return type(part).__module__.partition(".")[0] == "pydantic"


def _is_msgspecs(kind: Any) -> bool:
    return issubclass(kind, msgspec.Struct) or hasattr(kind, "__attrs_attrs__")


def _classes(annotation: Any) -> Iterator[Any]:
    """The classes in it, but for those within what is Pydantic's."""
    inner = lambda part: within(part) if _is_pydantics(part) else (*within(part), *fields_within(part))  # noqa: E731
    for part in reached(annotation, inner):
        kind = typing.get_origin(part) or part
        if isinstance(kind, type):
            yield kind


class _OfPydantic:
    """All of it is Pydantic's."""

    def __init__(self, annotation: Any) -> None:
        pydantic: Any = importlib.import_module("pydantic")  # which is there: something of it is in the annotation
        adapter = pydantic.TypeAdapter(annotation)
        self._annotation, self._adapter = annotation, adapter
        self._names = frozenset(_names_in(annotation))
        self._dump = functools.partial(adapter.dump_json, round_trip=True, by_alias=True, warnings=False)
        self._load: Callable[[bytes], Any] = adapter.validate_json

    def encode(self, value: Any, /) -> bytes:
        """Fields that were not set are left out where that changes nothing: who asks a model which of its fields were
        set (`exclude_unset=True`) hears the same there.
        """
        if _says_all_when_short(value):
            short: bytes = self._dump(value, exclude_unset=True)
            with contextlib.suppress(Exception):  # it does not come back: of a union that such a field tells apart
                if self._load(short) == value:
                    return short
        return self._whole(value)

    def _whole(self, value: Any) -> bytes:
        whole: bytes = self._dump(value)
        return whole

    def decode(self, payload: bytes, /) -> Any:
        """Raises `Unread`."""
        try:
            return self._load(payload)
        except Exception as error:
            raise _unread(error, self._names) from None

    def schema(self) -> Any:
        """The JSON Schema, or the names and types of the fields where there is none."""
        try:
            return self._adapter.json_schema(mode="validation")
        except Exception:  # a type in it has none
            models = [kind for kind in _classes(self._annotation) if hasattr(kind, "__pydantic_validator__")]
            return [[kind.__qualname__, *sorted(fields_of(kind))] for kind in models]


class _Mixed:
    """Structs and classes of attrs, which Pydantic does not know, with models in them: msgspec reads all but those."""

    def __init__(self, annotation: Any) -> None:
        kinds: list[Any] = list(_classes(annotation))
        owner = next((kind.__qualname__ for kind in kinds if _is_msgspecs(kind)), "what holds it")
        unasked = [kind.__qualname__ for kind in kinds if _is_pydantics(kind) and not is_model(kind) and parts_of(kind)]
        if unasked:
            raise ValueError(
                f"{unasked[0]} is a dataclass of Pydantic, which nobody would ask within {owner}: make one "
                f"of them a model"
            )
        try:
            self._decoder: Any = msgspec.json.Decoder(annotation, dec_hook=_from_builtins)
            nodes = list(walked(types.type_info(annotation)))
        except TypeError as error:
            raise TypeError(f"{error}; make {owner} a dataclass or a model") from None
        if kept := kept_back(nodes):
            raise TypeError(kept)
        for node in nodes:
            if isinstance(node, types.CustomType) and not _is_pydantics(node.cls):
                raise TypeError(repr(node.cls))
        for kind in kinds:
            if _is_pydantics(kind):
                _carried(kind)  # so that what it cannot carry is told now
        self._annotation = annotation
        self._encode = msgspec.json.Encoder(enc_hook=_raw).encode

    def encode(self, value: Any, /) -> bytes:
        """Of each model in it its own JSON."""
        return self._encode(value)

    def decode(self, payload: bytes, /) -> Any:
        """Raises `Unread`."""
        try:
            return self._decoder.decode(payload)
        except Exception as error:
            raise _unread(error, frozenset()) from None

    def schema(self) -> Any:
        """The JSON Schema of either side."""
        return msgspec.json.schema(self._annotation, schema_hook=lambda kind: _carried(kind).schema())


@functools.cache
def _carried(kind: Any) -> _OfPydantic:
    return _OfPydantic(kind)


def _raw(value: Any) -> Any:
    kind: Any = type(value)
    if hasattr(kind, "__get_pydantic_core_schema__"):
        return msgspec.Raw(_carried(kind).encode(value))
    return base_of(value)


def _from_builtins(kind: Any, value: Any) -> Any:
    """By way of JSON again, since a strict model wants that."""
    return _carried(kind).decode(msgspec.json.encode(value))


class Reader:
    """Reads arguments, models among them, as msgspec's decoder of the same Struct would without."""

    def __init__(self, struct: type[msgspec.Struct], carriers: Mapping[str, Carrier]) -> None:
        self._struct = struct
        self._carriers = carriers
        fields = [_unread_field(field, field.name in carriers) for field in msgspec.structs.fields(struct)]
        raw = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True, gc=False)
        self._raw = msgspec.json.Decoder(raw)
        self._names = raw.__struct_fields__

    def decode(self, payload: bytes | str, /) -> Any:
        """Raises msgspec's errors, with the argument in them, for models as well."""
        raw = self._raw.decode(payload)
        values = {name: value for name in self._names if (value := getattr(raw, name)) is not msgspec.UNSET}
        for name in self._carriers.keys() & values.keys():
            values[name] = _placed(name, self._carriers[name].decode, bytes(values[name]))
        return self._struct(**values)


def _unread_field(field: Any, is_carried: bool) -> Any:
    """The same, with JSON that is not read yet in the place of what has a carrier."""
    kind, default, factory = field.type, field.default, field.default_factory
    if is_carried:
        kind = msgspec.Raw | msgspec.UnsetType
        default, factory = msgspec.NODEFAULT if field.required else msgspec.UNSET, msgspec.NODEFAULT
    options: dict[str, Any] = {"default": default, "default_factory": factory}
    return field.name, kind, msgspec.field(**options)


def encoder(carriers: Mapping[str, Carrier], encode_rest: Callable[[Any], bytes]) -> Callable[[dict[str, Any]], bytes]:
    """What makes the JSON of arguments, models among them. An error says whose it is."""

    def encode(values: dict[str, Any]) -> bytes:
        said = {
            name: msgspec.Raw(_placed(name, carriers[name].encode, value)) if name in carriers else value
            for name, value in values.items()
        }
        return encode_rest(said)

    return encode


def _placed(name: str, call: Callable[[Any], Any], value: Any) -> Any:
    """Call it with the value of this argument; an error says so, as msgspec says it."""
    try:
        return call(value)
    except Unread as error:
        words, place = error.words, error.place
    except RecursionError:
        raise
    except Exception as error:
        words, place = _words(error), ""
    raise msgspec.ValidationError(f"{words} - at `$.{name}{place}`")


def _words(error: Exception) -> str:
    said = one_line(str(error), _LONGEST)
    return said if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {said}"


def _unread(error: Exception, names: frozenset[str]) -> Unread:
    """What Pydantic or msgspec said, without values; of Pydantic's many the first."""
    if isinstance(error, Unread):
        return error
    if isinstance(error, msgspec.DecodeError):
        words, _, place = str(error).rpartition(" - at `$")
        return Unread(words or str(error), place.rstrip("`") if words else "")
    told = getattr(error, "errors", None)
    if type(error).__name__ != "ValidationError" or not callable(told):
        return Unread(f"{type(error).__name__}: {one_line(str(error), _LONGEST)}")
    first, *more = told(include_url=False, include_context=False, include_input=False)
    words = one_line(first["msg"], _LONGEST) + (f" (and {len(more)} more)" if more else "")
    return Unread(words, "".join(_step(step, names) for step in first["loc"]))


def _step(step: object, names: frozenset[str]) -> str:
    """Of a way into JSON; keys of a dict are values, and are not told."""
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if isinstance(step, str) and step in names and step.isidentifier() else "[…]"


def _names_in(annotation: Any) -> Iterator[str]:
    for kind in parts(annotation):
        if hasattr(kind, "__pydantic_validator__"):
            for name, field in fields_of(kind).items():
                yield name
                yield from aliases(field)
        elif isinstance(kind, type) and (found := parts_of(kind)) is not None:
            yield from found.names
        elif hasattr(kind, "__total__"):
            yield from kind.__annotations__


def _says_all_when_short(value: Any) -> bool:
    """Whether fields of models were not set, and all of these are what a new model would have in them."""
    found, seen = False, set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        kind: Any = type(value)
        if is_model(kind):
            if kind.__init__.__module__.partition(".")[0] not in _MADE_OF_WHAT_IS_GIVEN:
                return False
            fields, own = fields_of(kind), value.__dict__
            for name in fields.keys() - value.__pydantic_fields_set__:
                if name in own and not _is_default(fields[name], own[name]):
                    return False
                found = True
            inner = [*own.values()]
        elif isinstance(value, dict):
            inner = [*value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            inner = [*value]
        elif (held := parts_of(kind)) is not None:
            inner = [getattr(value, name, None) for name in held.names]
        else:
            continue
        if id(value) not in seen:
            seen.add(id(value))
            waiting += [each for each in inner if type(each) not in _LEAVES]
    return found


def _is_default(field: Any, value: Any) -> bool:
    """Not of a factory, which may make another one there: the day of today."""
    try:
        if value is field.default and type(value) in _LEAVES:
            return True
        if field.default_factory is not None:
            return field.default_factory in _EMPTY and type(value) is field.default_factory and not value
        return difference(value, field.default) is None
    except Exception:  # a class of its own fails to compare
        return False
