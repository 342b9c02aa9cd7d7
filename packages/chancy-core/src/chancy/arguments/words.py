"""What is said of arguments and results that cannot be carried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from chancy.carried.arrival import Difference, plainly
from chancy.carried.flaws import is_row, no_json
from chancy.model import MAX_PAYLOAD_BYTES

NO_NAN = "NaN and infinity cannot be carried as JSON"
_ANNOTATE = "annotate it as what it is, or give what its annotation says"
_CHANGED = (
    "its class changes it when it is made (__post_init__), or keeps it to itself (_name): carry what it is made of"
)
_CHANGED_BY_A_MODEL = (
    "carry what it is made of: what a model changes on its way (a validator, a serializer) or keeps out of its JSON "
    "(exclude=, a private attribute) does not arrive"
)


def with_the_way_out(found: Difference, of_models: bool) -> str:
    """What would arrive otherwise, and what to do about it: of another kind it is annotated wrongly, a part of the same
    kind is its class's doing.
    """
    if not (found.of_same_kind and found.place):
        return f"{found}; {_ANNOTATE}{' (a model makes one by `model_validate`)' if of_models else ''}"
    return f"{found}; {_CHANGED_BY_A_MODEL if of_models else _CHANGED}"


def holds_nan(value: Any) -> bool:
    """Whether a number that JSON has no word for is anywhere in it. Of what is too deep to be read the encoder says so
    itself.
    """
    try:
        return _holds_nan(value)
    except RecursionError:
        return False


def _holds_nan(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, (str, bytes, int)) or value is None:
        return False
    if isinstance(value, Mapping):
        return any(map(_holds_nan, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(_holds_nan, value))
    try:
        builtin = msgspec.to_builtins(value, enc_hook=plainly)
    except Exception:  # of a type that msgspec does not know: the encoder says so itself
        return False
    return isinstance(builtin, (float, dict, list)) and _holds_nan(builtin)


def too_large(size: int, most: int = MAX_PAYLOAD_BYTES) -> str:
    """Of so many bytes of JSON."""
    return f"{size:,} bytes of JSON, at most {most:,} fit; store it elsewhere and pass where it is"


def argument_in(error: Exception) -> str | None:
    """The argument that a message of msgspec points at: "… - at `$.address.zip`" is about `address`."""
    message = str(error)
    if " field `" in message and "`$." not in message:
        return message.split(" field `", 1)[1].split("`", 1)[0]
    if "`$." in message:
        return message.rsplit("`$.", 1)[1].rstrip("`").split(".", 1)[0].split("[", 1)[0]
    return None


_UNKNOWN = "Encoding objects of type "


def hinted(said: str, value: object) -> str:
    """Of what msgspec says when it cannot encode: most likely nothing is annotated, and it is a model; or a row."""
    if not said.startswith(_UNKNOWN):
        return said
    if is_row(type(value)):
        return no_json(type(value))
    kind = said.removeprefix(_UNKNOWN).partition(" is ")[0]
    return f"there is a {kind} in it, of which its annotation does not tell: annotate it as what it is"


def unread(error: Exception) -> str:
    """What kept JSON from being read: msgspec's words alone, anybody else's with the kind of the error."""
    if isinstance(error, (msgspec.DecodeError, ValueError)):
        return unplaced(error)
    return f"{type(error).__name__}: {error}"


def unplaced(error: Exception) -> str:
    """What it says, with the place within the argument and without the argument's name."""
    message = str(error).encode("utf-8", "backslashreplace").decode()
    head, _, path = message.rpartition(" - at `$.")
    path = path.rstrip("`")
    return message if not head else head if path.isidentifier() else f"{head}, at {path}"
