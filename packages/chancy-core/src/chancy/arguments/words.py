"""What is said of arguments and results that cannot be carried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from chancy.carried.arrival import plainly
from chancy.model import MAX_PAYLOAD_BYTES

NO_NAN = "NaN and infinity cannot be carried as JSON"
WAY_OUT = "annotate it as what it is, or give what its annotation says"
WAY_OUT_OF_MODELS = (
    "annotate it as what it is; what a model keeps out of its JSON (by exclude=, a serializer, an alias, a private "
    "attribute) is not carried"
)


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


def hinted(said: str) -> str:
    """Of what msgspec says when it cannot encode: most likely nothing is annotated, and it is a model."""
    return f"{said}; annotate it as what it is" if said.startswith("Encoding objects of type") else said


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
