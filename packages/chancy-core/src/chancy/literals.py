"""Columns of values as Postgres' array literals.

psycopg chooses an array's type by what is in it, and prepares a statement once for each combination of types. As
text, which the SQL casts, one prepared statement serves every call, and a row costs a third.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any


def of_numbers(values: Iterable[int]) -> str:
    """`{1,2}`"""
    return f"{{{','.join(map(str, values))}}}"


def of_texts(values: Iterable[object]) -> str:
    """`{"a",NULL}`; each value by its `str`."""
    values = list(values)
    quoted = {value: _quoted(value) for value in set(values)}  # most columns say one thing over and over
    return f"{{{','.join(map(quoted.__getitem__, values))}}}"


def of_intervals(values: Iterable[timedelta | None]) -> str:
    """`{"90.000000 s",NULL}`"""
    return of_texts(None if value is None else in_seconds(value) for value in values)


def in_seconds(value: timedelta) -> str:
    """An interval: a second is the same on every day and in every time zone, and a day is not."""
    return f"{value.total_seconds():.6f} s"


FINITE = "CASE {instant} WHEN 'infinity' THEN timestamptz '9999-12-31 00:00:00+00' ELSE {instant} END"
"""An instant that Python can read, for `{instant}`: without an end it is `model.WITHOUT_END`."""


def readable(instant: str) -> str:
    """An expression for this instant that Python can read in any time zone, whatever a row has come to hold."""
    later = f"greatest({instant}::timestamptz, timestamptz '0001-01-02 00:00:00+00')"
    return f"least({later}, timestamptz '9999-12-31 00:00:00+00')"


def either(until: datetime | timedelta | None) -> dict[str, Any]:
    """An instant or a time from now, as the parameters `until` and `duration` of which one is null."""
    if isinstance(until, timedelta):
        return {"until": None, "duration": in_seconds(until)}
    return {"until": until, "duration": None}


def _quoted(value: object) -> str:
    if value is None:
        return "NULL"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


class JsonColumn(tuple[bytes | None, ...]):
    """Texts of JSON as one parameter, whose bytes are made when it is known what the connection speaks."""

    __slots__ = ()

    def literal(self) -> bytes:
        r"""`{"{\"x\": 1}",NULL}`"""
        return b"{" + b",".join(map(_quoted_json, self)) + b"}"


def _quoted_json(value: bytes | None) -> bytes:
    return b"NULL" if value is None else b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
