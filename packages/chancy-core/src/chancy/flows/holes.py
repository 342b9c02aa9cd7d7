"""Arguments of which some are made of results that are not known yet."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from chancy.arguments.codec import Signature
from chancy.carried.models import Reader, carrier_of
from chancy.errors import InvalidArguments
from chancy.options.plain import base_of

from .later import MARK, Later, laters_in


class Known(dict[str, Any]):
    """The arguments that are known, by their names."""

    def __missing__(self, name: str) -> Any:
        raise LookupError(
            f"argument {name!r} is the result of another job, which is not known when this one is submitted: make the "
            f"key of other arguments"
        )


class Holed(NamedTuple):
    """Arguments with holes."""

    payload: bytes
    """Their JSON. Between two marks the number of a need whose result goes there."""
    needs: tuple[Later, ...]
    known: Mapping[str, Any]
    """Those without holes, defaults filled in."""


def encode_with_holes(signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Holed | None:
    """The JSON of a call; None if there are no holes in it. What is known is checked as ever, the rest where it runs.

    Raises `InvalidArguments` that names the argument.
    """
    values = signature.bound(args, kwargs)
    open_ = {name for name, value in values.items() if laters_in(value)}
    if not open_:
        return None
    rest = _without(signature, frozenset(open_))
    payload = rest.encode_arguments((), {name: value for name, value in values.items() if name not in open_})
    needs: list[Later] = []
    said = [_said(signature.task, name, values[name], needs) for name in values if name in open_]
    whole = b",".join([*([payload[1:-1]] if payload != b"{}" else []), *said])
    return Holed(b"{" + whole + b"}", tuple(needs), Known(rest.named_arguments(payload)))


def _said(task: str, name: str, value: object, needs: list[Later]) -> bytes:
    def hole(part: object) -> object:
        if type(part) is Later:
            needs.append(part)
            return msgspec.Raw(b"%b%d%b" % (MARK, len(needs) - 1, MARK))
        if hasattr(type(part), "__pydantic_core_schema__") or hasattr(type(part), "__pydantic_fields__"):
            return msgspec.Raw(carrier_of(type(part)).encode(part))
        return base_of(part)

    try:
        payload = msgspec.json.Encoder(enc_hook=hole).encode({name: value})
    except Exception as error:
        raise InvalidArguments(task, name, str(error)) from None
    return payload[1:-1]


_RESTS: WeakKeyDictionary[type[msgspec.Struct], dict[frozenset[str], Signature]] = WeakKeyDictionary()
"""Of the signature with these arguments: those of the other arguments, by the names that are left out."""


def _without(signature: Signature, names: frozenset[str]) -> Signature:
    """The signature of the other arguments. Made once: that takes as long as to bind twenty jobs."""
    rests = _RESTS.setdefault(signature.struct, {})
    if names not in rests:
        rests[names] = _made_without(signature, names)
    return rests[names]


def _made_without(signature: Signature, names: frozenset[str]) -> Signature:
    carriers = {name: carrier for name, carrier in signature.carriers.items() if name not in names}
    struct = _narrowed(signature.struct, names)
    return msgspec.structs.replace(
        signature,
        names=(),
        keywords=signature_names(signature) - names,
        required=tuple(name for name in signature.required if name not in names),
        count=signature.count - len(names),
        struct=struct,
        decoder=Reader(struct, carriers) if carriers else msgspec.json.Decoder(struct),
    )


def signature_names(signature: Signature) -> frozenset[str]:
    """Of all its arguments."""
    return frozenset(signature.struct.__struct_fields__)


def _default(field: Any) -> Any:
    options: dict[str, Any] = {"default": field.default, "default_factory": field.default_factory}
    return msgspec.field(**options)


@functools.lru_cache(1_000)
def _narrowed(struct: type[msgspec.Struct], names: frozenset[str]) -> type[msgspec.Struct]:
    fields: list[Any] = [
        (each.name, each.type, _default(each)) for each in msgspec.structs.fields(struct) if each.name not in names
    ]
    return msgspec.defstruct("Arguments", fields, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False)
