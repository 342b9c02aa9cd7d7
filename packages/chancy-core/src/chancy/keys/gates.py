"""What a job passes before workers see it: limits that it shares with others, and its group's turn.

A job with gates is parked under one text that names them all. Whoever is parked under the same text waits for the same,
so one of them speaks for all: a hundred thousand that wait for one full limit cost one look. The limits of the whole
task come first in it, then the group, then the limits with a key: when one of the first is full, what begins with it is
passed over at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from chancy.arguments.codec import Signature, encode_json
from chancy.errors import InvalidArguments, InvalidTask
from chancy.options.limits import KeyFunction, SharedLimit

from .key import Key, key_of, shortened

SEPARATOR = "\x1f"
"""Between the names in a text that jobs are parked under. It sorts before everything that is printed."""


LONGEST_BYTES = 2_000
"""Of the text that jobs are parked under: an index entry has to fit into a third of a page."""


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


class Part(msgspec.Struct, frozen=True):
    """One limit of a task, or its group: what it adds to the text that a job is parked under."""

    start: str
    """The whole name, or what the names of all keys begin with."""
    key: Key | None
    limit: SharedLimit | None
    """None is the group."""

    def name(self, arguments: Mapping[str, Any]) -> str:
        """Of a job with these arguments."""
        return self.start if self.key is None else f"{self.start}{_clean(self.key.text(arguments))})"

    @property
    def declared(self) -> dict[str, Any]:
        """For `chancy.submit` in SQL, which makes the names of a key that it is given."""
        limit = {} if self.limit is None else {"most": self.limit.most, "per": _seconds(self.limit)}
        return {"start": self.start, "names": None if self.key is None else self.key.names, **limit}


class Gates(msgspec.Struct, frozen=True):
    """The limits and the group of a task, in the order in which a job passes them."""

    task: str
    parts: tuple[Part, ...]

    def passed_by(self, arguments: Mapping[str, Any]) -> bytes:
        """What is stored with a job. Raises `InvalidArguments` when a key function fails, or all keys are too long."""
        names: list[str] = []
        gates: list[Gate] = []
        turn = 0
        for part in self.parts:
            names.append(part.name(arguments))
            to = len(SEPARATOR.join(names))
            if part.limit is None:
                turn = to
            else:
                gates.append(Gate(names[-1], part.limit.most, to, _seconds(part.limit)))
        key = SEPARATOR.join(names)
        if len(key.encode()) > LONGEST_BYTES:
            raise InvalidArguments(
                self.task, "limits", f"its limits and its group have keys of more than {LONGEST_BYTES:,} bytes in all"
            )
        return encode_json(Passes(key, tuple(gates), turn))


def gates_of(
    limits: Sequence[SharedLimit], group: KeyFunction | str | None, signature: Signature, root: str
) -> Gates | None:
    """The gates of a task, or none. Raises `InvalidTask` for a key function that does not fit the task.

    `root` is what its limits are named after: its oldest name, under which jobs may have them already.
    """
    if not limits and group is None:
        return None
    parts = [_limit(limit, signature, root) for limit in limits]
    if len({part.start for part in parts}) < len(parts):
        raise InvalidTask(signature.task, "two of its limits would count the same: give one of them a key of its own")
    turn = [] if group is None else [_group(group, signature)]
    alone, keyed = ([part for part in parts if (part.key is not None) is wanted] for wanted in (False, True))
    return Gates(signature.task, (*alone, *turn, *keyed))


def _limit(limit: SharedLimit, signature: Signature, root: str) -> Part:
    kind = "concurrency" if limit.per is None else f"rate/{_seconds(limit):g}s"
    if limit.key is None or isinstance(limit.key, str):
        return Part(f"{kind}({_clean(shortened(limit.key) if limit.key else root)})", None, limit)
    key = key_of(limit.key, "limits", signature)
    return Part(f"{kind}({root} {','.join(key.names)}=", key, limit)


def _group(group: KeyFunction | str, signature: Signature) -> Part:
    if isinstance(group, str):
        return Part(f"group({_clean(shortened(group))})", None, None)
    return Part("group(", key_of(group, "group", signature), None)


def _seconds(limit: SharedLimit) -> float | None:
    return None if limit.per is None else limit.per.total_seconds()


def _clean(name: str) -> str:
    return name.replace(SEPARATOR, " ")
