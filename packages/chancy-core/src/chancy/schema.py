"""Which Postgres schema a statement goes to, and how its name gets into the SQL.

The schema is always written into the statement: the caller's `search_path` is never relied on. In this order:
the `Job` or `Chancy` at hand, the attempt that is running, `configure(schema=…)`, `CHANCY_SCHEMA` as it was when first
asked for, "chancy".
"""

from __future__ import annotations

import functools
import os
import re
from contextvars import ContextVar

from .errors import ChancyError
from .plain import text

# No quotes: the name also stands inside string literals of the migrations. 48 characters leave room
# for the suffixes of the partitions' constraint names within Postgres' 63.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,47}")

_PARAMETER = re.compile(r"%\((\w+)\)s")

attempt_schema: ContextVar[str | None] = ContextVar("chancy_attempt_schema", default=None)
"""The schema of the attempt that is running; set by worker, eager and drain."""

_default: str | None = None


def configure(*, schema: str | None) -> None:
    """Set this process's default schema; None goes back to `CHANCY_SCHEMA`, read anew, or "chancy"."""
    global _default
    _default = None if schema is None else checked(schema)


def schema_in_use(given: str | None = None) -> str:
    """The schema for a verb that was given `given`. Raises `ChancyError` for what cannot be the name of one."""
    if given is not None:
        return checked(given)
    return attempt_schema.get() or _default or _from_environment()


def _from_environment() -> str:
    """Read once: a look into the environment takes as long as the rest of what a submit does before it sends."""
    global _default
    _default = checked(os.environ.get("CHANCY_SCHEMA") or "chancy")
    return _default


def checked(schema: str) -> str:
    """The same name, or an error that says what a schema may be called."""
    if type(schema) is not str:
        schema = text("schema", schema)
    if not _NAME.fullmatch(schema):
        raise ChancyError(
            f"{schema!r} cannot be the name of Chancy's schema: use up to 48 letters, digits and underscores, "
            f"starting with a letter or an underscore"
        )
    return schema


def named(sql: str, schema: str) -> str:
    """The SQL with `{schema}` as a quoted identifier and `{name}` as it is."""
    return sql.replace("{schema}", f'"{checked(schema)}"').replace("{name}", schema)


@functools.cache
def fill(sql: str, schema: str) -> bytes:
    """The text for this schema, without indentation."""
    lines = (line.strip() for line in named(sql, schema).splitlines())
    return "\n".join(line for line in lines if line).encode()


@functools.cache
def numbered(sql: str, schema: str) -> tuple[bytes, tuple[str, ...]]:
    """The same with `$1`, `$2` … for its parameters, and their names in that order.

    psycopg would do that itself, and anew each time for a text above 4 kB.
    """
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}"

    return _PARAMETER.sub(number, fill(sql, schema).decode()).encode(), tuple(names)
