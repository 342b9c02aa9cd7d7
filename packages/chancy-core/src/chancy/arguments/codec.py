"""From a signature to bytes and back: arguments and results are JSON, typed by the function's annotations.

Everything is decoded once more right after it was encoded (0.4 µs), and compared with what was given: a Struct's
constructor checks no types, NaN would silently become null, and a subclass would lose what it has more than its base.
A type that could not be decoded is refused when the task is decorated. Models of Pydantic make their own JSON.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from chancy.carried.arrival import (
    Difference,
    Trust,
    as_numbers,
    difference,
    is_lost,
    plainly,
    takes_booleans,
    takes_sequences,
    trust,
)
from chancy.carried.flaws import is_row, unfit
from chancy.carried.models import Carrier, Reader, carrier_of, encoder, holds_models
from chancy.errors import InvalidArguments, InvalidResult, InvalidTask
from chancy.model import MAX_PAYLOAD_BYTES
from chancy.options.plain import base_of

from .words import NO_NAN, argument_in, hinted, holds_nan, too_large, unplaced, unread, with_the_way_out

_NO_MUTABLE_DEFAULT = (list, dict, set, bytearray)

encode_json = msgspec.json.Encoder(enc_hook=base_of).encode
"""A subclass of `str`, `int`, `datetime` and the like is said as its base is."""


def _of_a_result(value: Any) -> Any:
    """A model whose annotation does not say that it is one: its fields. Its job has done its work, and must not fail.

    But no row of a database: fields of one may not be loaded.
    """
    return base_of(value) if is_row(type(value)) else plainly(value)


_encode_result = msgspec.json.Encoder(enc_hook=_of_a_result).encode


class Decoder(Protocol):
    """From JSON to what it says. msgspec's own, or one that reads models, too."""

    def decode(self, payload: bytes, /) -> Any:
        """Raises whatever a class of the user's raises."""


