"""What travels beside the arguments of a job: a trace, the id of a request, a tenant.

Functions of the application say it when a job is bound. It is no argument: it has no part in the task's signature and
keys, and nothing but its size is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec

from chancy.errors import InvalidArguments, InvalidOption
from chancy.options.plain import shown

from .codec import encode_json
from .functions import place_of_code, put

MAX_META_BYTES = 4 * 1024
"""Of one job: each claim brings it, however many jobs that has."""

MetaFunction: TypeAlias = Callable[[], Mapping[str, Any] | None]
F = TypeVar("F", bound=MetaFunction)

functions: list[MetaFunction] = []
"""Filled by `meta`, asked in this order."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def meta(function: F, /) -> F:
    """Have this function say, whenever a job is bound, what travels beside its arguments: a mapping of texts to what
    JSON can say, or None.

    `current_job().meta` and `JobRow.meta` have what all such functions have said, a later one over an earlier one; what
    is None in the end is left out, so that a function can take back what was said before. Each is called where `bind`
    or `submit` is, and by a worker that submits the tick of a schedule. What it raises, and more than 4 KiB in all, is
    `InvalidArguments` for whoever submits, before anything is sent. The same function again, as after a reload, takes
    its own place. Raises `InvalidOption` for what cannot be called.
    """
    if not callable(function):
        raise InvalidOption("meta", f"expected a function without arguments, got {shown(function)}")
    put(function, functions)
    return function


def meta_now(task: str, stored: bytes | None = None) -> bytes | None:
    """What is to go with a job that is bound here and now, as JSON, over what is `stored` of it already."""
    if not functions:
        return stored
    said = dict(parsed(stored))
    for function in functions:
        try:
            said |= function() or {}
        except Exception as error:
            raise InvalidArguments(
                task, "meta", f"{place_of_code(function)} failed: {type(error).__name__}: {error}"
            ) from error
    left = {key: value for key, value in said.items() if value is not None}
    return checked_meta(task, left) if left else None


def checked_meta(task: str, said: Mapping[str, Any]) -> bytes:
    """As JSON. Raises `InvalidArguments`."""
    try:
        encoded = encode_json(said)
        if _decode(encoded).keys() != said.keys():
            raise TypeError("a key of it is no text")
    except Exception as error:
        raise InvalidArguments(task, "meta", f"cannot be carried as a JSON object: {error}") from None
    if len(encoded) > MAX_META_BYTES:
        raise InvalidArguments(
            task, "meta", f"has {len(encoded):,} bytes, and {MAX_META_BYTES:,} is the most: it comes with each claim"
        )
    return encoded


def parsed(stored: bytes | None) -> Mapping[str, Any]:
    """The same of a row; of what somebody else has written there, and is no object, nothing."""
    try:
        return {} if stored is None else _decode(stored)
    except (ValueError, RecursionError):
        return {}
