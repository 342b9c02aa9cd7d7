"""What a wire is: how the verbs speak through one kind of connection, and what they give it to say.

A wire sends in the caller's transaction, through the caller's own stack, so that its events, its error classes, its
idea of a broken connection and its transaction are the caller's, too. Every parameter goes out as text and is cast by
the statement: so all that a driver has to do is to send texts, and none of them guesses a type.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Protocol, TypeAlias

import msgspec

from chancy.schema import STATEMENTS, fill

from .literals import JsonColumn, escaped, in_seconds, of_texts

Rows: TypeAlias = Sequence[tuple[Any, ...]]


CLOSED = "this connection is closed: submit on one that is open"
"""What every stack says of one on which nothing can be sent any more."""
BUSY = (
    "this connection is in the middle of something else, and connections of asyncpg and sessions of SQLAlchemy do one "
    "thing at a time: do one after the other, or give each a connection of its own"
)
"""What is said of one that is asked by two at once, as by `asyncio.gather`. psycopg's have the second wait."""


class Standing(Enum):
    """Where a connection stands between two statements."""

    AUTOCOMMIT = "autocommit"
    """Each statement is a transaction of its own."""
    FRESH = "fresh"
    """The next statement begins a transaction, in which there is nothing else yet."""
    WITHIN = "within"
    """The next statement shares its transaction with what was sent before."""
    FAILED = "failed"
    """The transaction has failed, and takes nothing more but its end."""


class Query(msgspec.Struct, frozen=True):
    """One statement and its parameters, to be asked for in the form that a driver takes.

    `encoding` says what the connection speaks, in Python's or Postgres' word. It is asked where JSON has other
    characters than ASCII: a connection that does not speak UTF-8 gets them escaped, since it may lack them.
    """

    sql: str
    params: Mapping[str, Any]
    """By their names in the statement."""
    schema: str

    def percents(self, encoding: Callable[[], str] | None = None) -> tuple[str, dict[str, str | None] | None]:
        """With `%(name)s`, and a text for each name; None where there is none, and then each `%` is one."""
        if not self.params:
            return fill(self.sql, self.schema).decode(), None
        return _percents(self.sql, self.schema), {
            name: as_text(value, encoding) for name, value in self.params.items()
        }  # fmt: skip

    def dollars(self, encoding: Callable[[], str] | None = None) -> tuple[str, tuple[str | None, ...]]:
        """With `$1`, `$2` …, and their texts."""
        text, names = _dollars(self.sql, self.schema)
        return text, tuple(as_text(self.params[name], encoding) for name in names)


class Wire(Protocol):
    """How a sync connection is spoken to. One is made for each use, of the connection."""

    def fetch(self, query: Query, /) -> Rows:
        """Send one statement, and read its rows: of instants with their zone, and intervals as `timedelta`."""

    def run(self, script: str, /) -> None:
        """Send several statements in one text, without parameters and rows. For `migrate` alone."""

    def standing(self) -> Standing:
        """Where the connection stands now. Where that can only be seen by beginning a transaction, it is begun."""

    def let_go(self) -> None:
        """End the transaction that was `FRESH`, and in which nothing was done since but looks."""

    def block(self) -> AbstractContextManager[Any]:
        """A transaction of its own, where the connection is in `AUTOCOMMIT` or `FRESH`: committed at the end, rolled
        back after an exception.
        """


class AsyncWire(Protocol):
    """The same, awaited."""

    async def fetch(self, query: Query, /) -> Rows:
        """See `Wire`."""

    async def run(self, script: str, /) -> None:
        """See `Wire`."""

    async def standing(self) -> Standing:
        """See `Wire`."""

    async def let_go(self) -> None:
        """See `Wire`."""

    def block(self) -> AbstractAsyncContextManager[Any]:
        """See `Wire`."""


_CAST = re.compile(r"%\((\w+)\)s::")
_PERCENT = re.compile(r"%(?!\(\w+\)s)")


@functools.lru_cache(STATEMENTS)
def _dollars(sql: str, schema: str) -> tuple[str, tuple[str, ...]]:
    """Each is a text that is cast: what the server then says of its type is what it is sent as."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}::text::"

    return _CAST.sub(number, fill(sql, schema).decode()), tuple(names)


@functools.lru_cache(STATEMENTS)
def _percents(sql: str, schema: str) -> str:
    return _PERCENT.sub("%%", fill(sql, schema).decode())


def as_text(value: Any, encoding: Callable[[], str] | None = None) -> str | None:
    """A parameter as Postgres reads it. Raises `TypeError` for a kind that no statement of ours has."""
    match value:
        case None:
            return None
        case str():
            return str.__str__(value)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case msgspec.Raw():
            return _json(bytes(value), "\\", encoding)
        case JsonColumn():
            return _json(value.literal(), "\\\\", encoding)  # an array's literal takes one backslash away
        case datetime():
            return value.isoformat()
        case timedelta():
            return in_seconds(value)
        case list() | tuple():
            return of_texts(value)
    raise TypeError(f"no text for a parameter of {type(value)!r}")


def _json(data: bytes, backslash: str, encoding: Callable[[], str] | None) -> str:
    if data.isascii() or encoding is None or encoding().lower().replace("-", "") in ("utf8", "unicode"):
        return data.decode()
    return escaped(data, backslash).decode()


def encoding_of(driver: Any) -> str:
    """What a connection of psycopg2 or psycopg speaks, in the word of each."""
    return str(driver.encoding if hasattr(driver, "encoding") else driver.info.encoding)


def has_failed(driver: Any) -> bool:
    """Whether the transaction of a connection of psycopg's or psycopg2's has failed. asyncpg does not tell."""
    return bool(hasattr(driver, "info") and driver.info.transaction_status == _IN_ERROR)


_IN_ERROR = 3
"""libpq's PQTRANS_INERROR."""
