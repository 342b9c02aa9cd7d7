"""Our own cursors on the caller's connection: how values go out and come back, whatever the application has
registered for its own.
"""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Dumper, Loader
from psycopg.postgres import register_default_adapters, register_default_types
from psycopg.pq import Format
from psycopg.pq.abc import PGconn
from psycopg.types import TypesRegistry
from psycopg.types.array import register_all_arrays
from psycopg.types.string import ByteaBinaryLoader

from .literals import JsonColumn, escaped


class _JsonDumper(Dumper):
    """`msgspec.Raw` goes out as `json`: as it is, or escaped to ASCII where the connection does not speak UTF-8.

    (UTF-8 bytes sent on a latin1 connection would be stored as mojibake, without an error.)
    """

    oid = 114  # of json, in every database

    def dump(self, obj: msgspec.Raw) -> Buffer:
        return _spoken(bytes(obj), self.connection)


class _JsonColumnDumper(Dumper):
    """A `JsonColumn`, by the same rule. No type is named: the statement casts it."""

    def dump(self, obj: JsonColumn) -> Buffer:
        return _spoken(obj.literal(), self.connection, "\\\\")  # an array's literal takes one backslash away


def _spoken(data: bytes, conn: psycopg.abc.AdaptContext | None, backslash: str = "\\") -> bytes:
    if data.isascii() or conn is None or conn.connection is None or conn.connection.info.encoding == "utf-8":
        return data
    return escaped(data, backslash)


class _JsonLoader(Loader):
    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class _BinaryJsonLoader(_JsonLoader):
    format = Format.BINARY


_BINARY_JSON = _BinaryJsonLoader if psycopg.pq.__impl__ == "python" else ByteaBinaryLoader
"""In binary JSON is its text; what psycopg has in C for bytes gives it without a call of Python's."""


def _as_psycopg_comes() -> AdaptersMap:
    """Its own adapters, without what the application has registered for the whole process."""
    adapters = AdaptersMap(types=TypesRegistry())
    register_default_types(adapters.types)
    register_default_adapters(adapters)
    register_all_arrays(adapters)
    return adapters


ADAPTERS = _as_psycopg_comes()
"""How our own cursors speak. Never the caller's map: neither's adapters may change the other's rows."""
ADAPTERS.register_dumper(msgspec.Raw, _JsonDumper)
ADAPTERS.register_dumper(JsonColumn, _JsonColumnDumper)
ADAPTERS.register_loader("json", _JsonLoader)
ADAPTERS.register_loader("json", _BINARY_JSON)


class _TextLoader(Loader):
    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


class _BinaryTextLoader(_TextLoader):
    format = Format.BINARY


ASCII_ADAPTERS = AdaptersMap(ADAPTERS)
"""For a connection whose client_encoding is SQL_ASCII: psycopg gives its texts as bytes."""
ASCII_ADAPTERS.register_loader("text", _TextLoader)
ASCII_ADAPTERS.register_loader("text", _BinaryTextLoader)


def _adapters(pgconn: PGconn) -> AdaptersMap:
    return ASCII_ADAPTERS if pgconn.parameter_status(b"client_encoding") == b"SQL_ASCII" else ADAPTERS


class Cursor(psycopg.RawCursor[tuple[Any, ...]]):
    """One of ours."""

    @property
    def adapters(self) -> AdaptersMap:
        """By what the connection speaks."""
        return _adapters(self._pgconn)


class AsyncCursor(psycopg.AsyncRawCursor[tuple[Any, ...]]):
    """One of ours."""

    @property
    def adapters(self) -> AdaptersMap:
        """By what the connection speaks."""
        return _adapters(self._pgconn)
