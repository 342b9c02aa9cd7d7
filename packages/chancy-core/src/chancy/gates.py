"""What a job passes before workers see it: limits that it shares with others, and its group's turn.

A job with gates is parked under one text that names them all. Whoever is parked under the same text waits for the same,
so one of them speaks for all: a hundred thousand that wait for one full limit cost one look. The limits of the whole
task come first in it, then the group, then the limits with a key: when one of the first is full, what begins with it is
passed over at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .codec import Signature, encode_json
from .errors import InvalidTask
from .keys import key_of, key_text
from .limits import KeyFunction, SharedLimit

SEPARATOR = "\x1f"
"""Between the names in a text that jobs are parked under. It sorts before everything that is printed."""


class Gate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One limit of one job, as it is stored."""

    name: str
    most: int
    to: int
    """The length of the text that jobs are parked under, up to and with this gate."""
    per: float | None = None
    """Seconds, of a rate."""


class Passes(msgspec.Struct, frozen=True, omit_defaults=True):
    """All gates of one job, as they are stored with it."""

    key: str
    """What it is parked under."""
    gates: tuple[Gate, ...] = ()
    turn: int = 0
    """The length of the key up to and with its group; 0 is no group."""


Name = Callable[[Mapping[str, Any]], str]
"""The name of a gate, of a job with these arguments."""


@dataclass(frozen=True, slots=True)
class Gates:
    """The gates of a task, in the order in which a job passes them."""

    alone: tuple[tuple[SharedLimit, Name], ...]
    group: Name | None
    keyed: tuple[tuple[SharedLimit, Name], ...]

    def passed_by(self, arguments: Mapping[str, Any]) -> bytes:
        """What is stored with a job. Raises `InvalidArguments` when a key function fails."""
        gates: list[Gate] = []
        key, turn = "", 0

        def extend(name: str) -> None:
            nonlocal key
            key += (SEPARATOR if key else "") + name

        def add(limits: Iterable[tuple[SharedLimit, Name]]) -> None:
            for limit, name in limits:
                extend(called := name(arguments))
                per = None if limit.per is None else limit.per.total_seconds()
                gates.append(Gate(called, limit.most, len(key), per))

        add(self.alone)
        if self.group is not None:
            extend(self.group(arguments))
            turn = len(key)
        add(self.keyed)
        return encode_json(Passes(key, tuple(gates), turn))


def gates_of(limits: Sequence[SharedLimit], group: KeyFunction | str | None, signature: Signature) -> Gates | None:
    """The gates of a task, or none. Raises `InvalidTask` for a key function that does not fit the task."""
    if not limits and group is None:
        return None
    if len({_kind_of(limit, signature) for limit in limits}) < len(limits):
        raise InvalidTask(signature.task, "two of its limits would count the same: give one of them a key of its own")
    by_key = {
        keyed: tuple((limit, _name_of(limit, signature)) for limit in limits if callable(limit.key) is keyed)
        for keyed in (False, True)
    }
    return Gates(by_key[False], None if group is None else _group_name(group, signature), by_key[True])


def _kind_of(limit: SharedLimit, signature: Signature) -> str:
    """What is the same in the names of all gates of this limit."""
    kind = "concurrency" if limit.per is None else f"rate/{limit.per.total_seconds():g}s"
    if limit.key is None or isinstance(limit.key, str):
        return f"{kind}({_clean(limit.key or signature.task)})"
    return f"{kind}({signature.task} {','.join(key_of(limit.key, 'limits', signature).names)}="


def _name_of(limit: SharedLimit, signature: Signature) -> Name:
    kind = _kind_of(limit, signature)
    if limit.key is None or isinstance(limit.key, str):
        return lambda arguments: kind
    key = key_of(limit.key, "limits", signature)
    return lambda arguments: f"{kind}{_clean(key.text(arguments))})"


def _group_name(group: KeyFunction | str, signature: Signature) -> Name:
    if isinstance(group, str):
        fixed = f"group({_clean(key_text(group))})"
        return lambda arguments: fixed
    key = key_of(group, "group", signature)
    return lambda arguments: f"group({_clean(key.text(arguments))})"


def _clean(name: str) -> str:
    return name.replace(SEPARATOR, " ")
