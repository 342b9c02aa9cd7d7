"""Columns of values as Postgres' array literals.

psycopg chooses an array's type by what is in it, and prepares a statement once for each combination of types. As
text, which the SQL casts, one prepared statement serves every round.
"""

from __future__ import annotations

from collections.abc import Iterable


def of_numbers(values: Iterable[int]) -> str:
    """`{1,2}`"""
    return f"{{{','.join(map(str, values))}}}"


def of_texts(values: Iterable[object]) -> str:
    """`{"a",NULL}`; each value by its `str`."""
    return f"{{{','.join(map(_quoted, values))}}}"


def of_json(values: Iterable[bytes | None]) -> str:
    """The same, of UTF-8."""
    return of_texts(None if value is None else value.decode() for value in values)


def _quoted(value: object) -> str:
    if value is None:
        return "NULL"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
