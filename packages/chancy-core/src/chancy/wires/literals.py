"""Columns of values as Postgres' array literals.

psycopg chooses an array's type by what is in it, and prepares a statement once for each combination of types. As
text, which the SQL casts, one prepared statement serves every call, and a row costs a third.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from chancy.errors import InvalidOption
from chancy.options.plain import Duration, duration, instant, shown

_MANY_SECONDS = 2_000_000_000
_QUOTED = re.compile(rb'["\\]')


def of_numbers(values: Iterable[int]) -> str:
    """`{1,2}`; by what each is, whatever its class says of itself."""
    return f"{{{','.join(map(int.__repr__, values))}}}"


def of_texts(values: Iterable[object]) -> str:
    """`{"a",NULL}`; a text as it is, whatever its class says of itself, and anything else by its `str`."""
    values = list(values)
    quoted = {value: _quoted(value) for value in set(values)}  # most columns say one thing over and over
    return f"{{{','.join(map(quoted.__getitem__, values))}}}"


def of_intervals(values: Iterable[timedelta | None]) -> str:
    """`{"90.000000 s",NULL}`"""
    return of_texts(None if value is None else in_seconds(value) for value in values)


def in_seconds(value: timedelta) -> str:
    """An interval: a second is the same on every day and in every time zone, and a day is not.

    Postgres 14 reads no more seconds than an integer holds, so hours are told apart where it could be more.
    """
    seconds = value.total_seconds()
    if -_MANY_SECONDS < seconds < _MANY_SECONDS:
        return f"{seconds:.6f} s"
    hours = int(seconds / 3600)
    return f"{hours} h {seconds - 3600 * hours:.6f} s"


FINITE = "CASE {instant} WHEN 'infinity' THEN timestamptz '9999-12-31 00:00:00+00' ELSE {instant} END"
"""An instant that Python can read, for `{instant}`: without an end it is `model.WITHOUT_END`."""


def readable(instant: str) -> str:
    """An expression for this instant that Python can read in any time zone, whatever a row has come to hold."""
    later = f"greatest({instant}::timestamptz, timestamptz '0001-01-02 00:00:00+00')"
    return f"least({later}, timestamptz '9999-12-31 00:00:00+00')"


def readable_or_null(instant: str) -> str:
    """The same for an instant that there may not be."""
    return f"CASE WHEN {instant} IS NOT NULL THEN {readable(instant)} END"


def either(until: datetime | Duration | None) -> dict[str, Any]:
    """An instant or a time from now, as the parameters `until` and `duration` of which one is null.

    Raises `InvalidOption` for what is neither.
    """
    if until is None or isinstance(until, datetime):
        return {"until": until and instant("until", until), "duration": None}
    if isinstance(until, bool) or not isinstance(until, (timedelta, int, float)):
        raise InvalidOption(
            "until", f"expected a datetime with a time zone, or how long (seconds or a timedelta), got {shown(until)}"
        )
    return {"until": None, "duration": in_seconds(duration("until", until))}


def _quoted(value: object) -> str:
    if value is None:
        return "NULL"
    text = str.__str__(value) if isinstance(value, str) else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class JsonColumn(tuple[bytes | None, ...]):
    """Texts of JSON as one parameter, whose bytes are made when it is known what the connection speaks."""

    __slots__ = ()

    def literal(self) -> bytes:
        r"""`{"{\"x\": 1}",NULL}`"""
        if self and None not in self and not _QUOTED.search(b",".join(self)):  # type: ignore[arg-type]
            return b'{"' + b'","'.join(self) + b'"}'  # type: ignore[arg-type]
        return b"{" + b",".join(map(_quoted_json, self)) + b"}"


def _quoted_json(value: bytes | None) -> bytes:
    return b"NULL" if value is None else b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def escaped(data: bytes, backslash: str) -> bytes:
    r"""JSON in ASCII alone: `\u00e9`. The backslash is one, or as many as are left of one by who reads it first."""
    return "".join(c if c < "\x80" else _units(c, backslash) for c in data.decode()).encode()


def _units(character: str, backslash: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"{backslash}u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
