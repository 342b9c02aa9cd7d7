"""The key of a job, made of its task's own arguments: what makes it unique, what it shares a limit or a turn with."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any

import msgspec

from chancy.arguments.codec import Signature
from chancy.carried.arrival import plainly
from chancy.carried.secrets import places
from chancy.errors import InvalidArguments, InvalidTask
from chancy.model import UniqueKey
from chancy.options.limits import KeyFunction
from chancy.options.plain import text

from .unique import Unique

LONGEST_BYTES = 400
"""Of a longer key the beginning and a digest are kept: an index entry has to fit into a third of a page."""

_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
"""A set has another order in each process."""
_COMPARED = (datetime, Decimal)
"""Of which there are several that are equal."""
_EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)
"""In which no decimal is rounded."""
_BEGINS_JSON = frozenset('-0123456789"[{tfn')


class Key(msgspec.Struct, frozen=True):
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
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise InvalidTask(
            signature.task, f"the key function of its {option} does not say which arguments it takes: write a lambda"
        ) from None
    if inspect.iscoroutinefunction(function):
        raise InvalidTask(signature.task, f"the key function of its {option} is async, and nobody would await it")
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
    """A text as it is, anything else as JSON; so `chancy.submit` in SQL can give the same key.

    What is equal has one key: instants in two zones, decimals of two lengths. What is not has two: a text that could be
    the JSON of something else, as "1" could be of 1, is JSON, too.
    """
    if isinstance(value, str):
        plain = text("key", value)
        key = _encode_sorted(plain).decode() if _is_json(plain) else plain
    elif type(value) is int or value is None:
        key = "null" if value is None else int.__repr__(value)
    else:
        parts = msgspec.to_builtins(value, builtin_types=_COMPARED, order="deterministic", enc_hook=plainly)
        key = _encode_sorted(_normal(parts)).decode()
    return shortened(key)


def shortened(key: str) -> str:
    """A key of at most 400 bytes: of a longer one the beginning and a digest."""
    if len(key) <= LONGEST_BYTES and key.isascii():
        return key
    data = key.encode()
    if len(data) <= LONGEST_BYTES:
        return key
    return f"{data[: LONGEST_BYTES - 36].decode(errors='ignore')}… {digest_of(key)}"


def digest_of(key: str) -> str:
    """What stands for a key that is too long, or holds a secret."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _is_json(value: str) -> bool:
    if value[:1] not in _BEGINS_JSON or not value:
        return False
    try:
        msgspec.json.decode(value)
    except msgspec.DecodeError:
        return False
    return True


def _normal(value: Any) -> Any:
    """The same with what is equal written alike: instants in UTC, decimals without zeros at their ends."""
    match value:
        case dict():
            return {_normal(key): _normal(item) for key, item in value.items()}
        case list() | tuple():
            return [_normal(item) for item in value]
        case datetime() if value.utcoffset() is not None:
            return _in_utc(value)
        case Decimal() if value.is_finite():
            return _shortest(value) if value else "0"
        case float():
            return value + 0.0  # -0.0 is 0.0
    return value


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:  # at the very ends of the calendar
        return at


def _shortest(number: Decimal) -> str:
    exact = number.normalize(_EXACT)
    return f"{exact:f}" if -100 < exact.adjusted() < 100 else str(exact)


UniqueKeys = Callable[[Mapping[str, Any]], UniqueKey]
"""What makes a job unique, of a job with these arguments."""


def unique_of(unique: Unique | None, signature: Signature, others: tuple[str, ...]) -> UniqueKeys | None:
    """The keys of a unique task that has these `others` names, too.

    Raises `InvalidTask` for a key function that does not fit it.
    """
    if unique is None:
        return None

    def made(key: str) -> UniqueKey:
        return UniqueKey(key, unique.until, unique.within, unique.on_conflict, others)

    if isinstance(unique.key, str):
        fixed = made(shortened(unique.key))
        return lambda arguments: fixed
    if unique.key is None:
        names = tuple(signature.struct.__struct_fields__)
        key = Key(signature.task, "unique", dict, names)
        if any(True for field in msgspec.structs.fields(signature.struct) for _ in places(field.type)):
            return lambda arguments: made(digest_of(key.text(arguments)))  # a key is shown
    else:
        key = key_of(unique.key, "unique", signature)
    return lambda arguments: made(key.text(arguments))