class Signature(msgspec.Struct, frozen=True):
    """What a task takes and gives, compiled once at decoration."""

    task: str
    names: tuple[str, ...]
    """The arguments that may be given by position, in order."""
    keywords: frozenset[str]
    """The arguments that may be given by name."""
    required: tuple[str, ...]
    count: int
    """Of all arguments."""
    struct: type[msgspec.Struct]
    encode: Callable[[dict[str, Any]], bytes]
    decoder: Decoder
    carriers: Mapping[str, Carrier]
    """Of the arguments that have models in them."""
    plain: bool
    """Arguments that are equal are the same."""
    trust: Trust
    sequences: frozenset[str]
    """The arguments that may be any sequence."""
    numbers: frozenset[str]
    """The arguments that are no booleans, so that a boolean in them is a number."""
    encode_value: Callable[[Any], bytes]
    """Of a result."""
    result: Decoder
    result_is_plain: bool
    result_trust: Trust
    result_is_number: bool
    positional: Callable[[Any], tuple[Any, ...]]
    keyword_only: tuple[str, ...]

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """The JSON of a call: of what was given, in the order of the signature.

        Defaults are filled in where it runs, so that a deploy may add, change or remove an argument that nobody gave.
        Raises `InvalidArguments` that names the argument.
        """
        values = self.bound(args, kwargs)
        encode = self.encode  # of an attribute of a slot this is quicker than to call it at once
        try:
            given = self.struct(**values)
            payload = encode(values)
            arrived = self.decoder.decode(payload)
            same = self.plain and given == arrived
        except Exception as error:
            payload, given, arrived = self._with_numbers(values, error)
            same = False
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidArguments(self.task, *self._largest(values))
        if not same:
            self._compare(given, arrived, payload)
        return payload

    def decode_arguments(self, payload: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the function with. Raises `InvalidArguments` when the signature has changed since, and for what
        cannot be read at all: nested too deeply, or refused by a class of the user's own.
        """
        try:
            given = self.decoder.decode(payload)
        except Exception as error:
            raise InvalidArguments(self.task, argument_in(error), unread(error)) from None
        return self.positional(given), {name: getattr(given, name) for name in self.keyword_only}

    def read(self, name: str, payload: bytes) -> Any:
        """One argument of its JSON. Raises `ValueError` where it does not fit, also for what is no JSON."""
        if name in self.carriers:
            return self.carriers[name].decode(payload)
        return msgspec.json.decode(payload, type=self._types()[name])

    def say(self, name: str, value: Any) -> bytes:
        """The JSON of one argument, which is not looked at any further."""
        return self.carriers[name].encode(value) if name in self.carriers else encode_json(value)

    def schema(self) -> Any:
        """What tells the arguments from those of another version, as JSON. Raises where a type has no such words."""
        if not self.carriers:
            return msgspec.json.schema(self.struct)
        schemas = {
            name: self.carriers[name].schema() if name in self.carriers else msgspec.json.schema(annotation)
            for name, annotation in self._types().items()
        }
        return {name: [name in self.required, schema] for name, schema in schemas.items()}

    def _types(self) -> dict[str, Any]:
        return {field.name: field.type for field in msgspec.structs.fields(self.struct)}

    def named_arguments(self, payload: bytes) -> dict[str, Any]:
        """The arguments by their names, defaults filled in."""
        return msgspec.structs.asdict(self.decoder.decode(payload))

    def encode_result(self, value: Any) -> bytes:
        """The JSON of a result. Raises `InvalidResult` for what could not be read back as annotated."""
        encode = self.encode_value
        try:
            payload = encode(value)
            arrived = self.result.decode(payload)
            same = self.result_is_plain and bool(value == arrived)
        except Exception as error:
            payload, arrived = self._result_with_numbers(value, error)
            same = False
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidResult(self.task, too_large(len(payload)))
        if not same:
            self._compare_result(value, arrived, payload)
        return payload

    def decode_result(self, payload: bytes) -> Any:
        """The stored result as its annotated type. Raises `InvalidResult` when the annotation has changed since."""
        try:
            return self.result.decode(payload)
        except Exception as error:
            raise InvalidResult(self.task, unread(error)) from None

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Names to values, without the cost of `inspect.Signature.bind`."""
        if len(args) > len(self.names):
            raise InvalidArguments(
                self.task,
                None,
                f"{len(args)} given by position, at most {len(self.names)} fit ({', '.join(self.names)})",
            )
        values = dict(zip(self.names, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.keywords:
                known = ", ".join(sorted(self.keywords)) or "none"
                raise InvalidArguments(self.task, name, f"there is no such argument by this name (there are: {known})")
            if name in values:
                raise InvalidArguments(self.task, name, "given twice, by position and by name")
            values[name] = value
        if len(values) < self.count:
            for name in self.required:
                if name not in values:
                    raise InvalidArguments(self.task, name, "is missing")
        if len(kwargs) > 1:
            return {name: values[name] for name in self.struct.__struct_fields__ if name in values}
        return values

    def _with_numbers(self, values: dict[str, Any], error: Exception) -> tuple[bytes, Any, Any]:
        """The same with each boolean as the number that it is, where a boolean is not meant."""
        for name, value in values.items():
            if hasattr(type(value), "__chancy_hole__"):  # at once: graphs have thousands, and to explain takes longest
                raise InvalidArguments(self.task, name, "is the result of a job that is not known yet") from None
        plain = {name: as_numbers(value) if name in self.numbers else value for name, value in values.items()}
        try:
            if all(plain[name] is value for name, value in values.items()):
                raise error
            payload = self.encode(plain)
            return payload, self.struct(**values), self.decoder.decode(payload)
        except Exception:
            raise self._explained(values, error) from None

    def _result_with_numbers(self, value: Any, error: Exception) -> tuple[bytes, Any]:
        plain = as_numbers(value) if self.result_is_number else value
        try:
            if plain is value:
                raise error
            payload = self.encode_value(plain)
            return payload, self.result.decode(payload)
        except Exception:
            raise InvalidResult(self.task, hinted(str(error), value)) from None

    def _compare(self, given: Any, arrived: Any, payload: bytes) -> None:
        """Raise `InvalidArguments` for the first argument that would arrive as something else."""
        if _is_surely_the_same(given, arrived, payload, self.trust):
            return
        for name in self.struct.__struct_fields__:
            value = getattr(given, name)
            try:
                found = difference(value, getattr(arrived, name), name in self.sequences)
            except Exception as error:  # it is nested too deeply, or a class of its own fails to compare
                found = Difference(f"it cannot be compared with what would arrive: {type(error).__name__}: {error}")
            if found is not None:
                said = with_the_way_out(found, name in self.carriers)
                raise InvalidArguments(self.task, name, NO_NAN if holds_nan(value) else said)

    def _compare_result(self, value: Any, arrived: Any, payload: bytes) -> None:
        """Raise `InvalidResult` where a part of it would be lost. The effects of the job are there: the kinds of its
        parts do not count.
        """
        if _is_surely_the_same(value, arrived, payload, self.result_trust):
            return
        try:
            found = difference(value, arrived, loosely=True)
        except Exception:
            return
        if found is not None and holds_nan(value):
            raise InvalidResult(self.task, NO_NAN)
        if found is not None and is_lost(value, arrived):
            raise InvalidResult(self.task, with_the_way_out(found, of_models=False))

    def _encodable(self, name: str, value: Any) -> bool:
        try:
            self.say(name, value)
        except Exception:
            return False
        return True

    def _largest(self, values: Mapping[str, Any]) -> tuple[str, str]:
        sizes = {name: len(self.say(name, value)) for name, value in values.items()}
        name = max(sizes, key=sizes.__getitem__)
        return name, too_large(sizes[name])

    def _explained(self, values: Mapping[str, Any], error: Exception) -> InvalidArguments:
        """Which argument it was: msgspec names it when decoding, but not when encoding."""
        name = argument_in(error)
        if name is None:
            name = next((name for name, value in values.items() if not self._encodable(name, value)), None)
        if name is not None and holds_nan(values.get(name)):
            return InvalidArguments(self.task, name, NO_NAN)
        return InvalidArguments(self.task, name, hinted(unplaced(error), values.get(name or "")))


def signature_of(function: Callable[..., Any], task: str) -> Signature:
    """Compile a function's signature. Raises `InvalidTask` that names the argument which cannot be carried."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise InvalidTask(
            task, f"its annotations cannot be resolved ({error}); import what they name at module level"
        ) from None
    parameters = list(inspect.signature(function).parameters.values())
    found = {parameter.name: _carrier(task, parameter, hints) for parameter in parameters}
    carriers = {name: carrier for name, carrier in found.items() if carrier is not None}
    result = hints.get("return", Any)
    carrier = _carried(task, "its result", result)

    struct = msgspec.defstruct(
        "Arguments",
        [_field(parameter, hints[parameter.name]) for parameter in parameters],
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
    )
    trusted = Trust.NONE if carriers else trust(hints[p.name] for p in parameters)
    result_trusted = Trust.NONE if carrier else trust([result])
    by_position = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    return Signature(
        task=task,
        names=tuple(by_position),
        keywords=frozenset(p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY),
        required=tuple(p.name for p in parameters if p.default is p.empty),
        count=len(parameters),
        struct=struct,
        encode=encoder(carriers, encode_json) if carriers else encode_json,
        decoder=Reader(struct, carriers) if carriers else msgspec.json.Decoder(struct),
        carriers=carriers,
        plain=trusted is Trust.FULL,
        trust=trusted,
        sequences=frozenset(p.name for p in parameters if takes_sequences(hints[p.name])),
        numbers=frozenset(name for name in found.keys() - carriers if not takes_booleans(hints[name])),
        encode_value=carrier.encode if carrier else _encode_result,
        result=carrier or msgspec.json.Decoder(type(None) if result is None else result),
        result_is_plain=result_trusted is Trust.FULL,
        result_trust=result_trusted,
        result_is_number=not (carrier or takes_booleans(result)),
        positional=_attributes(by_position),
        keyword_only=tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY),
    )


def _carrier(task: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Carrier | None:
    """What carries the argument, if msgspec does not do that alone. Raises `InvalidTask` if nothing can."""
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise InvalidTask(task, f"argument *{name} has no fixed type; name each argument")
    if name not in hints:
        if name in ("self", "cls"):
            raise InvalidTask(task, f"it is a method (argument {name!r}); a task is a module-level function")
        raise InvalidTask(task, f"argument {name!r} needs a type annotation")
    carrier = _carried(task, f"argument {name!r}", hints[name])
    if isinstance(parameter.default, _NO_MUTABLE_DEFAULT) and parameter.default:
        raise InvalidTask(task, f"argument {name!r} has a mutable default; use None, or a tuple")
    return carrier


def _carried(task: str, what: str, annotation: Any) -> Carrier | None:
    try:
        if holds_models(annotation):
            return carrier_of(annotation)
        wrong = unfit(annotation)
    except Exception as error:
        wrong = str(error)
    if wrong is not None:
        raise InvalidTask(task, f"{what} has a type that cannot be carried as JSON: {wrong}")
    return None


def _field(parameter: inspect.Parameter, annotation: Any) -> Any:
    if parameter.default is parameter.empty:
        return parameter.name, annotation
    if isinstance(parameter.default, _NO_MUTABLE_DEFAULT):
        return parameter.name, annotation, msgspec.field(default_factory=type(parameter.default))
    return parameter.name, annotation, msgspec.field(default=parameter.default)


def _attributes(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Like `attrgetter`, but always to a tuple: it gives one bare value for one name and refuses none."""
    if not names:
        return lambda given: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda given: (get(given),)


def _is_surely_the_same(given: Any, arrived: Any, payload: bytes, trusted: Trust) -> bool:
    """Whether it need not be looked at part by part."""
    try:
        return trusted is Trust.OF_WRITTEN and bool(given == arrived) and encode_json(arrived) == payload
    except Exception:
        return False
