"""The key of a job, made of its task's own arguments: what makes it unique, what it shares a limit or a turn with."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .codec import Signature
from .errors import InvalidArguments, InvalidTask
from .limits import KeyFunction
from .unique import Unique, UniqueKey

LONGEST_BYTES = 400
"""Of a longer key the beginning and a digest are kept: an index entry has to fit into a third of a page."""

_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
"""A set has another order in each process."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key function, and the names of the arguments that it takes."""

    task: str
    option: str
    function: KeyFunction
    names: tuple[str, ...]

    def text(self, arguments: Mapping[str, Any]) -> str:
        """The key of a job with these arguments, defaults filled in.

        Raises `InvalidArguments` when the function raises, or returns what cannot be carried as JSON.
        """
        try:
            return key_text(self.function(**{name: arguments[name] for name in self.names}))
        except Exception as error:
            raise InvalidArguments(
                self.task, self.option, f"its key function failed: {type(error).__name__}: {error}"
            ) from error


def key_of(function: KeyFunction, option: str, signature: Signature) -> Key:
    """Check at decoration that the function takes nothing but arguments of the task."""
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if not by_name or parameter.name not in signature.struct.__struct_fields__:
            raise InvalidTask(
                signature.task,
                f"the key function of its {option} takes {str(parameter)!r}, which is no argument of the task "
                f"(they are: {', '.join(signature.struct.__struct_fields__) or 'none'})",
            )
    return Key(signature.task, option, function, tuple(parameter.name for parameter in parameters))


def key_text(value: object) -> str:
    """A text as it is, anything else as JSON; so `chancy.submit` in SQL can give the same key."""
    text = value if isinstance(value, str) else _encode_sorted(value).decode()
    if "\0" in text:
        raise ValueError(f"a key cannot have a NUL in it, got {text!r}")
    data = text.encode()
    if len(data) <= LONGEST_BYTES:
        return text
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return f"{data[: LONGEST_BYTES - 36].decode(errors='ignore')}… {digest}"


UniqueKeys = Callable[[Mapping[str, Any]], UniqueKey]
"""What makes a job unique, of a job with these arguments."""


def unique_of(unique: Unique | None, signature: Signature) -> UniqueKeys | None:
    """The keys of a unique task. Raises `InvalidTask` for a key function that does not fit it."""
    if unique is None:
        return None

    def made(text: str) -> UniqueKey:
        return UniqueKey(text, unique.until, unique.within, unique.on_conflict)

    if unique.key is None:
        return lambda arguments: made(key_text(arguments))
    if isinstance(unique.key, str):
        fixed = made(key_text(unique.key))
        return lambda arguments: fixed
    key = key_of(unique.key, "unique", signature)
    return lambda arguments: made(key.text(arguments))
